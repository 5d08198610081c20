//! The doctor's checks within the running service: what drifts away is seen before it hurts.
//!
//! They look and change nothing, as `invite-relay doctor` does. One look costs one request for each account, in its
//! turn within the account's pace, two connections to the broker and a probe of the store, at most once every
//! `telemetry.doctor_every`, never two at a time. What is found becomes a gauge; what begins or ends to fail is said
//! once in the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};
use tracing::{info, warn};

use crate::config::Loaded;
use crate::doctor::{Report, Verdict, examine};
use crate::invite::AccountName;
use crate::lifecycle::Lifecycle;
use crate::relay::Relay;
use crate::telemetry::metrics::{CheckVerdict, Metrics, Part};

/// The first look waits until the parts had time to start.
const FIRST_AFTER: Duration = Duration::from_secs(60);
/// A look that takes longer is given up: nothing that is examined may hang for ever.
const LIMIT: Duration = Duration::from_secs(120);

/// Looks again and again until the drain.
pub(super) fn start(loaded: &Loaded, relay: &Arc<Relay>, metrics: &Arc<Metrics>, life: &Lifecycle) {
    let every = loaded.config.telemetry.doctor_every;
    if every.is_zero() {
        return;
    }
    let (loaded, relay) = (loaded.clone(), Arc::clone(relay));
    let (metrics, drain) = (Arc::clone(metrics), life.clone());
    life.spawn_long("doctor", async move {
        let mut timer = tokio::time::interval_at(Instant::now() + every.min(FIRST_AFTER), every);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut known = BTreeMap::new();
        loop {
            tokio::select! {
                () = drain.draining() => return,
                _ = timer.tick() => {}
            }
            let looking =
                examine(&loaded, |name| std::env::var(name).ok(), |name| turn(Arc::clone(&relay), name));
            let report = tokio::select! {
                () = drain.draining() => return,
                looked = tokio::time::timeout(LIMIT, Box::pin(looking)) => looked,
            };
            if let Ok(report) = report {
                metrics.examined(&counted(&report));
                tell(&report, &mut known);
            } else {
                warn!(seconds = LIMIT.as_secs(), "the doctor's checks have not ended in time");
            }
        }
    });
}

/// Waits until one request more fits into the account's pace: at the API it counts like one for an invite.
async fn turn(relay: Arc<Relay>, name: AccountName) -> Result<(), String> {
    match relay.account(&name) {
        Some(account) => {
            let turn = account.turn().await;
            turn.map_err(|until| format!("the API has asked this account to wait until {until}"))
        }
        None => Ok(()),
    }
}

/// Each check by part and verdict.
fn counted(report: &Report) -> Vec<(Part, CheckVerdict)> {
    let counted = report.checks.iter().filter_map(|finding| {
        let verdict = match finding.verdict {
            Verdict::Ok => CheckVerdict::Ok,
            Verdict::Warning { .. } => CheckVerdict::Warning,
            Verdict::Failed { .. } => CheckVerdict::Failed,
            Verdict::Skipped => CheckVerdict::Skipped,
        };
        let part = Part::of(&finding.check);
        debug_assert!(part.is_some(), "{} is of no known part", finding.check);
        Some((part?, verdict))
    });
    counted.collect()
}

/// Says what has changed since the last look; `known` are the failed checks then, with their evidence.
fn tell(report: &Report, known: &mut BTreeMap<String, String>) {
    let mut now = BTreeMap::new();
    for finding in &report.checks {
        if let Verdict::Failed { mend } = &finding.verdict {
            if !known.contains_key(&finding.check) {
                warn!(
                    check = finding.check,
                    evidence = finding.evidence,
                    mend,
                    "a check of the doctor fails"
                );
            }
            now.insert(finding.check.clone(), finding.evidence.clone());
        }
    }
    for check in known.keys().filter(|check| !now.contains_key(*check)) {
        info!(check, "a check of the doctor no longer fails");
    }
    *known = now;
}
