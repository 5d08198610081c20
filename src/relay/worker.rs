//! One invite in one worker's hands: an effect, its answer into the store, the next effect.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{Instrument as _, debug, warn};

use super::account::{Account, Place};
use super::Relay;
use crate::dashdoc::answer::Operation;
use crate::dashdoc::client::Exchange;
use crate::invite::{Effect, Input, Invite};
use crate::store::{Error, Work};
use crate::telemetry::spans;

/// How long to wait before a result is offered to the store again.
const STORE_PAUSE: Duration = Duration::from_millis(500);

impl Relay {
    /// Carries out what the committed state asks for, and everything that follows at once.
    ///
    /// `place` is the leave to use the API; it is given back as soon as the API is not needed any more.
    pub(super) async fn carry_out(self: &Arc<Self>, mut work: Work, mut place: Option<(Arc<Account>, Place)>) {
        let mut requests = 0;
        while let Some(effect) = work.effect {
            let operation = match effect {
                Effect::Announce(_) => {
                    drop(place);
                    self.announce(work).await;
                    return;
                }
                Effect::Call => Operation::Generate,
                Effect::Read => Operation::Read,
            };
            let Some((account, _)) = &place else {
                // Work for the API is only ever taken with a place; its lease hands it to the dispatcher.
                debug_assert!(false, "an effect on the API without a place");
                return;
            };
            if requests > 0 {
                // A read that is followed by a call is two requests of the account's pace.
                account.limiter.acquire().await;
            }
            requests += 1;
            let exchange = self.ask(account, operation, &work.invite).await;
            account.observe(&exchange).await;
            let input = match operation {
                Operation::Generate => Input::Called(exchange.answer),
                Operation::Read => Input::Read(exchange.answer),
            };
            let Some(next) = self.record(work.invite, input).await else { return };
            work = next;
        }
        // It waits in the store now; its due time may be the earliest.
        match work.invite.state.schedule() {
            Some((crate::invite::Lane::Api, _)) => self.wake_account(&work.invite),
            Some((crate::invite::Lane::Publish(_), _)) => self.publish_wake.notify_one(),
            None => {}
        }
    }

    async fn ask(&self, account: &Account, operation: Operation, invite: &Invite) -> Exchange {
        let span = spans::api_request(operation, invite, account.client.base_url());
        let started = Instant::now();
        let exchange = async {
            match operation {
                Operation::Generate => account.client.generate(&invite.key).await,
                Operation::Read => account.client.read(&invite.key).await,
            }
        };
        let exchange = exchange.instrument(span.clone()).await;
        spans::api_answered(&span, &exchange);
        self.metrics.api_answered(&account.name, operation, &exchange, started.elapsed());
        exchange
    }

    /// Records the outcome of an effect, however long that takes: the answer of a call that can't be repeated is
    /// in our hands only. `None` if the work is somebody else's by now, or the process gives up.
    pub(super) async fn record(&self, invite: Invite, input: Input) -> Option<Work> {
        loop {
            match self.store.advance(invite.clone(), input.clone()).await {
                Ok(work) => {
                    self.metrics.moved(&invite, &input, &work.invite);
                    return Some(work);
                }
                Err(Error::Lost) => {
                    // Its new holder reads the trucker back; what we know is not worth more than that.
                    warn!(invite.id = %invite.key, state = %invite.state.name(), "the lease was lost");
                    return None;
                }
                Err(error) => {
                    self.metrics.store_errors.inc();
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

    fn wake_account(&self, invite: &Invite) {
        if let Some(account) = self.accounts.get(&invite.key.account) {
            account.wake.notify_one();
        }
    }
}
