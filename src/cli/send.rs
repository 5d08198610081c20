//! `invite-relay send`: puts trucker-created events where the service takes them from, as its configuration says.

pub(super) mod event;
pub(super) mod rabbitmq;
pub(super) mod webhook;

use clap::ValueEnum;
use serde::Serialize;

use super::output::{Output, print_json};
use super::{ConfigArgs, Failure};
use crate::config::{Config, SecretUrl};
use crate::invite::{AccountName, TruckerKey, TruckerPk};
use event::{Event, Form};
use rabbitmq::Exchange;
use webhook::Webhook;

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  invite-relay send --config relay.toml --pk 23498
  invite-relay send --config relay.toml --pk 1 --count 100            truckers 1 to 100
  invite-relay send --config relay.toml --pk 23498 --id order-7       twice: one is a duplicate
  invite-relay send --config relay.toml --pk 23498 --type nonsense    how poison is dealt with
  invite-relay send --config relay.toml --pk 23498 --url https://relay.example/hook

The event goes to source.rabbitmq.exchange or to source.webhook.listen, signed with the first of
source.webhook.secrets. A trucker that has its invite gets no second code, whatever the event's id.")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where to [default: the source that is enabled, RabbitMQ before the webhook]
    #[arg(long, value_enum)]
    to: Option<Way>,
    /// The trucker's primary key at Dashdoc
    #[arg(long, value_name = "N")]
    pk: TruckerPk,
    /// Send this many events, for truckers with consecutive keys
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// The customer's own id of the trucker
    #[arg(long, value_name = "TEXT")]
    remote_id: Option<String>,
    /// The account (company), written where event.account looks for it
    #[arg(long, value_name = "NAME")]
    account: Option<AccountName>,
    /// The event's id [default: a new one]
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,
    /// The event's type [default: the first of event.types]
    #[arg(long = "type", value_name = "TEXT")]
    type_: Option<String>,
    /// Plain JSON instead of a CloudEvent
    #[arg(long)]
    plain: bool,
    /// Post to this address instead of source.webhook.listen
    // Not a plain String: a parser's complaint would repeat the address, which may hold a secret.
    #[arg(long, value_name = "URL", value_parser = secret_url)]
    url: Option<SecretUrl>,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Where an event can be put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Way {
    /// The exchange of source.rabbitmq
    Rabbitmq,
    /// The webhook of source.webhook
    Webhook,
}

/// What became of one event.
#[derive(Serialize)]
struct Sent {
    id: String,
    /// The public id of the invite that it asks for.
    invite: String,
    to: Way,
    place: String,
    status: String,
}

/// Takes any text: whether it is a URL is found out where the error can hide it.
#[expect(clippy::unnecessary_wraps, reason = "the signature of a value parser")]
pub(super) fn secret_url(text: &str) -> Result<SecretUrl, std::convert::Infallible> {
    Ok(SecretUrl::new(text))
}

/// Why an event was not taken, with the mend.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NotSent(pub(super) String);

impl From<NotSent> for Failure {
    fn from(error: NotSent) -> Self {
        Self::Failed(error.into())
    }
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let keys = keys(&args)?;
    let Args { config, to, remote_id, account, id, type_, plain, url, output, .. } = args;
    let config = config.load()?.config;
    let way = way(&config, to, url.is_some())?;
    let form = Form::new(&config.event, plain, account).map_err(Failure::Usage)?;
    let type_ = type_.unwrap_or_else(|| config.event.types.first().cloned().unwrap_or_default());
    if !config.event.types.contains(&type_) {
        eprintln!("warning: the type is none of event.types, so the service will refuse the event");
    }
    let events = keys.into_iter().map(|pk| {
        let id = id.clone().unwrap_or_else(event::new_id);
        form.write(id, &type_, pk, remote_id.as_deref())
    });
    let (sent, result) = match way {
        Way::Rabbitmq => {
            let exchange = Exchange::open(&config.source.rabbitmq).await?;
            let put = put_all(events, way, exchange.to_string(), output, async |event| {
                exchange.publish(event).await.map(|()| "confirmed".to_owned())
            });
            let put = put.await;
            exchange.close().await;
            put
        }
        Way::Webhook => {
            let webhook = Webhook::configured(&config.source.webhook, url.as_ref())?;
            put_all(events, way, webhook.to_string(), output, async |event| webhook.post(event).await).await
        }
    };
    if output == Output::Json {
        print_json(&sent);
    }
    Ok(result?)
}

/// Sends one event after the other, until one is not taken; tells of each at once.
async fn put_all(
    events: impl Iterator<Item = Event>,
    to: Way,
    place: String,
    output: Output,
    put: impl AsyncFn(&Event) -> Result<String, NotSent>,
) -> (Vec<Sent>, Result<(), NotSent>) {
    let mut all = Vec::new();
    for event in events {
        let status = match put(&event).await {
            Ok(status) => status,
            Err(error) => {
                let Event { id, key, .. } = event;
                return (all, Err(NotSent(format!("{id} for {key} was not sent: {error}"))));
            }
        };
        let sent = Sent { id: event.id, invite: event.key.to_string(), to, place: place.clone(), status };
        if output == Output::Table {
            println!("sent {} for {} to {}: {}", sent.id, sent.invite, sent.place, sent.status);
        }
        all.push(sent);
    }
    (all, Ok(()))
}

/// The keys that are asked for.
fn keys(args: &Args) -> Result<Vec<TruckerPk>, Failure> {
    if args.count > 1 && (args.id.is_some() || args.remote_id.is_some()) {
        let text = "--id and --remote-id belong to one event; leave them out with --count";
        return Err(Failure::Usage(text.to_owned()));
    }
    (0..u64::from(args.count))
        .map(|n| args.pk.get().saturating_add(n).try_into())
        .collect::<Result<_, _>>()
        .map_err(|error: crate::invite::KeyError| Failure::Usage(format!("--pk and --count: {error}")))
}

fn way(config: &Config, to: Option<Way>, has_url: bool) -> Result<Way, Failure> {
    let source = &config.source;
    match to {
        Some(Way::Rabbitmq) if has_url => {
            Err(Failure::Usage("--url is for the webhook; leave out --to rabbitmq or --url".to_owned()))
        }
        Some(way) => Ok(way),
        None if has_url => Ok(Way::Webhook),
        None if source.rabbitmq.enabled => Ok(Way::Rabbitmq),
        None => Ok(Way::Webhook),
    }
}

/// The id of the invite that an event for `pk` asks for.
fn key_of(account: Option<&AccountName>, pk: TruckerPk) -> TruckerKey {
    TruckerKey { account: account.cloned().unwrap_or_else(AccountName::default_account), pk }
}
