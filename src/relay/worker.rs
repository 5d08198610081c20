//! One invite in one worker's hands: an effect, its answer into the store, the next effect.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument as _, debug, warn};

use super::Relay;
use super::account::{Account, Place};
use super::trace::{self, Begun};
use crate::dashdoc::answer::Operation;
use crate::dashdoc::client::Exchange;
use crate::invite::{Answer, Effect, Input, Invite, Lane, State};
use crate::store::{Error, Work};
use crate::telemetry::spans::{self, Attempt};

/// How long to wait before a result is offered to the store again.
const STORE_PAUSE: Duration = Duration::from_millis(500);

impl Relay {
    /// Carries out what the committed state asks for, and everything that follows at once.
    ///
    /// `place` is the leave to use the API; it is given back when the API is not needed any more and there is a place to
    /// announce what it has answered: as a rule, as soon as it has answered with a code.
    pub(super) async fn carry_out(
        self: Arc<Self>,
        mut work: Work,
        mut place: Option<(Arc<Account>, Place)>,
        begun: Begun,
    ) {
        let attempt = trace::attempt(&work.invite, begun, &self.attempts);
        let mut to_announce = None;
        while let Some(effect) = work.effect {
            let operation = match effect {
                Effect::Announce(_) => {
                    // Only with a place to announce: codes must not come in faster than the sinks take them.
                    let to_announce = match to_announce {
                        Some(place) => place,
                        None => self.places_to_announce(1).await,
                    };
                    drop(place);
                    self.announce(work, to_announce, &attempt).await;
                    return;
                }
                Effect::Call => Operation::Generate,
                Effect::Read => Operation::Read,
            };
            let Some((account, place_at_api)) = &mut place else {
                // Work for the API is only ever taken with a place; its lease hands it to the dispatcher.
                debug_assert!(false, "an effect on the API without a place");
                return;
            };
            let departed = tokio::select! {
                biased;
                // What this process has in hand is given back now: somebody else may be reading the trucker already.
                () = self.life.aborted() => return,
                departed = account.depart(place_at_api) => departed,
            };
            let Some(departed) = departed else {
                // Nobody has called, so nothing needs to be read back: it waits in the store like all other work.
                if let Some(next) = self.record(work.invite, Input::Unsent, &attempt).await {
                    self.wake_account(&next.invite);
                }
                return;
            };
            if let State::Calling { lease_until } = work.invite.state
                && self.store.now().after(account.client.timeout()) > lease_until
            {
                // The process slept over its lease. Somebody may be reading the trucker back by now, and a POST that
                // leaves late is one that nobody accounts for.
                warn!(invite.id = %work.invite.key, "a call was dropped: its lease would not outlast it");
                return;
            }
            let mut exchange = self.ask(account, operation, &work.invite, &attempt).await;
            account.observe(effect, &mut exchange).await;
            drop(departed);
            let input = match operation {
                Operation::Generate => Input::Called(exchange.answer),
                Operation::Read => Input::Read(exchange.answer),
            };
            if let Input::Read(answer) = &input
                && work.invite.needs_a_call_after(answer)
            {
                // A call follows, which is a second request of the account's pace. The wait comes before the call is
                // committed, because then its lease runs.
                account.stay(place_at_api).await;
            }
            if let Input::Called(Answer::Code(_)) = input {
                // Only the announcement follows: the place at the API need not wait for the commit.
                to_announce = self.place_to_announce();
                place = place.filter(|_| to_announce.is_none());
            }
            let Some(next) = self.record(work.invite, input, &attempt).await else { return };
            work = next;
            tell(&work.invite);
        }
        // It waits in the store now; its due time may be the earliest.
        match work.invite.state.schedule() {
            Some((Lane::Api, _)) => self.wake_account(&work.invite),
            Some((Lane::Publish(_), _)) => self.publish_wake.notify_one(),
            None => {}
        }
    }

    async fn ask(
        &self,
        account: &Account,
        operation: Operation,
        invite: &Invite,
        attempt: &Attempt,
    ) -> Exchange {
        let request = spans::ApiRequest {
            server: spans::Server::of(account.client.base_url()),
            method: operation.method(),
            template: operation.template(),
            // A POST after the first is a repeat as the conventions mean it; a GET is not.
            resend_count: if operation == Operation::Generate {
                invite.attempts.saturating_sub(1)
            } else {
                0
            },
        };
        let span = attempt.part(|parent| spans::call_api(parent, &request, &trace::work(invite)));
        let started = Instant::now();
        let exchange = async {
            match operation {
                Operation::Generate => account.client.generate(&invite.key).await,
                Operation::Read => account.client.read(&invite.key).await,
            }
        };
        let exchange = exchange.instrument(span.clone()).await;
        match (exchange.status, &exchange.answer) {
            (Some(status), _) => spans::answered(&span, status),
            (None, Answer::Failed { failure, .. }) => spans::failed(&span, &failure.code),
            (None, Answer::Code(_) | Answer::NoCode) => {}
        }
        self.metrics.api_answered(&account.name, operation, &exchange, started.elapsed(), attempt.trace());
        exchange
    }

    /// Records the outcome of an effect, however long that takes: the answer of a call that can't be repeated is
    /// in our hands only. `None` if the work is somebody else's by now, or the process gives up.
    pub(super) async fn record(&self, invite: Invite, input: Input, attempt: &Attempt) -> Option<Work> {
        loop {
            match self.wrote(self.store.advance(invite.clone(), input.clone()).await) {
                Ok(work) => {
                    self.metrics.moved(&invite, &input, &work.invite, attempt.trace());
                    return Some(work);
                }
                Err(Error::Lost) => {
                    // Its new holder reads the trucker back; what we know is not worth more than that.
                    warn!(invite.id = %invite.key, state = %invite.state.name(), "the lease was lost");
                    return None;
                }
                Err(error) => {
                    warn!(invite.id = %invite.key, %error, "an outcome could not be stored, trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(STORE_PAUSE) => {}
                () = self.life.aborted() => {
                    debug!(invite.id = %invite.key, "an outcome was not stored before the end");
                    return None;
                }
            }
        }
    }

    pub(super) fn wake_account(&self, invite: &Invite) {
        if let Some(account) = self.accounts.get(&invite.key.account) {
            account.wake.notify_one();
        }
    }
}

/// Says what an operator should hear of: an outcome that is not known, and an invite that needs a person.
fn tell(invite: &Invite) {
    let cause = invite.last_failure.as_ref().map(|failure| failure.code.as_str());
    match &invite.state {
        State::Unknown { reads: 0, .. } => {
            warn!(invite.id = %invite.key, cause, "the outcome of a call is not known; the trucker is read back first");
        }
        State::Dead { .. } => warn!(invite.id = %invite.key, cause, "the invite is dead and needs a person"),
        State::Unknown { .. }
        | State::Received { .. }
        | State::Calling { .. }
        | State::Waiting { .. }
        | State::Parked { .. }
        | State::Ready { .. }
        | State::Published { .. } => {}
    }
}
