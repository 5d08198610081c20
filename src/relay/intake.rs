//! The way in: events become invites, and only the commit lets their source acknowledge them.

use std::sync::Arc;

use super::Relay;
use super::account::{Account, Place};
use super::trace::Begun;
use crate::event::TruckerCreated;
use crate::invite::{AccountName, Cause, Failure, FailureClass, TruckerKey};
use crate::store::{self, Admission, Arrival, Receipt};
use crate::telemetry::metrics::{EventOutcome, Source};

/// Takes events in. Cheap to clone; every source has one.
#[derive(Clone)]
pub struct Intake {
    relay: Arc<Relay>,
}

/// What became of an event that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The trucker, whose text form is the invite's public id.
    pub key: TruckerKey,
    /// Whether it asked for something that was not known before.
    pub news: bool,
}

impl Intake {
    pub(super) fn new(relay: Arc<Relay>) -> Self {
        Self { relay }
    }

    /// Commits the events, all or none, and sets off the work. When this returns `Ok`, they may be acknowledged.
    ///
    /// Dropping the future does no harm: a sender that hangs up, or a subscription that ends, must not leave an
    /// invite that is committed as taken with nobody working on it.
    pub async fn accept(
        &self,
        source: Source,
        events: Vec<TruckerCreated>,
    ) -> Result<Vec<Taken>, store::Error> {
        let intake = self.clone();
        let accepting = self.relay.life.spawn_work(async move { intake.commit(source, events).await });
        accepting.await.unwrap_or_else(|_| Err(store::Error::Unavailable("accepting was cut off".to_owned())))
    }

    async fn commit(&self, source: Source, events: Vec<TruckerCreated>) -> Result<Vec<Taken>, store::Error> {
        let relay = &self.relay;
        relay.look_at_the_way_in();
        // While the store is in trouble it is asked all the same: it may work again.
        if relay.store_works.borrow().is_ok()
            && let Err(why) = &*relay.open.borrow()
        {
            return Err(store::Error::Unavailable(why.clone()));
        }
        let mut keys = Vec::with_capacity(events.len());
        let mut reservations = Vec::with_capacity(events.len());
        let mut arrivals = Vec::with_capacity(events.len());
        for event in events {
            let (arrival, reservation) = self.admit(event);
            keys.push(arrival.key.clone());
            arrivals.push(arrival);
            reservations.push(reservation);
        }
        let receipts = match relay.wrote(relay.store.accept(arrivals).await) {
            Ok(receipts) => receipts,
            Err(error) => {
                for (account, place) in reservations.into_iter().flatten() {
                    account.cancel(place);
                }
                return Err(error);
            }
        };
        let taken = keys.into_iter().zip(receipts).zip(reservations);
        Ok(taken
            .map(|((key, receipt), reservation)| self.set_off(source, key, receipt, reservation))
            .collect())
    }

    /// Decides how an event starts: at once if the account has a place free, otherwise in the queue.
    fn admit(&self, event: TruckerCreated) -> (Arrival, Option<(Arc<Account>, Place)>) {
        let name = event.account.unwrap_or_else(AccountName::default_account);
        let account = self.relay.accounts.get(&name);
        let reservation = account.and_then(|account| Some((Arc::clone(account), account.reserve()?)));
        let admission = match (account, &reservation) {
            (None, _) => {
                Admission::Refuse(Failure::new(FailureClass::UnknownAccount, "account_not_configured"))
            }
            (Some(_), Some(_)) => Admission::Start,
            (Some(_), None) => Admission::Queue,
        };
        let cause = Cause {
            event_id: event.event_id,
            event_source: event.event_source,
            trucker: event.trucker,
            traceparent: event.trace.traceparent,
            tracestate: event.trace.tracestate,
        };
        (Arrival { key: TruckerKey { account: name, pk: event.pk }, cause, admission }, reservation)
    }

    fn set_off(
        &self,
        source: Source,
        key: TruckerKey,
        receipt: Receipt,
        reservation: Option<(Arc<Account>, Place)>,
    ) -> Taken {
        let relay = &self.relay;
        let (outcome, news) = match receipt {
            Receipt::New(work) if work.effect.is_some() => {
                relay.metrics.admitted(&work.invite);
                let worker = Arc::clone(relay);
                relay.life.spawn_work(worker.carry_out(*work, reservation, Begun::WithTheEvent));
                (EventOutcome::Accepted, true)
            }
            Receipt::New(_) => {
                if let Some(account) = relay.accounts.get(&key.account) {
                    account.wake.notify_one();
                }
                (EventOutcome::Accepted, true)
            }
            Receipt::Joined(_) | Receipt::Duplicate(_) => {
                if let Some((account, place)) = reservation {
                    account.cancel(place);
                }
                let joined = matches!(receipt, Receipt::Joined(_));
                (if joined { EventOutcome::Joined } else { EventOutcome::Duplicate }, false)
            }
        };
        relay.metrics.events_received.of(source, outcome).inc();
        Taken { key, news }
    }
}
