//! What has to be done now and then: erase codes, retire old invites, keep the books' gauges fresh.

use std::time::Duration;

use tracing::{debug, warn};

use super::Relay;

/// How often codes and old rows are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(30);
/// How often the gauges of stored invites are set; below the usual scrape interval.
const COUNT_EVERY: Duration = Duration::from_secs(5);

impl Relay {
    /// Runs until the drain begins.
    pub(super) async fn keep_house(&self) {
        let mut tidy = tokio::time::interval(TIDY_EVERY);
        let mut count = tokio::time::interval(COUNT_EVERY);
        for timer in [&mut tidy, &mut count] {
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        }
        loop {
            tokio::select! {
                () = self.life.draining() => return,
                _ = tidy.tick() => self.tidy().await,
                _ = count.tick() => self.count().await,
            }
        }
    }

    async fn tidy(&self) {
        loop {
            match self.store.tidy().await {
                Ok(tidied) => {
                    debug!(codes = tidied.codes, invites = tidied.invites, "tidied the store");
                    if !tidied.more {
                        return;
                    }
                }
                Err(error) => {
                    self.metrics.store_errors.inc();
                    warn!(%error, "the store could not be tidied");
                    return;
                }
            }
        }
    }

    async fn count(&self) {
        match self.store.tally().await {
            Ok(tally) => self.metrics.books(&tally, crate::time::now()),
            Err(error) => {
                self.metrics.store_errors.inc();
                warn!(%error, "the store could not be counted");
            }
        }
    }
}
