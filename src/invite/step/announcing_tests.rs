//! Announcing: sinks that confirm, refuse, are away or are no longer there; and the inputs of work that is over.

use super::*;
use crate::invite::testing::*;
use crate::invite::{Generation, StateName};

fn run(state: State, input: Input, rules: &Rules) -> Step {
    step(invite(state), input, rules, moment())
}

fn pending(invite: &Invite) -> Announce {
    match &invite.state {
        State::Ready { announce, .. } | State::Dead { announce: Some(announce), .. } => *announce,
        other => panic!("nothing to announce in {other:?}"),
    }
}

#[test]
fn one_of_two_sinks_is_not_enough_for_published() {
    for first in [ready(1, rules().sinks), dead(Some(announce(rules().sinks)))] {
        let half = run(first.clone(), Input::Confirmed(Sink::Rabbitmq), &rules());
        assert_eq!(half.effect, None, "the publisher is at work on the other one already");
        assert_eq!(pending(&half.next).pending, WEBHOOK);
        let again = run(half.next.state.clone(), Input::Confirmed(Sink::Rabbitmq), &rules()).next;
        assert_eq!(pending(&again).pending, WEBHOOK, "a second confirmation by the same sink is no news");
        let whole = run(half.next.state, Input::Confirmed(Sink::Webhook), &rules()).next;
        assert_eq!(whole.state.name() == StateName::Dead, first.name() == StateName::Dead);
        assert_eq!(whole.state.schedule(), None);
    }
}

#[test]
fn only_an_invite_that_was_ever_unknown_is_read_once_more_after_publishing() {
    for ever_unknown in [false, true] {
        let from = Invite { ever_unknown, ..invite(ready(1, RABBITMQ)) };
        let next = step(from, Input::Confirmed(Sink::Rabbitmq), &rules(), moment()).next;
        let State::Published { verify, at, code: kept, .. } = next.state else { panic!("not published") };
        assert_eq!(verify, ever_unknown.then_some(Verify { due: later(300), reads: 0 }));
        assert_eq!((at, kept), (NOW, Some(code(1).code)));
    }
}

#[test]
fn every_refusal_counts_and_lengthens_the_pause_without_an_end() {
    let mut state = ready(1, RABBITMQ);
    for (refusals, millis) in
        (1..).zip([500, 1000, 2000, 4000, 8000, 16_000, 32_000, 64_000, 128_000, 150_000])
    {
        let next = run(state, Input::Unconfirmed(Setback::Refused), &rules()).next;
        let due = NOW.after(Duration::from_millis(millis));
        assert_eq!(pending(&next), Announce { pending: RABBITMQ, due, refusals });
        state = next.state;
    }
    let worn = Announce { refusals: u32::MAX, ..announce(RABBITMQ) };
    let next = run(dead(Some(worn)), Input::Unconfirmed(Setback::Refused), &rules()).next;
    assert_eq!(pending(&next).due, later(150));
}

#[test]
fn a_sink_that_is_away_costs_nothing_and_leaves_the_work_due() {
    let worn = Announce { refusals: 3, due: later(60), pending: RABBITMQ };
    let next = run(dead(Some(worn)), Input::Unconfirmed(Setback::Away), &rules()).next;
    assert_eq!(pending(&next), Announce { due: NOW, ..worn });
}

#[test]
fn a_sink_that_left_the_configuration_is_owed_nothing_while_another_is_told() {
    let rules = Rules { sinks: WEBHOOK, ..rules() };
    let step = run(ready(1, RABBITMQ.or(WEBHOOK)), Input::Take, &rules);
    assert_eq!(step.effect, Some(Effect::Announce(WEBHOOK)));
    assert_eq!(pending(&step.next).pending, WEBHOOK);
}

#[test]
fn what_waits_only_for_sinks_that_are_gone_is_told_to_those_that_are_there() {
    let rules = Rules { sinks: WEBHOOK, ..rules() };
    for state in [ready(1, RABBITMQ), dead(Some(announce(RABBITMQ)))] {
        let step = run(state, Input::Take, &rules);
        assert_eq!(
            step.effect,
            Some(Effect::Announce(WEBHOOK)),
            "a code that nobody was told is not published"
        );
        let told = run(step.next.state, Input::Confirmed(Sink::Webhook), &rules).next;
        assert_eq!(told.state.schedule(), None);
    }
}

#[test]
fn a_refused_event_is_dead_and_announced_but_only_before_its_call() {
    let refusal = failure(FailureClass::UnknownAccount);
    for state in every_state() {
        let refusable = matches!(state.name(), StateName::Received | StateName::Waiting | StateName::Parked);
        let step = run(state.clone(), Input::Refused(refusal.clone()), &rules());
        if refusable {
            assert_eq!(step.next.state.name(), StateName::Dead);
            assert_eq!(step.next.last_failure.as_ref(), Some(&refusal));
            assert_eq!(step.effect, Some(Effect::Announce(rules().sinks)));
        } else {
            assert_eq!((step.next.state, step.effect), (state, None));
        }
    }
}

#[test]
fn a_dead_invite_keeps_what_a_redrive_has_to_know() {
    // Whether a POST is still in doubt decides between reading back and calling.
    let in_doubt = Invite { ever_unknown: true, attempts: 3, ..invite(unknown(4)) };
    let answer = Input::Read(failed(FailureClass::Rejected));
    let died = step(in_doubt, answer, &rules(), moment()).next;
    assert_eq!(died.state.name(), StateName::Dead);
    assert!(died.ever_unknown);
    assert_eq!((died.attempts, died.generation), (3, Generation::FIRST));
}
