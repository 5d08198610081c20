//! Keeps one connection up: connects for ever with backoff, says once what changed, publishes the state.

use std::fmt::Display;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::connection::{Connection, connect};
use super::{Address, BrokerEvent, BrokerState, Endpoint, Observer};

/// First ceiling of the reconnect delay; it doubles with every failure in a row.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// Highest ceiling of the reconnect delay: how late a recovered broker is noticed at worst.
const BACKOFF_CAP: Duration = Duration::from_secs(10);
/// So many different reasons of one outage are logged, each once.
const REASONS_MAX: usize = 8;
/// A session that lived this long was a success, and its end starts the backoff anew.
const STEADY_AFTER: Duration = Duration::from_secs(30);

/// The supervisor of one connection. Owned by the task that uses the connection.
pub(super) struct Link {
    address: Address,
    /// The one that was tried last.
    endpoint: Endpoint,
    purpose: &'static str,
    observer: Observer,
    state: watch::Sender<BrokerState>,
    /// Failures in a row, sessions that ended before they were steady included.
    n_failures: u32,
    /// Reasons of this outage that are in the log already.
    said: Vec<String>,
    /// Since when the session is up; `None` while it is not.
    up_since: Option<Instant>,
}

impl Link {
    pub(super) fn new(address: Address, purpose: &'static str, observer: Observer) -> Self {
        let state = watch::Sender::new(BrokerState::Connecting);
        let endpoint = address.current();
        Self { address, endpoint, purpose, observer, state, n_failures: 0, said: Vec::new(), up_since: None }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<BrokerState> {
        self.state.subscribe()
    }

    /// Connects, however long it takes. Drop the future to give up.
    pub(super) async fn connect(&mut self) -> Connection {
        loop {
            tokio::time::sleep(backoff(self.n_failures, rand::random())).await;
            self.endpoint = self.address.current();
            match connect(&self.endpoint, self.purpose).await {
                Ok(connection) => return connection,
                Err(error) => self.down(BrokerEvent::AttemptFailed, &error),
            }
        }
    }

    /// The session works: subscribed, or ready to publish.
    pub(super) fn up(&mut self) {
        if self.n_failures == 0 {
            info!(broker = %self.endpoint, purpose = self.purpose, "connected to the broker");
        } else {
            let n_failures = self.n_failures;
            info!(broker = %self.endpoint, purpose = self.purpose, n_failures, "connected to the broker again");
        }
        self.up_since = Some(Instant::now());
        self.said.clear();
        self.observer.tell(BrokerEvent::Connected);
        self.state.send_replace(BrokerState::Up);
    }

    /// The session did real work, so the next failure starts the backoff anew.
    pub(super) fn worked(&mut self) {
        self.n_failures = 0;
    }

    /// An attempt failed or the session ended, for `reason`.
    pub(super) fn down(&mut self, event: BrokerEvent, reason: &impl Display) {
        if self.up_since.take().is_some_and(|since| since.elapsed() >= STEADY_AFTER) {
            self.n_failures = 0;
        }
        self.n_failures = self.n_failures.saturating_add(1);
        let text = reason.to_string();
        let (broker, purpose, n_failures) = (&self.endpoint, self.purpose, self.n_failures);
        if self.said.contains(&text) || self.said.len() >= REASONS_MAX {
            debug!(%broker, purpose, %reason, n_failures, "still no session with the broker");
        } else {
            let what = match &*self.state.borrow() {
                BrokerState::Connecting => "no connection to the broker yet, trying again",
                BrokerState::Down { .. } => "still no session with the broker, for another reason",
                _ if event == BrokerEvent::Disconnected => "the broker is lost, reconnecting",
                _ => "the session with the broker has ended, beginning a new one",
            };
            warn!(%broker, purpose, %reason, "{what}");
            self.said.push(text);
        }
        self.observer.tell(event);
        self.state.send_replace(BrokerState::Down { reason: reason.to_string() });
    }

    /// There is no session, and none is wanted until what `reason` names is over.
    pub(super) fn waiting(&mut self, reason: String) {
        if !matches!(*self.state.borrow(), BrokerState::Waiting { .. }) {
            info!(purpose = self.purpose, reason, "not subscribed until this is over");
        }
        self.state.send_replace(BrokerState::Waiting { reason });
    }

    pub(super) fn blocked(&self, reason: String) {
        warn!(broker = %self.endpoint, purpose = self.purpose, reason, "the broker blocks publishers");
        self.observer.tell(BrokerEvent::Blocked);
        self.state.send_replace(BrokerState::Blocked { reason });
    }

    pub(super) fn unblocked(&self) {
        info!(broker = %self.endpoint, purpose = self.purpose, "the broker takes messages again");
        self.observer.tell(BrokerEvent::Unblocked);
        self.state.send_replace(BrokerState::Up);
    }
}

/// Full jitter: anywhere between nothing and a ceiling that doubles, so that replicas do not return as a herd.
/// `randomness` is uniform over all of `u32`. No failure, no delay.
pub(super) fn backoff(n_failures: u32, randomness: u32) -> Duration {
    if n_failures == 0 {
        return Duration::ZERO;
    }
    let ceiling = BACKOFF_BASE.saturating_mul(1 << (n_failures - 1).min(16)).min(BACKOFF_CAP);
    ceiling.mul_f64(f64::from(randomness) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_is_immediate_and_the_delay_doubles_up_to_the_cap() {
        let ceilings: Vec<u128> = (0..10).map(|n| backoff(n, u32::MAX).as_millis()).collect();
        assert_eq!(ceilings, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff(u32::MAX, u32::MAX), BACKOFF_CAP);
    }

    #[test]
    fn jitter_uses_the_whole_range() {
        assert_eq!(backoff(20, 0), Duration::ZERO);
        assert_eq!(backoff(20, u32::MAX / 2).as_millis(), 4999);
    }
}
