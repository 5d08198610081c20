//! One account at work: its client, its pace, its places in flight, its gate.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{info, warn};

use super::limiter::{self, Limiter, Slot};
use crate::dashdoc::client::{Client, Exchange};
use crate::invite::{
    AccountName, Answer, Circuit, Effect, FailureClass, Gate, GateReason, GateRules, Passage, Refusal,
};
use crate::store::{self, GateDecision};
use crate::telemetry::metrics::Metrics;
use crate::time::Timestamp;

/// Work that has just come in waits for this part of all places at once: so it is committed together, and few places stand
/// empty until the last of them is free.
const PART_AT_ONCE: u32 = 8;

/// What an account is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `dashdoc.rate_per_second`.
    pub rate_per_second: f64,
    /// `dashdoc.max_in_flight`.
    pub max_in_flight: u32,
    /// How long its gate stays closed.
    pub gate: GateRules,
}

/// An account at work. Shared by intake, its dispatcher and its workers.
pub struct Account {
    /// Its name.
    pub name: AccountName,
    /// Its way to the API.
    pub client: Client,
    /// Its pace.
    pub limiter: Limiter,
    /// Woken when there may be something to do: new work, an earlier due time, a gate that moved.
    pub wake: Notify,
    limits: Limits,
    /// For work in hand: [`Limits::in_hand`].
    places: Arc<Semaphore>,
    /// For requests at the API: `dashdoc.max_in_flight`.
    requests: Arc<Semaphore>,
    /// Readiness watches it.
    gate: watch::Sender<Gate>,
    /// See [`Account::moves`].
    moves: AtomicU64,
    /// Failures in a row, of all its workers.
    circuit: Mutex<Circuit>,
    /// Set while older work waits in the store: then new work queues up behind it.
    backlog: AtomicBool,
    store: store::Shared,
    metrics: Arc<Metrics>,
}

impl Limits {
    /// How much may be taken up at one time: what may be at the API, and a little ahead of it, so that no turn at the API
    /// passes while a lease is committed. At Dashdoc's pace nothing: a commit is over long before the next turn. The less
    /// that is, the better, because what a crash leaves has to be read back, also if its request had not left.
    fn in_hand(&self) -> u32 {
        let ahead = limiter::in_a_commit(self.rate_per_second).min(self.max_in_flight / 2);
        self.max_in_flight.saturating_add(ahead)
    }
}

/// Leave to have one piece of work in hand, or a probe that excludes all others. Dropping it frees the place.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
    slot: Option<Slot>,
    probe: bool,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// All are taken, and at the account's pace some may soon be free: [`Account::reserve_by`] waits for them.
    Soon,
    /// The work has to wait in the store.
    Queue,
}

/// A request at the API. Dropping it lets the next one leave.
#[derive(Debug)]
#[must_use]
pub struct Departed(#[expect(dead_code, reason = "held for what its end does")] OwnedSemaphorePermit);

impl Place {
    const fn new(permit: OwnedSemaphorePermit) -> Self {
        Self { _permit: permit, slot: None, probe: false }
    }

    /// The same place, with the time when its request may leave.
    pub fn at(self, slot: Slot) -> Self {
        Self { slot: Some(slot), ..self }
    }
}

impl Account {
    /// An account with the gate that the store kept.
    pub fn new(
        name: AccountName,
        client: Client,
        limits: Limits,
        gate: Gate,
        store: store::Shared,
        metrics: Arc<Metrics>,
    ) -> Self {
        let account = Self {
            name,
            client,
            limiter: Limiter::new(limits.rate_per_second),
            wake: Notify::new(),
            limits,
            places: Arc::new(Semaphore::new(limits.in_hand() as usize)),
            requests: Arc::new(Semaphore::new(limits.max_in_flight as usize)),
            gate: watch::Sender::new(gate),
            moves: AtomicU64::new(0),
            circuit: Mutex::default(),
            backlog: AtomicBool::new(true),
            store,
            metrics,
        };
        account.metrics.gate_stands(&account.name, reason_of(gate));
        account.metrics.pace.of(&account.name).set(limits.rate_per_second);
        account
    }

    /// The gate as it stands.
    pub fn gate(&self) -> Gate {
        *self.gate.borrow()
    }

    /// The gate as it moves.
    pub fn watch_gate(&self) -> watch::Receiver<Gate> {
        self.gate.subscribe()
    }

    /// The time that the store's times are compared with.
    pub fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// How much may pass now.
    pub fn passage(&self) -> Passage {
        self.gate().passage(self.now())
    }

    /// A place at once, for work that has just come in.
    pub fn reserve(&self) -> Result<Place, NoPlace> {
        if self.backlog.load(Ordering::Relaxed) || self.passage() != Passage::Free {
            return Err(NoPlace::Queue);
        }
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(permit) => self.with_slot(permit),
            Err(_) if self.limiter.together() > 0 => Err(NoPlace::Soon),
            Err(_) => Err(NoPlace::Queue),
        }
    }

    /// Up to `wanted` places that come free before `deadline`: some at once, because work that starts together is committed
    /// together. `None` sends the work to the queue. If the wait was in vain, it sends what comes after it there as well,
    /// until the dispatcher has taken up all that waits.
    pub async fn reserve_by(&self, deadline: Instant, wanted: usize) -> Option<Vec<Place>> {
        if deadline <= Instant::now() {
            return None;
        }
        let most = (self.limits.in_hand() / PART_AT_ONCE).min(self.limiter.together()).max(1);
        let together = u32::try_from(wanted).unwrap_or(u32::MAX).clamp(1, most);
        let places = Arc::clone(&self.places).acquire_many_owned(together);
        let Ok(places) = timeout_at(deadline, places).await else {
            self.set_backlog(true);
            self.wake.notify_one();
            return None;
        };
        let mut places = places.expect("the semaphore is never closed");
        // The gate may have closed meanwhile.
        if self.backlog.load(Ordering::Relaxed) || self.passage() != Passage::Free {
            return None;
        }
        let slots = self.limiter.take(places.num_permits());
        let places = slots.into_iter().map_while(|slot| Some(Place::new(places.split(1)?).at(slot)));
        Some(places.collect()).filter(|places: &Vec<Place>| !places.is_empty())
    }

    fn with_slot(&self, permit: OwnedSemaphorePermit) -> Result<Place, NoPlace> {
        self.limiter.take(1).pop().map(|slot| Place::new(permit).at(slot)).ok_or(NoPlace::Queue)
    }

    /// Gives back a reservation that was not needed.
    pub fn cancel(&self, place: Place) {
        self.limiter.give_back(place.slot);
    }

    /// Waits until the request may leave. To be called right before it does. `None` if the gate has closed meanwhile:
    /// then it must not.
    pub async fn depart(&self, place: &mut Place) -> Option<Departed> {
        let request = Arc::clone(&self.requests).acquire_owned().await;
        let request = request.expect("the semaphore is never closed");
        let free = |probe: bool| probe || self.passage() == Passage::Free;
        if !free(place.probe) {
            self.limiter.give_back(place.slot.take());
            return None;
        }
        let slot = match place.slot.take() {
            Some(slot) => slot,
            None => self.limiter.acquire().await,
        };
        self.limiter.depart(slot).await;
        free(place.probe).then_some(Departed(request))
    }

    /// Waits until a second request may leave from the same place.
    pub async fn stay(&self, place: &mut Place) {
        place.slot = Some(self.limiter.acquire().await);
    }

    /// Waits until a request may leave that is for no invite. It counts in the account's pace, because to the API it is one
    /// like all others. `Err` with the end of the pause that the API has asked for: then it must not leave.
    pub async fn turn(&self) -> Result<(), Timestamp> {
        self.unless_throttled()?;
        self.limiter.depart(self.limiter.book()).await;
        self.unless_throttled()
    }

    /// No other closed gate forbids to look: a look changes nothing, and may tell why the gate is closed.
    fn unless_throttled(&self) -> Result<(), Timestamp> {
        match self.gate() {
            Gate::Closed { reason: GateReason::Throttled, until, .. } if until > self.now() => Err(until),
            Gate::Closed { .. } | Gate::Open => Ok(()),
        }
    }

    /// Waits for a place, then takes the others that are free.
    pub async fn places(&self) -> Vec<Place> {
        let first = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        let mut places = vec![Place::new(first)];
        while let Ok(more) = Arc::clone(&self.places).try_acquire_owned() {
            places.push(Place::new(more));
        }
        places
    }

    /// Waits until nothing is in flight, and keeps it so: a probe goes alone.
    pub async fn alone(&self) -> Place {
        let all = Arc::clone(&self.places).acquire_many_owned(self.limits.in_hand()).await;
        Place { probe: true, ..Place::new(all.expect("the semaphore is never closed")) }
    }

    /// Tells intake whether older work waits in the store.
    pub fn set_backlog(&self, waiting: bool) {
        self.backlog.store(waiting, Ordering::Relaxed);
    }

    /// Draws the conclusion of an answer for all work of the account, and notes in the answer whether it came in an
    /// outage. To be called before the answer is recorded.
    pub async fn observe(&self, asked: Effect, exchange: &mut Exchange) {
        if exchange.retry_after_cut {
            warn!(account = %self.name, "the API asked for a pause of more than an hour; it is granted one hour");
        }
        self.learn(exchange);
        let failing = {
            let mut circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
            circuit.note(asked, &exchange.answer, self.limits.gate.circuit_after)
        };
        let (answer, rules) = (exchange.answer.clone(), self.limits.gate);
        let dice = rand::random();
        self.move_gate(Arc::new(move |gate, now| gate.after(&answer, failing, &rules, now, dice))).await;
        if let Answer::Failed { outage, .. } = &mut exchange.answer {
            *outage = self.gate().is_outage();
        }
    }

    /// What an answer says about the API's limit. A probe that is refused says nothing about the pace: it went alone.
    fn learn(&self, exchange: &Exchange) {
        let refusal = match &exchange.answer {
            Answer::Failed { failure, retry_after, .. } if failure.class == FailureClass::Throttled => {
                Some(if retry_after.is_some() { Refusal::WithTime } else { Refusal::Plain })
            }
            Answer::Failed { .. } | Answer::Code(_) | Answer::NoCode => None,
        };
        match (exchange.status, refusal) {
            (Some(429), Some(refusal)) if self.gate() == Gate::Open => {
                self.limiter.throttled(refusal);
                self.show_pace();
            }
            (Some(_), None) => self.limiter.accepted(),
            (Some(_) | None, _) => {}
        }
    }

    /// So many replicas share the account's rate. Nobody hands out turns: each takes its part of it, which wastes what
    /// an idle one does not need, and in return costs no round trip for a request.
    pub fn share_among(&self, n_replicas: u32) {
        self.limiter.share(self.limits.rate_per_second / f64::from(n_replicas.max(1)));
        self.show_pace();
    }

    /// Counts the moves of the gate that are not stored yet or were stored lately: whoever asks the store for the gate
    /// compares it before and after.
    pub fn moves(&self) -> u64 {
        self.moves.load(Ordering::SeqCst)
    }

    /// Takes over the gate that another replica has moved, unless this one has moved it since `moves`.
    pub fn adopt(&self, stored: Gate, moves: u64) {
        if self.moves() != moves {
            return;
        }
        let changed = self.gate.send_if_modified(|gate| std::mem::replace(gate, stored) != stored);
        if changed {
            self.metrics.gate_stands(&self.name, reason_of(stored));
            self.wake.notify_one();
        }
    }

    /// Shows the pace as it is now; it climbs by itself.
    pub fn show_pace(&self) {
        self.metrics.pace.of(&self.name).set(self.limiter.rate());
    }

    /// A new token: what the old one was refused for is no longer true.
    pub async fn token_changed(&self) {
        let refused = |gate: Gate| matches!(gate, Gate::Closed { reason: GateReason::Credentials, .. });
        self.move_gate(Arc::new(move |gate, _| refused(gate).then_some(Gate::Open))).await;
    }

    async fn move_gate(&self, decide: GateDecision) {
        let mut moved = None;
        self.gate.send_if_modified(|gate| {
            let Some(after) = decide(*gate, self.now()) else { return false };
            moved = Some((std::mem::replace(gate, after), after));
            true
        });
        if let Some((before, after)) = moved {
            self.moved(before, after, decide).await;
        }
    }

    async fn moved(&self, before: Gate, after: Gate, decide: GateDecision) {
        match (before, after) {
            (Gate::Open, Gate::Closed { reason, until, .. }) => {
                let mend = match reason {
                    GateReason::Throttled => "nothing to do: it goes on by itself",
                    GateReason::Credentials => {
                        "the token is refused (401 or 403): put a valid one into its file"
                    }
                    GateReason::Misconfigured => "the API answers with a redirect: correct its base_url",
                    GateReason::Circuit => {
                        "the API can't be reached or fails every call: it is tried again and again, nothing is lost"
                    }
                };
                warn!(account = %self.name, reason = reason.as_str(), %until, mend, "the account has to wait");
            }
            (Gate::Closed { reason, .. }, Gate::Open) => {
                info!(account = %self.name, reason = reason.as_str(), "the account works again");
                if reason == GateReason::Circuit {
                    self.limiter.start_slowly();
                }
            }
            (Gate::Open, Gate::Open) | (Gate::Closed { .. }, Gate::Closed { .. }) => {}
        }
        self.metrics.gate_stands(&self.name, reason_of(after));
        if let Some(reason) = reason_of(after) {
            self.metrics.gate_closings.of(&self.name, reason).inc();
        }
        self.show_pace();
        // In memory it holds at once. If the store is away, a restart would only cost one more refused request.
        self.moves.fetch_add(1, Ordering::SeqCst);
        let stored = self.store.move_gate(self.name.clone(), decide).await;
        self.moves.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = stored {
            warn!(account = %self.name, %error, "the gate could not be stored");
        }
        self.wake.notify_one();
    }
}

fn reason_of(gate: Gate) -> Option<GateReason> {
    match gate {
        Gate::Open => None,
        Gate::Closed { reason, .. } => Some(reason),
    }
}
