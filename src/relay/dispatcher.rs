//! The dispatcher of an account: takes up due work as fast as gate, pace and places allow.
//!
//! Nothing is taken long before it can be sent, because the lease begins with the taking: no more than the account has
//! places for, and the pace allows.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::Relay;
use super::account::{Account, Place};
use super::trace::Begun;
use crate::invite::Passage;
use crate::store::Due;
use crate::time::Timestamp;

/// How long to wait after the store could not be asked.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Without any hint the store is asked this often: the clock may have been set, another process may have added work.
const LONGEST_NAP: Duration = Duration::from_secs(30);

impl Relay {
    /// Runs until the drain begins.
    ///
    /// The drain interrupts every wait, but never the taking itself: what is taken is also carried out.
    pub(super) async fn dispatch(self: &Arc<Self>, account: &Arc<Account>) {
        loop {
            let places = tokio::select! {
                () = self.life.draining() => return,
                places = free_places(account) => places,
            };
            let next_due = self.take_up(account, places).await;
            tokio::select! {
                () = self.life.draining() => return,
                () = nap(account, next_due) => {}
            }
        }
    }

    /// Takes up as much due work as there are places and the pace allows. Returns when to look again.
    async fn take_up(self: &Arc<Self>, account: &Arc<Account>, mut places: Vec<Place>) -> Option<Timestamp> {
        let mut slots = account.limiter.take(places.len());
        let limit = slots.len();
        places.truncate(limit);
        if limit == 0 {
            return Some(Timestamp::EPOCH);
        }
        let taken = match self.store.take(Due::Api { account: account.name.clone(), limit }).await {
            Ok(taken) => taken,
            Err(error) => {
                warn!(account = %account.name, %error, "due work could not be taken up");
                self.metrics.store_errors.inc();
                account.limiter.give_back(slots);
                return Some(self.store.now().after(STORE_PAUSE));
            }
        };
        account.limiter.give_back(slots.split_off(taken.work.len()));
        let all_taken = taken.work.len() < limit;
        for (work, (place, slot)) in taken.work.into_iter().zip(places.into_iter().zip(slots)) {
            self.metrics.taken_up(&work.invite);
            let place = Some((Arc::clone(account), place.at(slot)));
            self.life.spawn_work(Arc::clone(self).carry_out(work, place, Begun::FromTheStore));
        }
        // While older work waits in the store, new work queues up behind it.
        account.set_backlog(!all_taken);
        if all_taken { taken.next_due } else { Some(Timestamp::EPOCH) }
    }
}

/// Waits until gate, concurrency and pace allow a request.
async fn free_places(account: &Account) -> Vec<Place> {
    loop {
        let places = match account.passage() {
            Passage::Shut(until) => {
                nap(account, Some(until)).await;
                continue;
            }
            Passage::Probe => vec![account.alone().await],
            Passage::Free => account.places().await,
        };
        account.limiter.wait().await;
        // The waits may have been long, and the gate may have closed meanwhile.
        if !matches!(account.passage(), Passage::Shut(_)) {
            return places;
        }
    }
}

/// Waits until `until`, or until somebody wakes the account.
async fn nap(account: &Account, until: Option<Timestamp>) {
    let pause = until.map_or(LONGEST_NAP, |until| until.since(account.now()).min(LONGEST_NAP));
    if pause.is_zero() {
        return;
    }
    tokio::select! {
        () = tokio::time::sleep(pause) => {}
        () = account.wake.notified() => {}
    }
}
