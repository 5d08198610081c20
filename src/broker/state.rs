//! What the rest of the service sees of a supervised connection: a state for readiness, events to count.

use std::fmt;
use std::sync::Arc;

/// The state of one supervised connection, kept in a `tokio::sync::watch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// Has not been up yet.
    Connecting,
    /// Works: subscribed, or ready to publish.
    Up,
    /// Connected, but the broker takes nothing from us until its alarm is over.
    Blocked {
        /// The broker's own words, for example "low on memory".
        reason: String,
    },
    /// Not subscribed on purpose, until what the consumer feeds takes events again.
    Waiting {
        /// What it waits for.
        reason: String,
    },
    /// Down; reconnecting until the process drains.
    Down {
        /// Why the last attempt or session ended.
        reason: String,
    },
}

/// Something worth counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BrokerEvent {
    /// A session is up: connected and, for a consumer, subscribed.
    Connected,
    /// A session ended because the connection failed.
    Disconnected,
    /// An attempt to connect or to set a session up failed.
    AttemptFailed,
    /// The broker cancelled the consumer, or its stream ended without our doing; for example the queue was deleted.
    ConsumerCancelled,
    /// The periodic check found no queue, or no consumer on it, behind a connection that looked healthy.
    ConsumerLost,
    /// Messages were ready and there was room for them, but the broker delivered none.
    DeliveriesStopped,
    /// Deliveries were with the handler for too long without any word about them.
    HandStuck,
    /// A channel was closed by the broker under a living connection.
    ChannelDied,
    /// The broker began to block publishers.
    Blocked,
    /// The broker takes messages again.
    Unblocked,
    /// A message came back because no queue is bound for it.
    Returned,
    /// The broker refused responsibility for a message.
    Nacked,
    /// A message was not confirmed in time.
    ConfirmTimeout,
    /// Part of the topology exists with other arguments than ours, and is used as it is.
    TopologyDiffers,
    /// Handling was put on hold because the handler could not accept deliveries.
    Held,
    /// The hold lasted too long; the deliveries went back to the broker.
    HeldTooLong,
    /// A delivery is safe in the dead-letter queue.
    DeadLettered,
    /// Deliveries could not be dead-lettered; they stay unacknowledged and are tried again.
    DeadLetterFailed,
}

impl BrokerEvent {
    /// Every event, for metrics that exist from the start.
    pub const ALL: [Self; 18] = [
        Self::Connected,
        Self::Disconnected,
        Self::AttemptFailed,
        Self::ConsumerCancelled,
        Self::ConsumerLost,
        Self::DeliveriesStopped,
        Self::HandStuck,
        Self::ChannelDied,
        Self::Blocked,
        Self::Unblocked,
        Self::Returned,
        Self::Nacked,
        Self::ConfirmTimeout,
        Self::TopologyDiffers,
        Self::Held,
        Self::HeldTooLong,
        Self::DeadLettered,
        Self::DeadLetterFailed,
    ];

    /// The word used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::AttemptFailed => "attempt_failed",
            Self::ConsumerCancelled => "consumer_cancelled",
            Self::ConsumerLost => "consumer_lost",
            Self::DeliveriesStopped => "deliveries_stopped",
            Self::HandStuck => "hand_stuck",
            Self::ChannelDied => "channel_died",
            Self::Blocked => "blocked",
            Self::Unblocked => "unblocked",
            Self::Returned => "returned",
            Self::Nacked => "nacked",
            Self::ConfirmTimeout => "confirm_timeout",
            Self::TopologyDiffers => "topology_differs",
            Self::Held => "held",
            Self::HeldTooLong => "held_too_long",
            Self::DeadLettered => "dead_lettered",
            Self::DeadLetterFailed => "dead_letter_failed",
        }
    }
}

/// Receives every [`BrokerEvent`]; called from the broker's tasks, so it must not block.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(BrokerEvent) + Send + Sync>);

impl Observer {
    /// An observer that calls `count`.
    pub fn new(count: impl Fn(BrokerEvent) + Send + Sync + 'static) -> Self {
        Self(Arc::new(count))
    }

    pub(super) fn tell(&self, event: BrokerEvent) {
        (self.0)(event);
    }
}

/// Ignores everything.
impl Default for Observer {
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
