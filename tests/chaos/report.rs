//! What a run leaves behind: a summary, and the evidence if it failed.

use std::fmt::Write as _;

use serde_json::json;

use crate::checker::{Counts, Evidence};
use crate::world::World;

/// For people: what went wrong how often, and what came of it.
pub(crate) fn summary(world: &World, evidence: &Evidence, counts: &Counts) -> String {
    let faults: Vec<_> =
        world.timeline.counts().iter().map(|(fault, n)| format!("{} {n}", fault.name())).collect();
    let stats = &evidence.stats;
    let mut text = format!("summary\n  faults: {}\n", faults.join(", "));
    world.platform.with_ledger(|ledger| {
        let _ = writeln!(
            text,
            "  events: {} over RabbitMQ, {} over the webhook after {} repeated tries; {} poison",
            ledger.n_over_rabbitmq,
            ledger.n_over_webhook,
            ledger.n_repeated,
            ledger.poison.len()
        );
    });
    let _ = writeln!(
        text,
        "  API: {} posts made {} codes, {} gets, {} throttled, {} unanswered, {} in flight at most",
        stats.posts, stats.effects, stats.gets, stats.throttled, stats.unanswered, stats.peak_in_flight
    );
    let _ = write!(text, "  {counts}\n  the service was started {} times", world.service.n_starts());
    text
}

/// Writes down what can't be seen in the timeline and the service's log.
pub(crate) fn keep(world: &World, evidence: &Evidence, findings: &[String]) {
    let timeline = &world.timeline;
    for finding in findings {
        timeline.note(finding);
    }
    let lines = |texts: Vec<String>| texts.join("\n") + "\n";
    timeline.write("findings.txt", &lines(findings.to_vec()));
    let announced = evidence.announced.iter().map(|taken| String::from_utf8_lossy(&taken.body).into_owned());
    timeline.write("announced.jsonl", &lines(announced.collect()));
    timeline.write("invites.jsonl", &lines(evidence.invites.iter().map(ToString::to_string).collect()));
    timeline.write("metrics.txt", &evidence.metrics);
    let truckers = evidence.truckers.iter().map(|trucker| json!(trucker).to_string());
    timeline.write("truckers.jsonl", &lines(truckers.collect()));
    // The store is on a disk that goes with this process.
    for name in ["store.db", "store.db-wal"] {
        let _ = std::fs::copy(timeline.path("store").join(name), timeline.path(name));
    }
}
