//! The settings that decisions depend on, as plain values.

use std::time::Duration;

use super::Sinks;

/// What a call does first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// One POST per trucker, as the service exists to do.
    Generate,
    /// Read first; publish a code that is there, POST only where there is none.
    Reuse,
}

/// Everything [`step`](super::step) needs to know besides the invite and the input.
#[derive(Clone, Debug)]
pub struct Rules {
    /// `invite.policy`.
    pub policy: Policy,
    /// How long a worker may be silent before its work is taken over; well above the call's timeout.
    pub lease: Duration,
    /// Waits between tries.
    pub backoff: Backoff,
    /// `retry.max_attempts`.
    pub max_attempts: u32,
    /// `retry.max_age`.
    pub max_age: Duration,
    /// `retry.not_found_for`.
    pub not_found_for: Duration,
    /// `invite.verify_after`.
    pub verify_after: Duration,
    /// The sinks that every event goes to; at least one (checked by the configuration).
    pub sinks: Sinks,
}

/// Exponential backoff: `base * factor^(n-1)`, capped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    base: Duration,
    factor: f64,
    cap: Duration,
}

/// Why a backoff is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackoffError {
    /// A base of zero would spin.
    #[error("the base delay must be longer than zero")]
    Base,
    /// A factor below 1 would shrink, and must be a number.
    #[error("the factor must be a number from 1 upwards")]
    Factor,
    /// The cap lies below the base.
    #[error("the longest delay must not be shorter than the base delay")]
    Cap,
}

impl Backoff {
    /// A backoff from `retry.base_delay`, `retry.factor` and `retry.max_delay`.
    pub fn try_new(base: Duration, factor: f64, cap: Duration) -> Result<Self, BackoffError> {
        if base.is_zero() {
            return Err(BackoffError::Base);
        }
        if !factor.is_finite() || factor < 1.0 {
            return Err(BackoffError::Factor);
        }
        if cap < base {
            return Err(BackoffError::Cap);
        }
        Ok(Self { base, factor, cap })
    }

    /// The same wait every time.
    ///
    /// `delay` must be longer than zero.
    pub const fn fixed(delay: Duration) -> Self {
        Self { base: delay, factor: 1.0, cap: delay }
    }

    /// The longest wait before try `n + 1`, `n` counted from 1.
    pub fn ceiling(&self, n: u32) -> Duration {
        let exponent = i32::try_from(n.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.base.as_secs_f64() * self.factor.powi(exponent);
        if seconds >= self.cap.as_secs_f64() { self.cap } else { Duration::from_secs_f64(seconds) }
    }

    /// *Full jitter*: anything from zero to the ceiling, as `dice` (0 ≤ dice < 1) falls. It spreads a herd best
    /// (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
    pub fn delay(&self, n: u32, dice: f64) -> Duration {
        scaled(self.ceiling(n), dice.clamp(0.0, 1.0))
    }

    /// At least the ceiling and up to a tenth more: for waits that must not end early.
    pub fn no_earlier(&self, n: u32, dice: f64) -> Duration {
        scaled(self.ceiling(n), 1.0 + 0.1 * dice.clamp(0.0, 1.0))
    }
}

/// Saturates, where `Duration::mul_f64` would panic.
fn scaled(delay: Duration, by: f64) -> Duration {
    Duration::try_from_secs_f64(delay.as_secs_f64() * by).unwrap_or(Duration::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backoff() -> Backoff {
        Backoff::try_new(Duration::from_secs(1), 2.0, Duration::from_secs(300)).unwrap()
    }

    #[test]
    fn ceilings_double_up_to_the_cap() {
        let seconds: Vec<u64> = (1..=11).map(|n| backoff().ceiling(n).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(backoff().ceiling(u32::MAX), Duration::from_secs(300));
    }

    #[test]
    fn a_backoff_that_would_spin_or_shrink_is_refused() {
        let second = Duration::from_secs(1);
        assert_eq!(Backoff::try_new(Duration::ZERO, 2.0, second), Err(BackoffError::Base));
        assert_eq!(Backoff::try_new(second, 0.5, second), Err(BackoffError::Factor));
        assert_eq!(Backoff::try_new(second, f64::NAN, second), Err(BackoffError::Factor));
        assert_eq!(Backoff::try_new(second, 2.0, Duration::from_millis(1)), Err(BackoffError::Cap));
    }

    #[test]
    fn the_longest_delay_there_is_saturates() {
        let backoff = Backoff::try_new(Duration::MAX, 2.0, Duration::MAX).unwrap();
        assert_eq!(backoff.no_earlier(u32::MAX, 1.0), Duration::MAX);
        assert_eq!(backoff.delay(u32::MAX, 1.0), Duration::MAX);
    }

    proptest! {
        #[test]
        fn a_delay_lies_between_zero_and_its_ceiling(n in 1u32.., dice in 0.0f64..1.0) {
            prop_assert!(backoff().delay(n, dice) <= backoff().ceiling(n));
            prop_assert!(backoff().no_earlier(n, dice) >= backoff().ceiling(n));
        }
    }
}
