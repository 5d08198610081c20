//! The doctor's checks within the running service: what drifts away is seen before it hurts.
//!
//! They look and change nothing, as `invite-relay doctor` does. One look costs one request for each account, in its
//! turn within the account's pace, two connections to the broker and a probe of the store, at most once every
//! `telemetry.doctor_every`, never two at a time. What is found becomes a gauge; what begins or ends to fail is said
//! once in the log.

use std::collections::BTreeSet;
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
        let mut known = BTreeSet::new();
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

/// Says what has changed since the last look; `known` are the checks that failed when they were last made. One that is
/// skipped tells nothing new.
fn tell(report: &Report, known: &mut BTreeSet<String>) {
    let mut now = BTreeSet::new();
    for finding in &report.checks {
        match &finding.verdict {
            Verdict::Failed { mend } => {
                if !known.contains(&finding.check) {
                    warn!(
                        check = finding.check,
                        evidence = finding.evidence,
                        mend,
                        "a check of the doctor fails"
                    );
                }
                now.insert(finding.check.clone());
            }
            Verdict::Skipped => now.extend(known.get(&finding.check).cloned()),
            Verdict::Ok | Verdict::Warning { .. } => {}
        }
    }
    for check in known.difference(&now) {
        info!(check, "a check of the doctor no longer fails");
    }
    *known = now;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Finding;

    #[test]
    fn a_check_that_failed_is_said_to_work_when_it_does_and_not_when_it_is_skipped() {
        let mut known = BTreeSet::new();
        let mut look = |verdict| {
            let (check, evidence) = ("api.acme.token".to_owned(), String::new());
            tell(&Report { checks: vec![Finding { check, verdict, evidence }] }, &mut known);
            known.len()
        };
        assert_eq!(look(Verdict::Skipped), 0);
        assert_eq!(look(Verdict::Failed { mend: "a new token".to_owned() }), 1);
        assert_eq!(look(Verdict::Skipped), 1, "still failing, as far as anybody knows");
        assert_eq!(look(Verdict::Ok), 0);
    }
}
