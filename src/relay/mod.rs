//! The shell around the state machine: takes events in, carries out effects, reports back.
//!
//! Reading order: [`Intake`] (events become invites), [`Account`] (pace, places and gate of one company),
//! `dispatcher` (due work is taken up), `worker` (an effect, its answer, the next effect),
//! `publisher` (announcements), `housekeeping` (erasing, counting).

mod account;
mod dispatcher;
mod housekeeping;
mod intake;
mod limiter;
mod publisher;
mod trace;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, watch};

use publisher::Trouble;

pub use account::{Account, Limits};
pub use intake::{Intake, Taken};
pub use trace::intake as trace_intake;

use crate::broker::BrokerState;
use crate::invite::AccountName;
use crate::lifecycle::Lifecycle;
use crate::sink::Outlets;
use crate::sink::webhook::WebhookSink;
use crate::store;
use crate::telemetry::metrics::Metrics;

/// Announcements under way at once. Each is a few KiB of memory; the sinks have narrower limits of their own.
const ANNOUNCING_MAX: usize = 1024;

/// Everything the parts of the relay share.
pub struct Relay {
    store: store::Shared,
    accounts: BTreeMap<AccountName, Arc<Account>>,
    outlets: Outlets,
    /// `event.source`, the source of outgoing events.
    event_source: String,
    metrics: Arc<Metrics>,
    /// Whether the last write was committed, or why not. Readiness watches it.
    store_works: watch::Sender<Result<(), String>>,
    /// Woken when an announcement waits in the store.
    publish_wake: Notify,
    /// What was said last about each sink's trouble, so that it is said once.
    trouble: Trouble,
    announcing: Arc<Semaphore>,
    life: Lifecycle,
}

impl Relay {
    /// A relay that does nothing yet.
    pub fn new(
        store: store::Shared,
        accounts: Vec<Arc<Account>>,
        outlets: Outlets,
        event_source: String,
        metrics: Arc<Metrics>,
        life: &Lifecycle,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            accounts: accounts.into_iter().map(|account| (account.name.clone(), account)).collect(),
            outlets,
            event_source,
            metrics,
            store_works: watch::Sender::new(Ok(())),
            publish_wake: Notify::new(),
            trouble: Trouble::default(),
            announcing: Arc::new(Semaphore::new(ANNOUNCING_MAX)),
            life: life.clone(),
        })
    }

    /// Starts the work: a dispatcher for each account, the publisher, the housekeeping.
    pub fn start(self: &Arc<Self>) {
        for account in self.accounts.values() {
            let (relay, account) = (Arc::clone(self), Arc::clone(account));
            self.life.spawn_long("dispatcher", async move { relay.dispatch(&account).await });
        }
        let relay = Arc::clone(self);
        self.life.spawn_long("publisher", async move { relay.publish_due().await });
        let relay = Arc::clone(self);
        self.life.spawn_long("housekeeping", async move { relay.keep_house().await });
    }

    /// The way in for events.
    pub fn intake(self: &Arc<Self>) -> Intake {
        Intake::new(Arc::clone(self))
    }

    /// Whether the store takes writes.
    pub fn watch_store(&self) -> watch::Receiver<Result<(), String>> {
        self.store_works.subscribe()
    }

    /// The state of the RabbitMQ sink, if it is configured.
    pub fn watch_rabbitmq_sink(&self) -> Option<watch::Receiver<BrokerState>> {
        self.outlets.rabbitmq.as_ref().map(|sink| sink.state.clone())
    }

    /// Whether the webhook sink is being sent events, if it is configured.
    pub fn watch_webhook_sink(&self) -> Option<watch::Receiver<bool>> {
        self.outlets.webhook.as_ref().map(WebhookSink::state)
    }

    /// Notes how a write ended.
    fn wrote<T>(&self, result: Result<T, store::Error>) -> Result<T, store::Error> {
        let now = match &result {
            Err(
                error @ (store::Error::Unavailable(_) | store::Error::Corrupt(_) | store::Error::Open(_)),
            ) => {
                self.metrics.store_errors.inc();
                Err(error.to_string())
            }
            Ok(_) | Err(store::Error::Lost) => Ok(()),
        };
        self.store_works.send_if_modified(|works| {
            let changed = *works != now;
            *works = now;
            changed
        });
        result
    }

    /// The accounts at work.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.values()
    }
}
