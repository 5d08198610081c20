//! The gate of an account: closed while the API asked for patience or refuses the token.
//!
//! One gate holds back all work of an account, so an outage costs a handful of requests and no attempts.

use std::time::Duration;

use super::{Answer, Backoff, FailureClass};
use crate::time::Timestamp;

/// Why a gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GateReason {
    /// 429, or 503 with `Retry-After`.
    Throttled,
    /// 401 or 403.
    Credentials,
    /// 3xx.
    Misconfigured,
    /// The circuit is open: failures in a row, or a probe that failed like them.
    Circuit,
}

impl GateReason {
    /// Every reason, for metrics that exist from the start.
    pub const ALL: [Self; 4] = [Self::Throttled, Self::Credentials, Self::Misconfigured, Self::Circuit];

    /// The word used in metrics, readiness and the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Credentials => "credentials",
            Self::Misconfigured => "misconfigured",
            Self::Circuit => "circuit",
        }
    }

    /// The reason that [`GateReason::as_str`] wrote.
    pub fn from_stored(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }
}

/// Whether an account's work may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Gate {
    /// It may.
    #[default]
    Open,
    /// It may not before `until`; from then on one request at a time tries whether it is over.
    Closed {
        /// Why.
        reason: GateReason,
        /// Not before.
        until: Timestamp,
        /// Closings in a row, which lengthen the next one.
        strikes: u32,
    },
}

/// How much an account may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// As much as rate and concurrency allow.
    Free,
    /// One request, to find out.
    Probe,
    /// Nothing before this time.
    Shut(Timestamp),
}

impl Gate {
    /// How much may pass at `now`.
    pub fn passage(&self, now: Timestamp) -> Passage {
        match *self {
            Self::Open => Passage::Free,
            Self::Closed { until, .. } if now < until => Passage::Shut(until),
            Self::Closed { .. } => Passage::Probe,
        }
    }

    /// The gate after `answer`; `None` if nothing changes. `outage` tells whether the [`Circuit`](super::Circuit) has
    /// counted enough failures in a row.
    ///
    /// `Retry-After` only lengthens. Answers to requests that were under way when the gate closed don't lengthen
    /// it further, unless they ask for more: eight workers that ran into the same limit are one strike.
    #[must_use]
    pub fn after(
        self,
        answer: &Answer,
        outage: bool,
        rules: &GateRules,
        now: Timestamp,
        dice: f64,
    ) -> Option<Self> {
        let (reason, asked) = match answer {
            Answer::Code(_) | Answer::NoCode => return self.reopened(now),
            Answer::Failed { failure, retry_after, .. } => match failure.class {
                FailureClass::Throttled => (GateReason::Throttled, retry_after.unwrap_or_default()),
                FailureClass::Credentials => (GateReason::Credentials, Duration::ZERO),
                FailureClass::Misconfigured => (GateReason::Misconfigured, Duration::ZERO),
                // The API looked at the request and let the token pass.
                FailureClass::NotFound | FailureClass::Rejected | FailureClass::Doubtful => {
                    return self.reopened(now);
                }
                FailureClass::Transient | FailureClass::Unknown => {
                    (self.reason_of_outage(outage, now)?, retry_after.unwrap_or_default())
                }
                FailureClass::UnknownAccount => return None,
            },
        };
        let own = |strikes| match reason {
            GateReason::Throttled => rules.throttle.no_earlier(strikes, dice),
            GateReason::Credentials | GateReason::Misconfigured => rules.probe_delay,
            GateReason::Circuit => rules.throttle.no_earlier(strikes, dice).min(rules.probe_delay),
        };
        let closed = match self {
            Self::Closed { reason: standing, until, strikes } if now < until => {
                let more = if standing == reason { asked } else { asked.max(own(strikes)) };
                Self::Closed { reason, until: until.max(now.after(more)), strikes }
            }
            Self::Open | Self::Closed { .. } => {
                let strikes = self.strikes().saturating_add(1);
                Self::Closed { reason, until: now.after(asked.max(own(strikes))), strikes }
            }
        };
        (closed != self).then_some(closed)
    }

    /// What a failure that looks like an outage closes the gate for; nothing if it does not.
    fn reason_of_outage(self, outage: bool, now: Timestamp) -> Option<GateReason> {
        match self {
            Self::Open => outage.then_some(GateReason::Circuit),
            // It was under way when the gate closed.
            Self::Closed { until, .. } if now < until => None,
            // The probe has failed. What a person has to mend stays what it is until an answer says otherwise.
            Self::Closed { reason, .. } => Some(match reason {
                GateReason::Throttled if outage => GateReason::Circuit,
                GateReason::Throttled
                | GateReason::Circuit
                | GateReason::Credentials
                | GateReason::Misconfigured => reason,
            }),
        }
    }

    /// Whether the circuit is open: then a failing try costs no attempt.
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Closed { reason: GateReason::Circuit, .. })
    }

    /// A good answer reopens a gate whose time is over. Before that it is an answer to a request that left
    /// before the gate closed, and says nothing about now.
    fn reopened(self, now: Timestamp) -> Option<Self> {
        match self.passage(now) {
            Passage::Probe => Some(Self::Open),
            Passage::Free | Passage::Shut(_) => None,
        }
    }

    fn strikes(self) -> u32 {
        match self {
            Self::Open => 0,
            Self::Closed { strikes, .. } => strikes,
        }
    }
}

/// How long a gate stays closed.
#[derive(Clone, Copy, Debug)]
pub struct GateRules {
    /// Waits after a throttling answer that names no time, growing with each closing in a row.
    pub throttle: Backoff,
    /// `retry.probe_delay`: how often a refused token or a redirect is tried again, and the longest pause in an outage.
    pub probe_delay: Duration,
    /// `retry.circuit_after`: failures in a row that are taken for an outage.
    pub circuit_after: u32,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::invite::Failure;

    const RULES: GateRules = GateRules {
        throttle: Backoff::fixed(Duration::from_secs(1)),
        probe_delay: Duration::from_secs(30),
        circuit_after: 3,
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn failed(class: FailureClass, retry_after: Option<u64>) -> Answer {
        Answer::Failed {
            failure: Failure::new(class, "x"),
            retry_after: retry_after.map(Duration::from_secs),
            outage: false,
        }
    }

    fn closed(gate: Option<Gate>) -> (GateReason, Timestamp) {
        match gate {
            Some(Gate::Closed { reason, until, .. }) => (reason, until),
            other => panic!("expected a closed gate, found {other:?}"),
        }
    }

    #[test]
    fn a_throttled_account_is_closed_as_long_as_asked_and_then_probes() {
        let gate = Gate::Open.after(&failed(FailureClass::Throttled, Some(30)), false, &RULES, at(0), 0.5);
        assert_eq!(closed(gate), (GateReason::Throttled, at(30)));
        let gate = gate.unwrap();
        assert_eq!(gate.passage(at(29)), Passage::Shut(at(30)));
        assert_eq!(gate.passage(at(30)), Passage::Probe);
        assert_eq!(gate.after(&Answer::NoCode, false, &RULES, at(31), 0.5), Some(Gate::Open));
    }

    #[test]
    fn a_late_good_answer_does_not_open_a_gate_early() {
        let gate =
            Gate::Open.after(&failed(FailureClass::Throttled, Some(30)), false, &RULES, at(0), 0.5).unwrap();
        assert_eq!(gate.after(&Answer::NoCode, false, &RULES, at(1), 0.5), None);
    }

    #[test]
    fn retry_after_only_ever_lengthens() {
        let gate =
            Gate::Open.after(&failed(FailureClass::Throttled, Some(30)), false, &RULES, at(0), 0.5).unwrap();
        assert_eq!(gate.after(&failed(FailureClass::Throttled, Some(5)), false, &RULES, at(1), 0.5), None);
        assert_eq!(gate.after(&failed(FailureClass::Throttled, None), false, &RULES, at(1), 0.5), None);
        let longer = gate.after(&failed(FailureClass::Throttled, Some(60)), false, &RULES, at(1), 0.5);
        assert_eq!(closed(longer), (GateReason::Throttled, at(61)));
    }

    #[test]
    fn a_refused_token_is_probed_slowly_and_never_forgotten_by_a_crash_class() {
        let gate =
            Gate::Open.after(&failed(FailureClass::Credentials, None), false, &RULES, at(0), 0.5).unwrap();
        assert_eq!(gate.passage(at(29)), Passage::Shut(at(30)));
        for class in [FailureClass::Transient, FailureClass::Unknown] {
            let still = gate.after(&failed(class, None), false, &RULES, at(40), 0.5);
            assert_eq!(closed(still), (GateReason::Credentials, at(70)), "{class}");
        }
        let again = gate.after(&failed(FailureClass::Credentials, None), false, &RULES, at(40), 0.5);
        assert_eq!(closed(again), (GateReason::Credentials, at(70)));
    }

    #[test]
    fn only_what_says_something_about_the_account_moves_its_gate() {
        use FailureClass::{
            Credentials, Doubtful, Misconfigured, NotFound, Rejected, Throttled, Transient, Unknown,
            UnknownAccount,
        };
        let over = Gate::Closed { reason: GateReason::Throttled, until: at(0), strikes: 1 };
        for class in FailureClass::ALL {
            let answer = failed(class, None);
            let (from_open, from_over) = match class {
                Throttled => (Some(GateReason::Throttled), Some(Some(GateReason::Throttled))),
                Credentials => (Some(GateReason::Credentials), Some(Some(GateReason::Credentials))),
                Misconfigured => (Some(GateReason::Misconfigured), Some(Some(GateReason::Misconfigured))),
                // The API worked and let the token pass.
                NotFound | Rejected | Doubtful => (None, Some(None)),
                // Alone it says little; of a probe it says that the outage lasts.
                Transient | Unknown => (None, Some(Some(GateReason::Throttled))),
                UnknownAccount => (None, None),
            };
            let reason = |gate| match gate {
                Gate::Open => None,
                Gate::Closed { reason, .. } => Some(reason),
            };
            assert_eq!(
                Gate::Open.after(&answer, false, &RULES, at(1), 0.5).map(reason),
                from_open.map(Some),
                "{class}"
            );
            assert_eq!(over.after(&answer, false, &RULES, at(1), 0.5).map(reason), from_over, "{class}");
        }
        assert_eq!(Gate::Open.after(&Answer::NoCode, false, &RULES, at(1), 0.5), None);
    }

    #[test]
    fn every_closing_in_a_row_lasts_longer_and_one_good_answer_forgets_them() {
        let growing = Backoff::try_new(Duration::from_secs(1), 2.0, Duration::from_secs(60)).unwrap();
        let rules = GateRules { throttle: growing, ..RULES };
        let throttled = failed(FailureClass::Throttled, None);
        let (mut gate, mut now) = (Gate::Open, at(0));
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            gate = gate.after(&throttled, false, &rules, now, 0.0).unwrap();
            assert_eq!(closed(Some(gate)).1, now.after(Duration::from_secs(seconds)));
            now = closed(Some(gate)).1;
        }
        gate = gate.after(&Answer::NoCode, false, &rules, now, 0.0).unwrap();
        assert_eq!(gate, Gate::Open);
        assert_eq!(
            closed(gate.after(&throttled, false, &rules, now, 0.0)).1,
            now.after(Duration::from_secs(1))
        );
    }

    #[test]
    fn eight_workers_that_run_into_the_same_limit_are_one_strike() {
        let throttled = failed(FailureClass::Throttled, Some(10));
        let mut gate = Gate::Open;
        for _ in 0..8 {
            gate = gate.after(&throttled, false, &RULES, at(0), 0.5).unwrap_or(gate);
        }
        assert_eq!(gate, Gate::Closed { reason: GateReason::Throttled, until: at(10), strikes: 1 });
    }

    #[test]
    fn a_late_answer_of_another_kind_never_shortens_the_wait() {
        let throttled =
            Gate::Open.after(&failed(FailureClass::Throttled, Some(60)), false, &RULES, at(0), 0.5).unwrap();
        let refused = throttled.after(&failed(FailureClass::Credentials, None), false, &RULES, at(1), 0.5);
        assert_eq!(closed(refused), (GateReason::Credentials, at(60)), "longer than the probe's 30 s");
        let refused =
            Gate::Open.after(&failed(FailureClass::Credentials, None), false, &RULES, at(0), 0.5).unwrap();
        let throttled = refused.after(&failed(FailureClass::Throttled, Some(5)), false, &RULES, at(1), 0.5);
        assert_eq!(closed(throttled), (GateReason::Throttled, at(30)));
    }

    #[test]
    fn an_outage_closes_the_gate_and_every_failing_probe_keeps_it_closed_for_longer() {
        let growing = Backoff::try_new(Duration::from_secs(1), 2.0, Duration::from_secs(600)).unwrap();
        let rules = GateRules { throttle: growing, ..RULES };
        let failing = failed(FailureClass::Transient, None);
        assert_eq!(Gate::Open.after(&failing, false, &rules, at(0), 0.0), None, "one failure is no outage");
        let (mut gate, mut now) = (Gate::Open, at(0));
        // Up to probe_delay, however long the backoff may get: a person waits for the end of the outage.
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            gate = gate.after(&failing, true, &rules, now, 0.0).unwrap();
            assert_eq!(closed(Some(gate)), (GateReason::Circuit, now.after(Duration::from_secs(seconds))));
            assert!(gate.is_outage());
            assert_eq!(
                gate.after(&failing, true, &rules, now, 0.0),
                None,
                "what was under way says nothing new"
            );
            now = closed(Some(gate)).1;
            assert_eq!(gate.passage(now), Passage::Probe);
        }
        assert_eq!(gate.after(&Answer::NoCode, false, &rules, now, 0.0), Some(Gate::Open));
    }

    #[test]
    fn a_probe_that_runs_into_an_outage_waits_again_before_the_next() {
        let gate =
            Gate::Open.after(&failed(FailureClass::Throttled, Some(1)), false, &RULES, at(0), 0.5).unwrap();
        let failing = failed(FailureClass::Transient, None);
        let waits = |outage| closed(gate.after(&failing, outage, &RULES, at(5), 0.0));
        assert_eq!(waits(false), (GateReason::Throttled, at(6)), "one failure is no outage");
        assert_eq!(waits(true), (GateReason::Circuit, at(6)));
    }

    #[test]
    fn every_reason_reads_back_from_its_word() {
        for reason in GateReason::ALL {
            assert_eq!(GateReason::from_stored(reason.as_str()), Some(reason));
        }
    }

    proptest! {
        #[test]
        fn no_answer_ever_opens_a_gate_early_or_shortens_its_wait(
            class in prop::sample::select(FailureClass::ALL.to_vec()), good in any::<bool>(),
            asked in proptest::option::of(0u64..7200), until in 1i64..7200, now in 0i64..7200, dice in 0.0..1.0,
            outage in any::<bool>(), standing in prop::sample::select(GateReason::ALL.to_vec()), strikes in prop_oneof![1u32..9, Just(u32::MAX)],
        ) {
            let gate = Gate::Closed { reason: standing, until: at(until), strikes };
            let answer = if good { Answer::NoCode } else { failed(class, asked) };
            match gate.after(&answer, outage, &RULES, at(now), dice) {
                Some(Gate::Open) => prop_assert!(now >= until),
                Some(Gate::Closed { until: later, .. }) if now < until => prop_assert!(later >= at(until)),
                Some(Gate::Closed { until: later, .. }) => prop_assert!(later > at(now)),
                None => {}
            }
        }
    }
}
