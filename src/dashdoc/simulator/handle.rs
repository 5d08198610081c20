//! The remote control of a running simulator, for tests and the demo.

use std::pin::pin;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

use super::faults::{Fault, Faults};
use super::report::{Stats, TruckerReport, View};
use super::state::{Ask, Shared, World};

/// Watches and steers a simulator, from before it runs until after it ended. Clones steer the same one.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

/// Where a held request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldAt {
    /// Before the new code is made; for a GET, before the trucker is read.
    BeforeEffect,
    /// After that, and before the first byte of the answer.
    BeforeReply,
}

impl Handle {
    /// One trucker, if it was ever asked for or created.
    pub fn trucker(&self, pk: u64) -> Option<TruckerReport> {
        View(&self.shared.look()).trucker(pk)
    }

    /// Every trucker that was ever asked for or created, by pk.
    pub fn truckers(&self) -> Vec<TruckerReport> {
        self.shared.look().truckers.iter().map(|(&pk, trucker)| trucker.report(pk)).collect()
    }

    /// The counts.
    pub fn stats(&self) -> Stats {
        self.shared.look().stats.clone()
    }

    /// The faults in force.
    pub fn faults(&self) -> Faults {
        self.shared.look().faults.clone()
    }

    /// Changes the faults for the requests that arrive from now on. Chances out of range count as they
    /// compare: below 0 never, above 1 always.
    pub fn set_faults(&self, faults: Faults) {
        self.shared.change(|world| world.faults = faults);
    }

    /// Changes the accepted tokens.
    pub fn set_tokens<T: Into<String>>(&self, tokens: impl IntoIterator<Item = T>) {
        let tokens = tokens.into_iter().map(Into::into).collect();
        self.shared.change(|world| world.set_tokens(tokens));
    }

    /// Forces the outcomes of the next POSTs for a trucker, after those forced before. Refused requests
    /// (token, rate limit, no such trucker) use none up.
    pub fn script_posts(&self, pk: u64, outcomes: impl IntoIterator<Item = Fault>) {
        self.shared.change(|world| world.truckers.entry(pk).or_default().post_script.extend(outcomes));
    }

    /// Forces the outcomes of the next GETs of a trucker, after those forced before.
    pub fn script_gets(&self, pk: u64, outcomes: impl IntoIterator<Item = Fault>) {
        self.shared.change(|world| world.truckers.entry(pk).or_default().get_script.extend(outcomes));
    }

    /// Creates a trucker with a first code; false if it exists or its remote id is taken.
    pub fn create(&self, pk: u64, remote_id: Option<&str>) -> bool {
        self.shared.change(|world| world.create(Some(pk), remote_id)).is_ok()
    }

    /// A driver signs in with `code`; true if it was the trucker's valid one. It is used up by that.
    pub fn use_code(&self, pk: u64, code: &str) -> bool {
        self.shared.change(|world| world.use_code(pk, Some(code)))
    }

    /// Makes the next POST for a trucker wait; several holds are for the POSTs that follow, one each.
    pub fn hold_post(&self, pk: u64, at: HoldAt) -> Held {
        self.hold(pk, Ask::Post, at)
    }

    /// Makes the next GET of a trucker wait.
    pub fn hold_get(&self, pk: u64, at: HoldAt) -> Held {
        self.hold(pk, Ask::Get, at)
    }

    fn hold(&self, pk: u64, ask: Ask, at: HoldAt) -> Held {
        let (arrive, arrived) = watch::channel(false);
        let (release, released) = oneshot::channel();
        let hold = Hold { at, arrive, released };
        self.shared.change(|world: &mut World| {
            let trucker = world.truckers.entry(pk).or_default();
            match ask {
                Ask::Post => trucker.post_holds.push_back(hold),
                Ask::Get => trucker.get_holds.push_back(hold),
            }
        });
        Held { arrived, _release: release }
    }

    /// Resolves when the state fulfils `predicate`, which is asked at once and after every change. It runs
    /// under the simulator's lock: it must not use a handle, only its view.
    pub async fn wait_for(&self, mut predicate: impl FnMut(&View<'_>) -> bool) {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            // Registered before the look, so that no change falls between the two.
            changed.as_mut().enable();
            if predicate(&View(&self.shared.look())) {
                return;
            }
            changed.await;
        }
    }
}

/// A request that waits, or will. Dropping it lets the request go on.
#[must_use = "dropping it releases the request at once"]
pub struct Held {
    arrived: watch::Receiver<bool>,
    /// Dropped to release; [`Hold::released`] is the other end.
    _release: oneshot::Sender<()>,
}

impl Held {
    /// Resolves when the request has come to where it is held.
    pub async fn arrived(&self) {
        // An error means that the request is gone, hence was there.
        let _ = self.arrived.clone().wait_for(|arrived| *arrived).await;
    }

    /// Lets the request go on.
    pub fn release(self) {}
}

/// The request's end of a [`Held`].
pub(super) struct Hold {
    pub(super) at: HoldAt,
    arrive: watch::Sender<bool>,
    released: oneshot::Receiver<()>,
}

impl Hold {
    pub(super) async fn wait(self) {
        self.arrive.send_replace(true);
        // Released by the drop of the other end, which is an error here.
        let _ = self.released.await;
    }
}
