//! An invite and its states. A variant holds only what is true in it, and the store's row mirrors it.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::{Failure, Fingerprint, Generation, InviteCode, Origin, TruckerKey};
use crate::time::Timestamp;

/// The stored work for one trucker.
#[derive(Clone, Debug, PartialEq)]
pub struct Invite {
    /// Whom it is for; unique in the store.
    pub key: TruckerKey,
    /// Which code of this trucker is being worked on or was published last.
    pub generation: Generation,
    /// Where it stands.
    pub state: State,
    /// Tries that count towards `retry.max_attempts` in this generation.
    pub attempts: u32,
    /// Whether any call for this trucker ever had an unknown outcome: then one more read-back follows publishing.
    pub ever_unknown: bool,
    /// After a reissue: the code of the generation before. To find it again is to find nothing new.
    pub previous: Option<Fingerprint>,
    /// The first 404 of the current series, from which `retry.not_found_for` runs.
    pub not_found_since: Option<Timestamp>,
    /// What went wrong last, kept for people also after it was overcome.
    pub last_failure: Option<Failure>,
    /// When the event was accepted: the start of every "time to ready".
    pub accepted_at: Timestamp,
    /// `retry.max_age` runs from here: acceptance, or the last redrive, plus all the time in which an outage, a queue
    /// or a stopped service held the work up.
    pub begun_at: Timestamp,
    /// The event that asked for it. Shared: it never changes, and an invite is copied at every step.
    pub cause: Arc<Cause>,
    /// Counts the writes to this row. Every write names the count it saw and is refused if another writer came
    /// between: whoever lost its lease has lost its authority.
    pub fence: u64,
}

impl Invite {
    /// A new invite, due at once.
    pub fn received(
        key: TruckerKey,
        generation: Generation,
        cause: impl Into<Arc<Cause>>,
        now: Timestamp,
    ) -> Self {
        Self {
            key,
            generation,
            state: State::Received { due: now },
            attempts: 0,
            ever_unknown: false,
            previous: None,
            not_found_since: None,
            last_failure: None,
            accepted_at: now,
            begun_at: now,
            cause: cause.into(),
            fence: 0,
        }
    }
}

/// What is kept of the incoming event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cause {
    /// The event's id; becomes `causationid` of the outgoing event.
    pub event_id: String,
    /// The event's source.
    pub event_source: String,
    /// The trucker fields that the outgoing event carries (`event.include`).
    pub trucker: serde_json::Map<String, serde_json::Value>,
    /// W3C trace context of the event.
    pub traceparent: Option<String>,
    /// W3C trace state of the event.
    pub tracestate: Option<String>,
}

/// A code with the fingerprint that outlives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCode {
    /// The code in clear (masked in debug output).
    pub code: InviteCode,
    /// Tells later whether another code is the same.
    pub fingerprint: Fingerprint,
}

/// Where an invite stands. See the diagram in `ARCHITECTURE.md`.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Accepted, no call made yet.
    Received {
        /// When work may begin; the end of the lease while the trucker is being read first.
        due: Timestamp,
    },
    /// A POST is on its way or about to leave. Found here after the lease: the outcome is unknown.
    Calling {
        /// When somebody else may conclude that the caller is gone.
        lease_until: Timestamp,
    },
    /// A try failed and was spent.
    Waiting {
        /// When the next try is due.
        due: Timestamp,
    },
    /// An outage holds it; no try was spent.
    Parked {
        /// Earliest resumption; the account's gate may hold it longer.
        due: Timestamp,
    },
    /// A POST may or may not have had its effect. Only reading the trucker leads on.
    Unknown {
        /// When to read; the end of the lease while it is being read.
        due: Timestamp,
        /// Reads that failed in a row.
        reads: u32,
    },
    /// The code is durable and wants to be announced.
    Ready {
        /// The code.
        issued: IssuedCode,
        /// How we came by it.
        origin: Origin,
        /// When the code became durable: the `time` of the outgoing event.
        since: Timestamp,
        /// The announcement's progress.
        announce: Announce,
    },
    /// Every sink has confirmed the announcement.
    Published {
        /// The code, until it is erased.
        code: Option<InviteCode>,
        /// What stays of the code.
        fingerprint: Fingerprint,
        /// How we came by it.
        origin: Origin,
        /// When the code became durable.
        since: Timestamp,
        /// When the last sink confirmed.
        at: Timestamp,
        /// The second read-back, if it is still owed.
        verify: Option<Verify>,
    },
    /// A person is needed; the failure is the invite's `last_failure`.
    Dead {
        /// When it died.
        since: Timestamp,
        /// The announcement of the failure, until every sink has confirmed it.
        announce: Option<Announce>,
    },
}

/// An announcement that is not confirmed by every sink yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The sinks that have not confirmed.
    pub pending: Sinks,
    /// When to publish; the end of the lease while it is being published.
    pub due: Timestamp,
    /// Rounds in which a sink refused it, for its backoff. There is no limit to them.
    pub refusals: u32,
}

/// A read-back owed to a published invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verify {
    /// When to read; the end of the lease while it is being read.
    pub due: Timestamp,
    /// Reads that failed in a row.
    pub reads: u32,
}

/// The name of a state, without its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    /// See [`State::Received`].
    Received,
    /// See [`State::Calling`].
    Calling,
    /// See [`State::Waiting`].
    Waiting,
    /// See [`State::Parked`].
    Parked,
    /// See [`State::Unknown`].
    Unknown,
    /// See [`State::Ready`].
    Ready,
    /// See [`State::Published`].
    Published,
    /// See [`State::Dead`].
    Dead,
}

impl StateName {
    /// Every state, in the order of a usual life.
    pub const ALL: [Self; 8] = [
        Self::Received,
        Self::Calling,
        Self::Waiting,
        Self::Parked,
        Self::Unknown,
        Self::Ready,
        Self::Published,
        Self::Dead,
    ];

    /// The word used in metrics, the store and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Calling => "calling",
            Self::Waiting => "waiting",
            Self::Parked => "parked",
            Self::Unknown => "unknown",
            Self::Ready => "ready",
            Self::Published => "published",
            Self::Dead => "dead",
        }
    }

    /// The state that [`StateName::as_str`] wrote.
    pub fn from_stored(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

impl fmt::Display for StateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What kind of worker leads an invite on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The API: calls and read-backs, limited per account.
    Api,
    /// Publishing, to these sinks.
    Publish(Sinks),
}

impl State {
    /// The state's name.
    pub const fn name(&self) -> StateName {
        match self {
            Self::Received { .. } => StateName::Received,
            Self::Calling { .. } => StateName::Calling,
            Self::Waiting { .. } => StateName::Waiting,
            Self::Parked { .. } => StateName::Parked,
            Self::Unknown { .. } => StateName::Unknown,
            Self::Ready { .. } => StateName::Ready,
            Self::Published { .. } => StateName::Published,
            Self::Dead { .. } => StateName::Dead,
        }
    }

    /// Who leads it on, and from when. `None` only for what is finished or needs a person: there is no other
    /// state without a way on.
    pub const fn schedule(&self) -> Option<(Lane, Timestamp)> {
        match self {
            Self::Received { due }
            | Self::Calling { lease_until: due }
            | Self::Waiting { due }
            | Self::Parked { due }
            | Self::Unknown { due, .. }
            | Self::Published { verify: Some(Verify { due, .. }), .. } => Some((Lane::Api, *due)),
            Self::Ready { announce, .. } | Self::Dead { announce: Some(announce), .. } => {
                Some((Lane::Publish(announce.pending), announce.due))
            }
            Self::Published { verify: None, .. } | Self::Dead { announce: None, .. } => None,
        }
    }
}

/// One kind of sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sink {
    /// A topic exchange.
    Rabbitmq,
    /// A signed POST.
    Webhook,
    /// One JSON line each.
    Stdout,
}

impl Sink {
    /// Every kind of sink.
    pub const ALL: [Self; 3] = [Self::Rabbitmq, Self::Webhook, Self::Stdout];

    /// The word used in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rabbitmq => "rabbitmq",
            Self::Webhook => "webhook",
            Self::Stdout => "stdout",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Rabbitmq => 1,
            Self::Webhook => 2,
            Self::Stdout => 4,
        }
    }
}

/// A set of sinks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sinks(u8);

impl Sinks {
    /// No sink.
    pub const NONE: Self = Self(0);
    /// Every kind of sink.
    pub const ALL: Self = Self(7);

    /// The set as the store keeps it: one bit each, below 8.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The set that [`Sinks::bits`] wrote; bits that no sink has are dropped.
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::ALL.0)
    }

    /// This set with `sink` in it.
    #[must_use]
    pub const fn with(self, sink: Sink) -> Self {
        Self(self.0 | sink.bit())
    }

    /// This set without `sink`.
    #[must_use]
    pub const fn without(self, sink: Sink) -> Self {
        Self(self.0 & !sink.bit())
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is not in this set.
    #[must_use]
    pub const fn complement(self) -> Self {
        Self(!self.0 & Self::ALL.0)
    }

    /// Whether nothing is in it.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `sink` is in it.
    pub const fn contains(self, sink: Sink) -> bool {
        self.0 & sink.bit() != 0
    }

    /// The sink, if there is just one.
    pub fn only(self) -> Option<Sink> {
        let mut sinks = self.iter();
        sinks.next().filter(|_| sinks.next().is_none())
    }

    /// The sinks in it.
    pub fn iter(self) -> impl Iterator<Item = Sink> {
        Sink::ALL.into_iter().filter(move |sink| self.contains(*sink))
    }
}

impl FromIterator<Sink> for Sinks {
    fn from_iter<I: IntoIterator<Item = Sink>>(sinks: I) -> Self {
        sinks.into_iter().fold(Self::NONE, Self::with)
    }
}
