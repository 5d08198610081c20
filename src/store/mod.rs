//! The store: where every accepted event lives until it is published, and the only owner of the truth.
//!
//! [`Store`] has few verbs, each one transaction. [`step`](crate::invite::step) runs *inside* the store's
//! transaction, on the store's clock, so that a decision and its record can't come apart. Every write is fenced:
//! it names the version of the row that it saw, and is refused when another writer came between.
//!
//! The trait exists because there are two engines with one behaviour; `conformance` is the suite for both.

#[cfg(test)]
pub(crate) mod conformance;
mod oldest;
pub mod order;
pub mod postgres;
mod record;
pub mod sqlite;
pub mod view;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::invite::{
    AccountName, Cause, Effect, Failure, FingerprintKey, Gate, Input, Invite, Lane, Sinks, StateName, Step,
    TruckerKey,
};
use crate::time::Timestamp;

pub use order::{DeadCause, Operator, OrderRecord, Redrive, Redriven, Reissued, Selection};
pub use record::Corrupt;

/// What becomes of a gate at a moment of the store's clock; nothing if it stays as it is. May be asked again.
pub type GateDecision = Arc<dyn Fn(Gate, Timestamp) -> Option<Gate> + Send + Sync>;

/// A store that the whole process shares.
pub type Shared = Arc<dyn Store>;

/// What a store can do. Every verb is atomic and durable when it returns `Ok`.
pub trait Store: Send + Sync + 'static {
    /// Takes events in, all or none. An event for a trucker that has an invite joins it.
    fn accept(&self, arrivals: Vec<Arrival>) -> BoxFuture<'_, Result<Vec<Receipt>, Error>>;

    /// Takes up due work, oldest first: applies [`Input::Take`], which sets a lease.
    fn take(&self, what: Due) -> BoxFuture<'_, Result<Taken, Error>>;

    /// Applies `input` to an invite that this worker holds. [`Error::Lost`] if another writer came between.
    fn advance(&self, invite: Invite, input: Input) -> BoxFuture<'_, Result<Work, Error>>;

    /// The gates that are not open.
    fn gates(&self) -> BoxFuture<'_, Result<Vec<(AccountName, Gate)>, Error>>;

    /// Moves the kept gate of an account, which survives restarts. Read, decision and write are one transaction on the
    /// store's clock, because several processes may share it. Returns the gate as it stands then.
    fn move_gate(&self, account: AccountName, decide: GateDecision) -> BoxFuture<'_, Result<Gate, Error>>;

    /// Puts dead invites back to work, one portion; ask again until it finds none.
    fn redrive(&self, order: Redrive) -> BoxFuture<'_, Result<Redriven, Error>>;

    /// Begins the next generation of a published invite.
    fn reissue(&self, key: TruckerKey, by: Operator) -> BoxFuture<'_, Result<Reissued, Error>>;

    /// The dead invites by what they died of, most first.
    fn causes(&self, which: Selection) -> BoxFuture<'_, Result<Vec<DeadCause>, Error>>;

    /// The orders that people gave, newest first.
    fn orders(&self, limit: usize) -> BoxFuture<'_, Result<Vec<OrderRecord>, Error>>;

    /// Invites that are neither published nor dead, as far as is known without asking: for the bound of the backlog.
    fn unfinished(&self) -> u64;

    /// Erases codes and old rows, one bounded portion; call again while there is more. Always writes something.
    fn tidy(&self) -> BoxFuture<'_, Result<Tidied, Error>>;

    /// How many invites are in which state, by account.
    fn tally(&self) -> BoxFuture<'_, Result<Vec<Tally>, Error>>;

    /// One invite with the events that asked for it.
    fn show(&self, key: TruckerKey) -> BoxFuture<'_, Result<Option<Story>, Error>>;

    /// Invites, newest first.
    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Invite>, Error>>;

    /// The key of the fingerprints in this store.
    fn fingerprint_key(&self) -> FingerprintKey;

    /// The store's clock, to compare stored times with; a few milliseconds ahead rather than behind. Replicas that
    /// share a store agree on it, whatever their own clocks show.
    fn now(&self) -> Timestamp {
        crate::time::now()
    }

    /// What other processes on the same store tell; `None` where there are none. Only hints: one may be missed.
    fn hints(&self) -> Option<broadcast::Receiver<Hint>> {
        None
    }

    /// Says that this process is at work; returns how many are, itself included. To be said every few seconds: who is
    /// silent for [`REPLICA_SILENT`] is not counted any more.
    fn report_for_duty(&self) -> BoxFuture<'_, Result<u32, Error>> {
        Box::pin(std::future::ready(Ok(1)))
    }

    /// Ends the use of the store at the end of a drain: what was submitted is committed, and what this process still
    /// has in hand is due at once for whoever comes next. Nothing can be written any more.
    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Whether the worker whose input led to `step` has the invite in hand after it, so that it is given back if the worker
/// ends. A confirmation that leaves other sinks pending asks for nothing, yet its worker goes on with them. A second
/// read-back that is owed afterwards is nobody's yet: for the end of a process it must not come early.
fn stays_in_hand(step: &Step, confirmed: bool) -> bool {
    let announces = matches!(step.next.state.schedule(), Some((Lane::Publish(_), _)));
    step.effect.is_some() || (confirmed && announces)
}

/// After so long without a word, a process is not counted among the replicas.
pub const REPLICA_SILENT: Duration = Duration::from_secs(20);

/// What one process tells the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// There may be work for this account.
    Account(AccountName),
    /// There may be work of any kind.
    Everything,
}

/// An event on its way in.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The trucker.
    pub key: TruckerKey,
    /// What is kept of the event.
    pub cause: Cause,
    /// What to do with it if it is news.
    pub admission: Admission,
}

/// How a new event starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Admission {
    /// A place at the API is reserved: take it up in the same write.
    Start,
    /// It waits for its turn.
    Queue,
    /// It can't be served.
    Refuse(Failure),
}

/// What became of an arrival.
#[derive(Clone, Debug, PartialEq)]
pub enum Receipt {
    /// A new invite, and what to do with it.
    New(Box<Work>),
    /// Another event for a trucker that has an invite.
    Joined(StateName),
    /// An event that was here before.
    Duplicate(StateName),
}

/// An invite whose state is committed, and what the commit asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// As committed.
    pub invite: Invite,
    /// To be carried out now.
    pub effect: Option<Effect>,
}

/// Which due work is wanted.
#[derive(Clone, Debug)]
pub enum Due {
    /// Calls and read-backs of one account.
    Api {
        /// Whose.
        account: AccountName,
        /// At most this many.
        limit: usize,
    },
    /// Announcements to any of these sinks.
    Publish {
        /// Sinks that are up, and those that are no longer configured.
        sinks: Sinks,
        /// At most this many.
        limit: usize,
        /// Of these sinks, some have room for less.
        narrow: Narrow,
    },
}

/// Sinks that have few places: what waits for no other sink is not taken beyond them, only to be put back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Narrow {
    /// Which.
    pub sinks: Sinks,
    /// Places that are free there. Whoever frees one looks again.
    pub places: usize,
}

/// Due work that was taken up.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Committed, with the effects to carry out.
    pub work: Vec<Work>,
    /// When the next of this kind falls due, as far as the store knows now. In the past if the limit cut.
    pub next_due: Option<Timestamp>,
}

/// What [`Store::tidy`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Codes erased.
    pub codes: usize,
    /// Published invites removed with their events; their generation number is kept.
    pub invites: usize,
    /// Whether another portion waits.
    pub more: bool,
}

/// A count of invites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Of this account,
    pub account: AccountName,
    /// in this state,
    pub state: StateName,
    /// there are this many.
    pub count: u64,
    /// When the oldest of them was accepted; not known for finished ones.
    pub oldest: Option<Timestamp>,
}

/// An invite with its events.
#[derive(Clone, Debug)]
pub struct Story {
    /// The invite.
    pub invite: Invite,
    /// Every accepted event for this trucker that is still remembered, oldest first.
    pub events: Vec<SeenEvent>,
}

/// An accepted event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeenEvent {
    /// Its id.
    pub id: String,
    /// Its source.
    pub source: String,
    /// When it was accepted.
    pub accepted_at: Timestamp,
}

/// Which invites to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// In this state.
    pub state: Option<StateName>,
    /// Of this account.
    pub account: Option<AccountName>,
    /// With this cause of their last failure: a class, a code, or `class/code`.
    pub cause: Option<String>,
    /// At most this many.
    pub limit: usize,
}

/// Why the store did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It can't write or read now: disk full, file gone, connection lost. Nothing was changed.
    #[error("the store is not available: {0}")]
    Unavailable(String),
    /// Another writer came between: this worker has no authority over the invite any more.
    #[error("the lease on this invite was lost")]
    Lost,
    /// A row can't be read back.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// The store can't be opened; the text says what to do.
    #[error("{0}")]
    Open(String),
}
