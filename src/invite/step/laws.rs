//! What holds for every input in every state, and over every sequence of inputs.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::invite::testing::*;
use crate::invite::{Generation, StateName};

fn any_time() -> impl Strategy<Value = Timestamp> {
    prop_oneof![
        4 => (-200_000i64..200_000).prop_map(earlier),
        1 => prop_oneof![Just(i64::MIN), Just(0), Just(i64::MAX)].prop_map(Timestamp::from_millis),
    ]
}

/// Counters as they are, and as they would be after a very long life.
fn any_count() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0u32..6, 1 => Just(u32::MAX)]
}

fn any_failure() -> impl Strategy<Value = super::Failure> {
    prop::sample::select(FailureClass::ALL.to_vec()).prop_map(failure)
}

fn any_answer() -> impl Strategy<Value = Answer> {
    let asked = option::of(prop_oneof![Just(0u64), Just(30), Just(u64::MAX)].prop_map(Duration::from_secs));
    prop_oneof![
        2 => (1u8..4).prop_map(|n| Answer::Code(code(n))),
        2 => Just(Answer::NoCode),
        4 => (any_failure(), asked, any::<bool>())
            .prop_map(|(failure, retry_after, outage)| Answer::Failed { failure, retry_after, outage }),
    ]
}

fn any_input() -> impl Strategy<Value = Input> {
    prop_oneof![
        4 => Just(Input::Take),
        3 => any_answer().prop_map(Input::Called),
        3 => any_answer().prop_map(Input::Read),
        1 => Just(Input::Unsent),
        2 => prop::sample::select(Sink::ALL.to_vec()).prop_map(Input::Confirmed),
        1 => prop_oneof![Just(Setback::Refused), Just(Setback::Away)].prop_map(Input::Unconfirmed),
        1 => any_failure().prop_map(Input::Refused),
    ]
}

/// What a person asks for.
fn any_order() -> impl Strategy<Value = Input> {
    prop_oneof![any_time().prop_map(|due| Input::Redrive { due }), Just(Input::Reissue)]
}

fn anything() -> impl Strategy<Value = Input> {
    prop_oneof![9 => any_input(), 1 => any_order()]
}

fn any_sinks() -> impl Strategy<Value = Sinks> {
    (1u8..8).prop_map(Sinks::from_bits)
}

prop_compose! {
    fn any_rules()(
        reuse in any::<bool>(), max_attempts in 1u32..5, patience in any::<bool>(), sinks in any_sinks(),
    ) -> Rules {
        let policy = if reuse { Policy::Reuse } else { Policy::Generate };
        let not_found_for = if patience { SECOND * 120 } else { Duration::ZERO };
        Rules { policy, max_attempts, not_found_for, sinks, ..rules() }
    }
}

prop_compose! {
    fn any_moment()(now in any_time(), dice in prop_oneof![0.0..1.0, Just(0.0), Just(1.0), Just(f64::NAN)]) -> Moment {
        Moment { now, dice }
    }
}

prop_compose! {
    fn any_state()(
        which in 0usize..9, due in any_time(), since in any_time(), count in any_count(),
        pending in option::of(any_sinks()), reads in option::of(any_count()), n in 1u8..4,
    ) -> State {
        let announce = |pending| Announce { pending, due, refusals: count };
        match which {
            0 => State::Received { due },
            1 => State::Calling { lease_until: due },
            2 => State::Waiting { due },
            3 => State::Parked { due },
            4 => State::Unknown { due, reads: count },
            5 | 6 => State::Ready {
                issued: code(n), origin: Origin::Generated, since,
                announce: announce(pending.unwrap_or(Sinks::ALL)),
            },
            7 => State::Published {
                code: None, fingerprint: code(n).fingerprint, origin: Origin::Reused, since, at: since,
                verify: reads.map(|reads| Verify { due, reads }),
            },
            _ => State::Dead { since, announce: pending.map(announce) },
        }
    }
}

prop_compose! {
    fn any_invite()(
        state in any_state(), attempts in any_count(), ever_unknown in any::<bool>(),
        not_found_since in option::of(any_time()), begun_at in any_time(), generation in any_count(),
        previous in option::of(1u8..4),
    ) -> Invite {
        let previous = previous.map(|n| code(n).fingerprint);
        let generation = Generation::from_stored(generation);
        Invite { generation, attempts, ever_unknown, previous, not_found_since, begun_at, ..invite(state) }
    }
}

fn finished(state: &State) -> bool {
    matches!(state, State::Published { verify: None, .. } | State::Dead { announce: None, .. })
}

/// Whether `state` waits for inputs of this kind.
fn waits_for(state: &State, input: &Input) -> bool {
    match input {
        Input::Take => !finished(state),
        Input::Called(_) => state.name() == StateName::Calling,
        Input::Unsent => matches!(
            state,
            State::Received { .. }
                | State::Calling { .. }
                | State::Unknown { .. }
                | State::Published { verify: Some(_), .. }
        ),
        Input::Read(_) => matches!(
            state,
            State::Received { .. } | State::Unknown { .. } | State::Published { verify: Some(_), .. }
        ),
        Input::Confirmed(_) | Input::Unconfirmed(_) => {
            matches!(state, State::Ready { .. } | State::Dead { announce: Some(_), .. })
        }
        Input::Refused(_) => {
            matches!(state.name(), StateName::Received | StateName::Waiting | StateName::Parked)
        }
        Input::Redrive { .. } => state.name() == StateName::Dead,
        Input::Reissue => state.name() == StateName::Published,
    }
}

fn code_of(state: &State) -> Option<crate::invite::Fingerprint> {
    match state {
        State::Ready { issued, .. } => Some(issued.fingerprint),
        State::Published { fingerprint, .. } => Some(*fingerprint),
        State::Received { .. }
        | State::Calling { .. }
        | State::Waiting { .. }
        | State::Parked { .. }
        | State::Unknown { .. }
        | State::Dead { .. } => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn every_input_in_every_state_is_answered_without_a_panic_and_leaves_a_way_on(
        invite in any_invite(), input in anything(), rules in any_rules(), moment in any_moment(),
    ) {
        let Step { next, effect } = step(invite.clone(), input, &rules, moment);
        prop_assert_eq!(next.state.schedule().is_none(), finished(&next.state));
        if let Some((Lane::Publish(pending), _)) = next.state.schedule() {
            prop_assert!(!pending.is_empty(), "an announcement that no sink waits for is never taken up");
        }
        if effect.is_some() {
            let lease = moment.now.after(rules.lease);
            prop_assert_eq!(next.state.schedule().map(|(_, due)| due), Some(lease), "an effect without a lease");
        }
        prop_assert_eq!(&next.key, &invite.key);
        prop_assert_eq!(next.fence, invite.fence, "the fence is the store's");
        prop_assert!(next.generation >= invite.generation);
        prop_assert!(next.ever_unknown || !invite.ever_unknown, "an unknown outcome is never forgotten");
    }

    #[test]
    fn what_the_state_does_not_wait_for_changes_nothing(
        invite in any_invite(), input in anything(), rules in any_rules(), moment in any_moment(),
    ) {
        if !waits_for(&invite.state, &input) {
            let Step { next, effect } = step(invite.clone(), input, &rules, moment);
            prop_assert_eq!((next, effect), (invite, None));
        }
    }

    #[test]
    fn a_finished_invite_stays_as_it_is(
        invite in any_invite(), inputs in vec(any_input(), 1..10), rules in any_rules(),
    ) {
        if finished(&invite.state) {
            for input in inputs {
                prop_assert_eq!(&step(invite.clone(), input, &rules, moment()).next, &invite);
            }
        }
    }

    #[test]
    fn a_code_comes_only_from_the_api_and_is_replaced_only_by_the_next_generation(
        invite in any_invite(), input in any_input(), rules in any_rules(), moment in any_moment(),
    ) {
        let asked = match &input {
            Input::Called(Answer::Code(issued)) | Input::Read(Answer::Code(issued)) => Some(issued.fingerprint),
            _ => None,
        };
        let next = step(invite.clone(), input, &rules, moment).next;
        match (code_of(&invite.state), code_of(&next.state)) {
            (None, Some(new)) => {
                prop_assert_eq!(Some(new), asked);
                prop_assert_eq!(next.state.name(), StateName::Ready, "announced before it is published");
                prop_assert_eq!(next.generation, invite.generation);
            }
            (Some(old), Some(new)) if old != new => {
                prop_assert_eq!(Some(new), asked);
                prop_assert_eq!(next.generation, invite.generation.next());
            }
            (Some(_), None) => prop_assert!(false, "a code was dropped"),
            (None, None) | (Some(_), Some(_)) => prop_assert_eq!(next.generation, invite.generation),
        }
    }

    #[test]
    fn an_outage_never_costs_an_attempt_and_never_ends_an_invite(
        from in any_invite(), rules in any_rules(), moment in any_moment(), calling in any::<bool>(),
        class in prop::sample::select(vec![FailureClass::Transient, FailureClass::Unknown]),
    ) {
        let taken = step(from, Input::Take, &rules, moment).next;
        let (before, state) = (taken.attempts, taken.state.name());
        let answer = Answer::Failed { failure: failure(class), retry_after: None, outage: true };
        let input = if calling { Input::Called(answer) } else { Input::Read(answer) };
        if waits_for(&taken.state, &input) {
            let after = step(taken, input, &rules, moment).next;
            let refund = u32::from(state == StateName::Calling);
            prop_assert_eq!(after.attempts, before.saturating_sub(refund));
            prop_assert_ne!(after.state.name(), StateName::Dead);
        }
    }

    #[test]
    fn what_did_not_leave_is_as_if_it_had_not_been_taken_up(
        from in any_invite(), rules in any_rules(), moment in any_moment(),
    ) {
        // What a lease that ran out under a call has told is not taken back.
        if waits_for(&from.state, &Input::Take) && from.state.name() != StateName::Calling {
            let Step { next: taken, effect } = step(from.clone(), Input::Take, &rules, moment);
            if matches!(effect, Some(Effect::Call | Effect::Read)) {
                let back = step(taken.clone(), Input::Unsent, &rules, moment).next;
                prop_assert_eq!(back.state.schedule(), Some((Lane::Api, moment.now)));
                let again = step(back, Input::Take, &rules, moment);
                prop_assert_eq!((again.next, again.effect), (taken, effect));
            }
        }
    }

    #[test]
    fn a_read_back_never_takes_the_replaced_code_for_the_new_one(
        from in any_invite(), rules in any_rules(), moment in any_moment(), n in 1u8..4,
    ) {
        let previous = Some(code(n).fingerprint);
        let before = Invite { previous, ..from };
        if matches!(before.state, State::Unknown { .. } | State::Received { .. }) {
            let next = step(before, Input::Read(Answer::Code(code(n))), &rules, moment).next;
            prop_assert_ne!(next.state.name(), StateName::Ready);
        }
    }

    #[test]
    fn a_call_that_follows_a_read_is_foretold_so_that_its_turn_can_be_awaited(
        from in any_invite(), answer in any_answer(), rules in any_rules(), moment in any_moment(),
    ) {
        let foretold = from.needs_a_call_after(&answer);
        let Step { effect, .. } = step(from, Input::Read(answer), &rules, moment);
        prop_assert_eq!(foretold, effect == Some(Effect::Call));
    }

    #[test]
    fn published_is_reached_only_by_the_confirmation_of_the_last_sink(
        invite in any_invite(), input in any_input(), rules in any_rules(), moment in any_moment(),
    ) {
        let before = invite.state.clone();
        let next = step(invite, input.clone(), &rules, moment).next;
        if next.state.name() == StateName::Published && before.name() != StateName::Published {
            let State::Ready { announce, .. } = before else { panic!("published from {before:?}") };
            let Input::Confirmed(sink) = input else { panic!("published by {input:?}") };
            prop_assert!(announce.pending.without(sink).is_empty());
        }
    }

    #[test]
    fn over_any_life_no_call_follows_a_call_whose_outcome_is_open(
        inputs in vec(any_input(), 1..60), rules in any_rules(),
    ) {
        let mut now = invite(received());
        // Set from the effect until an answer that settles it.
        let mut open = false;
        // Tries that a 404 ended: they have their patience in time.
        let mut missing = 0;
        for input in inputs {
            let settles = match (&now.state, &input) {
                (State::Calling { .. }, Input::Called(Answer::Failed { failure, .. })) => {
                    !matches!(failure.class, FailureClass::Unknown | FailureClass::Doubtful)
                }
                (State::Calling { .. }, Input::Called(Answer::Code(_)) | Input::Unsent)
                | (State::Unknown { .. }, Input::Read(Answer::Code(_) | Answer::NoCode)) => true,
                _ => false,
            };
            open &= !settles;
            let not_found = matches!(&input, Input::Called(Answer::Failed { failure, .. })
                | Input::Read(Answer::Failed { failure, .. }) if failure.class == FailureClass::NotFound);
            missing += u32::from(not_found);
            let tries = now.attempts;
            let Step { next, effect } = step(now, input, &rules, moment());
            if effect == Some(Effect::Call) {
                prop_assert_eq!(next.attempts, tries + 1, "a call that is not counted");
                prop_assert!(!open, "a second POST while the first may still have its effect");
                prop_assert_eq!(next.state.name(), StateName::Calling, "a POST that is not durable");
                open = true;
            }
            if open && next.state.name() != StateName::Calling {
                prop_assert!(next.ever_unknown);
            }
            prop_assert!(next.attempts <= rules.max_attempts + missing);
            now = next;
        }
    }
}
