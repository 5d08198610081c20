//! When the oldest unfinished invites were accepted, as of the last look: to find out, a store reads all that is
//! unfinished, and with a million of them that takes a second.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Tally;
use crate::invite::StateName;
use crate::time::Timestamp;

/// A look that takes less than this is taken whenever somebody asks.
const CHEAP: Duration = Duration::from_millis(20);
/// After any other there is none for so many times as long: looking takes 2 % of the time at most.
const REST: u32 = 50;

/// Account and state as they are stored, and when the oldest of that kind was accepted.
pub(super) type Found = Vec<(String, String, Timestamp)>;

/// What the last look has found.
#[derive(Default)]
pub(super) struct Oldest(Mutex<Option<Look>>);

struct Look {
    found: Found,
    began: Instant,
    took: Duration,
}

impl Oldest {
    /// What is known, or `None` when it is time to look.
    pub(super) fn known(&self) -> Option<Found> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |look: &&Look| look.took > CHEAP && look.began.elapsed() < look.took * REST;
        last.as_ref().filter(is_fresh).map(|look| look.found.clone())
    }

    /// Keeps what a look has found.
    pub(super) fn keep(&self, began: Instant, found: &Found) {
        let look = Look { found: found.clone(), began, took: began.elapsed() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(look);
    }
}

/// Adds to each count of unfinished invites when the oldest of them was accepted.
pub(super) fn add_to(counts: &mut [Tally], found: &Found) {
    for tally in counts {
        let same = |(account, state, _): &&(String, String, Timestamp)| {
            account == tally.account.as_str() && state == tally.state.as_str()
        };
        let finished = matches!(tally.state, StateName::Published | StateName::Dead);
        tally.oldest = found.iter().find(same).filter(|_| !finished).map(|(_, _, at)| *at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_took_long_is_not_repeated_for_fifty_times_as_long_and_a_quick_one_always() {
        let found = || vec![("acme".to_owned(), "received".to_owned(), Timestamp::EPOCH)];
        let look = |ago, took| Look { found: found(), began: Instant::now().checked_sub(ago).unwrap(), took };
        let second = Duration::from_secs(1);
        let oldest = Oldest::default();
        assert_eq!(oldest.known(), None, "nobody has looked yet");
        for (last, known) in [
            (look(second, second), true),
            (look(40 * second, second), true),
            (look(60 * second, second), false),
            (look(Duration::ZERO, CHEAP), false),
        ] {
            *oldest.0.lock().unwrap() = Some(last);
            assert_eq!(oldest.known().is_some(), known);
        }
    }
}
