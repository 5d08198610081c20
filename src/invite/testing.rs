//! What the tests of the domain share: an invite in any state, answers of any class, rules with round numbers.

use std::time::Duration;

use super::{
    Announce, Answer, Backoff, Cause, Failure, FailureClass, Fingerprint, Generation, Invite, InviteCode,
    IssuedCode, Moment, Origin, Policy, Rules, Sink, Sinks, State, Verify,
};
use crate::time::Timestamp;

/// The moment of every step, unless a test says otherwise.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const LEASE: Duration = Duration::from_secs(60);
pub(crate) const RABBITMQ: Sinks = Sinks::NONE.with(Sink::Rabbitmq);
pub(crate) const WEBHOOK: Sinks = Sinks::NONE.with(Sink::Webhook);

/// Backoff 1, 2, 4 … 300 s; 3 tries; an hour of age; two minutes for a 404; two sinks.
pub(crate) fn rules() -> Rules {
    Rules {
        policy: Policy::Generate,
        lease: LEASE,
        backoff: Backoff::try_new(SECOND, 2.0, SECOND * 300).unwrap(),
        max_attempts: 3,
        max_age: SECOND * 3600,
        not_found_for: SECOND * 120,
        verify_after: SECOND * 300,
        sinks: RABBITMQ.or(WEBHOOK),
    }
}

/// `now` at [`NOW`], with dice that make every backoff half its ceiling.
pub(crate) fn moment() -> Moment {
    Moment { now: NOW, dice: 0.5 }
}

pub(crate) fn later(seconds: u64) -> Timestamp {
    NOW.after(SECOND * u32::try_from(seconds).unwrap())
}

pub(crate) fn earlier(seconds: i64) -> Timestamp {
    Timestamp::from_millis(NOW.as_millis() - seconds * 1000)
}

/// An invite in `state`, accepted just now, with one attempt if it has called.
pub(crate) fn invite(state: State) -> Invite {
    let key = "default/23498".parse().unwrap();
    let cause = Cause { event_id: "e1".to_owned(), ..Cause::default() };
    let attempts = u32::from(!matches!(state, State::Received { .. }));
    Invite { state, attempts, ..Invite::received(key, Generation::FIRST, cause, NOW) }
}

/// The `n`th code.
pub(crate) fn code(n: u8) -> IssuedCode {
    IssuedCode { code: InviteCode::new(&format!("CODE{n:02}")).unwrap(), fingerprint: Fingerprint([n; 16]) }
}

pub(crate) fn failure(class: FailureClass) -> Failure {
    Failure::new(class, class.as_str())
}

pub(crate) fn failed(class: FailureClass) -> Answer {
    failed_in(class, false)
}

/// While the circuit is open, or not.
pub(crate) fn failed_in(class: FailureClass, outage: bool) -> Answer {
    Answer::Failed { failure: failure(class), retry_after: None, outage }
}

pub(crate) fn failed_with(class: FailureClass, retry_after: u64) -> Answer {
    Answer::Failed {
        failure: failure(class),
        retry_after: Some(Duration::from_secs(retry_after)),
        outage: false,
    }
}

pub(crate) fn announce(pending: Sinks) -> Announce {
    Announce { pending, due: NOW, refusals: 0 }
}

pub(crate) fn received() -> State {
    State::Received { due: NOW }
}

pub(crate) fn calling() -> State {
    State::Calling { lease_until: NOW }
}

pub(crate) fn unknown(reads: u32) -> State {
    State::Unknown { due: NOW, reads }
}

pub(crate) fn ready(n: u8, pending: Sinks) -> State {
    State::Ready { issued: code(n), origin: Origin::Generated, since: NOW, announce: announce(pending) }
}

pub(crate) fn published(n: u8, verify: Option<Verify>) -> State {
    State::Published {
        code: Some(code(n).code),
        fingerprint: code(n).fingerprint,
        origin: Origin::Generated,
        since: NOW,
        at: NOW,
        verify,
    }
}

pub(crate) fn dead(announce: Option<Announce>) -> State {
    State::Dead { since: NOW, announce }
}

/// One state of every kind, with and without what it still owes.
pub(crate) fn every_state() -> Vec<State> {
    let all = rules().sinks;
    vec![
        received(),
        calling(),
        State::Waiting { due: NOW },
        State::Parked { due: NOW },
        unknown(0),
        ready(1, all),
        published(1, Some(Verify { due: NOW, reads: 0 })),
        published(1, None),
        dead(Some(announce(all))),
        dead(None),
    ]
}
