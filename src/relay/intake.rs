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
/// that costs a write, a query and another write for each. Long enough for a prefetch of some hundreds at a pace at which
/// that matters. If it is not, later events are stored at once until the dispatcher has taken up all that waits; so others,
/// which are acknowledged together with these, are held up by it once in a burst.
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

    async fn take_in(&self, source: Source, events: Vec<TruckerCreated>) -> Result<Vec<Taken>, store::Error> {
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
                    (None, _) => Err(NoPlace::Queue),
                    (Some(account), Some((whose, places))) if Arc::ptr_eq(account, whose) => match places {
                        None => Err(NoPlace::Queue),
                        Some(places) => places.pop().map_or_else(|| account.reserve(), Ok),
                    },
                    (Some(account), _) => account.reserve(),
                };
                match place {
                    Err(NoPlace::Soon) => left.push((number, event)),
                    place => batch.add(number, event, account, place.ok()),
                }
            }
            for (number, one) in self.commit(source, batch).await? {
                taken[number] = Some(one);
            }
            let Some(account) = left.first().and_then(|(_, event)| self.account_of(event)) else { break };
            let same = |event| self.account_of(event).is_some_and(|other| Arc::ptr_eq(other, account));
            let wanted = left.iter().filter(|(_, event)| same(event)).count();
            let places = tokio::select! {
                biased;
                () = relay.life.draining() => None,
                places = account.reserve_by(deadline, wanted) => places,
            };
            awaited = Some((Arc::clone(account), places));
        }
        debug_assert!(taken.iter().all(Option::is_some), "each event is in one batch");
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

#[cfg(test)]
mod tests {
    use serde_json::Map;
    use tempfile::TempDir;
    use tokio::task::{JoinHandle, yield_now};

    use super::*;
    use crate::dashdoc::client::{self, Client};
    use crate::event::TraceContext;
    use crate::invite::testing::{SECOND, rules};
    use crate::invite::{Gate, GateReason, GateRules, Invite, StateName};
    use crate::lifecycle::Lifecycle;
    use crate::relay::Limits;
    use crate::sink::Outlets;
    use crate::store::sqlite::{self, SqliteStore};
    use crate::telemetry::metrics::Metrics;

    /// A pace at which a place is soon free again, and one at which it is not.
    const FAST: f64 = 100_000.0;
    const DASHDOCS: f64 = 10.0;
    /// Places of an account at the first; three of them are given out at once.
    const N_PLACES: usize = 24;

    /// A relay with the accounts `acme` and `beta`, whose API nobody can reach.
    struct Scene {
        intake: Intake,
        life: Lifecycle,
        directory: TempDir,
    }

    impl Scene {
        fn with_pace(rate_per_second: f64) -> Self {
            // Fails only where another has been installed.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let directory = tempfile::tempdir().unwrap();
            let settings = sqlite::Settings {
                path: directory.path().join("store.db"),
                rules: rules(),
                erase_codes_after: SECOND,
                retention: SECOND,
                fingerprint_key: None,
                observer: Arc::new(|_, _| {}),
            };
            let life = Lifecycle::new();
            let store: store::Shared = Arc::new(SqliteStore::open(settings, &life).unwrap());
            let names: Vec<AccountName> = ["acme", "beta"].map(|name| name.parse().unwrap()).into();
            let metrics = Arc::new(Metrics::new(&names));
            let gate = GateRules { throttle: rules().backoff, probe_delay: SECOND, circuit_after: u32::MAX };
            let limits = Limits { rate_per_second, max_in_flight: 16, gate };
            let account = |name: AccountName| {
                let settings = client::Settings {
                    base_url: "http://127.0.0.1:1".parse().unwrap(),
                    auth_header: "authorization".parse().unwrap(),
                    auth_scheme: "Token".to_owned(),
                    timeout: SECOND,
                    authorities: Vec::new(),
                };
                let client = Client::new(settings, Arc::new(|| "".into()), store.fingerprint_key()).unwrap();
                let (store, metrics) = (Arc::clone(&store), Arc::clone(&metrics));
                let account = Account::new(name, client, limits, Gate::Open, store, metrics);
                // Its dispatcher, which is not at work here, has found nothing.
                account.set_backlog(false);
                Arc::new(account)
            };
            let accounts = names.into_iter().map(account).collect();
            let (store, source) = (Arc::clone(&store), "/invite-relay".to_owned());
            let relay = Relay::new(store, accounts, Outlets::default(), source, 1000, metrics, &life);
            Self { intake: relay.intake(), life, directory }
        }

        fn account(&self, name: &str) -> &Arc<Account> {
            &self.intake.relay.accounts[&name.parse::<AccountName>().unwrap()]
        }

        /// Takes all places of the account.
        fn fill(&self, name: &str) -> Vec<Place> {
            let places: Vec<Place> = std::iter::from_fn(|| self.account(name).reserve().ok()).collect();
            assert_eq!(places.len(), N_PLACES);
            places
        }

        /// Hands these in, and lets that go as far as it does by itself.
        async fn tell(&self, invites: &[&str]) -> JoinHandle<Result<Vec<Taken>, store::Error>> {
            let events = invites.iter().map(|invite| event(invite)).collect();
            let intake = self.intake.clone();
            let accepting = self.life.spawn_work(async move { intake.accept(Source::Webhook, events).await });
            for _ in 0..10 {
                yield_now().await;
            }
            accepting
        }

        async fn stored(&self, invite: &str) -> Option<Invite> {
            let story = self.intake.relay.store.show(invite.parse().unwrap()).await.unwrap();
            story.map(|story| story.invite)
        }

        /// Whether it was stored to wait for its turn.
        async fn waits(&self, invite: &str) -> bool {
            self.stored(invite).await.unwrap().state.name() == StateName::Received
        }
    }

    /// From now on no deadline passes: the clock goes by itself only while no blocking task is at work.
    fn stop_the_clock() -> std::sync::mpsc::Sender<()> {
        tokio::time::pause();
        let (clock, stopped) = std::sync::mpsc::channel();
        tokio::task::spawn_blocking(move || stopped.recv());
        clock
    }

    async fn done(accepting: JoinHandle<Result<Vec<Taken>, store::Error>>) -> Vec<Taken> {
        ended(accepting).await.unwrap()
    }

    /// Waits by the clock on the wall, because the other one is stopped.
    async fn ended(
        accepting: JoinHandle<Result<Vec<Taken>, store::Error>>,
    ) -> Result<Vec<Taken>, store::Error> {
        let began = std::time::Instant::now();
        while !accepting.is_finished() {
            assert!(began.elapsed() < SECOND * 30, "still waiting for a place");
            yield_now().await;
        }
        accepting.await.unwrap()
    }

    fn event(invite: &str) -> TruckerCreated {
        let TruckerKey { account, pk } = invite.parse().unwrap();
        TruckerCreated {
            event_id: invite.to_owned(),
            event_source: "/platform".to_owned(),
            account: Some(account),
            pk,
            trucker: Map::new(),
            trace: TraceContext::default(),
        }
    }

    fn ids(taken: &[Taken]) -> Vec<String> {
        taken.iter().map(|taken| taken.key.to_string()).collect()
    }

    #[tokio::test]
    async fn an_event_that_finds_every_place_taken_is_given_the_next_one() {
        let scene = Scene::with_pace(FAST);
        let (mut places, _clock) = (scene.fill("acme"), stop_the_clock());
        let accepting = scene.tell(&["acme/1"]).await;
        assert_eq!(scene.intake.relay.store.unfinished(), 0, "it is not stored before it has a place");
        places.pop();
        assert_eq!(ids(&done(accepting).await), ["acme/1"]);
        assert!(!scene.waits("acme/1").await);
    }

    #[tokio::test]
    async fn an_event_that_no_place_comes_free_for_is_stored_to_wait_and_those_after_it_at_once() {
        let scene = Scene::with_pace(FAST);
        let _places = scene.fill("acme");
        assert_eq!(scene.account("acme").reserve().err(), Some(NoPlace::Soon));
        scene.tell(&["acme/1", "acme/2"]).await.await.unwrap().unwrap();
        assert!(scene.waits("acme/1").await && scene.waits("acme/2").await);
        assert_eq!(scene.account("acme").reserve().err(), Some(NoPlace::Queue));
    }

    #[tokio::test]
    async fn events_start_together_on_the_places_that_come_free_together() {
        let scene = Scene::with_pace(FAST);
        let (mut places, _clock) = (scene.fill("acme"), stop_the_clock());
        let accepting = scene.tell(&["acme/1", "acme/2", "acme/3"]).await;
        places.truncate(N_PLACES - 2);
        // Long enough for a commit, if there were one.
        let began = std::time::Instant::now();
        while began.elapsed() < SECOND / 10 {
            assert_eq!(scene.intake.relay.store.unfinished(), 0, "two places are not three");
            yield_now().await;
        }
        places.pop();
        done(accepting).await;
        for invite in ["acme/1", "acme/2", "acme/3"] {
            assert!(!scene.waits(invite).await);
        }
    }

    #[tokio::test]
    async fn an_event_whose_gate_closes_while_it_waits_for_a_place_is_stored_to_wait() {
        let scene = Scene::with_pace(FAST);
        let (places, _clock) = (scene.fill("acme"), stop_the_clock());
        let accepting = scene.tell(&["acme/1"]).await;
        let until = scene.intake.relay.store.now().after(SECOND * 60);
        let shut = Gate::Closed { reason: GateReason::Throttled, until, strikes: 1 };
        scene.account("acme").adopt(shut, 0);
        drop(places);
        done(accepting).await;
        assert!(scene.waits("acme/1").await);
    }

    #[tokio::test]
    async fn a_drain_ends_the_wait_for_a_place() {
        let scene = Scene::with_pace(FAST);
        let (_places, _clock) = (scene.fill("acme"), stop_the_clock());
        let accepting = scene.tell(&["acme/1"]).await;
        scene.life.begin_drain();
        done(accepting).await;
        assert!(scene.waits("acme/1").await);
    }

    #[tokio::test]
    async fn an_event_that_finds_a_place_does_not_wait_for_those_that_came_with_it() {
        let scene = Scene::with_pace(FAST);
        let (places, _clock) = (scene.fill("acme"), stop_the_clock());
        let accepting = scene.tell(&["acme/1", "beta/1", "acme/2"]).await;
        let began = std::time::Instant::now();
        while scene.stored("beta/1").await.is_none() {
            assert!(began.elapsed() < SECOND * 30, "beta's event waits for a place of acme's");
        }
        assert_eq!(scene.stored("acme/1").await, None);
        drop(places);
        let taken = done(accepting).await;
        assert_eq!(ids(&taken), ["acme/1", "beta/1", "acme/2"], "each is answered in its place");
    }

    #[tokio::test]
    async fn events_of_which_the_store_has_taken_some_when_it_fails_are_recognised_when_they_are_offered_again()
     {
        let scene = Scene::with_pace(FAST);
        let (places, _clock) = (scene.fill("acme"), stop_the_clock());
        let accepting = scene.tell(&["acme/1", "beta/1"]).await;
        let began = std::time::Instant::now();
        while scene.stored("beta/1").await.is_none() {
            assert!(began.elapsed() < SECOND * 30, "beta's event waits for a place of acme's");
        }
        let file = rusqlite::Connection::open(scene.directory.path().join("store.db")).unwrap();
        let fail = "CREATE TRIGGER fail BEFORE INSERT ON invites BEGIN SELECT RAISE(ABORT, 'no more'); END";
        file.execute_batch(fail).unwrap();
        drop(places);
        assert!(ended(accepting).await.is_err(), "their source must not acknowledge them");
        // No place is lost with them.
        drop(scene.fill("acme"));
        file.execute_batch("DROP TRIGGER fail").unwrap();
        let taken = done(scene.tell(&["acme/1", "beta/1"]).await).await;
        assert_eq!(taken.iter().map(|taken| taken.news).collect::<Vec<_>>(), [true, false]);
        assert_eq!(scene.intake.relay.store.unfinished(), 2);
    }

    #[tokio::test]
    async fn at_dashdocs_pace_no_event_waits_for_a_place() {
        let scene = Scene::with_pace(DASHDOCS);
        let _places = scene.account("acme").places().await;
        let _clock = stop_the_clock();
        done(scene.tell(&["acme/1"]).await).await;
        assert!(scene.waits("acme/1").await);
    }
}
