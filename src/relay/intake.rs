//! The way in: events become invites, and only the commit lets their source acknowledge them.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Relay;
use super::account::{Account, NoPlace, Place};
use super::trace::Begun;
use crate::event::TruckerCreated;
use crate::invite::{AccountName, Cause, Failure, FailureClass, TruckerKey};
use crate::store::{self, Admission, Arrival, Receipt};
use crate::telemetry::metrics::{EventOutcome, Source};

/// Events that come in together wait so long at most for places that are about to be free, instead of being stored to wait:
/// that costs a write, a query and another write for each. Long enough for a prefetch of some hundreds at the high pace at
/// which that matters; and of an account that is slower than that, others notice no more than this, once.
const PLACE_WITHIN: Duration = Duration::from_millis(250);

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

/// An event with its place among those that came with it.
type Numbered = (usize, TruckerCreated);

/// Events that are committed together.
#[derive(Default)]
struct Batch {
    numbers: Vec<usize>,
    arrivals: Vec<Arrival>,
    reservations: Vec<Option<(Arc<Account>, Place)>>,
}

impl Batch {
    /// Decides how the event starts: at once with a place at its account, otherwise in the queue.
    fn add(
        &mut self,
        number: usize,
        event: TruckerCreated,
        account: Option<&Arc<Account>>,
        place: Option<Place>,
    ) {
        let admission = match (account, &place) {
            (None, _) => {
                Admission::Refuse(Failure::new(FailureClass::UnknownAccount, "account_not_configured"))
            }
            (Some(_), Some(_)) => Admission::Start,
            (Some(_), None) => Admission::Queue,
        };
        let key = TruckerKey { account: name_of(&event), pk: event.pk };
        let cause = Cause {
            event_id: event.event_id,
            event_source: event.event_source,
            trucker: event.trucker,
            traceparent: event.trace.traceparent,
            tracestate: event.trace.tracestate,
        };
        self.numbers.push(number);
        self.arrivals.push(Arrival { key, cause, admission });
        self.reservations.push(account.cloned().zip(place));
    }
}

fn name_of(event: &TruckerCreated) -> AccountName {
    event.account.clone().unwrap_or_else(AccountName::default_account)
}

impl Intake {
    pub(super) fn new(relay: Arc<Relay>) -> Self {
        Self { relay }
    }

    /// Commits the events and sets off the work. When this returns `Ok`, they may be acknowledged. After an error some may
    /// have been committed: offered again, they are recognised.
    ///
    /// Dropping the future does no harm: a sender that hangs up, or a subscription that ends, must not leave an
    /// invite that is committed as taken with nobody working on it.
    pub async fn accept(
        &self,
        source: Source,
        events: Vec<TruckerCreated>,
    ) -> Result<Vec<Taken>, store::Error> {
        let intake = self.clone();
        let accepting = self.relay.life.spawn_work(async move { intake.take_in(source, events).await });
        accepting.await.unwrap_or_else(|_| Err(store::Error::Unavailable("accepting was cut off".to_owned())))
    }

    async fn take_in(
        &self,
        source: Source,
        events: Vec<TruckerCreated>,
    ) -> Result<Vec<Taken>, store::Error> {
        let relay = &self.relay;
        relay.look_at_the_way_in();
        // While the store is in trouble it is asked all the same: it may work again.
        if relay.store_works.borrow().is_ok()
            && let Err(why) = &*relay.open.borrow()
        {
            return Err(store::Error::Unavailable(why.clone()));
        }
        let deadline = Instant::now() + PLACE_WITHIN;
        let mut taken = vec![None; events.len()];
        let mut left: Vec<Numbered> = events.into_iter().enumerate().collect();
        // Places that were waited for, and whose they are.
        let mut awaited: Option<(Arc<Account>, Option<Vec<Place>>)> = None;
        loop {
            let mut batch = Batch::default();
            for (number, event) in std::mem::take(&mut left) {
                let account = self.account_of(&event);
                let place = match (account, &mut awaited) {
                    (None, _) => Err(NoPlace::Now),
                    (Some(account), Some((whose, places))) if Arc::ptr_eq(account, whose) => match places {
                        None => Err(NoPlace::Now),
                        Some(places) => places.pop().map_or_else(|| account.reserve(), Ok),
                    },
                    (Some(account), _) => account.reserve(),
                };
                match place {
                    Err(NoPlace::Yet) => left.push((number, event)),
                    place => batch.add(number, event, account, place.ok()),
                }
            }
            for (number, one) in self.commit(source, batch).await? {
                taken[number] = Some(one);
            }
            let Some(account) = left.first().and_then(|(_, event)| self.account_of(event)) else { break };
            let places = account.reserve_by(deadline, left.len()).await;
            awaited = Some((Arc::clone(account), places));
        }
        Ok(taken.into_iter().flatten().collect())
    }

    fn account_of(&self, event: &TruckerCreated) -> Option<&Arc<Account>> {
        self.relay.accounts.get(&name_of(event))
    }

    /// Commits a batch, all or nothing.
    async fn commit(&self, source: Source, batch: Batch) -> Result<Vec<(usize, Taken)>, store::Error> {
        let Batch { numbers, arrivals, reservations } = batch;
        if arrivals.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<TruckerKey> = arrivals.iter().map(|arrival| arrival.key.clone()).collect();
        let receipts = match self.relay.wrote(self.relay.store.accept(arrivals).await) {
            Ok(receipts) => receipts,
            Err(error) => {
                for (account, place) in reservations.into_iter().flatten() {
                    account.cancel(place);
                }
                return Err(error);
            }
        };
        let set_off = keys.into_iter().zip(receipts).zip(reservations);
        let taken = set_off.map(|((key, receipt), place)| self.set_off(source, key, receipt, place));
        Ok(numbers.into_iter().zip(taken).collect())
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
