//! Rules of `[source.*]` and `[sink.*]`.

use super::readable;
use super::report::{Found, Report};
use super::syntax;
use crate::config::human::ByteSize;
use crate::config::secret::SecretUrl;
use crate::config::section::Config;
use crate::config::section::sink::Sink;
use crate::config::section::source::Source;
use crate::signature::Token;

/// Bounds of `source.webhook.max_body`: an event is some hundred bytes, and a body is held in memory.
const BODY_BOUNDS: (ByteSize, ByteSize) = (ByteSize::bytes(1 << 10), ByteSize::bytes(16 << 20));

/// Longest name of a queue, exchange or routing key: an AMQP 0-9-1 short string.
const AMQP_NAME_MAX: usize = 255;

pub(super) fn sources(source: &Source, report: &mut Report<'_, '_>) {
    let Source { rabbitmq, webhook } = source;
    for (key, name) in [
        ("source.rabbitmq.queue", &rabbitmq.queue),
        ("source.rabbitmq.exchange", &rabbitmq.exchange),
        ("source.rabbitmq.routing_key", &rabbitmq.routing_key),
    ] {
        amqp_name(key, name, report);
    }
    if rabbitmq.enabled {
        let mend = "set source.rabbitmq.url_file to a file that holds amqp://USER:PASSWORD@HOST:5672/VHOST \
                    (or source.rabbitmq.url to the address itself)";
        let found = report.url("source.rabbitmq.url", rabbitmq.url.as_ref(), rabbitmq.url_file.as_ref());
        broker_url(found, "source.rabbitmq.url", Some(mend), report);
    }
    readable("source.rabbitmq.ca_file", rabbitmq.ca_file.as_deref(), report);

    if !syntax::is_path(&webhook.path) {
        report.wrong("source.webhook.path", "not a path", "write for example /webhooks/trucker-created");
    }
    super::account::header_name("source.webhook.token_header", &webhook.token_header, report);
    if webhook.max_body < BODY_BOUNDS.0 || webhook.max_body > BODY_BOUNDS.1 {
        let mend = format!("write a size from {} to {}", BODY_BOUNDS.0, BODY_BOUNDS.1);
        report.wrong("source.webhook.max_body", "out of range", &mend);
    }
    if webhook.enabled {
        let secrets = report.list("source.webhook.secrets", &webhook.secrets, webhook.secrets_file.as_ref());
        let tokens = report.list("source.webhook.tokens", &webhook.tokens, webhook.tokens_file.as_ref());
        if let Found::Value { key, value } = &secrets
            && !value.iter().all(|secret| syntax::is_signing_secret(secret.reveal()))
        {
            report.wrong(key, "holds something that is no signing secret", syntax::SIGNING_SECRET_MEND);
        }
        if let Found::Value { key, value } = &tokens
            && !value.iter().all(|token| Token::try_new(token.reveal()).is_ok())
        {
            let mend = "write 16 characters or more, without blanks: openssl rand -hex 32";
            report.wrong(key, "holds a token that would never be accepted", mend);
        }
        let nothing = matches!((&secrets, &tokens), (Found::Nothing, Found::Nothing));
        if nothing && webhook.insecure_accept_unsigned {
            let mend = "set source.webhook.secrets_file before anyone else can reach the port";
            report.warn(
                "source.webhook.insecure_accept_unsigned",
                "anyone can make the relay generate codes",
                mend,
            );
        } else if nothing {
            let mend = "set it to a file with one signing secret (whsec_…) per line, or set source.webhook.tokens_file; \
                        without either, anyone could send events";
            report.missing("source.webhook.secrets_file", "is not set", mend);
        }
    }
}

pub(super) fn sinks(config: &Config, sink: &Sink, report: &mut Report<'_, '_>) {
    let Sink { rabbitmq, webhook, stdout: _ } = sink;
    for (key, name) in [
        ("sink.rabbitmq.routing_key", &rabbitmq.routing_key),
        ("sink.rabbitmq.failed_routing_key", &rabbitmq.failed_routing_key),
    ] {
        amqp_name(key, name, report);
    }
    // The empty name is the default exchange, where a routing key is the name of a queue (AMQP 0-9-1, §3.1.3.1).
    if !rabbitmq.exchange.is_empty() {
        amqp_name("sink.rabbitmq.exchange", &rabbitmq.exchange, report);
    }
    report.positive("sink.rabbitmq.confirm_timeout", rabbitmq.confirm_timeout);
    readable("sink.rabbitmq.ca_file", rabbitmq.ca_file.as_deref(), report);
    if rabbitmq.enabled {
        let source = &config.source.rabbitmq;
        match report.url("sink.rabbitmq.url", rabbitmq.url.as_ref(), rabbitmq.url_file.as_ref()) {
            // The source's URL is checked with the source, unless only the sink uses it.
            Found::Nothing if source.url_source().is_some() => {
                if !source.enabled {
                    let found =
                        report.url("source.rabbitmq.url", source.url.as_ref(), source.url_file.as_ref());
                    broker_url(found, "source.rabbitmq.url", None, report);
                }
            }
            Found::Nothing if source.enabled => {}
            found => {
                let mend = "set sink.rabbitmq.url_file to a file that holds amqp://USER:PASSWORD@HOST:5672/VHOST \
                            (or sink.rabbitmq.url to the address itself)";
                broker_url(found, "sink.rabbitmq.url", Some(mend), report);
            }
        }
    }

    broker_authorities(config, report);

    report.positive("sink.webhook.timeout", webhook.timeout);
    readable("sink.webhook.ca_file", webhook.ca_file.as_deref(), report);
    if webhook.enabled {
        match webhook.url.as_ref().map(SecretUrl::parse) {
            None => report.missing(
                "sink.webhook.url",
                "is not set",
                "set it to the address that events are posted to",
            ),
            Some(Ok(url)) if matches!(url.scheme(), "http" | "https") => {
                if syntax::leaves_the_machine_in_clear(&url) {
                    report.warn(
                        "sink.webhook.url",
                        "codes travel unencrypted to another machine",
                        "use https",
                    );
                }
            }
            Some(_) => report.wrong(
                "sink.webhook.url",
                "not an http or https URL",
                "write for example https://HOST/PATH",
            ),
        }
        match report.secret("sink.webhook.secret", webhook.secret.as_ref(), webhook.secret_file.as_ref()) {
            Found::Nothing => {
                let mend = "set sink.webhook.secret_file to a file that holds the signing secret, whsec_… \
                            (or sink.webhook.secret to the secret itself)";
                report.missing("sink.webhook.secret", "is not set", mend);
            }
            Found::Value { key, value } if !syntax::is_signing_secret(value.reveal()) => {
                report.wrong(&key, "holds no signing secret", syntax::SIGNING_SECRET_MEND);
            }
            Found::Value { .. } | Found::Bad => {}
        }
    }
}

pub(super) fn amqp_name(key: &str, name: &str, report: &mut Report<'_, '_>) {
    if name.is_empty() || name.len() > AMQP_NAME_MAX {
        report.wrong(key, "not an AMQP name", "write a name of 1 to 255 bytes");
    }
}

/// A file of authorities is of no use where no broker that it is for is reached over TLS, and whoever has set it will think
/// that one is.
fn broker_authorities(config: &Config, report: &mut Report<'_, '_>) {
    let (source, sink) = (&config.source.rabbitmq, &config.sink.rabbitmq);
    let of_source = (source.enabled, source.url_source());
    let of_sink = (sink.enabled, config.sink_rabbitmq_url());
    let inherited = sink.ca_file.is_none().then(|| of_sink.clone());
    for (key, is_set, ends) in [
        ("source.rabbitmq.ca_file", source.ca_file.is_some(), [Some(of_source), inherited]),
        ("sink.rabbitmq.ca_file", sink.ca_file.is_some(), [Some(of_sink), None]),
    ] {
        let urls = ends.into_iter().flatten().filter(|(enabled, _)| *enabled).filter_map(|(_, url)| url);
        let schemes: Vec<_> = urls
            .filter_map(|url| url.read_url().ok()?.parse().ok())
            .map(|url| url.scheme().to_owned())
            .collect();
        if is_set && !schemes.is_empty() && schemes.iter().all(|scheme| scheme == "amqp") {
            let message = "says nothing to a broker that is reached in plain text";
            report.warn(key, message, "write amqps:// in the broker's URL, or remove it");
        }
    }
}

fn broker_url(found: Found<SecretUrl>, key: &str, missing: Option<&str>, report: &mut Report<'_, '_>) {
    match found {
        Found::Value { key, value } => {
            let fits = |url: &url::Url| matches!(url.scheme(), "amqp" | "amqps") && url.has_host();
            if !value.parse().is_ok_and(|url| fits(&url)) {
                let mend = "write amqp://USER:PASSWORD@HOST:5672/VHOST or amqps://…; \"/\" as a vhost is %2f, \
                            and special characters in the password are percent-encoded";
                report.wrong(&key, "not an amqp or amqps URL", mend);
            }
        }
        Found::Nothing => {
            if let Some(mend) = missing {
                report.missing(key, "is not set", mend);
            }
        }
        Found::Bad => {}
    }
}
