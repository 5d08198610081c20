//! The limiter of an account: requests leave evenly, never in bursts that the API would refuse.
//!
//! This is the generic cell rate algorithm (ITU-T I.371): one number, the time at which the next request may
//! leave. Even pacing uses a limit of N per second in full without ever exceeding it in any one second. How far apart
//! requests leave is the [`Pace`]'s to say, which learns from what the API refuses.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::invite::{Pace, Refusal};

/// Timers are no finer than this, so at high rates requests of this much time may leave together.
const GRAIN: Duration = Duration::from_millis(5);

/// A limiter. Shared by all workers of an account.
#[derive(Debug)]
pub struct Limiter {
    /// The pace's times count from here.
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    /// When the next request may leave, if the past was used in full.
    next: Instant,
}

impl Limiter {
    /// A limiter of at most `per_second` requests; must be above zero (checked by the configuration).
    pub fn new(per_second: f64) -> Self {
        let now = now();
        Self { begun: now, state: Mutex::new(State { pace: Pace::new(per_second), next: now }) }
    }

    /// Takes up to `wanted` requests that may leave now; fewer, or none, if there are not as many.
    pub fn take(&self, wanted: usize) -> usize {
        let now = now();
        let mut state = self.state();
        let interval = self.interval(&state, now);
        // Unused time is lost, except for one grain: pauses must not add up to a burst.
        let grain = if interval < GRAIN { GRAIN } else { Duration::ZERO };
        let earliest = now.checked_sub(grain).unwrap_or(now);
        state.next = state.next.max(earliest);
        let mut taken = 0;
        while taken < wanted && state.next <= now {
            state.next += interval;
            taken += 1;
        }
        taken
    }

    /// Gives back requests that were taken and not used.
    pub fn give_back(&self, unused: usize) {
        let unused = u32::try_from(unused).unwrap_or(u32::MAX);
        let mut state = self.state();
        let interval = self.interval(&state, now());
        state.next = state.next.checked_sub(interval.saturating_mul(unused)).unwrap_or(state.next);
    }

    /// Waits until a request may leave, and takes it.
    pub async fn acquire(&self) {
        while self.take(1) == 0 {
            self.wait().await;
        }
    }

    /// Waits until a request may leave, without taking it: somebody else may be quicker.
    pub async fn wait(&self) {
        let next = self.state().next;
        tokio::time::sleep_until(next).await;
    }

    /// The API took a request.
    pub fn accepted(&self) {
        self.state().pace.accepted(self.elapsed(now()));
    }

    /// The API refused a request because of its limit.
    pub fn throttled(&self, refusal: Refusal) {
        self.state().pace.throttled(self.elapsed(now()), refusal);
    }

    /// The account was let loose after an outage.
    pub fn start_slowly(&self) {
        self.state().pace.start_slowly(self.elapsed(now()));
    }

    /// Takes another share of the account's rate: `per_second` in all.
    pub fn share(&self, per_second: f64) {
        self.state().pace.share(per_second);
    }

    /// Requests per second, as they leave now.
    pub fn rate(&self) -> f64 {
        self.state().pace.rate(self.elapsed(now()))
    }

    fn interval(&self, state: &State, now: Instant) -> Duration {
        Duration::from_secs_f64(1.0 / state.pace.rate(self.elapsed(now)))
    }

    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn requests_leave_evenly_and_the_limit_is_used_in_full() {
        let limiter = Limiter::new(10.0);
        let start = now();
        for _ in 0..101 {
            limiter.acquire().await;
        }
        let took = start.elapsed();
        assert!((Duration::from_secs(10)..Duration::from_millis(10_150)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_does_not_add_up_to_a_burst() {
        let limiter = Limiter::new(10.0);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(limiter.take(100), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_holds_more_than_the_limit() {
        for (rate, limit) in [(1_u32, 1_usize), (5, 5), (10, 10), (250, 250)] {
            let limiter = Limiter::new(f64::from(rate));
            let mut left = Vec::new();
            for _ in 0..(limit * 5) {
                limiter.acquire().await;
                left.push(now());
            }
            let most = left
                .iter()
                .map(|from| {
                    left.iter().filter(|at| *at >= from && **at - *from < Duration::from_secs(1)).count()
                })
                .max();
            // One grain may fall into a second from the one before.
            let in_a_grain = (GRAIN * rate).as_millis().div_ceil(1000);
            let allowed = limit + usize::try_from(in_a_grain).unwrap();
            assert!(most <= Some(allowed), "{most:?} at {rate}/s");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_can_be_taken_again() {
        let limiter = Limiter::new(10.0);
        assert_eq!(limiter.take(1), 1);
        assert_eq!(limiter.take(1), 0);
        limiter.give_back(1);
        assert_eq!(limiter.take(1), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_beyond_the_timers_grain_is_reached_all_the_same() {
        let limiter = Limiter::new(2000.0);
        let start = now();
        for _ in 0..4000 {
            limiter.acquire().await;
        }
        assert!(start.elapsed() <= Duration::from_millis(2010), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_wait_share_one_pace() {
        let limiter = Limiter::new(10.0);
        let start = now();
        let waiting = (0..21).map(|_| limiter.acquire());
        futures_util::future::join_all(waiting).await;
        assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(2200), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_is_no_credit_for_a_burst() {
        let limiter = Limiter::new(10.0);
        limiter.give_back(1000);
        assert_eq!(limiter.take(100), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_takes_nothing() {
        let limiter = Limiter::new(10.0);
        assert_eq!(limiter.take(1), 1);
        limiter.wait().await;
        limiter.wait().await;
        assert_eq!(limiter.take(5), 1);
    }
}
