//! What counts when: the translation of domain happenings into numbers, so that no caller counts by itself.

use std::time::Duration;

use super::{
    ApiOutcome, HttpStatus, Metrics, PublishFailure, Purpose, Route, UnknownCause, UnknownResolution,
};
use crate::broker::BrokerEvent;
use crate::dashdoc::answer::Operation;
use crate::dashdoc::client::Exchange;
use crate::invite::{
    AccountName, Announcement, Answer, Failure, FailureClass, GateReason, Input, Invite, Sink, State,
    StateName,
};
use crate::store::Tally;
use crate::time::Timestamp;

impl Metrics {
    /// A request to the API has ended.
    pub fn api_answered(
        &self,
        account: &AccountName,
        operation: Operation,
        exchange: &Exchange,
        took: Duration,
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
        self.api_request_duration.of(operation).observe(took.as_secs_f64());
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

    /// An invite has moved, because of `input`.
    pub fn moved(&self, before: &Invite, input: &Input, after: &Invite) {
        match (before.state.name(), after.state.name()) {
            (StateName::Received | StateName::Calling | StateName::Unknown, StateName::Ready) => {
                self.got_code(after);
            }
            (StateName::Published, StateName::Ready) => {
                self.got_code(after);
                self.unknown_resolved.of(UnknownResolution::Changed).inc();
            }
            (StateName::Calling, StateName::Unknown) => {
                self.unknown_opened.of(cause(after)).inc();
            }
            (StateName::Received | StateName::Calling | StateName::Unknown, StateName::Dead) => {
                if let Some(failure) = &after.last_failure {
                    self.dead.of(&after.key.account, failure.class).inc();
                }
            }
            _ => {}
        }
        if before.state.name() == StateName::Unknown {
            match input {
                Input::Read(Answer::Code(_)) => self.unknown_resolved.of(UnknownResolution::Code).inc(),
                Input::Read(Answer::NoCode) => self.unknown_resolved.of(UnknownResolution::NoCode).inc(),
                _ => 0,
            };
        }
        let owed = |invite: &Invite| matches!(invite.state, State::Published { verify: Some(_), .. });
        if owed(before) && !owed(after) && after.state.name() == StateName::Published {
            self.unknown_resolved.of(UnknownResolution::Confirmed).inc();
        }
    }

    fn got_code(&self, invite: &Invite) {
        if let State::Ready { origin, since, .. } = &invite.state {
            self.invites_ready.of(&invite.key.account, *origin).inc();
            self.time_to_ready.of(*origin).observe(since.since(invite.accepted_at).as_secs_f64());
        }
    }

    /// A sink has confirmed an event, or has not.
    pub fn publish_ended(
        &self,
        sink: Sink,
        what: Announcement,
        failure: Option<PublishFailure>,
        took: Duration,
    ) {
        match failure {
            None => self.published.of(sink, what).inc(),
            Some(failure) => self.publish_failures.of(sink, failure).inc(),
        };
        self.publish_duration.of(sink).observe(took.as_secs_f64());
    }

    /// The store has committed a group of commands.
    pub fn committed(&self, commands: usize, took: Duration) {
        self.store_batch_size.observe(u32::try_from(commands).map_or(f64::MAX, f64::from));
        self.store_commit_duration.observe(took.as_secs_f64());
    }

    /// Something happened between us and the broker.
    pub fn broker_happened(&self, purpose: Purpose, event: BrokerEvent) {
        self.broker_events.of(event).inc();
        match event {
            BrokerEvent::Connected => self.broker_connected.of(purpose).set(1),
            BrokerEvent::Disconnected
            | BrokerEvent::ConsumerCancelled
            | BrokerEvent::ConsumerLost
            | BrokerEvent::DeliveriesStopped
            | BrokerEvent::HandStuck
            | BrokerEvent::ChannelDied
            | BrokerEvent::HeldTooLong => self.broker_connected.of(purpose).set(0),
            BrokerEvent::AttemptFailed
            | BrokerEvent::Blocked
            | BrokerEvent::Unblocked
            | BrokerEvent::Returned
            | BrokerEvent::Nacked
            | BrokerEvent::ConfirmTimeout
            | BrokerEvent::TopologyDiffers
            | BrokerEvent::Held
            | BrokerEvent::DeadLettered
            | BrokerEvent::DeadLetterFailed => 0,
        };
    }

    /// The webhook has answered.
    pub fn webhook_answered(&self, status: u16, took: Duration) {
        let row = self.http_server_request_duration.of(Route::Webhook, HttpStatus::of(status));
        row.observe(took.as_secs_f64());
    }

    /// An account's gate is closed for one reason, or for none.
    pub fn gate_stands(&self, account: &AccountName, closed: Option<GateReason>) {
        for reason in GateReason::ALL {
            self.gate_closed.of(account, reason).set((closed == Some(reason)).into());
        }
    }

    /// The books, as the store keeps them.
    pub fn books(&self, tally: &[Tally], now: Timestamp) {
        let mut accounts: Vec<&AccountName> = tally.iter().map(|tally| &tally.account).collect();
        accounts.dedup();
        for account in accounts {
            let of_account = || tally.iter().filter(|tally| &tally.account == account);
            for state in StateName::ALL {
                let count: u64 =
                    of_account().filter(|tally| tally.state == state).map(|tally| tally.count).sum();
                self.invites.of(account, state).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            let oldest = of_account().filter_map(|tally| tally.oldest).min();
            self.oldest_waiting.of(account).set(oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64()));
        }
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
