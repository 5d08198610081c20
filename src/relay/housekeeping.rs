//! What has to be done now and then: erase codes, retire old invites, keep the books' gauges fresh.

use std::time::Duration;

use tracing::{debug, warn};

use super::Relay;
use crate::invite::StateName;
use crate::store::{self, Tidied};

/// How often the gauges of stored invites are set; below the usual scrape interval.
const ROUND: Duration = Duration::from_secs(5);
/// In every so many rounds, codes and old rows are looked for.
const ROUNDS_TO_TIDY: u32 = 6;

/// A write that takes longer than this makes the service unready.
const HANGING: Duration = Duration::from_secs(10);

impl Relay {
    /// Runs until the drain begins.
    pub(super) async fn keep_house(&self) {
        let mut timer = tokio::time::interval(ROUND);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut round: u32 = 0;
        self.warn_of_strangers().await;
        loop {
            tokio::select! {
                () = self.life.draining() => return,
                _ = timer.tick() => {}
            }
            self.count().await;
            // Tidying always writes something: while the store is in trouble it is how its recovery is noticed.
            if round.is_multiple_of(ROUNDS_TO_TIDY) || self.store_works.borrow().is_err() {
                self.tidy().await;
            }
            round = round.wrapping_add(1);
        }
    }

    async fn tidy(&self) {
        while !self.life.is_draining() {
            match self.wrote(self.tidied_in_time().await) {
                Ok(tidied) => {
                    debug!(codes = tidied.codes, invites = tidied.invites, "tidied the store");
                    if !tidied.more {
                        return;
                    }
                }
                Err(error) => {
                    warn!(%error, "the store could not be tidied");
                    return;
                }
            }
        }
    }

    /// Tidies one portion. A write that hangs is trouble too, and is noticed here: nobody else looks at the time.
    async fn tidied_in_time(&self) -> Result<Tidied, store::Error> {
        let mut tidying = self.store.tidy();
        if let Ok(tidied) = tokio::time::timeout(HANGING, &mut tidying).await {
            return tidied;
        }
        let hangs = format!("a write has not ended within {} s", HANGING.as_secs());
        let _ = self.wrote(Err::<(), _>(store::Error::Unavailable(hangs)));
        tidying.await
    }

    /// Invites of an account that was taken out of the configuration wait for its return; nobody else would say so.
    async fn warn_of_strangers(&self) {
        let tally = self.store.tally().await.unwrap_or_default();
        let finished = |state| matches!(state, StateName::Published | StateName::Dead);
        for waiting in tally.iter().filter(|tally| tally.count > 0 && !finished(tally.state)) {
            if !self.accounts.contains_key(&waiting.account) {
                warn!(
                    account = %waiting.account, state = %waiting.state, count = waiting.count,
                    "invites wait for an account that is not configured; add it to [dashdoc.accounts] again"
                );
            }
        }
    }

    async fn count(&self) {
        self.look_at_the_way_in();
        self.accounts.values().for_each(|account| account.show_pace());
        match self.store.tally().await {
            Ok(tally) => self.metrics.books(&tally, self.store.now()),
            Err(error) => {
                self.metrics.store_errors.inc();
                warn!(%error, "the store could not be counted");
            }
        }
    }
}
