//! The shell around the state machine: takes events in, carries out effects, reports back.
//!
//! Reading order: [`Intake`] (events become invites), [`Account`] (pace, places and gate of one company),
//! `dispatcher` (due work is taken up), [`Relay::carry_out`] (an effect, its answer, the next effect),
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

use tokio::sync::{Notify, Semaphore};

pub use account::{Account, Limits};
pub use intake::{Intake, Taken};
pub use trace::intake as trace_intake;

use crate::invite::AccountName;
use crate::lifecycle::Lifecycle;
use crate::sink::Outlets;
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
    /// Woken when an announcement waits in the store.
    publish_wake: Notify,
    announcing: Arc<Semaphore>,
    life: Lifecycle,
}

impl Relay {
    /// A relay that does nothing yet.
    pub fn new(
        store: store::Shared,
        accounts: Vec<Account>,
        outlets: Outlets,
        event_source: String,
        metrics: Arc<Metrics>,
        life: &Lifecycle,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            accounts: accounts.into_iter().map(|account| (account.name.clone(), Arc::new(account))).collect(),
            outlets,
            event_source,
            metrics,
            publish_wake: Notify::new(),
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

    /// The accounts at work.
    pub fn accounts(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.accounts.values()
    }
}
