//! What several processes on one store share besides the work: the gate of each account, and its rate.

use std::time::Duration;

use tracing::{debug, info};

use super::Relay;
use crate::invite::Gate;

/// How often the gates are looked at: how late a replica hears at worst that another was throttled.
const GATES_EVERY: Duration = Duration::from_millis(500);
/// In every so many rounds, the replicas are counted.
const ROUNDS_TO_COUNT: u32 = 8;

impl Relay {
    /// Follows the other replicas, until the drain begins.
    pub(super) async fn follow_replicas(&self) {
        let mut timer = tokio::time::interval(GATES_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut round, mut n_known): (u32, u32) = (0, 0);
        loop {
            tokio::select! {
                () = self.life.draining() => return,
                _ = timer.tick() => {}
            }
            if round.is_multiple_of(ROUNDS_TO_COUNT) {
                self.count_replicas(&mut n_known).await;
            }
            self.look_at_gates().await;
            round = round.wrapping_add(1);
        }
    }

    async fn count_replicas(&self, n_known: &mut u32) {
        // While the store is away, everybody keeps its share.
        match self.store.report_for_duty().await {
            Ok(n_replicas) if n_replicas != *n_known => {
                info!(replicas = n_replicas, "the rate of each account is shared");
                *n_known = n_replicas;
                self.accounts.values().for_each(|account| account.share_among(n_replicas));
            }
            Ok(_) => {}
            Err(error) => debug!(%error, "the replicas could not be counted"),
        }
    }

    async fn look_at_gates(&self) {
        let moves: Vec<u64> = self.accounts.values().map(|account| account.moves()).collect();
        let Ok(closed) = self.store.gates().await else { return };
        for (account, moves) in self.accounts.values().zip(moves) {
            let stored = closed.iter().find(|(name, _)| *name == account.name);
            account.adopt(stored.map_or(Gate::Open, |(_, gate)| *gate), moves);
        }
    }
}
