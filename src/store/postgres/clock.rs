//! The server's clock, as far as it is known between two looks at it.
//!
//! Replicas may have clocks that disagree. Stored times come from the server's clock only; who compares one with
//! "now" outside of a transaction asks here, and the local wall clock is in none of it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::time::Timestamp;

/// What quartz may drift: the older of two looks is trusted less by this share of the time in between.
const DRIFT: u32 = 2000;
/// A look that contradicts what is known by more than this is a clock that was set, or another server.
pub(super) const JUMP: Duration = Duration::from_millis(250);

/// Shared by all connections of a store.
pub(super) struct Clock(Mutex<Look>);

/// One look at the server's clock.
#[derive(Clone, Copy)]
struct Look {
    /// What it showed,
    shown: Timestamp,
    /// at this time since boot or a little later,
    at: Duration,
    /// by at most this much.
    width: Duration,
}

impl Clock {
    /// The clock by a first look: asked at `asked`, answered at `answered` (both by [`since_boot`]).
    pub(super) fn new(shown: Timestamp, asked: Duration, answered: Duration) -> Self {
        Self(Mutex::new(Look::new(shown, asked, answered)))
    }

    /// Takes another look into account.
    pub(super) fn look(&self, shown: Timestamp, asked: Duration, answered: Duration) {
        let look = Look::new(shown, asked, answered);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let age = look.at.saturating_sub(known.at);
        let (expected, found) = (known.reads(look.at), look.shown);
        let apart = expected.since(found).max(found.since(expected));
        let contradicted = apart > known.width + look.width + age / DRIFT + JUMP;
        if contradicted || look.width <= known.width + age / DRIFT {
            *known = look;
        }
    }

    /// What the server's clock shows now, or a few milliseconds more: a lease is rather thought over too early than
    /// too late.
    pub(super) fn now(&self) -> Timestamp {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).reads(since_boot())
    }

    /// What the server's clock shows now, or a few milliseconds less: what is due by it is due on the server too.
    pub(super) fn at_least(&self) -> Timestamp {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.reads(since_boot().saturating_sub(known.width))
    }
}

impl Look {
    fn new(shown: Timestamp, asked: Duration, answered: Duration) -> Self {
        Self { shown, at: asked, width: answered.saturating_sub(asked) }
    }

    fn reads(&self, at: Duration) -> Timestamp {
        self.shown.after(at.saturating_sub(self.at))
    }
}

/// Time since boot, which no one sets and which also counts while the machine is suspended.
pub(super) fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn reads(clock: &Clock, at: Duration) -> Timestamp {
        clock.0.lock().unwrap().reads(at)
    }

    #[test]
    fn between_two_looks_the_clock_goes_on() {
        let clock = Clock::new(T, ms(1000), ms(1002));
        assert_eq!(reads(&clock, ms(6000)), T.after(ms(5000)));
    }

    #[test]
    fn a_slow_answer_does_not_spoil_what_a_quick_one_told() {
        let clock = Clock::new(T, ms(1000), ms(1002));
        // Asked at 2000, shown some 150 ms later, answered at 2300.
        clock.look(T.after(ms(1150)), ms(2000), ms(2300));
        assert_eq!(reads(&clock, ms(3000)), T.after(ms(2000)));
        clock.look(T.after(ms(2001)), ms(3000), ms(3002));
        assert_eq!(reads(&clock, ms(3000)), T.after(ms(2001)));
    }

    #[test]
    fn a_clock_that_was_set_is_believed_at_once() {
        for set in [T.after(ms(3_600_000)), Timestamp::from_millis(T.as_millis() - 3_600_000)] {
            let clock = Clock::new(T, ms(1000), ms(1002));
            clock.look(set, ms(2000), ms(2100));
            assert_eq!(reads(&clock, ms(2000)), set);
        }
    }
}
