//! What counts when: the translation of domain happenings into numbers, so that no caller counts by itself.

use std::sync::PoisonError;
use std::time::Duration;

use opentelemetry::trace::TraceId;

use super::table::OTHER_ACCOUNT;
use super::{
    ApiOutcome, BrokerConnection, CheckVerdict, Ended, HttpStatus, Metrics, Part, PublishFailure, Purpose,
    Route, UnknownCause, UnknownResolution, WaitingState,
};
use crate::broker::BrokerEvent;
use crate::dashdoc::answer::Operation;
use crate::dashdoc::client::Exchange;
use crate::invite::{
    AccountName, Announcement, Answer, Failure, FailureClass, GateReason, Generation, Input, Invite, Sink,
    State, StateName,
};
use crate::store::Tally;
use crate::time::{self, Timestamp};

/// What is known of one connection to the broker.
#[derive(Debug)]
pub(super) struct BrokerState {
    purpose: Purpose,
    up: bool,
    /// When it was last known to be up; the epoch before.
    seen: Timestamp,
}

impl Metrics {
    /// A request to the API has ended.
    pub fn api_answered(
        &self,
        account: &AccountName,
        operation: Operation,
        exchange: &Exchange,
        took: Duration,
        trace: Option<TraceId>,
    ) {
        let outcome = match &exchange.answer {
            Answer::Code(issued) => {
                if !issued.code.has_usual_length() {
                    self.odd_codes.inc();
                }
                ApiOutcome::Code
            }
            Answer::NoCode => ApiOutcome::NoCode,
            Answer::Failed { failure, .. } => match failure.class {
                FailureClass::Transient => ApiOutcome::Transient,
                FailureClass::Throttled => ApiOutcome::Throttled,
                FailureClass::NotFound => ApiOutcome::NotFound,
                FailureClass::Credentials => ApiOutcome::Credentials,
                FailureClass::Misconfigured => ApiOutcome::Misconfigured,
                FailureClass::Unknown => ApiOutcome::Unknown,
                FailureClass::Doubtful => ApiOutcome::Doubtful,
                FailureClass::Rejected | FailureClass::UnknownAccount => ApiOutcome::Rejected,
            },
        };
        self.api_requests.of(account, operation, outcome).inc();
        self.api_request_duration.of(operation).observe(took.as_secs_f64(), trace);
    }

    /// A new invite was committed, with what came of its first step.
    pub fn admitted(&self, invite: &Invite) {
        if let (State::Dead { .. }, Some(failure)) = (&invite.state, &invite.last_failure) {
            self.dead.of(&invite.key.account, failure.class).inc();
        }
    }

    /// Due work was taken up. A call whose lease had run out is an unknown outcome.
    pub fn taken_up(&self, invite: &Invite) {
        let crashed = |failure: &Failure| failure.class == FailureClass::Unknown && failure.code == "crash";
        if matches!(invite.state, State::Unknown { reads: 0, .. })
            && invite.last_failure.as_ref().is_some_and(crashed)
        {
            self.unknown_opened.of(UnknownCause::Crash).inc();
        }
    }

    /// An invite has moved, because of `input`; `trace` is the one in which it did.
    pub fn moved(&self, before: &Invite, input: &Input, after: &Invite, trace: Option<TraceId>) {
        match (before.state.name(), after.state.name()) {
            (StateName::Received | StateName::Calling | StateName::Unknown, StateName::Ready) => {
                self.got_code(after, trace);
                self.attempts.of(Ended::Ready).observe(f64::from(after.attempts));
            }
            (StateName::Published, StateName::Ready) => {
                self.got_code(after, trace);
            }
            (StateName::Calling, StateName::Unknown) => {
                self.unknown_opened.of(cause(after)).inc();
            }
            (StateName::Received | StateName::Calling | StateName::Unknown, StateName::Dead) => {
                if let Some(failure) = &after.last_failure {
                    self.dead.of(&after.key.account, failure.class).inc();
                }
                self.attempts.of(Ended::Dead).observe(f64::from(after.attempts));
            }
            _ => {}
        }
        if let Some(how) = resolution(before, input, after) {
            self.unknown_resolved.of(how).inc();
        }
    }

    fn got_code(&self, invite: &Invite, trace: Option<TraceId>) {
        if let State::Ready { origin, since, .. } = &invite.state {
            self.invites_ready.of(&invite.key.account, *origin).inc();
            // A later generation answers no event: it may come days after the one that began it all.
            if invite.generation == Generation::FIRST {
                let took = since.since(invite.accepted_at).as_secs_f64();
                self.time_to_ready.of(*origin).observe(took, trace);
            }
        }
    }

    /// A sink has confirmed an event, or has not.
    pub fn publish_ended(
        &self,
        sink: Sink,
        what: Announcement,
        failure: Option<PublishFailure>,
        took: Duration,
        trace: Option<TraceId>,
    ) {
        match failure {
            None => self.published.of(sink, what).inc(),
            Some(failure) => self.publish_failures.of(sink, failure).inc(),
        };
        self.publish_duration.of(sink).observe(took.as_secs_f64(), trace);
    }

    /// The store has committed a group of commands.
    pub fn committed(&self, commands: usize, took: Duration) {
        self.store_batch_size.observe(u32::try_from(commands).map_or(f64::MAX, f64::from));
        self.store_commit_duration.observe(took.as_secs_f64());
    }

    /// Something happened between us and the broker.
    pub fn broker_happened(&self, connection: &BrokerConnection, event: BrokerEvent) {
        self.broker_events.of(connection.purpose, event).inc();
        match event {
            BrokerEvent::Connected | BrokerEvent::ConsumerSeen => self.broker_is(connection, true),
            BrokerEvent::Disconnected
            | BrokerEvent::ConsumerCancelled
            | BrokerEvent::ConsumerLost
            | BrokerEvent::DeliveriesStopped
            | BrokerEvent::HandStuck
            | BrokerEvent::ChannelDied
            | BrokerEvent::HeldTooLong => self.broker_is(connection, false),
            BrokerEvent::AttemptFailed
            | BrokerEvent::Blocked
            | BrokerEvent::Unblocked
            | BrokerEvent::Returned
            | BrokerEvent::Nacked
            | BrokerEvent::ConfirmTimeout
            | BrokerEvent::TopologyDiffers
            | BrokerEvent::Held
            | BrokerEvent::DeadLettered
            | BrokerEvent::DeadLetterFailed => {}
        }
    }

    /// A further connection to the broker, which is not up yet.
    pub fn broker_connection(&self, purpose: Purpose) -> BrokerConnection {
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        brokers.push(BrokerState { purpose, up: false, seen: Timestamp::EPOCH });
        BrokerConnection { purpose, index: brokers.len() - 1 }
    }

    /// The gauges speak of all connections of a purpose, and so of the worst: one queue that is not consumed must show.
    fn broker_is(&self, connection: &BrokerConnection, up: bool) {
        let mut brokers = self.brokers.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut brokers[connection.index];
        state.up = up;
        if up {
            state.seen = time::now();
        }
        let purpose = connection.purpose;
        let alike = || brokers.iter().filter(|state| state.purpose == purpose);
        self.broker_connected.of(purpose).set(alike().all(|state| state.up).into());
        if let (Purpose::Consume, Some(seen)) = (purpose, alike().map(|state| state.seen).min()) {
            self.consumer_seen.set(seen.since(Timestamp::EPOCH).as_secs_f64());
        }
    }

    /// The public port has answered.
    pub fn answered(&self, route: Route, status: u16, took: Duration, trace: Option<TraceId>) {
        let row = self.http_server_request_duration.of(route, HttpStatus::of(status));
        row.observe(took.as_secs_f64(), trace);
    }

    /// Events are taken in, or not.
    pub fn way_in(&self, open: bool) {
        self.intake_open.set(open.into());
    }

    /// The doctor's checks have run, and each of them ended like this.
    pub fn examined(&self, checks: &[(Part, CheckVerdict)]) {
        for part in Part::ALL {
            for verdict in CheckVerdict::ALL {
                let count = checks.iter().filter(|check| **check == (*part, *verdict)).count();
                self.doctor_findings.of(*part, *verdict).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
        self.doctor_looked.set(time::now().since(Timestamp::EPOCH).as_secs_f64());
    }

    /// An account's gate is closed for one reason, or for none.
    pub fn gate_stands(&self, account: &AccountName, closed: Option<GateReason>) {
        for reason in GateReason::ALL {
            self.gate_closed.of(account, reason).set((closed == Some(reason)).into());
        }
    }

    /// The books, as the store keeps them.
    pub fn books(&self, tally: &[Tally], now: Timestamp) {
        // Whoever is not configured has one row together with all others of that kind.
        let configured = self.accounts.configured();
        let other: AccountName = OTHER_ACCOUNT.parse().expect("a valid name");
        for account in configured.iter().chain([&other]) {
            let is_theirs = |of: &AccountName| of == account || *account == other && !configured.contains(of);
            let of_account = || tally.iter().filter(|tally| is_theirs(&tally.account));
            for state in StateName::ALL {
                let count: u64 =
                    of_account().filter(|tally| tally.state == state).map(|tally| tally.count).sum();
                self.invites.of(account, state).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            for state in WaitingState::ALL {
                let of_state = of_account().filter(|tally| tally.state == state.name());
                let oldest = of_state.filter_map(|tally| tally.oldest).min();
                let age = oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
                self.oldest_waiting.of(account, *state).set(age);
            }
        }
    }
}

/// What an input told about a call whose outcome was not known.
fn resolution(before: &Invite, input: &Input, after: &Invite) -> Option<UnknownResolution> {
    let owes = |invite: &Invite| matches!(invite.state, State::Published { verify: Some(_), .. });
    let Input::Read(answer) = input else { return None };
    match (before.state.name(), after.state.name()) {
        (StateName::Unknown, StateName::Dead) if matches!(answer, Answer::Failed { .. }) => {
            Some(UnknownResolution::GivenUp)
        }
        (StateName::Unknown, StateName::Ready) => Some(UnknownResolution::Code),
        (StateName::Unknown, _) if !matches!(answer, Answer::Failed { .. }) => {
            Some(UnknownResolution::NoCode)
        }
        (StateName::Published, StateName::Ready) => Some(UnknownResolution::Changed),
        (StateName::Published, StateName::Published) if owes(before) && !owes(after) => Some(match answer {
            Answer::Code(_) => UnknownResolution::Confirmed,
            Answer::NoCode => UnknownResolution::Used,
            Answer::Failed { .. } => UnknownResolution::GivenUp,
        }),
        _ => None,
    }
}

/// Why the outcome of a call is unknown, from the code of its failure.
fn cause(invite: &Invite) -> UnknownCause {
    let Some(failure) = &invite.last_failure else { return UnknownCause::Reset };
    match (failure.class, failure.code.as_str()) {
        (FailureClass::Doubtful, _) => UnknownCause::Doubtful,
        (_, "timeout") => UnknownCause::Timeout,
        (_, "crash") => UnknownCause::Crash,
        (_, code) if code.starts_with("http_") => UnknownCause::Http5xx,
        _ => UnknownCause::Reset,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invite::testing::{code, failed, invite, moment, published, ready, rules, unknown};
    use crate::invite::{Verify, step};

    /// Steps with `input` and counts it, as the shell does.
    fn moved(metrics: &Metrics, before: &Invite, input: &Input) -> Invite {
        let after = step(before.clone(), input.clone(), &rules(), moment()).next;
        metrics.moved(before, input, &after, None);
        after
    }

    #[test]
    fn what_a_read_back_told_is_counted_as_what_it_is() {
        let owed = |reads| Some(Verify { due: crate::invite::testing::NOW, reads });
        let old = |state| {
            // Beyond every patience, so that a failing answer is the last.
            let begun = Timestamp::EPOCH;
            let mut old = Invite { begun_at: begun, accepted_at: begun, ..invite(state) };
            if let State::Published { at, .. } = &mut old.state {
                *at = begun;
            }
            old
        };
        for (before, answer, expected) in [
            (invite(unknown(0)), Answer::Code(code(1)), UnknownResolution::Code),
            (invite(unknown(0)), Answer::NoCode, UnknownResolution::NoCode),
            (old(unknown(0)), failed(FailureClass::Unknown), UnknownResolution::GivenUp),
            (invite(published(1, owed(0))), Answer::Code(code(1)), UnknownResolution::Confirmed),
            (invite(published(1, owed(0))), Answer::Code(code(2)), UnknownResolution::Changed),
            (invite(published(1, owed(0))), Answer::NoCode, UnknownResolution::Used),
            (old(published(1, owed(9))), failed(FailureClass::NotFound), UnknownResolution::GivenUp),
        ] {
            let metrics = Metrics::new(&[]);
            moved(&metrics, &before, &Input::Read(answer));
            for how in UnknownResolution::ALL {
                let counted = metrics.unknown_resolved.of(*how).get();
                assert_eq!(counted, u64::from(*how == expected), "{how:?} for {before:?}");
            }
        }
    }

    #[test]
    fn a_read_back_that_goes_on_resolves_nothing() {
        let metrics = Metrics::new(&[]);
        let owed = Some(Verify { due: crate::invite::testing::NOW, reads: 0 });
        moved(&metrics, &invite(unknown(0)), &Input::Read(failed(FailureClass::Unknown)));
        moved(&metrics, &invite(published(1, owed)), &Input::Read(failed(FailureClass::NotFound)));
        moved(&metrics, &invite(ready(1, rules().sinks)), &Input::Confirmed(Sink::Rabbitmq));
        let n: u64 = UnknownResolution::ALL.iter().map(|how| metrics.unknown_resolved.of(*how).get()).sum();
        assert_eq!(n, 0);
    }

    #[test]
    fn only_the_first_code_of_a_trucker_counts_as_time_from_the_event() {
        let metrics = Metrics::new(&[]);
        let count = || {
            let page = metrics.encode();
            let mut lines = page.lines().filter_map(|line| {
                line.strip_prefix("invite_relay_time_to_ready_seconds_count{origin=\"recovered\"} ")
            });
            lines.next().unwrap().parse::<u64>().unwrap()
        };
        moved(&metrics, &invite(unknown(0)), &Input::Read(Answer::Code(code(1))));
        assert_eq!(count(), 1);
        let owed = Some(Verify { due: crate::invite::testing::NOW, reads: 0 });
        let next = moved(&metrics, &invite(published(1, owed)), &Input::Read(Answer::Code(code(2))));
        assert_eq!((next.generation, count()), (Generation::FIRST.next(), 1));
    }

    #[test]
    fn the_oldest_is_told_for_each_state_that_waits() {
        let metrics = Metrics::new(&["a".parse().unwrap()]);
        let tally = |state, seconds: i64| Tally {
            account: "a".parse().unwrap(),
            state,
            count: 1,
            oldest: Some(Timestamp::from_millis(100_000 - seconds * 1000)),
        };
        let now = Timestamp::from_millis(100_000);
        metrics.books(&[tally(StateName::Parked, 30), tally(StateName::Ready, 7)], now);
        let age = |state| metrics.oldest_waiting.of("a".parse::<AccountName>().unwrap(), state).get();
        let ages = [WaitingState::Parked, WaitingState::Ready, WaitingState::Waiting].map(age);
        assert_eq!(format!("{ages:?}"), "[30.0, 7.0, 0.0]");
    }

    #[test]
    fn accounts_that_are_not_configured_are_counted_together() {
        let metrics = Metrics::new(&["a".parse().unwrap()]);
        let tally = |account: &str, count| Tally {
            account: account.parse().unwrap(),
            state: StateName::Dead,
            count,
            oldest: None,
        };
        let of = |account: &str| {
            metrics.invites.of(account.parse::<AccountName>().unwrap(), StateName::Dead).get()
        };
        metrics.books(&[tally("a", 1), tally("b", 20), tally("c", 300)], Timestamp::EPOCH);
        assert_eq!((of("a"), of("nobody")), (1, 320));
        metrics.books(&[tally("a", 1)], Timestamp::EPOCH);
        assert_eq!((of("a"), of("nobody")), (1, 0), "what is gone is not remembered");
    }

    #[test]
    fn a_slow_bucket_leads_to_its_trace() {
        let metrics = Metrics::new(&[]);
        let trace = TraceId::from_hex("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
        metrics.publish_ended(Sink::Rabbitmq, Announcement::Ready, None, Duration::from_secs(3), Some(trace));
        metrics.publish_ended(Sink::Rabbitmq, Announcement::Ready, None, Duration::from_millis(1), None);
        let page = metrics.encode();
        let bucket = |le: &str| {
            let start =
                format!("invite_relay_publish_duration_seconds_bucket{{le=\"{le}\",sink=\"rabbitmq\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&start)).unwrap().to_owned()
        };
        assert!(
            bucket("5.0").starts_with("2 # {trace_id=\"4bf92f3577b34da6a3ce929d0e0e4736\"} 3.0 "),
            "{page}"
        );
        assert_eq!(bucket("0.005"), "1");
    }
}
