//! What happens when: everything that is decided, decided from one seed before anything starts.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::fault::{Fault, Lane};

/// Calm between two faults of a lane, in milliseconds.
const CALM_MS: std::ops::RangeInclusive<u64> = 300..=2500;

/// One fault in its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Planned {
    /// Since the start. It may begin later, if the one before it took longer than planned.
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
    pub(crate) lasts: Duration,
    /// The seed of its details.
    pub(crate) dice: u64,
}

/// All faults, by lane and in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    pub(crate) lanes: Vec<(Lane, Vec<Planned>)>,
}

/// A generator for one purpose; the same seed and purpose always make the same one.
pub(crate) fn generator(seed: u64, purpose: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(purpose))
}

impl Plan {
    pub(crate) fn new(seed: u64, run: Duration) -> Self {
        let lanes = (0..).zip(Lane::ALL);
        let lanes = lanes.map(|(purpose, lane)| (lane, deal(&mut generator(seed, purpose), lane, run)));
        Self { lanes: lanes.collect() }
    }
}

/// Deals from a shuffled deck of the lane's faults, so that each comes once before any comes twice.
fn deal(rng: &mut StdRng, lane: Lane, run: Duration) -> Vec<Planned> {
    let mut planned = Vec::new();
    let mut deck = Vec::new();
    let mut free_at = Duration::ZERO;
    loop {
        if deck.is_empty() {
            deck = Fault::of(lane, run);
            deck.shuffle(rng);
        }
        let fault = deck.pop().expect("every lane has faults for every run");
        let (least, most) = fault.lasts_ms();
        let at = free_at + Duration::from_millis(rng.random_range(CALM_MS));
        let lasts = Duration::from_millis(rng.random_range(least..most));
        let dice = rng.random();
        free_at = at + lasts + fault.overhead();
        if free_at > run {
            return planned;
        }
        planned.push(Planned { at, fault, lasts, dice });
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (lane, planned) in &self.lanes {
            writeln!(f, "{lane:?}")?;
            for Planned { at, fault, lasts, dice } in planned {
                writeln!(
                    f,
                    "  {:>9.3} s  {:<20} for {:>7.3} s  dice {dice}",
                    at.as_secs_f64(),
                    fault.name(),
                    lasts.as_secs_f64()
                )?;
            }
        }
        Ok(())
    }
}

mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const HALF_AN_HOUR: Duration = Duration::from_secs(30 * 60);

    #[test]
    fn a_seed_decides_everything() {
        assert_eq!(Plan::new(7, HALF_AN_HOUR), Plan::new(7, HALF_AN_HOUR));
        assert_ne!(Plan::new(7, HALF_AN_HOUR), Plan::new(8, HALF_AN_HOUR));
    }

    #[test]
    fn a_long_run_has_every_fault_and_ends_in_time() {
        let plan = Plan::new(1, HALF_AN_HOUR);
        let all: BTreeSet<Fault> =
            plan.lanes.iter().flat_map(|(_, planned)| planned).map(|planned| planned.fault).collect();
        assert_eq!(all, Fault::ALL.iter().copied().collect());
        for (_, planned) in &plan.lanes {
            assert!(planned.iter().all(|planned| planned.at + planned.lasts <= HALF_AN_HOUR));
            assert!(planned.windows(2).all(|two| two[0].at + two[0].lasts < two[1].at));
        }
    }
}
