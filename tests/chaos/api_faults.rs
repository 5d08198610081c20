//! What goes wrong at the API under each fault.
//!
//! Left out is what the service rightly takes at its word: a 400 (the invite is dead at once) and a GET that
//! shows no code although there is one (another POST is right then).

use invite_relay::dashdoc::simulator::{Faults, Mix, RetryAfter};
use rand::RngExt as _;
use rand::rngs::StdRng;

use crate::fault::Fault;

/// An ordinary good minute.
pub(crate) fn calm() -> Faults {
    Faults { post: quick(), read: quick(), ..Faults::default() }
}

fn quick() -> Mix {
    Mix { latency_ms: 5, jitter_ms: 25, ..Mix::default() }
}

/// The faults of one kind, each time in another strength.
pub(crate) fn of(fault: Fault, rng: &mut StdRng) -> Faults {
    let strong: f64 = rng.random_range(0.3..0.9);
    let post = |mix: Mix| Faults { post: mix, ..calm() };
    let both = |mix: Mix| Faults { post: mix.clone(), read: mix, ..calm() };
    let retry_after = match rng.random_range(0..3) {
        0 => RetryAfter::Date(rng.random_range(1..=3)),
        _ => RetryAfter::Seconds(rng.random_range(1..=3)),
    };
    match fault {
        Fault::Slow => both(Mix { latency_ms: 200, jitter_ms: rng.random_range(2000..4500), ..quick() }),
        Fault::Throttled => both(Mix { throttled: strong, ..quick() }),
        Fault::ThrottledPolitely => {
            both(Mix { throttled: strong / 2.0, unavailable: strong / 2.0, retry_after, ..quick() })
        }
        Fault::Limited => Faults { rate_limit: Some(rng.random_range(2..10)), ..calm() },
        Fault::ErrorsBefore => both(Mix { error_before: strong, ..quick() }),
        Fault::ErrorsAfter => post(Mix { error_after: strong, ..quick() }),
        Fault::RepliesLost => both(Mix { reply_lost: strong / 2.0, reset: strong / 2.0, ..quick() }),
        Fault::LateEffects => {
            post(Mix { late_effect: strong, late_effect_ms: rng.random_range(20..5000), ..quick() })
        }
        Fault::OddBodies => Faults {
            post: Mix { no_code: 0.1, empty_code: 0.1, odd_code: 0.1, ..odd_bodies() },
            read: odd_bodies(),
            ..calm()
        },
        Fault::Forbidden => both(Mix { unauthorized: strong / 2.0, forbidden: strong / 2.0, ..quick() }),
        Fault::Redirects => both(Mix { redirect: strong, ..quick() }),
        Fault::Absent => Faults { absent_ms: rng.random_range(300..4000), ..calm() },
        _ => mixed(retry_after, rng),
    }
}

fn odd_bodies() -> Mix {
    Mix { half_body: 0.2, drip: 0.1, drip_ms: 5, garbage: 0.2, oversized: 0.05, ..quick() }
}

fn mixed(retry_after: RetryAfter, rng: &mut StdRng) -> Faults {
    let read = Mix {
        error_before: 0.08,
        reply_lost: 0.05,
        reset: 0.05,
        half_body: 0.05,
        drip: 0.05,
        drip_ms: 10,
        throttled: 0.03,
        unavailable: 0.03,
        retry_after,
        not_found: 0.03,
        garbage: 0.04,
        oversized: 0.01,
        jitter_ms: rng.random_range(25..800),
        ..quick()
    };
    let post = Mix {
        error_after: 0.08,
        late_effect: 0.08,
        late_effect_ms: rng.random_range(20..5000),
        no_code: 0.02,
        empty_code: 0.02,
        odd_code: 0.02,
        forbidden: 0.01,
        redirect: 0.01,
        ..read.clone()
    };
    Faults { post, read, absent_ms: rng.random_range(0..1000), ..Faults::default() }
}

/// The same without anything that happens late.
pub(crate) fn punctual(mut faults: Faults) -> Faults {
    for mix in [&mut faults.post, &mut faults.read] {
        mix.jitter_ms = mix.jitter_ms.min(500);
    }
    faults.post.reply_lost += faults.post.late_effect;
    faults.post.late_effect = 0.0;
    faults
}

mod tests {
    use super::*;
    use crate::fault::Lane;
    use crate::plan::generator;

    #[test]
    fn every_mix_can_be_rolled_and_none_is_too_late() {
        for fault in Fault::ALL.iter().filter(|fault| fault.lane() == Lane::Api) {
            for seed in 0..50 {
                let faults = of(*fault, &mut generator(seed, 0));
                for faults in [faults.clone(), punctual(faults)] {
                    faults.check().unwrap();
                    assert!(
                        faults.post.rejected == 0.0 && faults.read.no_code + faults.read.empty_code == 0.0
                    );
                    assert!(faults.post.latency_ms + faults.post.jitter_ms < 6000);
                    assert!(faults.post.late_effect_ms < 6000);
                }
            }
        }
    }
}
