//! The limiter of an account: requests leave evenly, never in bursts that the API would refuse.
//!
//! Every request gets a [`Slot`], its time to leave. Slots follow the generic cell rate algorithm (ITU-T I.371), with
//! one rule more: of the API's limit of N per second, the Nth request before must have left a second ago. The rule looks
//! at when that one really left, because between getting a slot and leaving lies a commit. So slots are given out
//! a little ahead, the commit is done meanwhile, and a limit is used in full without more requests leaving in any one
//! second. A request that is not ready at its time leaves when it is, after another look at the rule (which rates beyond
//! the timers' grain don't have). How far apart slots are is the [`Pace`]'s to say, which learns from what the API refuses.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::invite::{Pace, Refusal};

/// Timers are no finer than this, so at high rates requests of this much time may leave together.
const GRAIN: Duration = Duration::from_millis(5);
/// How early a slot is given out: time for the commit that comes before the request.
const AHEAD: Duration = Duration::from_millis(50);
/// The window of the API's limit, requests *per second*, and some time for what delays one request on its way more
/// than another.
const WINDOW: Duration = Duration::from_millis(1005);

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
    departures: Departures,
}

/// A request's time to leave.
#[derive(Debug)]
#[must_use]
pub struct Slot {
    at: Instant,
    /// Whether it is among the departures; none is at rates beyond the timers' grain.
    counted: bool,
}

/// Requests that leave at this pace in the time of a commit.
pub(super) fn in_a_commit(per_second: f64) -> u32 {
    whole(per_second * AHEAD.as_secs_f64())
}

/// Requests that may leave together at this pace; 0 where each has a time of its own.
fn in_a_grain(per_second: f64) -> u32 {
    whole(per_second * GRAIN.as_secs_f64())
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and is never negative"
)]
fn whole(requests: f64) -> u32 {
    requests as u32
}

impl Limiter {
    /// A limiter of at most `per_second` requests; must be above zero (checked by the configuration).
    pub fn new(per_second: f64) -> Self {
        let now = now();
        let state = State { pace: Pace::new(per_second), next: now, departures: Departures::default() };
        Self { begun: now, state: Mutex::new(state) }
    }

    /// Takes up to `wanted` slots; fewer, or none, if there are not as many now or in a moment.
    pub fn take(&self, wanted: usize) -> Vec<Slot> {
        let now = now();
        let mut state = self.state();
        let spacing = state.look(now, self.elapsed(now));
        let mut slots = Vec::new();
        while slots.len() < wanted && state.next_slot(&spacing) <= now + spacing.ahead {
            slots.push(state.book(now, &spacing));
        }
        slots
    }

    /// Takes the next slot, however long it is until then. For a request that comes seldom: it loses no race for a slot,
    /// and all others leave one later.
    pub fn book(&self) -> Slot {
        let now = now();
        let mut state = self.state();
        let spacing = state.look(now, self.elapsed(now));
        state.book(now, &spacing)
    }

    /// Gives back slots that were not used. One that others were given out after is lost.
    pub fn give_back(&self, unused: impl IntoIterator<Item = Slot, IntoIter: DoubleEndedIterator>) {
        let mut state = self.state();
        let interval = Spacing::of(state.pace.rate(self.elapsed(now()))).interval;
        for slot in unused.into_iter().rev() {
            if !slot.counted || state.departures.remove(slot.at) {
                state.next = state.next.checked_sub(interval).unwrap_or(state.next);
            }
        }
    }

    /// How many requests may leave together at the present pace; 0 where each has a time of its own.
    pub fn together(&self) -> u32 {
        in_a_grain(self.rate())
    }

    /// Waits until there is a slot, and takes it.
    pub async fn acquire(&self) -> Slot {
        loop {
            if let Some(slot) = self.take(1).pop() {
                return slot;
            }
            self.wait().await;
        }
    }

    /// Waits until there is a slot, without taking it: somebody else may be quicker.
    pub async fn wait(&self) {
        let at = {
            let state = self.state();
            let spacing = Spacing::of(state.pace.rate(self.elapsed(now())));
            let at = state.next_slot(&spacing);
            at.checked_sub(spacing.ahead).unwrap_or(at)
        };
        tokio::time::sleep_until(at).await;
    }

    /// Waits until it is the slot's time. To be called right before the request leaves.
    pub async fn depart(&self, slot: Slot) {
        if !slot.counted {
            return;
        }
        let mut at = slot.at;
        loop {
            tokio::time::sleep_until(at).await;
            let mut state = self.state();
            state.departures.remove(at);
            // Others may have left close before, if this one is late.
            let now = now();
            let window = Spacing::of(state.pace.rate(self.elapsed(now))).window;
            let free = window.and_then(|n| state.departures.back_from(now, n)).map(|left| left + WINDOW);
            at = free.map_or(now, |free| free.max(now));
            state.departures.add(at, now);
            if at == now {
                return;
            }
        }
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

    fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.begun)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How far apart slots are now.
    fn look(&mut self, now: Instant, elapsed: Duration) -> Spacing {
        let spacing = Spacing::of(self.pace.rate(elapsed));
        // Unused time is lost, except for one grain: pauses must not add up to a burst.
        let earliest = now.checked_sub(spacing.grain).unwrap_or(now);
        self.next = self.next.max(earliest);
        spacing
    }

    fn book(&mut self, now: Instant, spacing: &Spacing) -> Slot {
        let at = self.next_slot(spacing);
        self.next = (self.next + spacing.interval).max(at + spacing.interval - spacing.catch_up);
        let counted = spacing.window.is_some();
        if counted {
            self.departures.add(at, now);
        }
        Slot { at, counted }
    }

    fn next_slot(&self, spacing: &Spacing) -> Instant {
        let window = spacing.window.and_then(|n| self.departures.back(n));
        window.map_or(self.next, |left| self.next.max(left + WINDOW))
    }
}

/// How far apart slots are at a rate.
struct Spacing {
    interval: Duration,
    grain: Duration,
    ahead: Duration,
    /// How much closer together two slots may be to make up for one that had to wait.
    catch_up: Duration,
    /// So many requests may leave in a second; nobody counts at rates beyond the timers' grain.
    window: Option<usize>,
}

impl Spacing {
    fn of(rate: f64) -> Self {
        let interval = Duration::from_secs_f64(1.0 / rate);
        if interval < GRAIN {
            let zero = Duration::ZERO;
            return Self { interval, grain: GRAIN, ahead: zero, catch_up: zero, window: None };
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most one per grain")]
        let window = rate.ceil() as usize;
        Self {
            interval,
            grain: Duration::ZERO,
            ahead: AHEAD.min(interval / 2),
            catch_up: interval / 2,
            window: Some(window),
        }
    }
}

/// When the requests of the last window left, or will; in the order of time.
#[derive(Debug, Default)]
struct Departures(VecDeque<Instant>);

impl Departures {
    fn add(&mut self, at: Instant, now: Instant) {
        while self.0.front().is_some_and(|time| *time + WINDOW < now) {
            self.0.pop_front();
        }
        let earlier = self.0.partition_point(|time| *time <= at);
        self.0.insert(earlier, at);
    }

    /// Forgets one; whether it was the last.
    fn remove(&mut self, at: Instant) -> bool {
        let earlier = self.0.partition_point(|time| *time < at);
        let found = self.0.get(earlier) == Some(&at);
        if found {
            self.0.remove(earlier);
        }
        found && earlier == self.0.len()
    }

    /// The nth from the end.
    fn back(&self, n: usize) -> Option<Instant> {
        self.nth_before(self.0.len(), n)
    }

    /// The nth back from `at`.
    fn back_from(&self, at: Instant, n: usize) -> Option<Instant> {
        self.nth_before(self.0.partition_point(|time| *time <= at), n)
    }

    fn nth_before(&self, index: usize, n: usize) -> Option<Instant> {
        index.checked_sub(n).and_then(|index| self.0.get(index)).copied()
    }
}

fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn leave(limiter: &Limiter) -> Instant {
        let slot = limiter.acquire().await;
        limiter.depart(slot).await;
        now()
    }

    fn most_in_a_second(left: &[Instant]) -> usize {
        let in_second_from =
            |from: &Instant| left.iter().filter(|at| *at >= from && **at - *from < SECOND).count();
        left.iter().map(in_second_from).max().unwrap_or(0)
    }

    #[tokio::test(start_paused = true)]
    async fn requests_leave_evenly_and_the_limit_is_used_in_full() {
        let limiter = Limiter::new(10.0);
        let start = now();
        for _ in 0..101 {
            leave(&limiter).await;
        }
        let took = start.elapsed();
        assert!((Duration::from_secs(10)..Duration::from_millis(10_100)).contains(&took), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_does_not_add_up_to_a_burst() {
        let limiter = Limiter::new(10.0);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(limiter.take(100).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_holds_more_than_the_limit() {
        for (rate, limit) in [(0.3, 1), (1.0, 1), (5.0, 5), (9.5, 10), (10.0, 10), (190.0, 190), (250.0, 252)]
        {
            let limiter = Limiter::new(rate);
            let mut left = Vec::new();
            for _ in 0..(limit * 5) {
                left.push(leave(&limiter).await);
            }
            // Beyond the timers' grain, one grain may fall into a second from the one before.
            assert!(most_in_a_second(&left) <= limit, "{} at {rate}/s", most_in_a_second(&left));
        }
    }

    /// The departures of eight workers whose commits take as long as `commits` says, in turns, for `seconds` at a limit
    /// of 10 per second.
    async fn with_commits(commits: &[u64], seconds: u64) -> Vec<Instant> {
        let limiter = Limiter::new(10.0);
        let start = now();
        let left = Mutex::new(Vec::new());
        let turns = Mutex::new(commits.iter().cycle());
        let worker = async || {
            loop {
                let slot = limiter.acquire().await;
                if start.elapsed() > Duration::from_secs(seconds) {
                    break;
                }
                let commit = *turns.lock().unwrap().next().unwrap();
                tokio::time::sleep(Duration::from_millis(commit)).await;
                limiter.depart(slot).await;
                left.lock().unwrap().push(now());
            }
        };
        futures_util::future::join_all((0..8).map(|_| worker())).await;
        left.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_commit_before_a_request_costs_nothing_of_the_limit() {
        let left = with_commits(&[2, 30, 0, 45, 7, 12, 3], 60).await;
        assert_eq!(most_in_a_second(&left), 10);
        assert!(left.len() >= 594, "{} of 600", left.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_leaves_late_makes_no_second_hold_more_than_the_limit() {
        let left = with_commits(&[2, 170, 0, 3, 90, 1, 400, 10, 60, 0, 5], 60).await;
        assert!(most_in_a_second(&left) <= 10, "{}", most_in_a_second(&left));
        assert!(left.len() >= 550, "{} of 600", left.len());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_leave_more_than_a_second_late_make_no_second_hold_more_than_the_limit() {
        let left = with_commits(&[2, 1300, 0, 3, 1090, 1, 400, 1010, 60, 0, 2400, 5, 1, 30], 300).await;
        assert!(most_in_a_second(&left) <= 10, "{}", most_in_a_second(&left));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_were_held_up_for_long_make_no_second_hold_more_than_the_limit() {
        let limiter = Limiter::new(10.0);
        let mut left = Vec::new();
        let mut held_up = Vec::new();
        for _ in 0..4 {
            held_up.push(limiter.acquire().await);
        }
        for _ in 0..15 {
            left.push(leave(&limiter).await);
        }
        for slot in held_up {
            limiter.depart(slot).await;
            left.push(now());
        }
        assert!(most_in_a_second(&left) <= 10, "{} in a second", most_in_a_second(&left));
        let took = left[left.len() - 1] - left[0];
        assert!(took <= SECOND * 2, "{took:?} for 19 requests");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_can_be_taken_again() {
        let limiter = Limiter::new(10.0);
        let slots = limiter.take(5);
        assert_eq!(slots.len(), 1);
        assert_eq!(limiter.take(1).len(), 0);
        limiter.give_back(slots);
        assert_eq!(limiter.take(1).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_is_no_credit_for_a_burst() {
        let limiter = Limiter::new(10.0);
        for _ in 0..1000 {
            limiter.give_back(limiter.take(1));
        }
        assert_eq!(limiter.take(100).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_beyond_the_timers_grain_is_reached_all_the_same() {
        let limiter = Limiter::new(2000.0);
        let start = now();
        for _ in 0..4000 {
            leave(&limiter).await;
        }
        assert!(start.elapsed() <= Duration::from_millis(2010), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_wait_share_one_pace() {
        let limiter = Limiter::new(10.0);
        let start = now();
        let waiting = (0..21).map(|_| leave(&limiter));
        futures_util::future::join_all(waiting).await;
        assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_millis(2200), "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_booked_slot_is_the_next_one_and_counts_in_the_limit() {
        let limiter = Limiter::new(10.0);
        let start = now();
        let mut left = Vec::new();
        for n in 0..100 {
            if n % 7 == 0 {
                let (booked, another) = (limiter.book(), limiter.acquire());
                let (booked, another) = tokio::join!(
                    async {
                        limiter.depart(booked).await;
                        now()
                    },
                    async {
                        limiter.depart(another.await).await;
                        now()
                    }
                );
                assert!(booked < another, "somebody else was before it");
                left.extend([booked, another]);
            } else {
                left.push(leave(&limiter).await);
            }
        }
        assert_eq!(most_in_a_second(&left), 10);
        assert!(start.elapsed() >= Duration::from_secs(11), "{:?} for {}", start.elapsed(), left.len());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_takes_nothing() {
        let limiter = Limiter::new(10.0);
        assert_eq!(limiter.take(1).len(), 1);
        limiter.wait().await;
        limiter.wait().await;
        assert_eq!(limiter.take(5).len(), 1);
    }
}
