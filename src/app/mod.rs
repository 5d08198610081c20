//! The service put together: from a checked configuration to running parts, and back down in order.
//!
//! Order of start: store, sinks, accounts, relay, then the sources, so that nothing is taken in before it can be
//! worked on. Order of end: sources and dispatchers stop, work in hand is finished and confirmed, then the
//! connections close; the admin port goes last, so that a drain can be watched.

mod build;
mod checkup;
mod readiness;
mod store;

pub(crate) use build::{client_settings, source_topology};
pub(crate) use store::{Peek, Place, place, store_path};

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::config::{Config, Loaded, POLL_INTERVAL, SecretFiles};
use crate::http::admin::{self, BearerToken};
use crate::http::api;
use crate::http::health::Health;
use crate::http::serve;
use crate::lifecycle::{Failed, Lifecycle};
use crate::relay::Relay;
use crate::telemetry::metrics::{Metrics, SpanCounters};

/// A running service.
pub struct Running {
    /// Everything but the admin port; begin its drain to stop the service.
    pub life: Lifecycle,
    /// The numbers it counts.
    pub metrics: Arc<Metrics>,
    /// Where the admin port listens.
    pub admin: SocketAddr,
    /// Where the webhook listens, if it is on.
    pub webhook: Option<SocketAddr>,
    /// The admin port outlives the drain.
    afterwards: Lifecycle,
    store: crate::store::Shared,
    grace: std::time::Duration,
}

/// Opens the store alone, for an order that is given while no service runs.
pub(crate) async fn open_store(config: &Config, life: &Lifecycle) -> anyhow::Result<crate::store::Shared> {
    let names: Vec<_> = config.accounts().into_keys().collect();
    store::open(config, &Arc::new(Metrics::new(&names)), life).await
}

/// Starts everything as part of `life`. An error names the part that could not start; what was started before it is
/// stopped.
///
/// `spans` is what the exporter of traces counts.
pub async fn start(loaded: &Loaded, spans: &SpanCounters, life: &Lifecycle) -> anyhow::Result<Running> {
    let (config, afterwards) = (&loaded.config, Lifecycle::new());
    match start_parts(loaded, spans, life, &afterwards).await {
        Ok(running) => Ok(running),
        Err(error) => {
            life.begin_drain();
            afterwards.begin_drain();
            let _ = life.finish(config.shutdown.grace).await;
            Err(error)
        }
    }
}

async fn start_parts(
    loaded: &Loaded,
    spans: &SpanCounters,
    life: &Lifecycle,
    afterwards: &Lifecycle,
) -> anyhow::Result<Running> {
    let config = &loaded.config;
    let accounts = config.accounts();
    let names: Vec<_> = accounts.keys().cloned().collect();
    let metrics = Arc::new(Metrics::with_spans(&names, spans));
    let health = Health::new(life.clone());
    let secrets = SecretFiles::new();

    // Ports first: an address that is taken should be known before anything is touched.
    let admin = TcpListener::bind(config.admin.listen).await;
    let admin = admin.with_context(|| format!("admin.listen: can't listen on {}", config.admin.listen))?;
    let webhook = build::webhook_listener(config).await?;

    let store = store::open(config, &metrics, life).await?;

    let outlets = build::outlets(config, &secrets, &metrics, life)?;
    let accounts = build::accounts(config, &store, &secrets, &metrics, life).await?;
    let event_source = config.event.source.clone();
    let max_backlog = config.store.max_backlog;
    let relay = Relay::new(
        Arc::clone(&store),
        accounts,
        outlets,
        event_source,
        max_backlog,
        Arc::clone(&metrics),
        life,
    );
    let api = api::router(relay.orders());
    readiness::follow(&health, &relay, life);
    relay.start();

    build::rabbitmq_source(config, &relay, &secrets, &metrics, &health, life)?;
    let webhook = match webhook {
        Some(listener) => {
            let address = listener.local_addr()?;
            let router = build::webhook_router(config, &relay, &secrets, &metrics, life)?;
            life.spawn_long("webhook", serve::serve(listener, router, life.clone(), "webhook"));
            Some(address)
        }
        None => None,
    };

    let token =
        config.admin.token_source().map(|source| secrets.watch(source)).transpose().context("admin.token")?;
    let token = token.map(|token| BearerToken::new(move || token.current().reveal().into()));
    let address = admin.local_addr()?;
    let router = admin::router(health, Arc::clone(&metrics), api, token);
    afterwards.spawn_long("admin", serve::serve(admin, router, afterwards.clone(), "admin"));
    // The end of either brings the other down.
    let (first, second) = (life.clone(), afterwards.clone());
    life.spawn_long("admin watch", async move {
        tokio::select! {
            () = first.draining() => {}
            () = second.draining() => first.begin_drain(),
        }
    });
    secrets.spawn(life, POLL_INTERVAL);
    checkup::start(loaded, &relay, &metrics, life);
    info!(
        version = env!("CARGO_PKG_VERSION"), admin = %address, webhook = webhook.map(tracing::field::display),
        accounts = names.len(), "started"
    );
    Ok(Running {
        life: life.clone(),
        metrics,
        admin: address,
        webhook,
        afterwards: afterwards.clone(),
        store,
        grace: config.shutdown.grace,
    })
}

impl Running {
    /// Runs until the drain, then winds down.
    pub async fn finish(self) -> Result<(), Failed> {
        let Self { life, afterwards, store, grace, .. } = self;
        let ended = life.finish(grace).await;
        // What was cut off is the next one's at once, here or on another replica.
        if let Err(error) = store.close().await {
            warn!(%error, "the store could not be closed; what is in hand waits for its leases");
        }
        afterwards.begin_drain();
        let port = afterwards.finish(grace).await;
        info!("stopped");
        ended.and(port)
    }
}
