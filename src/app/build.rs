//! Each part, built from its section of the configuration.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::http::HeaderName;
use tokio::net::TcpListener;

use crate::broker::{
    Address, Consumer, ConsumerOptions, Endpoint, Mode, Observer, Publisher, PublisherOptions, QueueType,
    SinkTopology, Topology, WayIn,
};
use crate::config::{self, Config, Secret, SecretFiles, SecretListSource, SecretSource};
use crate::dashdoc::client::{self, Client, TokenSource};
use crate::event;
use crate::http::health::Health;
use crate::invite::{AccountName, Backoff, Gate, GateRules, Policy, Rules};
use crate::lifecycle::Lifecycle;
use crate::relay::{Account, Limits, Relay};
use crate::sink::Outlets;
use crate::sink::rabbitmq::RabbitmqSink;
use crate::sink::stdout::StdoutSink;
use crate::sink::webhook::{self, WebhookSink};
use crate::source::rabbitmq::RabbitmqSource;
use crate::source::webhook::{Verifiers, WebhookSource};
use crate::store;
use crate::telemetry::metrics::{Metrics, Purpose};

use super::readiness;

/// A worker that is silent for this many call timeouts has lost its work: long enough for one call, its record
/// and a slow disk, short enough that a crash delays nobody by more than a minute or two.
const LEASE_TIMEOUTS: u32 = 4;
/// The lease is never shorter than this, however short the timeouts are.
const LEASE_MIN: Duration = Duration::from_secs(30);

/// The rules of the state machine.
pub(super) fn rules(config: &Config) -> anyhow::Result<Rules> {
    let slowest = config.accounts().values().map(|account| account.timeout).max().unwrap_or_default();
    let sinks = &config.sink;
    let slowest = slowest.max(sinks.rabbitmq.confirm_timeout).max(sinks.webhook.timeout);
    Ok(Rules {
        policy: match config.invite.policy {
            config::Policy::Generate => Policy::Generate,
            config::Policy::Reuse => Policy::Reuse,
        },
        lease: (slowest * LEASE_TIMEOUTS).max(LEASE_MIN),
        backoff: backoff(config)?,
        max_attempts: config.retry.max_attempts,
        max_age: config.retry.max_age,
        not_found_for: config.retry.not_found_for,
        verify_after: config.invite.verify_after,
        sinks: configured_sinks(config),
    })
}

fn configured_sinks(config: &Config) -> crate::invite::Sinks {
    use crate::invite::Sink;
    let on = [
        config.sink.rabbitmq.enabled.then_some(Sink::Rabbitmq),
        config.sink.webhook.enabled.then_some(Sink::Webhook),
        config.sink.stdout.enabled.then_some(Sink::Stdout),
    ];
    on.into_iter().flatten().collect()
}

fn backoff(config: &Config) -> anyhow::Result<Backoff> {
    let retry = &config.retry;
    Backoff::try_new(retry.base_delay, retry.factor, retry.max_delay).context("[retry]")
}

/// Counts what happens on a connection that is wanted from here on.
fn observer(metrics: &Arc<Metrics>, purpose: Purpose) -> Observer {
    metrics.broker_wanted.of(purpose).set(1);
    let (metrics, connection) = (Arc::clone(metrics), metrics.broker_connection(purpose));
    Observer::new(move |event| metrics.broker_happened(&connection, event))
}

/// A broker's address, which follows its file. What the file holds while it can't be used changes nothing.
fn address(
    source: Option<SecretSource>,
    ca_file: Option<&PathBuf>,
    key: &str,
    secrets: &SecretFiles,
) -> anyhow::Result<Address> {
    let source = source.with_context(|| format!("{key} is not set"))?;
    let url = secrets.watch(source).with_context(|| key.to_owned())?;
    let ca_file = ca_file.cloned();
    let read = move |url: &Secret| {
        Endpoint::parse(&url.reveal().into()).map(|endpoint| endpoint.with_ca_file(ca_file.clone()))
    };
    let first = read(&url.current()).with_context(|| key.to_owned())?;
    let last_good = Mutex::new((url.version(), first));
    Ok(Address::new(move || {
        let mut known = last_good.lock().unwrap_or_else(PoisonError::into_inner);
        let version = url.version();
        if known.0 != version {
            *known = (version, read(&url.current()).unwrap_or_else(|_| known.1.clone()));
        }
        known.1.clone()
    }))
}

pub(super) fn outlets(
    config: &Config,
    secrets: &SecretFiles,
    metrics: &Arc<Metrics>,
    life: &Lifecycle,
) -> anyhow::Result<Outlets> {
    let mut outlets = Outlets::default();
    let rabbitmq = &config.sink.rabbitmq;
    if rabbitmq.enabled {
        let address = address(
            config.sink_rabbitmq_url(),
            config.sink_rabbitmq_ca_file(),
            "sink.rabbitmq.url",
            secrets,
        )?;
        let mode = mode(config.source.rabbitmq.topology);
        let topology = SinkTopology { exchange: rabbitmq.exchange.clone(), mode };
        let mut options = PublisherOptions::new(address.clone(), topology);
        options.confirm_timeout = rabbitmq.confirm_timeout;
        let publisher = Publisher::start(options, observer(metrics, Purpose::Publish), life);
        outlets.rabbitmq = Some(RabbitmqSink {
            state: publisher.state(),
            publisher,
            address,
            exchange: rabbitmq.exchange.clone(),
            routing_key: rabbitmq.routing_key.clone(),
            failed_routing_key: rabbitmq.failed_routing_key.clone(),
        });
    }
    let sink = &config.sink.webhook;
    if sink.enabled {
        let secret = sink.secret_source().context("sink.webhook.secret is not set")?;
        let settings = webhook::Settings {
            url: sink
                .url
                .as_ref()
                .context("sink.webhook.url is not set")?
                .parse()
                .context("sink.webhook.url")?,
            secret: secrets.watch(secret).context("sink.webhook.secret")?,
            timeout: sink.timeout,
            authorities: authorities(sink.ca_file.as_ref()).context("sink.webhook.ca_file")?,
            backoff: backoff(config)?,
        };
        outlets.webhook = Some(WebhookSink::new(settings, life).context("sink.webhook")?);
    }
    outlets.stdout = config.sink.stdout.enabled.then(StdoutSink::default);
    Ok(outlets)
}

pub(super) async fn accounts(
    config: &Config,
    store: &store::Shared,
    secrets: &SecretFiles,
    metrics: &Arc<Metrics>,
    life: &Lifecycle,
) -> anyhow::Result<Vec<Arc<Account>>> {
    let gates = store.gates().await?;
    let retry = &config.retry;
    let gate_rules = GateRules {
        throttle: backoff(config)?,
        probe_delay: retry.probe_delay,
        circuit_after: retry.circuit_after,
    };
    let mut accounts = Vec::new();
    for (name, section) in config.accounts() {
        let about = |what: &str| format!("account {name}: {what}");
        let mut token = secrets.watch(section.token.clone()).with_context(|| about("token"))?;
        let current = token.clone();
        let source: TokenSource = Arc::new(move || current.current().reveal().into());
        let settings = client_settings(&section).with_context(|| about("settings"))?;
        let client =
            Client::new(settings, source, store.fingerprint_key()).with_context(|| about("HTTP client"))?;
        let limits = Limits {
            rate_per_second: section.rate_per_second,
            max_in_flight: section.max_in_flight,
            gate: gate_rules,
        };
        let gate = gates.iter().find(|(of, _)| *of == name).map_or(Gate::Open, |(_, gate)| *gate);
        let account =
            Arc::new(Account::new(name, client, limits, gate, Arc::clone(store), Arc::clone(metrics)));
        accounts.push(Arc::clone(&account));
        let drain = life.clone();
        life.spawn_long("token watch", async move {
            loop {
                tokio::select! {
                    () = drain.draining() => return,
                    () = token.changed() => account.token_changed().await,
                }
            }
        });
    }
    Ok(accounts)
}

/// How the client of an account is set up.
pub(crate) fn client_settings(account: &config::Account) -> anyhow::Result<client::Settings> {
    Ok(client::Settings {
        base_url: account.base_url.clone(),
        auth_header: account.auth_header.parse::<HeaderName>().context("auth_header")?,
        auth_scheme: account.auth_scheme.clone(),
        timeout: account.timeout,
        authorities: authorities(account.ca_file.as_ref()).context("ca_file")?,
    })
}

/// The certificate authorities in a file.
fn authorities(file: Option<&PathBuf>) -> anyhow::Result<Vec<reqwest::Certificate>> {
    let Some(path) = file else { return Ok(Vec::new()) };
    let pem = std::fs::read(path).with_context(|| path.display().to_string())?;
    let found = reqwest::Certificate::from_pem_bundle(&pem).unwrap_or_default();
    anyhow::ensure!(!found.is_empty(), "{} holds no readable PEM certificate", path.display());
    Ok(found)
}

/// The consumer of the queue for everybody, and one for each account that has a queue of its own.
pub(super) fn rabbitmq_source(
    config: &Config,
    relay: &Arc<Relay>,
    secrets: &SecretFiles,
    metrics: &Arc<Metrics>,
    health: &Health,
    life: &Lifecycle,
) -> anyhow::Result<()> {
    let section = &config.source.rabbitmq;
    if !section.enabled {
        return Ok(());
    }
    let prefetch =
        NonZeroU16::new(section.prefetch).context("source.rabbitmq.prefetch must be above zero")?;
    // With a webhook beside it, a broker that is away must not take the webhook out of service.
    let general = ("source.rabbitmq".to_owned(), section.clone(), None, !config.source.webhook.enabled);
    // An account's queue that is away makes that account's events wait, and nobody else's.
    let owned = config.accounts().into_values().filter_map(|account| {
        let section = section.for_queue(account.queue.as_ref()?);
        Some((format!("source.rabbitmq.{}", account.name), section, Some(account.name), false))
    });
    for (part, section, owner, required) in std::iter::once(general).chain(owned) {
        let address =
            address(section.url_source(), section.ca_file.as_ref(), "source.rabbitmq.url", secrets)?;
        let topology = source_topology(&section, mode(section.topology));
        let options = ConsumerOptions::new(address.clone(), topology, prefetch);
        let way_in = WayIn::following(relay.watch_open());
        let consumer = Consumer::new(options, observer(metrics, Purpose::Consume)).behind(way_in);
        let (state, differences) = (consumer.state(), consumer.differences());
        readiness::follow_broker(health, part, required, state, Some(differences), life);
        let source = RabbitmqSource::new(
            relay.intake(),
            Arc::new(event_rules(config, owner)?),
            max_body(config),
            &section.queue,
            address,
            Arc::clone(metrics),
        );
        let drain = life.clone();
        life.spawn_long("consumer", consumer.run(drain, move |deliveries| source.clone().judge(deliveries)));
    }
    Ok(())
}

/// What the source needs on the broker.
pub(crate) fn source_topology(section: &config::RabbitMqSource, mode: Mode) -> Topology {
    Topology {
        exchange: section.exchange.clone(),
        queue: section.queue.clone(),
        routing_key: section.routing_key.clone(),
        queue_type: match section.queue_type {
            config::QueueType::Quorum => QueueType::Quorum,
            config::QueueType::Classic => QueueType::Classic,
        },
        mode,
    }
}

pub(super) async fn webhook_listener(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let section = &config.source.webhook;
    if !section.enabled {
        return Ok(None);
    }
    let bound = TcpListener::bind(section.listen).await;
    bound.map(Some).with_context(|| format!("source.webhook.listen: can't listen on {}", section.listen))
}

pub(super) fn webhook_router(
    config: &Config,
    relay: &Arc<Relay>,
    secrets: &SecretFiles,
    metrics: &Arc<Metrics>,
    life: &Lifecycle,
) -> anyhow::Result<Router> {
    let section = &config.source.webhook;
    let token_header: HeaderName = section.token_header.parse().context("source.webhook.token_header")?;
    let watch = |source: Option<SecretListSource>, key: &str| {
        source.map(|source| secrets.watch(source).with_context(|| key.to_owned())).transpose()
    };
    let endpoint = |path: &str, verifiers, owner| -> anyhow::Result<_> {
        Ok(WebhookSource::new(
            relay.intake(),
            Arc::new(event_rules(config, owner)?),
            verifiers,
            path.to_owned(),
            max_body(config),
            Arc::clone(metrics),
            life,
        ))
    };
    let general = Verifiers {
        secrets: watch(section.secrets_source(), "source.webhook.secrets")?,
        tokens: watch(section.tokens_source(), "source.webhook.tokens")?,
        token_header: token_header.clone(),
        accept_unsigned: section.insecure_accept_unsigned,
    };
    let mut endpoints = vec![endpoint(&section.path, general, None)?];
    for account in config.accounts().into_values() {
        let Some(own) = account.webhook else { continue };
        let key = format!("account {}: webhook_secrets", account.name);
        // A signature with one of the account's secrets, and nothing else: not even where anyone may send to the
        // general path.
        let verifiers = Verifiers {
            secrets: watch(Some(own.secrets), &key)?,
            tokens: None,
            token_header: token_header.clone(),
            accept_unsigned: false,
        };
        endpoints.push(endpoint(&own.path, verifiers, Some(account.name))?);
    }
    Ok(WebhookSource::router(endpoints, metrics))
}

/// How incoming events are read, on a way in for everybody or on one of this account.
fn event_rules(config: &Config, owner: Option<AccountName>) -> anyhow::Result<event::Rules> {
    let section = &config.event;
    let pointer = |text: &String| event::Pointer::try_new(text);
    let field = |name: &String| event::IncludedField::try_new(name);
    Ok(event::Rules {
        types: section.types.clone(),
        trucker_pk: section
            .trucker_pk
            .iter()
            .map(pointer)
            .collect::<Result<_, _>>()
            .context("event.trucker_pk")?,
        account: section.account.as_ref().map(pointer).transpose().context("event.account")?,
        owner,
        include: section.include.iter().map(field).collect::<Result<_, _>>().context("event.include")?,
    })
}

fn max_body(config: &Config) -> usize {
    usize::try_from(config.source.webhook.max_body.as_bytes()).unwrap_or(usize::MAX)
}

fn mode(topology: config::Topology) -> Mode {
    match topology {
        config::Topology::Declare => Mode::Declare,
        config::Topology::Verify => Mode::Verify,
    }
}
