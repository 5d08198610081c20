//! The rules no type can express: what belongs together, what is required, what a text must look like.
//!
//! Secrets of parts that are not enabled are not looked for. Nothing is checked twice: a key whose value did not
//! even fit its type is not also reported as missing.

mod account;
mod ends;
mod report;
mod syntax;
mod ways_in;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::layer::Layers;
use super::problem::Problem;
use super::section::Config;
use super::section::service::{Event, Retry, Store};
use crate::store::postgres::{Address, Tls};
use report::{Found, Report};

/// Standard Webhooks senders repeat an event for about 75 hours; a repeat that is no longer recognised makes a
/// second code.
const RETENTION_MIN: Duration = Duration::from_secs(4 * 24 * 3600);

/// Each look of the doctor costs a request for each account.
const DOCTOR_EVERY_MIN: Duration = Duration::from_secs(1);

/// Adds what is wrong with `config` to the problems of `layers`; gives the warnings.
pub(super) fn check(config: &Config, layers: &mut Layers<'_>) -> Vec<Problem> {
    let mut report = Report::new(layers);
    something_enabled(config, &mut report);
    ends::sources(&config.source, &mut report);
    ends::sinks(config, &config.sink, &mut report);
    event(&config.event, &mut report);
    account::dashdoc(&config.dashdoc, &config.event, &mut report);
    ways_in::of_accounts(config, &mut report);
    report.positive("invite.verify_after", config.invite.verify_after);
    retry(&config.retry, &mut report);
    store(&config.store, config.retry.max_age, &mut report);
    admin(config, &mut report);
    service(config, &mut report);
    report.warnings
}

fn something_enabled(config: &Config, report: &mut Report<'_, '_>) {
    let Config { source, sink, .. } = config;
    if !(source.rabbitmq.enabled || source.webhook.enabled) {
        let mend = "set source.rabbitmq.enabled = true or source.webhook.enabled = true";
        report.missing("source", "has nothing enabled", mend);
    }
    if !(sink.rabbitmq.enabled || sink.webhook.enabled || sink.stdout.enabled) {
        let mend =
            "set sink.rabbitmq.enabled = true, sink.webhook.enabled = true or sink.stdout.enabled = true";
        report.missing("sink", "has nothing enabled", mend);
    }
}

fn event(event: &Event, report: &mut Report<'_, '_>) {
    if event.types.is_empty() || event.types.iter().any(|name| name.trim().is_empty()) {
        report.wrong(
            "event.types",
            "needs at least one type, none of them empty",
            "write [\"trucker.created\"]",
        );
    }
    if event.trucker_pk.is_empty() || !event.trucker_pk.iter().all(|pointer| syntax::is_pointer(pointer)) {
        let mend = "write a list such as [\"/data/trucker/pk\"]; ~ is written ~0 and / within a name ~1";
        report.wrong("event.trucker_pk", "not a list of JSON pointers", mend);
    }
    if event.account.as_ref().is_some_and(|pointer| !syntax::is_pointer(pointer)) {
        report.wrong("event.account", "not a JSON pointer", "write for example /data/account");
    }
    if event.source.is_empty() || event.source.chars().any(|c| c.is_whitespace() || c.is_control()) {
        report.wrong("event.source", "not a URI reference", "write for example /invite-relay");
    }
    let is_field =
        |name: &String| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !event.include.iter().all(is_field) {
        report.wrong("event.include", "not a list of field names", "write for example [\"remote_id\"]");
    }
}

fn retry(retry: &Retry, report: &mut Report<'_, '_>) {
    for (key, duration) in [
        ("retry.base_delay", retry.base_delay),
        ("retry.max_age", retry.max_age),
        ("retry.not_found_for", retry.not_found_for),
        ("retry.probe_delay", retry.probe_delay),
    ] {
        report.positive(key, duration);
    }
    if retry.max_delay < retry.base_delay {
        report.wrong("retry.max_delay", "shorter than retry.base_delay", "make it at least as long");
    }
}

fn store(store: &Store, max_age: Duration, report: &mut Report<'_, '_>) {
    let found = report.url("store.url", store.url.as_ref(), store.url_file.as_ref());
    match &found {
        Found::Value { key, value } => match value.reveal().split_once("://") {
            Some(("sqlite", ":memory:")) => {
                report.wrong(key, "forgets everything with the process", "write sqlite://PATH");
            }
            Some(("sqlite", path)) if !path.is_empty() => {}
            Some(("postgres" | "postgresql", _)) => postgres(key, value.reveal(), report),
            _ => report.wrong(
                key,
                "not the address of a store",
                "write sqlite://PATH, for example sqlite://data/invite-relay.db, or postgres://USER@HOST/DATABASE",
            ),
        },
        Found::Nothing => report.missing("store.url", "is not set", "write sqlite://PATH"),
        Found::Bad => {}
    }
    let sqlite = matches!(&found, Found::Value { value, .. } if value.reveal().starts_with("sqlite:"));
    for (key, file) in
        [("store.password_file", store.password_file.as_deref()), ("store.ca_file", store.ca_file.as_deref())]
    {
        readable(key, file, report);
        if sqlite && file.is_some() {
            report.warn(
                key,
                "says nothing to an SQLite store",
                "remove it, or let store.url be postgres://…",
            );
        }
    }
    if store.retention < RETENTION_MIN {
        let mend = "make it at least 4d: webhook senders repeat an event for about 75 hours, \
                    and one that is forgotten by then makes a second code";
        report.wrong("store.retention", "too short", mend);
    } else if store.retention < max_age {
        report.wrong("store.retention", "shorter than retry.max_age", "make it at least as long");
    }
    report.positive("store.erase_codes_after", store.erase_codes_after);
    readable("store.fingerprint_key_file", store.fingerprint_key_file.as_deref(), report);
}

fn postgres(key: &str, url: &str, report: &mut Report<'_, '_>) {
    const FORM: &str =
        "write postgres://USER@HOST:PORT/DATABASE, with ?sslmode=verify-full or sslmode=disable";
    match Address::parse(url) {
        Ok(address) if address.tls() == Tls::Disabled => report.warn(
            key,
            "sslmode=disable sends codes over the network in plain text",
            "remove it, and name the server's certificate authority in store.ca_file if the system does not know it",
        ),
        Ok(_) => {}
        Err(error) => report.wrong_unseen(key, &error.to_string(), FORM),
    }
}

fn admin(config: &Config, report: &mut Report<'_, '_>) {
    let (admin, webhook) = (&config.admin, &config.source.webhook);
    let token = report.secret("admin.token", admin.token.as_ref(), admin.token_file.as_ref());
    if matches!(token, Found::Nothing) && !admin.listen.ip().is_loopback() {
        let mend = "set admin.token_file to a file that holds a token, or let admin.listen be 127.0.0.1:PORT; \
                    beyond loopback the work list needs one";
        report.missing("admin.token", "is not set", mend);
    }
    if webhook.enabled && admin.listen.port() != 0 && admin.listen == webhook.listen {
        report.wrong("admin.listen", "the same as source.webhook.listen", "use another port");
    }
}

fn service(config: &Config, report: &mut Report<'_, '_>) {
    if !syntax::are_log_directives(&config.telemetry.log) {
        let mend = "write a level (error, warn, info, debug, trace) or directives such as info,invite_relay::relay=debug";
        report.wrong("telemetry.log", "no log directives", mend);
    }
    let every = config.telemetry.doctor_every;
    if !every.is_zero() && every < DOCTOR_EVERY_MIN {
        let mend = "make it 1s or more, or 0s for never: each look asks the API, the broker and the store";
        report.wrong("telemetry.doctor_every", "too often", mend);
    }
    report.positive("shutdown.grace", config.shutdown.grace);
    let mut timeouts: BTreeMap<_, _> = [("dashdoc.timeout".to_owned(), config.dashdoc.timeout)].into();
    for (name, account) in &config.dashdoc.accounts {
        timeouts.extend(account.timeout.map(|text| (format!("dashdoc.accounts.{name}.timeout"), text.0)));
    }
    for (key, timeout) in timeouts {
        if timeout >= config.shutdown.grace {
            let mend = format!("make it longer than {key}");
            report.warn("shutdown.grace", "a call in hand may be cut off, and its outcome be unknown", &mend);
        }
    }
}

fn readable(key: &str, path: Option<&Path>, report: &mut Report<'_, '_>) {
    if let Some(Err(error)) = path.map(File::open) {
        let message = format!("the file cannot be read: {error}");
        report.wrong(key, &message, "correct the path, or let this user read the file");
    }
}
