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
mod orders;
mod publisher;
mod replicas;
mod trace;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{Notify, Semaphore, broadcast, watch};

use publisher::Trouble;

pub use account::{Account, Limits};
pub use intake::{Intake, Taken};
pub use orders::{Orders, redrive};
pub use trace::intake as trace_intake;

use crate::broker::BrokerState;
use crate::invite::AccountName;
use crate::lifecycle::Lifecycle;
use crate::sink::Outlets;
use crate::sink::webhook::WebhookSink;
use crate::store::{self, Hint};
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
    /// `store.max_backlog`: unfinished invites beyond which nothing new is taken in.
    max_backlog: u64,
    /// Whether events are taken in, or why not. Sources and readiness watch it.
    open: watch::Sender<Result<(), String>>,
    /// Woken when an announcement waits in the store.
    publish_wake: Notify,
    /// What was said last about each sink's trouble, so that it is said once.
    trouble: Trouble,
    announcing: Arc<Semaphore>,
    attempts: trace::Attempts,
    life: Lifecycle,
}

impl Relay {
    /// A relay that does nothing yet.
    pub fn new(
        store: store::Shared,
        accounts: Vec<Arc<Account>>,
        outlets: Outlets,
        event_source: String,
        max_backlog: u64,
        metrics: Arc<Metrics>,
        life: &Lifecycle,
    ) -> Arc<Self> {
        metrics.way_in(true);
        metrics.backlog_limit.set(i64::try_from(max_backlog).unwrap_or(i64::MAX));
        Arc::new(Self {
            store,
            accounts: accounts.into_iter().map(|account| (account.name.clone(), account)).collect(),
            outlets,
            event_source,
            metrics,
            store_works: watch::Sender::new(Ok(())),
            max_backlog,
            open: watch::Sender::new(Ok(())),
            publish_wake: Notify::new(),
            trouble: Trouble::default(),
            announcing: Arc::new(Semaphore::new(ANNOUNCING_MAX)),
            attempts: trace::Attempts::default(),
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
        if let Some(hints) = self.store.hints() {
            let relay = Arc::clone(self);
            self.life.spawn_long("hints", async move { relay.follow_hints(hints).await });
            let relay = Arc::clone(self);
            self.life.spawn_long("replicas", async move { relay.follow_replicas().await });
        }
        let relay = Arc::clone(self);
        self.life.spawn_long("housekeeping", async move { relay.keep_house().await });
    }

    /// Wakes whoever other replicas have work for, until the drain begins.
    async fn follow_hints(&self, mut hints: broadcast::Receiver<Hint>) {
        loop {
            let hint = tokio::select! {
                () = self.life.draining() => return,
                hint = hints.recv() => hint,
            };
            match hint {
                Ok(Hint::Account(name)) => {
                    if let Some(account) = self.accounts.get(&name) {
                        account.wake.notify_one();
                    }
                }
                // Missed hints may have been for anybody.
                Ok(Hint::Everything) | Err(broadcast::error::RecvError::Lagged(_)) => {
                    self.accounts.values().for_each(|account| account.wake.notify_one());
                    self.publish_wake.notify_one();
                }
                Err(broadcast::error::RecvError::Closed) => self.life.draining().await,
            }
        }
    }

    /// The way in for events.
    pub fn intake(self: &Arc<Self>) -> Intake {
        Intake::new(Arc::clone(self))
    }

    /// Takes what people ask for.
    pub fn orders(&self) -> Orders {
        Orders::new(Arc::clone(&self.store), self.accounts.clone())
    }

    /// Whether the store takes writes.
    pub fn watch_store(&self) -> watch::Receiver<Result<(), String>> {
        self.store_works.subscribe()
    }

    /// Whether events are taken in: the store takes writes, and the backlog is below its bound.
    pub fn watch_open(&self) -> watch::Receiver<Result<(), String>> {
        self.open.subscribe()
    }

    /// Looks at what the way in depends on.
    fn look_at_the_way_in(&self) {
        let unfinished = self.store.unfinished();
        let full = self.open.borrow().is_err();
        // Once full, it opens only when there is some room again.
        let bound = if full { self.max_backlog - self.max_backlog / 20 } else { self.max_backlog };
        let now = match &*self.store_works.borrow() {
            Err(why) => Err(why.clone()),
            Ok(()) if unfinished >= bound => Err(format!("the backlog is full: {bound} invites wait")),
            Ok(()) => Ok(()),
        };
        let changed = self.open.send_if_modified(|open| {
            let changed = *open != now;
            open.clone_from(&now);
            changed
        });
        if changed {
            self.metrics.way_in(now.is_ok());
            match now {
                Ok(()) => tracing::info!(unfinished, "events are taken in again"),
                Err(reason) => tracing::warn!(reason, unfinished, "no events are taken in"),
            }
        }
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
        self.look_at_the_way_in();
        result
    }

    /// An account at work.
    pub fn account(&self, name: &AccountName) -> Option<&Arc<Account>> {
        self.accounts.get(name)
    }

    /// The accounts at work.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.values()
    }
}
