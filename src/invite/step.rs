//! The state machine: what happens to an invite when something happens.
//!
//! [`step`] is the whole of it. The shell commits `next`, and only then carries out `effect`. Whatever comes of
//! the effect is the next input. An effect that never reports back is found by its lease: every state with an
//! effect under way has a due time, and taking it up again is an ordinary [`Input::Take`].

use std::time::Duration;

use super::{
    Announce, Failure, FailureClass, Invite, IssuedCode, Origin, Policy, Rules, Sink, Sinks, State, Verify,
};
use crate::time::Timestamp;

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A worker takes up the invite, because it is new or due.
    Take,
    /// The answer to the POST.
    Called(Answer),
    /// The answer to the GET.
    Read(Answer),
    /// A sink has confirmed the announcement.
    Confirmed(Sink),
    /// A round of announcing ended with sinks still pending.
    Unconfirmed(Setback),
    /// The event can't be served at all (its account is not configured).
    Refused(Failure),
}

/// What the API answered, POST or GET.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// 200 with a code.
    Code(IssuedCode),
    /// 200, the trucker, and no code. Only a GET answers so; a POST without a code is `Doubtful`.
    NoCode,
    /// Anything else.
    Failed {
        /// What it was.
        failure: Failure,
        /// What `Retry-After` asked for.
        retry_after: Option<Duration>,
    },
}

/// Why an announcement has to be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setback {
    /// The sink refused this event: back off.
    Refused,
    /// The sink is away: its return wakes the work, nothing is counted.
    Away,
}

/// What the shell does after the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send the POST.
    Call,
    /// Send the GET.
    Read,
    /// Publish to these sinks, those of them that are up.
    Announce(Sinks),
}

/// The moment of a step: the store's clock, and one roll of the dice in `0.0..1.0`.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// Randomness for jitter.
    pub dice: f64,
}

/// What comes of an input.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// To be committed first.
    pub next: Invite,
    /// To be carried out then.
    pub effect: Option<Effect>,
}

/// The state machine. Total: an input that the state does not wait for changes nothing.
pub fn step(invite: Invite, input: Input, rules: &Rules, moment: Moment) -> Step {
    let machine = Machine { rules, moment };
    match input {
        Input::Take => machine.take(invite),
        Input::Called(answer) => machine.called(invite, answer),
        Input::Read(answer) => machine.read(invite, answer),
        Input::Confirmed(sink) => machine.confirmed(invite, sink),
        Input::Unconfirmed(setback) => machine.unconfirmed(invite, setback),
        Input::Refused(failure) => machine.die(invite, failure),
    }
}

struct Machine<'a> {
    rules: &'a Rules,
    moment: Moment,
}

impl Machine<'_> {
    fn take(&self, mut invite: Invite) -> Step {
        match invite.state {
            State::Received { .. } | State::Waiting { .. } | State::Parked { .. } => {
                match self.rules.policy {
                    Policy::Generate => self.call(invite),
                    Policy::Reuse => {
                        invite.state = State::Received { due: self.lease() };
                        then(invite, Effect::Read)
                    }
                }
            }
            // The lease ran out under a call: its caller is gone, and the POST may have had its effect.
            State::Calling { .. } => {
                invite.ever_unknown = true;
                invite.last_failure = Some(Failure::new(FailureClass::Unknown, "crash"));
                invite.state = State::Unknown { due: self.lease(), reads: 0 };
                then(invite, Effect::Read)
            }
            State::Unknown { reads, .. } => {
                invite.state = State::Unknown { due: self.lease(), reads };
                then(invite, Effect::Read)
            }
            State::Published { verify: Some(ref mut verify), .. } => {
                verify.due = self.lease();
                then(invite, Effect::Read)
            }
            State::Ready { ref mut announce, .. } | State::Dead { announce: Some(ref mut announce), .. } => {
                // A sink that was taken out of the configuration is owed nothing.
                announce.pending = announce.pending.and(self.rules.sinks);
                announce.due = self.lease();
                let pending = announce.pending;
                if pending.is_empty() {
                    self.announced(invite)
                } else {
                    then(invite, Effect::Announce(pending))
                }
            }
            State::Published { verify: None, .. } | State::Dead { announce: None, .. } => rest(invite),
        }
    }

    fn called(&self, mut invite: Invite, answer: Answer) -> Step {
        match invite.state {
            State::Calling { .. } => match answer {
                Answer::Code(issued) => self.ready(invite, issued, Origin::Generated),
                // A client never reports this of a POST; if it did, the outcome would be in doubt.
                Answer::NoCode => self.unknown(invite, Failure::new(FailureClass::Doubtful, "no_code")),
                Answer::Failed { failure, retry_after } => match failure.class {
                    FailureClass::Transient => self.spent(invite, failure),
                    FailureClass::Throttled | FailureClass::Credentials | FailureClass::Misconfigured => {
                        invite.attempts = invite.attempts.saturating_sub(1);
                        self.parked(invite, failure, retry_after)
                    }
                    FailureClass::NotFound => self.not_found(invite, failure),
                    FailureClass::Unknown | FailureClass::Doubtful => self.unknown(invite, failure),
                    FailureClass::Rejected | FailureClass::UnknownAccount => self.die(invite, failure),
                },
            },
            State::Received { .. }
            | State::Waiting { .. }
            | State::Parked { .. }
            | State::Unknown { .. }
            | State::Ready { .. }
            | State::Published { .. }
            | State::Dead { .. } => rest(invite),
        }
    }

    fn read(&self, invite: Invite, answer: Answer) -> Step {
        match invite.state {
            State::Received { .. } => self.read_before_call(invite, answer),
            State::Unknown { reads, .. } => self.read_back(invite, reads, answer),
            State::Published { verify: Some(verify), .. } => self.verified(invite, verify, answer),
            State::Calling { .. }
            | State::Waiting { .. }
            | State::Parked { .. }
            | State::Ready { .. }
            | State::Published { verify: None, .. }
            | State::Dead { .. } => rest(invite),
        }
    }

    /// Policy `reuse`: a code that is there is taken, and only a trucker without one is called for.
    fn read_before_call(&self, mut invite: Invite, answer: Answer) -> Step {
        match answer {
            Answer::Code(issued) => self.ready(invite, issued, Origin::Reused),
            Answer::NoCode => self.call(invite),
            Answer::Failed { failure, retry_after } => match failure.class {
                // A GET has no effect, so its unknown outcome is only a failure; it counts as a try.
                FailureClass::Transient | FailureClass::Unknown | FailureClass::Doubtful => {
                    invite.attempts += 1;
                    self.spent(invite, failure)
                }
                FailureClass::Throttled | FailureClass::Credentials | FailureClass::Misconfigured => {
                    self.parked(invite, failure, retry_after)
                }
                FailureClass::NotFound => {
                    invite.attempts += 1;
                    self.not_found(invite, failure)
                }
                FailureClass::Rejected | FailureClass::UnknownAccount => self.die(invite, failure),
            },
        }
    }

    /// After an unknown outcome: what stands at the API now is the truth.
    fn read_back(&self, mut invite: Invite, reads: u32, answer: Answer) -> Step {
        match answer {
            Answer::Code(issued) => self.ready(invite, issued, Origin::Recovered),
            Answer::NoCode => {
                let failure = invite
                    .last_failure
                    .clone()
                    .unwrap_or_else(|| Failure::new(FailureClass::Unknown, "outcome_unknown"));
                self.spent(invite, failure)
            }
            Answer::Failed { failure, retry_after } => match failure.class {
                FailureClass::Transient | FailureClass::Unknown | FailureClass::Doubtful => {
                    if self.too_old(&invite) {
                        return self.die(invite, failure);
                    }
                    invite.state = State::Unknown { due: self.backoff(reads + 1), reads: reads + 1 };
                    rest(invite)
                }
                FailureClass::Throttled | FailureClass::Credentials | FailureClass::Misconfigured => {
                    invite.state = State::Unknown { due: self.after(retry_after), reads };
                    rest(invite)
                }
                FailureClass::NotFound => self.not_found(invite, failure),
                FailureClass::Rejected | FailureClass::UnknownAccount => self.die(invite, failure),
            },
        }
    }

    /// The second read-back. Only a different code is news: an emptied one was used, as it should be.
    fn verified(&self, mut invite: Invite, verify: Verify, answer: Answer) -> Step {
        let State::Published { fingerprint, at, .. } = invite.state else { return rest(invite) };
        let owed = match answer {
            Answer::Code(issued) if issued.fingerprint != fingerprint => {
                invite.generation = invite.generation.next();
                invite.attempts = 0;
                return self.ready(invite, issued, Origin::Recovered);
            }
            Answer::Code(_) | Answer::NoCode => None,
            Answer::Failed { failure, retry_after } => match failure.class {
                FailureClass::Transient | FailureClass::Unknown | FailureClass::Doubtful => {
                    let reads = verify.reads + 1;
                    let in_time = self.moment.now.since(at) < self.rules.max_age;
                    in_time.then(|| Verify { due: self.backoff(reads), reads })
                }
                FailureClass::Throttled | FailureClass::Credentials | FailureClass::Misconfigured => {
                    Some(Verify { due: self.after(retry_after), reads: verify.reads })
                }
                FailureClass::NotFound | FailureClass::Rejected | FailureClass::UnknownAccount => None,
            },
        };
        if let State::Published { verify, .. } = &mut invite.state {
            *verify = owed;
        }
        rest(invite)
    }

    fn confirmed(&self, mut invite: Invite, sink: Sink) -> Step {
        match &mut invite.state {
            State::Ready { announce, .. } | State::Dead { announce: Some(announce), .. } => {
                announce.pending = announce.pending.without(sink);
                if announce.pending.is_empty() { self.announced(invite) } else { rest(invite) }
            }
            State::Received { .. }
            | State::Calling { .. }
            | State::Waiting { .. }
            | State::Parked { .. }
            | State::Unknown { .. }
            | State::Published { .. }
            | State::Dead { announce: None, .. } => rest(invite),
        }
    }

    fn unconfirmed(&self, mut invite: Invite, setback: Setback) -> Step {
        match &mut invite.state {
            State::Ready { announce, .. } | State::Dead { announce: Some(announce), .. } => {
                match setback {
                    Setback::Refused => {
                        announce.refusals = announce.refusals.saturating_add(1);
                        announce.due = self.backoff(announce.refusals);
                    }
                    Setback::Away => announce.due = self.moment.now,
                }
                rest(invite)
            }
            State::Received { .. }
            | State::Calling { .. }
            | State::Waiting { .. }
            | State::Parked { .. }
            | State::Unknown { .. }
            | State::Published { .. }
            | State::Dead { announce: None, .. } => rest(invite),
        }
    }

    /// Every sink has confirmed.
    fn announced(&self, mut invite: Invite) -> Step {
        invite.state = match invite.state {
            State::Ready { issued, origin, since, .. } => State::Published {
                code: Some(issued.code),
                fingerprint: issued.fingerprint,
                origin,
                since,
                at: self.moment.now,
                verify: invite
                    .ever_unknown
                    .then(|| Verify { due: self.moment.now.after(self.rules.verify_after), reads: 0 }),
            },
            State::Dead { since, .. } => State::Dead { since, announce: None },
            other @ (State::Received { .. }
            | State::Calling { .. }
            | State::Waiting { .. }
            | State::Parked { .. }
            | State::Unknown { .. }
            | State::Published { .. }) => other,
        };
        rest(invite)
    }

    /// The only way to a POST: the attempt and the lease are durable before it leaves.
    fn call(&self, mut invite: Invite) -> Step {
        invite.attempts += 1;
        invite.state = State::Calling { lease_until: self.lease() };
        then(invite, Effect::Call)
    }

    fn ready(&self, mut invite: Invite, issued: IssuedCode, origin: Origin) -> Step {
        invite.not_found_since = None;
        let announce = Announce { pending: self.rules.sinks, due: self.lease(), refusals: 0 };
        invite.state = State::Ready { issued, origin, since: self.moment.now, announce };
        then(invite, Effect::Announce(self.rules.sinks))
    }

    /// The try is spent: wait for the next, unless there is none.
    fn spent(&self, mut invite: Invite, failure: Failure) -> Step {
        if invite.attempts >= self.rules.max_attempts || self.too_old(&invite) {
            return self.die(invite, failure);
        }
        invite.not_found_since = None;
        invite.state = State::Waiting { due: self.backoff(invite.attempts) };
        invite.last_failure = Some(failure);
        rest(invite)
    }

    /// The platform may be ahead of Dashdoc: 404 has its own patience, in time instead of tries.
    fn not_found(&self, mut invite: Invite, failure: Failure) -> Step {
        let since = *invite.not_found_since.get_or_insert(self.moment.now);
        let left = self.rules.not_found_for.saturating_sub(self.moment.now.since(since));
        if left.is_zero() {
            return self.die(invite, failure);
        }
        // The last try falls on the end of the patience, not somewhere after it.
        let latest = self.moment.now.after(left);
        invite.state = State::Waiting { due: self.backoff(invite.attempts).min(latest) };
        invite.last_failure = Some(failure);
        rest(invite)
    }

    fn parked(&self, mut invite: Invite, failure: Failure, retry_after: Option<Duration>) -> Step {
        invite.state = State::Parked { due: self.after(retry_after) };
        invite.last_failure = Some(failure);
        rest(invite)
    }

    fn unknown(&self, mut invite: Invite, failure: Failure) -> Step {
        invite.ever_unknown = true;
        // Not at once: an API that is still working on the POST would show the old code.
        let due = self.moment.now.after(self.rules.backoff.no_earlier(1, self.moment.dice));
        invite.state = State::Unknown { due, reads: 0 };
        invite.last_failure = Some(failure);
        rest(invite)
    }

    fn die(&self, mut invite: Invite, failure: Failure) -> Step {
        invite.last_failure = Some(failure);
        let announce = Announce { pending: self.rules.sinks, due: self.lease(), refusals: 0 };
        invite.state = State::Dead { since: self.moment.now, announce: Some(announce) };
        then(invite, Effect::Announce(self.rules.sinks))
    }

    fn lease(&self) -> Timestamp {
        self.moment.now.after(self.rules.lease)
    }

    fn backoff(&self, n: u32) -> Timestamp {
        self.moment.now.after(self.rules.backoff.delay(n, self.moment.dice))
    }

    fn after(&self, retry_after: Option<Duration>) -> Timestamp {
        self.moment.now.after(retry_after.unwrap_or_default())
    }

    fn too_old(&self, invite: &Invite) -> bool {
        self.moment.now.since(invite.begun_at) >= self.rules.max_age
    }
}

fn then(next: Invite, effect: Effect) -> Step {
    Step { next, effect: Some(effect) }
}

fn rest(next: Invite) -> Step {
    Step { next, effect: None }
}
