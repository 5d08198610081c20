//! The state machine: what happens to an invite when something happens.
//!
//! [`step`] is the whole of it. The shell commits `next`, and only then carries out `effect`. Whatever comes of
//! the effect is the next input. An effect that never reports back is found by its lease: every state with an
//! effect under way has a due time, and taking it up again is an ordinary [`Input::Take`].

use std::time::Duration;

use super::{
    Announce, Failure, FailureClass, Invite, IssuedCode, Lane, Origin, Policy, Rules, Sink, Sinks, State,
    Verify,
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
    /// The request to the API did not leave and never will: the account's gate had closed before.
    Unsent,
    /// A sink has confirmed the announcement.
    Confirmed(Sink),
    /// A round of announcing ended with sinks still pending.
    Unconfirmed(Setback),
    /// The event can't be served at all (its account is not configured). Heard only before the first call.
    Refused(Failure),
    /// A person puts a dead invite back to work, to be taken up from `due` on.
    Redrive {
        /// A crowd of them is spread out, so that new events find a way between.
        due: Timestamp,
    },
    /// A person asks for a new code for a trucker whose code was published.
    Reissue,
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
        /// Whether the account's circuit is open: then a failure of the connection or of the API costs no attempt.
        outage: bool,
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
        Input::Unsent => machine.unsent(invite),
        Input::Confirmed(sink) => machine.confirmed(invite, sink),
        Input::Unconfirmed(setback) => machine.unconfirmed(invite, setback),
        Input::Refused(failure) => machine.refused(invite, failure),
        Input::Redrive { due } => machine.redriven(invite, due),
        Input::Reissue => machine.reissued(invite),
    }
}

struct Machine<'a> {
    rules: &'a Rules,
    moment: Moment,
}

impl Machine<'_> {
    fn take(&self, mut invite: Invite) -> Step {
        self.forgive_delay(&mut invite);
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
                // A sink that was taken out of the configuration is owed nothing. If only such sinks are left,
                // perhaps nobody was told yet: then all of today's are, rather twice than never.
                let owed = announce.pending.and(self.rules.sinks);
                announce.pending = if owed.is_empty() { self.rules.sinks } else { owed };
                announce.due = self.lease();
                let pending = announce.pending;
                then(invite, Effect::Announce(pending))
            }
            State::Published { verify: None, .. } | State::Dead { announce: None, .. } => rest(invite),
        }
    }

    fn called(&self, mut invite: Invite, answer: Answer) -> Step {
        match invite.state {
            State::Calling { .. } => match answer {
                Answer::Code(issued) => self.ready(invite, issued, Origin::Generated),
                // A client never reports this of a POST; if it did, the outcome would be in doubt.
                Answer::NoCode => self.unknown(invite, Failure::new(FailureClass::Doubtful, "no_code"), None),
                Answer::Failed { failure, retry_after, outage } => match failure.class {
                    FailureClass::Transient if outage => {
                        invite.attempts = invite.attempts.saturating_sub(1);
                        self.parked(invite, failure, retry_after)
                    }
                    FailureClass::Transient => self.spent(invite, failure, retry_after),
                    FailureClass::Throttled | FailureClass::Credentials | FailureClass::Misconfigured => {
                        invite.attempts = invite.attempts.saturating_sub(1);
                        self.parked(invite, failure, retry_after)
                    }
                    FailureClass::NotFound => self.not_found(invite, failure, retry_after),
                    FailureClass::Unknown | FailureClass::Doubtful => {
                        let refund = outage && failure.class == FailureClass::Unknown;
                        invite.attempts = invite.attempts.saturating_sub(refund.into());
                        self.unknown(invite, failure, retry_after)
                    }
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

    /// Nothing was sent, so nothing is spent and nothing in doubt. It waits again, held by the gate from here on.
    fn unsent(&self, mut invite: Invite) -> Step {
        let now = self.moment.now;
        match &mut invite.state {
            State::Calling { .. } => {
                invite.attempts = invite.attempts.saturating_sub(1);
                invite.state = State::Parked { due: now };
            }
            State::Received { due } | State::Unknown { due, .. } => *due = now,
            State::Published { verify: Some(verify), .. } => verify.due = now,
            State::Waiting { .. }
            | State::Parked { .. }
            | State::Ready { .. }
            | State::Published { verify: None, .. }
            | State::Dead { .. } => {}
        }
        rest(invite)
    }

    /// Policy `reuse`: a code that is there is taken, and only a trucker without one is called for.
    fn read_before_call(&self, mut invite: Invite, answer: Answer) -> Step {
        match answer {
            Answer::Code(issued) if !is_previous(&invite, &issued) => {
                self.ready(invite, issued, Origin::Reused)
            }
            // Of a code, the one that a person asked to replace.
            Answer::Code(_) | Answer::NoCode => self.call(invite),
            Answer::Failed { failure, retry_after, outage } => match failure.class {
                FailureClass::Transient | FailureClass::Unknown if outage => {
                    self.parked(invite, failure, retry_after)
                }
                // A GET has no effect, so its unknown outcome is only a failure; it counts as a try.
                FailureClass::Transient | FailureClass::Unknown | FailureClass::Doubtful => {
                    invite.attempts = invite.attempts.saturating_add(1);
                    self.spent(invite, failure, retry_after)
                }
                FailureClass::Throttled | FailureClass::Credentials | FailureClass::Misconfigured => {
                    self.parked(invite, failure, retry_after)
                }
                FailureClass::NotFound => {
                    invite.attempts = invite.attempts.saturating_add(1);
                    self.not_found(invite, failure, retry_after)
                }
                FailureClass::Rejected | FailureClass::UnknownAccount => self.die(invite, failure),
            },
        }
    }

    /// After an unknown outcome: what stands at the API now is the truth.
    fn read_back(&self, mut invite: Invite, reads: u32, answer: Answer) -> Step {
        match answer {
            Answer::Code(issued) if !is_previous(&invite, &issued) => {
                self.ready(invite, issued, Origin::Recovered)
            }
            // No code, or still the one that a person asked to replace: the call had no effect.
            Answer::Code(_) | Answer::NoCode => {
                let failure = invite
                    .last_failure
                    .clone()
                    .unwrap_or_else(|| Failure::new(FailureClass::Unknown, "outcome_unknown"));
                self.spent(invite, failure, None)
            }
            Answer::Failed { failure, retry_after, outage } => match failure.class {
                FailureClass::Transient | FailureClass::Unknown if outage => {
                    let due = self.outage(&mut invite, retry_after);
                    invite.state = State::Unknown { due, reads };
                    rest(invite)
                }
                FailureClass::Transient | FailureClass::Unknown | FailureClass::Doubtful => {
                    if self.too_old(&invite) {
                        return self.die(invite, failure);
                    }
                    let reads = reads.saturating_add(1);
                    invite.state = State::Unknown { due: self.backoff(reads, retry_after), reads };
                    rest(invite)
                }
                FailureClass::Throttled | FailureClass::Credentials | FailureClass::Misconfigured => {
                    let due = self.outage(&mut invite, retry_after);
                    invite.state = State::Unknown { due, reads };
                    rest(invite)
                }
                // It tells nothing about the POST, so it is no leave to send another.
                FailureClass::NotFound => {
                    let reads = reads.saturating_add(1);
                    let Some(due) = self.until_found(&mut invite, reads, retry_after) else {
                        return self.die(invite, failure);
                    };
                    invite.state = State::Unknown { due, reads };
                    rest(invite)
                }
                FailureClass::Rejected | FailureClass::UnknownAccount => self.die(invite, failure),
            },
        }
    }

    /// The second read-back. Only a different code is news: an emptied one was used, as it should be.
    fn verified(&self, mut invite: Invite, verify: Verify, answer: Answer) -> Step {
        let State::Published { fingerprint, at, .. } = invite.state else { return rest(invite) };
        let (owed, failure) = match answer {
            Answer::Code(issued) if issued.fingerprint != fingerprint => {
                invite.generation = invite.generation.next();
                invite.attempts = 0;
                return self.ready(invite, issued, Origin::Recovered);
            }
            Answer::Code(_) | Answer::NoCode => (None, None),
            Answer::Failed { failure, retry_after, outage } => {
                let reads = verify.reads.saturating_add(1);
                let again = Verify { due: self.backoff(reads, retry_after), reads };
                let enough = reads >= self.rules.max_attempts;
                let old = self.moment.now.since(at) >= self.rules.max_age;
                let owed = match failure.class {
                    FailureClass::Transient | FailureClass::Unknown if outage => {
                        Some(Verify { due: self.after(retry_after), reads: verify.reads })
                    }
                    // Age alone is no reason: after an outage of days, the first failure would end it.
                    FailureClass::Transient | FailureClass::Unknown | FailureClass::Doubtful => {
                        (!(enough && old)).then_some(again)
                    }
                    FailureClass::Throttled | FailureClass::Credentials | FailureClass::Misconfigured => {
                        Some(Verify { due: self.after(retry_after), reads: verify.reads })
                    }
                    // The trucker had a code, so one such answer is more likely a mistake than the truth.
                    FailureClass::NotFound | FailureClass::Rejected => (!enough).then_some(again),
                    FailureClass::UnknownAccount => None,
                };
                (owed, Some(failure))
            }
        };
        if let State::Published { verify, .. } = &mut invite.state {
            *verify = owed;
        }
        // What ends the reading without an answer stays for people to see.
        if let (None, Some(failure)) = (owed, failure) {
            invite.last_failure = Some(failure);
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
                        announce.due = self.backoff(announce.refusals, None);
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
        invite.attempts = invite.attempts.saturating_add(1);
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
    fn spent(&self, mut invite: Invite, failure: Failure, retry_after: Option<Duration>) -> Step {
        if invite.attempts >= self.rules.max_attempts || self.too_old(&invite) {
            return self.die(invite, failure);
        }
        invite.not_found_since = None;
        invite.state = State::Waiting { due: self.backoff(invite.attempts, retry_after) };
        invite.last_failure = Some(failure);
        rest(invite)
    }

    fn not_found(&self, mut invite: Invite, failure: Failure, retry_after: Option<Duration>) -> Step {
        let tries = invite.attempts;
        let Some(due) = self.until_found(&mut invite, tries, retry_after) else {
            return self.die(invite, failure);
        };
        invite.state = State::Waiting { due };
        invite.last_failure = Some(failure);
        rest(invite)
    }

    /// The platform may be ahead of Dashdoc: 404 has its own patience, in time instead of tries. Returns when to
    /// look again after `tries`, nothing when the patience is over.
    fn until_found(
        &self,
        invite: &mut Invite,
        tries: u32,
        retry_after: Option<Duration>,
    ) -> Option<Timestamp> {
        let since = *invite.not_found_since.get_or_insert(self.moment.now);
        let left = self.rules.not_found_for.saturating_sub(self.moment.now.since(since));
        // The last try falls on the end of the patience, not somewhere after it.
        let latest = self.moment.now.after(left);
        let due = self.backoff(tries, None).min(latest).max(self.after(retry_after));
        (!left.is_zero()).then_some(due)
    }

    fn parked(&self, mut invite: Invite, failure: Failure, retry_after: Option<Duration>) -> Step {
        invite.state = State::Parked { due: self.outage(&mut invite, retry_after) };
        invite.last_failure = Some(failure);
        rest(invite)
    }

    fn unknown(&self, mut invite: Invite, failure: Failure, retry_after: Option<Duration>) -> Step {
        invite.ever_unknown = true;
        // Not at once: an API that is still working on the POST would show the old code.
        let due = self.moment.now.after(self.rules.backoff.no_earlier(1, self.moment.dice));
        invite.state = State::Unknown { due: due.max(self.after(retry_after)), reads: 0 };
        invite.last_failure = Some(failure);
        rest(invite)
    }

    /// Only work that no call and no code has come of yet can be refused.
    fn refused(&self, invite: Invite, failure: Failure) -> Step {
        match invite.state {
            State::Received { .. } | State::Waiting { .. } | State::Parked { .. } => {
                self.die(invite, failure)
            }
            State::Calling { .. }
            | State::Unknown { .. }
            | State::Ready { .. }
            | State::Published { .. }
            | State::Dead { .. } => rest(invite),
        }
    }

    /// Begins anew, with all patience. Where a call may ever have had an effect that nobody knows of, the trucker is
    /// read first; what it shows is announced rather than replaced.
    fn redriven(&self, mut invite: Invite, due: Timestamp) -> Step {
        if let State::Dead { .. } = invite.state {
            invite.state =
                if invite.ever_unknown { State::Unknown { due, reads: 0 } } else { State::Received { due } };
            self.begin_anew(&mut invite);
        }
        rest(invite)
    }

    /// The next generation. The code before is remembered, so that a read-back can't take it for the new one.
    fn reissued(&self, mut invite: Invite) -> Step {
        if let State::Published { fingerprint, .. } = invite.state {
            invite.previous = Some(fingerprint);
            invite.generation = invite.generation.next();
            invite.state = State::Received { due: self.moment.now };
            self.begin_anew(&mut invite);
        }
        rest(invite)
    }

    fn begin_anew(&self, invite: &mut Invite) {
        invite.attempts = 0;
        invite.not_found_since = None;
        invite.begun_at = self.moment.now;
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

    /// `Retry-After` only lengthens.
    fn backoff(&self, n: u32, retry_after: Option<Duration>) -> Timestamp {
        let own = self.moment.now.after(self.rules.backoff.delay(n, self.moment.dice));
        own.max(self.after(retry_after))
    }

    fn after(&self, retry_after: Option<Duration>) -> Timestamp {
        self.moment.now.after(retry_after.unwrap_or_default())
    }

    fn too_old(&self, invite: &Invite) -> bool {
        self.moment.now.since(invite.begun_at) >= self.rules.max_age
    }

    /// The pause that an outage asks for; it does not age the invite.
    fn outage(&self, invite: &mut Invite, retry_after: Option<Duration>) -> Timestamp {
        invite.begun_at = invite.begun_at.after(retry_after.unwrap_or_default());
        self.after(retry_after)
    }

    /// Time in which nobody took it up, because of a closed gate, a queue or a stopped service, does not age it:
    /// after an outage of days, the first failing try would be the last.
    fn forgive_delay(&self, invite: &mut Invite) {
        if let Some((Lane::Api, due)) = invite.state.schedule() {
            let delay = self.moment.now.since(due.max(invite.begun_at));
            invite.begun_at = invite.begun_at.after(delay);
        }
    }
}

impl Invite {
    /// Whether this answer to the read before a call leaves the call to be made: the trucker has no code, or still the
    /// one that a person asked to replace.
    pub fn needs_a_call_after(&self, answer: &Answer) -> bool {
        matches!(self.state, State::Received { .. })
            && match answer {
                Answer::NoCode => true,
                Answer::Code(issued) => is_previous(self, issued),
                Answer::Failed { .. } => false,
            }
    }
}

fn is_previous(invite: &Invite, issued: &IssuedCode) -> bool {
    invite.previous == Some(issued.fingerprint)
}

fn then(next: Invite, effect: Effect) -> Step {
    Step { next, effect: Some(effect) }
}

fn rest(next: Invite) -> Step {
    Step { next, effect: None }
}

#[cfg(test)]
mod announcing_tests;
#[cfg(test)]
mod laws;
#[cfg(test)]
mod tests;
