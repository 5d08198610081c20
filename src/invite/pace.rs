//! The pace of an account: how many requests a second, learned from the API where the configured rate is too high.
//!
//! Additive increase, multiplicative decrease, as congestion control has it (RFC 5681), with one difference: what the API
//! took in one second is known, so a first decrease goes there at once instead of halving its way down through a
//! row of refusals. From there the pace stays for a while, then climbs slowly to see whether the limit has moved. The more
//! often it finds the same limit, the longer it stays. A refusal that comes although the API took more a moment ago is
//! not about our pace, and hardly slows it down. Where the API says itself when to come back, the gate does as it says,
//! and the pace is only learned once the refusals come after the same number of requests each time.
//!
//! All times are the time since some fixed moment, on a clock that never goes back.

use std::collections::VecDeque;
use std::time::Duration;

/// The window of the documented limit: requests *per second*.
const WINDOW: Duration = Duration::from_secs(1);
/// What was taken in the best second of this time is what the limit allows.
const HORIZON: Duration = Duration::from_secs(10);
/// The window is counted in slices of this length.
const SLICE: Duration = Duration::from_millis(50);
/// How far below a limit to stay: even pacing has some jitter on its way to the API.
const MARGIN: f64 = 0.98;
/// What a refusal takes off a pace that the API could follow a moment ago.
const STEP: f64 = 0.99;
/// Within this time after a refusal come the answers that it has overtaken. What is sent after it is taken later.
const OVERTAKEN: Duration = Duration::from_millis(500);
/// So many refusals after the same number of requests are a limit.
const PATTERN: usize = 4;
/// Fewer requests than this are equal by chance.
const PATTERN_LEAST: f64 = 8.0;
/// How long a learned pace stays before it climbs, at first.
const STAY_MIN: Duration = Duration::from_secs(60);
/// The longest stay at a limit that was found again and again.
const STAY_MAX: Duration = Duration::from_secs(15 * 60);
/// The climb, as a part of the configured rate per second.
const CLIMB: f64 = 0.01;
/// Never slower than one request in two seconds: below that a closed gate is the better tool.
const SLOWEST: f64 = 0.5;
/// Slow start begins with this part of the pace and doubles every second.
const START: f64 = 0.1;

/// The pace of one account.
#[derive(Clone, Debug)]
pub struct Pace {
    /// The configured rate: never faster.
    ceiling: f64,
    learned: Option<Learned>,
    /// When the account was let loose after an outage.
    started: Option<Duration>,
    taken: Taken,
    /// What had been taken in the second before each of the last refusals that said when to come back.
    told: VecDeque<f64>,
}

/// How a refusal was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// With a `Retry-After`.
    WithTime,
    /// Without.
    Plain,
}

/// A limit that was found.
#[derive(Clone, Copy, Debug)]
struct Learned {
    rate: f64,
    at: Duration,
    stay: Duration,
    /// What it may become by answers that the refusal has overtaken.
    most: f64,
}

impl Pace {
    /// A pace of at most `ceiling` requests per second, above zero, and nothing learned.
    pub fn new(ceiling: f64) -> Self {
        Self { ceiling, learned: None, started: None, taken: Taken::default(), told: VecDeque::new() }
    }

    /// Requests per second at `now`.
    pub fn rate(&self, now: Duration) -> f64 {
        let steady = self.steady(now);
        match self.started {
            Some(since) => {
                let doublings = now.saturating_sub(since).as_secs_f64();
                (steady * START).max(1.0_f64.min(steady)).mul_add(doublings.exp2(), 0.0).min(steady)
            }
            None => steady,
        }
    }

    /// Another share of the account's rate: what was learned shrinks or grows with it.
    pub fn share(&mut self, ceiling: f64) {
        if let Some(learned) = &mut self.learned {
            learned.rate *= ceiling / self.ceiling;
            learned.most *= ceiling / self.ceiling;
        }
        self.ceiling = ceiling;
    }

    fn steady(&self, now: Duration) -> f64 {
        let Some(learned) = self.learned else { return self.ceiling };
        let climbing = now.saturating_sub(learned.at + learned.stay).as_secs_f64();
        (self.ceiling * CLIMB).mul_add(climbing, learned.rate).min(self.ceiling)
    }

    /// The API took a request.
    pub fn accepted(&mut self, now: Duration) {
        self.taken.count(now);
        if let Some(learned) = &mut self.learned
            && now.saturating_sub(learned.at) < OVERTAKEN
        {
            let shown = self.taken.best_second(now) * MARGIN;
            learned.rate = learned.rate.max(shown.min(learned.most));
        }
    }

    /// The API refused a request because of its limit. What was under way at the same time is refused as well and tells
    /// nothing new.
    pub fn throttled(&mut self, now: Duration, refusal: Refusal) {
        if self.learned.is_some_and(|learned| now.saturating_sub(learned.at) < WINDOW) {
            return;
        }
        if refusal == Refusal::WithTime && !self.is_a_pattern(now) {
            return;
        }
        let current = self.rate(now);
        let taken = self.taken.best_second(now);
        let (found, most) = match self.learned {
            // With next to nothing taken, somebody else uses the limit: what is left for us has to be felt out.
            _ if taken < 2.0 => (current / 2.0, current),
            // It climbed from a pace that was good for a long time and that the count still confirms: back to it.
            Some(before) if now > before.at + before.stay && taken >= before.rate * 0.7 => {
                (before.rate, before.rate)
            }
            Some(before) if taken * MARGIN >= before.rate * STEP => (before.rate * STEP, before.rate * STEP),
            Some(_) | None => (taken * MARGIN, current),
        };
        let rate = found.min(current).clamp(SLOWEST.min(self.ceiling), self.ceiling);
        let same = self.learned.is_some_and(|before| (before.rate - rate).abs() <= before.rate * 0.2);
        let stay = match self.learned {
            Some(before) if same => (before.stay * 2).min(STAY_MAX),
            Some(_) | None => STAY_MIN,
        };
        self.learned = Some(Learned { rate, at: now, stay, most: most.max(rate).min(self.ceiling) });
    }

    /// Whether the last refusals came after the same number of requests each time.
    fn is_a_pattern(&mut self, now: Duration) -> bool {
        self.told.push_back(self.taken.last_second(now));
        if self.told.len() > PATTERN {
            self.told.pop_front();
        }
        let (least, most) = self
            .told
            .iter()
            .fold((f64::MAX, 0.0_f64), |(least, most), count| (least.min(*count), most.max(*count)));
        let is_one =
            self.told.len() == PATTERN && least >= PATTERN_LEAST && most - least <= (most * 0.05).max(1.0);
        if is_one {
            self.told.clear();
        }
        is_one
    }

    /// The account is let loose after an outage: not all at once, the API has just come back.
    pub fn start_slowly(&mut self, now: Duration) {
        self.started = Some(now);
    }
}

/// What the API took of late.
#[derive(Clone, Debug, Default)]
struct Taken {
    /// Number of the slice, and requests in it; oldest first, none older than the horizon.
    slices: VecDeque<(u128, u32)>,
}

impl Taken {
    fn count(&mut self, now: Duration) {
        let slice = slice(now);
        match self.slices.back_mut() {
            Some((last, count)) if *last >= slice => *count = count.saturating_add(1),
            Some(_) | None => self.slices.push_back((slice, 1)),
        }
        self.forget(slice);
    }

    fn last_second(&mut self, now: Duration) -> f64 {
        let now = slice(now);
        self.forget(now);
        let since = now.saturating_sub(WINDOW.as_millis() / SLICE.as_millis() - 1);
        self.slices.iter().filter(|(slice, _)| *slice >= since).map(|(_, count)| f64::from(*count)).sum()
    }

    /// The most that was taken in any one second of the horizon.
    fn best_second(&mut self, now: Duration) -> f64 {
        self.forget(slice(now));
        let window = WINDOW.as_millis() / SLICE.as_millis();
        let in_window_from = |at: usize| {
            let end = self.slices[at].0 + window;
            self.slices
                .range(at..)
                .take_while(|(slice, _)| *slice < end)
                .map(|(_, count)| f64::from(*count))
                .sum()
        };
        (0..self.slices.len()).map(in_window_from).fold(0.0, f64::max)
    }

    fn forget(&mut self, now: u128) {
        let oldest = now.saturating_sub(HORIZON.as_millis() / SLICE.as_millis());
        while self.slices.front().is_some_and(|(slice, _)| *slice < oldest) {
            self.slices.pop_front();
        }
    }
}

fn slice(now: Duration) -> u128 {
    now.as_millis() / SLICE.as_millis()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An API with a sliding window of one second, and a client that sends evenly at its pace and waits a second after
    /// each refusal. Returns the requests taken and refused in `seconds`.
    fn run(pace: &mut Pace, limit: impl Fn(Duration) -> usize, from: Duration, seconds: u64) -> (u32, u32) {
        let (mut taken, mut refused) = (0, 0);
        let mut window: VecDeque<Duration> = VecDeque::new();
        let mut now = from;
        while now < from + Duration::from_secs(seconds) {
            while window.front().is_some_and(|at| now >= *at + WINDOW) {
                window.pop_front();
            }
            if window.len() < limit(now) {
                window.push_back(now);
                pace.accepted(now);
                taken += 1;
                now += Duration::from_secs_f64(1.0 / pace.rate(now));
            } else {
                pace.throttled(now, Refusal::Plain);
                refused += 1;
                now += Duration::from_millis(1050);
            }
        }
        (taken, refused)
    }

    #[test]
    fn a_limit_far_below_the_configured_rate_is_found_by_one_refusal_and_then_used() {
        let mut pace = Pace::new(50.0);
        let (taken, refused) = run(&mut pace, |_| 10, Duration::ZERO, 60);
        assert_eq!(refused, 1);
        assert!(taken >= 570, "{taken} of 600");
    }

    #[test]
    fn an_hour_at_an_unknown_limit_costs_a_handful_of_refusals() {
        let mut pace = Pace::new(50.0);
        let (taken, refused) = run(&mut pace, |_| 10, Duration::ZERO, 3600);
        assert!(refused <= 12, "{refused}");
        assert!(f64::from(taken) >= 0.95 * 36_000.0, "{taken}");
    }

    #[test]
    fn a_limit_that_is_not_reached_is_never_left() {
        let mut pace = Pace::new(5.0);
        assert_eq!(run(&mut pace, |_| 10, Duration::ZERO, 60), (300, 0));
        assert!((pace.rate(Duration::from_secs(60)) - 5.0).abs() < f64::EPSILON);
    }

    #[test]
    fn a_limit_that_rises_is_found_again() {
        let mut pace = Pace::new(50.0);
        run(&mut pace, |_| 10, Duration::ZERO, 30);
        let later = Duration::from_secs(30);
        run(&mut pace, |_| usize::MAX, later, 300);
        assert!((pace.rate(Duration::from_secs(330)) - 50.0).abs() < 0.001);
    }

    #[test]
    fn refusals_of_requests_that_were_under_way_together_are_one() {
        let mut pace = Pace::new(50.0);
        let now = Duration::from_secs(5);
        (0..10).for_each(|_| pace.accepted(now));
        (0..8).for_each(|_| pace.throttled(now, Refusal::Plain));
        assert!((pace.rate(now) - 9.8).abs() < 0.001, "{}", pace.rate(now));
    }

    #[test]
    fn answers_that_a_refusal_has_overtaken_still_count() {
        let at = |millis| Duration::from_secs(5) + Duration::from_millis(millis);
        let mut pace = Pace::new(50.0);
        (0..5).for_each(|_| pace.accepted(at(0)));
        pace.throttled(at(1), Refusal::Plain);
        assert!((pace.rate(at(1)) - 4.9).abs() < 0.001, "{}", pace.rate(at(1)));
        (0..5).for_each(|_| pace.accepted(at(30)));
        assert!((pace.rate(at(30)) - 9.8).abs() < 0.001, "{}", pace.rate(at(30)));
        // These were sent later, at the pace that was learned.
        (0..5).for_each(|_| pace.accepted(at(600)));
        assert!((pace.rate(at(600)) - 9.8).abs() < 0.001, "{}", pace.rate(at(600)));
    }

    #[test]
    fn a_share_of_the_rate_is_a_share_of_what_was_learned() {
        let mut pace = Pace::new(50.0);
        run(&mut pace, |_| 10, Duration::ZERO, 30);
        let now = Duration::from_secs(30);
        pace.share(25.0);
        assert!((pace.rate(now) - 4.9).abs() < 0.001, "{}", pace.rate(now));
        pace.share(50.0);
        assert!((pace.rate(now) - 9.8).abs() < 0.001, "{}", pace.rate(now));
    }

    #[test]
    fn a_limit_that_others_use_up_is_felt_out_and_not_given_up() {
        let mut pace = Pace::new(10.0);
        for second in 0..20 {
            pace.throttled(Duration::from_secs(second * 2), Refusal::Plain);
        }
        assert!((pace.rate(Duration::from_secs(40)) - SLOWEST).abs() < 0.001);
    }

    #[test]
    fn refusals_that_are_not_about_the_pace_hardly_slow_it_down() {
        let mut pace = Pace::new(100.0);
        let mut now = Duration::ZERO;
        // One request in fifty is refused, whatever the pace; a second of pause follows.
        for n in 1..=1000 {
            if n % 50 == 0 {
                pace.throttled(now, Refusal::Plain);
                now += Duration::from_secs(1);
            } else {
                pace.accepted(now);
                now += Duration::from_secs_f64(1.0 / pace.rate(now));
            }
        }
        assert!(pace.rate(now) > 20.0, "{}", pace.rate(now));
    }

    #[test]
    fn where_the_api_says_when_to_come_back_only_a_pattern_of_refusals_is_a_limit() {
        let refused_after = |counts: &[u32]| {
            let mut pace = Pace::new(100.0);
            let mut now = Duration::from_secs(100);
            for count in counts {
                (0..*count).for_each(|_| pace.accepted(now));
                pace.throttled(now, Refusal::WithTime);
                now += Duration::from_secs(2);
            }
            pace.rate(now)
        };
        assert!(
            (refused_after(&[10, 30, 20, 70, 5, 22]) - 100.0).abs() < f64::EPSILON,
            "no pattern in these"
        );
        assert!((refused_after(&[10, 10, 10]) - 100.0).abs() < f64::EPSILON, "three may be chance");
        assert!((refused_after(&[10, 11, 10, 10]) - 11.0 * MARGIN).abs() < 0.001, "a limit of about ten");
    }

    #[test]
    fn after_an_outage_the_pace_doubles_every_second_up_to_what_it_was() {
        let mut pace = Pace::new(100.0);
        let start = Duration::from_secs(7);
        pace.start_slowly(start);
        let rates: Vec<f64> =
            (0..6).map(|second| pace.rate(start + Duration::from_secs(second)).round()).collect();
        assert_eq!(rates, [10.0, 20.0, 40.0, 80.0, 100.0, 100.0]);
        let mut slow = Pace::new(0.2);
        slow.start_slowly(start);
        assert!(
            (slow.rate(start) - 0.2).abs() < f64::EPSILON,
            "a pace below one request a second is slow enough"
        );
    }

    proptest! {
        #[test]
        fn the_pace_is_always_above_zero_and_never_above_the_configured_rate(
            ceiling in 0.001f64..100_000.0,
            steps in prop::collection::vec((0u64..200_000, 0u8..4), 1..200),
        ) {
            let mut pace = Pace::new(ceiling);
            let mut now = Duration::ZERO;
            for (millis, what) in steps {
                now += Duration::from_millis(millis);
                match what {
                    0 => pace.throttled(now, Refusal::Plain),
                    1 => pace.start_slowly(now),
                    _ => pace.accepted(now),
                }
                let rate = pace.rate(now);
                prop_assert!(rate > 0.0 && rate <= ceiling, "{rate} of {ceiling}");
            }
        }
    }
}
