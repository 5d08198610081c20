//! The table "Answers of the API", row by row, from every state that asks the API; then the limits of patience.

use super::*;
use crate::invite::testing::*;
use crate::invite::{Generation, StateName};

use FailureClass::{
    Credentials, Doubtful, Misconfigured, NotFound, Rejected, Throttled, Transient, Unknown, UnknownAccount,
};

fn run(invite: Invite, input: Input, rules: &Rules) -> Step {
    step(invite, input, rules, moment())
}

/// From `state`, `input` leads to `expected` with this effect, leaving this many attempts.
#[track_caller]
fn check(state: State, input: Input, expected: &State, attempts: u32, effect: Option<Effect>) -> Invite {
    check_by(&rules(), invite(state), input, expected, attempts, effect)
}

#[track_caller]
fn check_by(
    rules: &Rules,
    from: Invite,
    input: Input,
    expected: &State,
    attempts: u32,
    effect: Option<Effect>,
) -> Invite {
    let what = format!("{} on {input:?}", from.state.name());
    let step = run(from, input, rules);
    assert_eq!(&step.next.state, expected, "{what}");
    assert_eq!(step.next.attempts, attempts, "attempts after {what}");
    assert_eq!(step.effect, effect, "effect of {what}");
    step.next
}

#[test]
fn a_request_that_did_not_leave_costs_no_attempt_and_is_due_again() {
    for (state, back, attempts) in [
        (calling(), State::Parked { due: NOW }, 0),
        (State::Received { due: later(60) }, received(), 0),
        (State::Unknown { due: later(60), reads: 2 }, unknown(2), 1),
        (published(1, Some(Verify { due: later(60), reads: 2 })), verifying(2), 1),
    ] {
        check(state, Input::Unsent, &back, attempts, None);
    }
}

fn reuse() -> Rules {
    Rules { policy: Policy::Reuse, ..rules() }
}

fn waiting(seconds: u64) -> State {
    State::Waiting { due: later(seconds) }
}

fn just_ready(n: u8, origin: Origin) -> State {
    let announce = Announce { pending: rules().sinks, due: NOW.after(LEASE), refusals: 0 };
    State::Ready { issued: code(n), origin, since: NOW, announce }
}

fn just_dead() -> State {
    dead(Some(Announce { pending: rules().sinks, due: NOW.after(LEASE), refusals: 0 }))
}

fn verifying(reads: u32) -> State {
    published(1, Some(Verify { due: NOW, reads }))
}

const TELL_ALL: Option<Effect> = Some(Effect::Announce(RABBITMQ.or(WEBHOOK)));

#[test]
fn every_answer_to_a_call_has_the_consequence_of_the_table() {
    let unknown_at = |millis| State::Unknown { due: NOW.after(Duration::from_millis(millis)), reads: 0 };
    let half = State::Waiting { due: NOW.after(Duration::from_millis(500)) };
    let on = |answer: Answer, expected: &State, attempts, effect| {
        check(calling(), Input::Called(answer), expected, attempts, effect)
    };
    on(Answer::Code(code(1)), &just_ready(1, Origin::Generated), 1, TELL_ALL);
    on(failed(Transient), &half, 1, None);
    on(failed(NotFound), &half, 1, None);
    for class in [Throttled, Credentials, Misconfigured] {
        on(failed(class), &State::Parked { due: NOW }, 0, None);
        on(failed_with(class, 30), &State::Parked { due: later(30) }, 0, None);
    }
    for class in [Unknown, Doubtful] {
        assert!(on(failed(class), &unknown_at(1050), 1, None).ever_unknown);
    }
    assert!(on(Answer::NoCode, &unknown_at(1050), 1, None).ever_unknown);
    for class in [Rejected, UnknownAccount] {
        let dead = on(failed(class), &just_dead(), 1, TELL_ALL);
        assert_eq!(dead.last_failure, Some(failure(class)));
    }
}

#[test]
fn every_answer_to_a_read_before_the_call_has_the_consequence_of_the_table() {
    let half = State::Waiting { due: NOW.after(Duration::from_millis(500)) };
    let on = |answer: Answer, expected: &State, attempts, effect| {
        check_by(&reuse(), invite(received()), Input::Read(answer), expected, attempts, effect)
    };
    on(Answer::Code(code(1)), &just_ready(1, Origin::Reused), 0, TELL_ALL);
    on(Answer::NoCode, &State::Calling { lease_until: NOW.after(LEASE) }, 1, Some(Effect::Call));
    // A read has no effect: its lost answer is a failed try, not an unknown outcome.
    for class in [Transient, Unknown, Doubtful, NotFound] {
        assert!(!on(failed(class), &half, 1, None).ever_unknown, "{class}");
    }
    for class in [Throttled, Credentials, Misconfigured] {
        on(failed_with(class, 30), &State::Parked { due: later(30) }, 0, None);
    }
    for class in [Rejected, UnknownAccount] {
        on(failed(class), &just_dead(), 0, TELL_ALL);
    }
}

#[test]
fn every_answer_to_a_read_back_has_the_consequence_of_the_table() {
    let on = |answer: Answer, expected: &State, effect| {
        check(unknown(1), Input::Read(answer), expected, 1, effect)
    };
    on(Answer::Code(code(1)), &just_ready(1, Origin::Recovered), TELL_ALL);
    let spent = on(Answer::NoCode, &State::Waiting { due: NOW.after(Duration::from_millis(500)) }, None);
    assert_eq!(spent.last_failure.unwrap().class, Unknown);
    // Nothing that failed to answer the question is leave for another POST, a 404 included.
    for class in [Transient, Unknown, Doubtful, NotFound] {
        on(failed(class), &State::Unknown { due: later(1), reads: 2 }, None);
        on(failed_with(class, 30), &State::Unknown { due: later(30), reads: 2 }, None);
    }
    for class in [Throttled, Credentials, Misconfigured] {
        on(failed_with(class, 30), &State::Unknown { due: later(30), reads: 1 }, None);
    }
    for class in [Rejected, UnknownAccount] {
        on(failed(class), &just_dead(), TELL_ALL);
    }
}

#[test]
fn every_answer_to_the_second_read_back_has_the_consequence_of_the_table() {
    let on = |answer: Answer, expected: &State| check(verifying(1), Input::Read(answer), expected, 1, None);
    on(Answer::Code(code(1)), &published(1, None));
    // Emptied means used, as it should be.
    on(Answer::NoCode, &published(1, None));
    for class in [Transient, Unknown, Doubtful, NotFound, Rejected] {
        on(failed(class), &published(1, Some(Verify { due: later(1), reads: 2 })));
    }
    for class in [Throttled, Credentials, Misconfigured] {
        on(failed_with(class, 30), &published(1, Some(Verify { due: later(30), reads: 1 })));
    }
    let given_up = on(failed(UnknownAccount), &published(1, None));
    assert_eq!(given_up.last_failure, Some(failure(UnknownAccount)), "what ended it stays to be seen");
}

#[test]
fn a_code_that_changed_underneath_goes_out_as_the_next_generation_with_fresh_attempts() {
    let mut from = invite(verifying(2));
    (from.attempts, from.ever_unknown) = (3, true);
    let answer = Input::Read(Answer::Code(code(2)));
    let next = check_by(&rules(), from, answer, &just_ready(2, Origin::Recovered), 0, TELL_ALL);
    assert_eq!(next.generation, Generation::from_stored(2));
    let next = run(next, Input::Confirmed(Sink::Rabbitmq), &rules()).next;
    let next = run(next, Input::Confirmed(Sink::Webhook), &rules()).next;
    let State::Published { verify, .. } = next.state else { panic!("{:?}", next.state) };
    assert_eq!(verify, Some(Verify { due: later(300), reads: 0 }), "the new code is verified like the first");
}

#[test]
fn taking_up_leads_to_the_effect_that_the_state_asks_for() {
    let lease = NOW.after(LEASE);
    let all = rules().sinks;
    let owed = Announce { pending: all, due: lease, refusals: 0 };
    let mut read_back = 0;
    for state in [received(), State::Waiting { due: NOW }, State::Parked { due: NOW }] {
        let attempts = invite(state.clone()).attempts;
        let calls = State::Calling { lease_until: lease };
        check(state.clone(), Input::Take, &calls, attempts + 1, Some(Effect::Call));
        let reads = State::Received { due: lease };
        check_by(&reuse(), invite(state), Input::Take, &reads, attempts, Some(Effect::Read));
    }
    for state in [calling(), unknown(2)] {
        let reads = if state == calling() { 0 } else { 2 };
        let next = check(state, Input::Take, &State::Unknown { due: lease, reads }, 1, Some(Effect::Read));
        read_back += u32::from(next.ever_unknown);
    }
    assert_eq!(read_back, 1, "a call whose lease ran out is unknown from then on");
    let verify = published(1, Some(Verify { due: lease, reads: 0 }));
    check(verifying(0), Input::Take, &verify, 1, Some(Effect::Read));
    check(dead(Some(announce(all))), Input::Take, &dead(Some(owed)), 1, TELL_ALL);
    check(ready(1, all), Input::Take, &just_ready(1, Origin::Generated), 1, TELL_ALL);
    for finished in [published(1, None), dead(None)] {
        check(finished.clone(), Input::Take, &finished, 1, None);
    }
}

#[test]
fn the_last_attempt_is_the_one_that_reaches_the_limit() {
    for (attempts, expected) in [(2, StateName::Waiting), (3, StateName::Dead), (9, StateName::Dead)] {
        for (state, input) in
            [(calling(), Input::Called(failed(Transient))), (unknown(0), Input::Read(Answer::NoCode))]
        {
            let from = Invite { attempts, ..invite(state) };
            assert_eq!(run(from, input, &rules()).next.state.name(), expected, "{attempts} attempts");
        }
        // The failed read is itself the attempt.
        let from = Invite { attempts: attempts - 1, ..invite(received()) };
        assert_eq!(run(from, Input::Read(failed(Unknown)), &reuse()).next.state.name(), expected);
    }
}

#[test]
fn an_invite_dies_of_age_only_when_a_try_fails_at_that_age() {
    for (age, alive) in [(3599, true), (3600, false)] {
        for (state, input) in [
            (calling(), Input::Called(failed(Transient))),
            (unknown(0), Input::Read(Answer::NoCode)),
            (unknown(0), Input::Read(failed(Unknown))),
        ] {
            let from = Invite { begun_at: earlier(age), ..invite(state) };
            let name = run(from, input, &rules()).next.state.name();
            assert_eq!(name != StateName::Dead, alive, "aged {age} s it is {name}");
        }
        let from = Invite { begun_at: earlier(age), ..invite(calling()) };
        let parked = run(from, Input::Called(failed(Credentials)), &rules()).next;
        assert_eq!(parked.state.name(), StateName::Parked, "an outage kills nobody");
    }
}

#[test]
fn days_in_a_closed_gate_or_a_queue_or_a_stopped_service_do_not_age_an_invite() {
    let days = 5 * 86_400;
    let due = earlier(days);
    for state in [
        State::Received { due },
        State::Waiting { due },
        State::Parked { due },
        State::Unknown { due, reads: 0 },
        State::Calling { lease_until: due },
    ] {
        let from = Invite { begun_at: earlier(days + 60), ..invite(state) };
        let taken = run(from, Input::Take, &rules()).next;
        assert_eq!(taken.begun_at, earlier(60), "only the minute before it counts");
    }
    let asked = run(invite(calling()), Input::Called(failed_with(Throttled, 1800)), &rules()).next;
    assert_eq!(asked.begun_at, later(1800), "nor does the pause that the API asks for");
    let asked = run(invite(unknown(0)), Input::Read(failed_with(Throttled, 1800)), &rules()).next;
    assert_eq!(asked.begun_at, later(1800));
}

#[test]
fn a_missing_trucker_has_its_patience_in_time_and_the_last_try_falls_on_its_end() {
    let missing = |attempts, for_seconds| Invite {
        attempts,
        not_found_since: Some(earlier(for_seconds)),
        ..invite(calling())
    };
    let on = |from, expected: &State| {
        let attempts = Invite::clone(&from).attempts;
        run(from, Input::Called(failed(NotFound)), &rules()).next.state == *expected && attempts > 0
    };
    // Beyond max_attempts it goes on: half of 512 s, capped by the second that is left.
    assert!(on(missing(10, 119), &waiting(1)));
    assert!(on(missing(10, 120), &just_dead()));
    assert!(on(missing(10, 90_000), &just_dead()));
    let first = run(invite(calling()), Input::Called(failed(NotFound)), &rules()).next;
    assert_eq!(first.not_found_since, Some(NOW));
    let other = run(missing(1, 60), Input::Called(failed(Transient)), &rules()).next;
    assert_eq!(other.not_found_since, None, "another failure ends the series");
    let found = run(missing(1, 60), Input::Called(Answer::Code(code(1))), &rules()).next;
    assert_eq!(found.not_found_since, None);
    let gone = Invite { not_found_since: Some(earlier(120)), ..invite(unknown(0)) };
    assert_eq!(run(gone, Input::Read(failed(NotFound)), &rules()).next.state, just_dead());
}

#[test]
fn retry_after_lengthens_every_wait_and_shortens_none() {
    for (asked, expected) in [(0, 500), (30, 30_000)] {
        let due = NOW.after(Duration::from_millis(expected));
        for class in [Transient, NotFound] {
            check(calling(), Input::Called(failed_with(class, asked)), &State::Waiting { due }, 1, None);
        }
    }
    for (asked, expected) in [(0, 1050), (30, 30_000)] {
        let due = NOW.after(Duration::from_millis(expected));
        let next = State::Unknown { due, reads: 0 };
        check(calling(), Input::Called(failed_with(Unknown, asked)), &next, 1, None);
    }
}

#[test]
fn jitter_spreads_a_retry_from_now_to_its_ceiling_and_a_first_read_back_never_comes_early() {
    for (dice, retry, read_back) in [(0.0, 0, 1000), (0.999, 999, 1099)] {
        let at = |class| {
            let moment = Moment { now: NOW, dice };
            let next = step(invite(calling()), Input::Called(failed(class)), &rules(), moment).next;
            next.state.schedule().unwrap().1
        };
        assert_eq!(at(Transient), NOW.after(Duration::from_millis(retry)));
        assert_eq!(at(Unknown), NOW.after(Duration::from_millis(read_back)));
    }
}

#[test]
fn the_second_read_back_is_given_up_only_after_enough_reads_and_where_it_may_pass_enough_time() {
    for (reads, age, passing, lasting) in
        [(1, 0, true, true), (1, 90_000, true, true), (2, 3599, true, false), (2, 3600, false, false)]
    {
        for (class, again) in
            [(Unknown, passing), (Transient, passing), (NotFound, lasting), (Rejected, lasting)]
        {
            let mut from = invite(verifying(reads));
            let State::Published { at, .. } = &mut from.state else { unreachable!() };
            *at = earlier(age);
            let next = run(from, Input::Read(failed(class)), &rules()).next;
            assert_eq!(next.state.schedule().is_some(), again, "{class} after {reads} reads in {age} s");
            assert_eq!(next.last_failure, (!again).then(|| failure(class)));
        }
    }
}

#[test]
fn in_an_outage_a_failure_of_the_connection_or_the_api_costs_no_attempt_and_no_patience() {
    let on = |state: State, input: Input, expected: &State, attempts| {
        check(state, input, expected, attempts, None)
    };
    on(calling(), Input::Called(failed_in(Transient, true)), &State::Parked { due: NOW }, 0);
    let unknown_at = State::Unknown { due: NOW.after(Duration::from_millis(1050)), reads: 0 };
    assert!(on(calling(), Input::Called(failed_in(Unknown, true)), &unknown_at, 0).ever_unknown);
    for class in [Transient, Unknown] {
        on(unknown(1), Input::Read(failed_in(class, true)), &State::Unknown { due: NOW, reads: 1 }, 1);
        let owed = published(1, Some(Verify { due: NOW, reads: 1 }));
        on(verifying(1), Input::Read(failed_in(class, true)), &owed, 1);
        let parked = State::Parked { due: NOW };
        check_by(&reuse(), invite(received()), Input::Read(failed_in(class, true)), &parked, 0, None);
    }
    // What the API says about a trucker is meant, outage or not.
    check(calling(), Input::Called(failed_in(Rejected, true)), &just_dead(), 1, TELL_ALL);
    check(calling(), Input::Called(failed_in(Doubtful, true)), &unknown_at, 1, None);
}

#[test]
fn a_redriven_invite_begins_anew_and_reads_first_where_a_call_ever_was_in_doubt() {
    let due = later(7);
    for (ever_unknown, expected) in
        [(false, State::Received { due }), (true, State::Unknown { due, reads: 0 })]
    {
        for announce in [None, Some(announce(RABBITMQ))] {
            let old = earlier(9000);
            let patience = (Some(old), old);
            let mut from = Invite { attempts: 3, ever_unknown, ..invite(dead(announce)) };
            (from.not_found_since, from.begun_at) = patience;
            let next = check_by(&rules(), from, Input::Redrive { due }, &expected, 0, None);
            assert_eq!((next.not_found_since, next.begun_at), (None, NOW));
            assert_eq!(next.generation, Generation::FIRST);
        }
    }
}

#[test]
fn a_reissued_invite_is_the_next_generation_and_remembers_the_code_it_replaces() {
    for verify in [None, Some(Verify { due: NOW, reads: 2 })] {
        let from = Invite { attempts: 3, ..invite(published(1, verify)) };
        let next = check_by(&rules(), from, Input::Reissue, &received(), 0, None);
        assert_eq!(next.generation, Generation::from_stored(2));
        assert_eq!(next.previous, Some(code(1).fingerprint));
        // Policy `reuse` finds the old code and calls all the same.
        let calls = State::Calling { lease_until: NOW.after(LEASE) };
        let old = Input::Read(Answer::Code(code(1)));
        check_by(&reuse(), next.clone(), old.clone(), &calls, 1, Some(Effect::Call));
        // A call in doubt whose read-back shows the old code had no effect.
        let doubtful = Invite { state: unknown(0), attempts: 1, ..next };
        assert_eq!(run(doubtful.clone(), old, &rules()).next.state.name(), StateName::Waiting);
        let new = run(doubtful, Input::Read(Answer::Code(code(2))), &rules()).next;
        assert_eq!(new.state, just_ready(2, Origin::Recovered));
    }
}
