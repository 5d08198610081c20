//! Whether the process can accept work, part by part.
//!
//! Readiness is made of what the parts report about themselves. Liveness is not: restarting this process
//! does not mend a broker or a store that is away, so nothing a part reports may ever restart it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tracing::{info, warn};

use crate::lifecycle::Lifecycle;
use crate::time::{self, Timestamp};

/// What a part says before it has reported.
const STARTING: &str = "starting";

/// The parts of the process. Cheap to clone; all clones speak of the same parts.
#[derive(Clone)]
pub struct Health {
    life: Lifecycle,
    /// Written by the [`Part`]s, read by the admin port.
    parts: Arc<Mutex<Vec<PartState>>>,
}

/// The whole process at one moment: the body of `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Every required part is ready and the process does not drain.
    pub ready: bool,
    /// The process finishes what is in hand and takes nothing new.
    pub draining: bool,
    /// Each part, in the order it was added.
    pub parts: Vec<PartState>,
}

/// One part at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PartState {
    /// Its name.
    pub name: String,
    /// Whether it works.
    pub ready: bool,
    /// Whether the process needs it to accept work.
    pub required: bool,
    /// What it says about itself. No secrets: the admin port shows it without a token.
    pub detail: String,
    /// Since when it is ready, or not.
    #[serde(serialize_with = "as_text")]
    pub since: Timestamp,
}

impl Report {
    /// As one JSON document with a line for each part: for machines, and for a person with curl and grep.
    pub fn in_lines(&self) -> String {
        let Self { ready, draining, parts } = self;
        let parts = parts.iter().map(|part| serde_json::to_string(part).expect("plain text and booleans"));
        let parts = parts.collect::<Vec<_>>().join(",\n");
        format!("{{\"ready\":{ready},\"draining\":{draining},\"parts\":[\n{parts}\n]}}\n")
    }
}

impl Health {
    /// A process without parts; it is ready until `life` drains.
    pub fn new(life: Lifecycle) -> Self {
        Self { life, parts: Arc::default() }
    }

    /// Adds a part without which the process cannot accept work. It is not ready until it says so.
    pub fn required(&self, name: impl Into<String>) -> Part {
        self.add(name.into(), true)
    }

    /// Adds a part whose trouble is shown, but does not stop intake.
    pub fn optional(&self, name: impl Into<String>) -> Part {
        self.add(name.into(), false)
    }

    /// How things stand now.
    pub fn report(&self) -> Report {
        let draining = self.life.is_draining();
        let parts = self.lock().clone();
        let ready = !draining && parts.iter().all(|part| part.ready || !part.required);
        Report { ready, draining, parts }
    }

    fn add(&self, name: String, required: bool) -> Part {
        let mut parts = self.lock();
        parts.push(PartState { name, ready: false, required, detail: STARTING.into(), since: time::now() });
        Part { health: self.clone(), index: parts.len() - 1 }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<PartState>> {
        // Nothing that holds this lock can leave the list half-written.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A part's own hand on its state. Cheap to clone.
#[derive(Clone)]
pub struct Part {
    health: Health,
    index: usize,
}

impl Part {
    /// Says that the part works.
    pub fn set_ok(&self, detail: impl Into<String>) {
        self.set(true, detail.into());
    }

    /// Says that it does not, and why; no secrets in `reason`.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.set(false, reason.into());
    }

    fn set(&self, ready: bool, detail: String) {
        let mut parts = self.health.lock();
        let part = &mut parts[self.index];
        let changed = part.ready != ready;
        if changed {
            part.ready = ready;
            part.since = time::now();
        }
        part.detail = detail;
        let PartState { name, detail, .. } = part.clone();
        drop(parts);
        match (changed, ready) {
            (true, true) => info!(part = name, detail, "ready"),
            (true, false) => warn!(part = name, detail, "no longer ready"),
            (false, _) => {}
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn as_text<S: serde::Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_ready_once_every_required_part_is() {
        let health = Health::new(Lifecycle::new());
        assert!(health.report().ready);
        let store = health.required("store");
        let broker = health.required("broker");
        let _sink = health.optional("sink");
        assert!(!health.report().ready, "a part that never reported counted as ready");
        store.set_ok("sqlite");
        assert!(!health.report().ready);
        broker.set_ok("connected");
        assert!(health.report().ready, "an optional part kept the process from being ready");
        broker.set_not_ready("connection lost");
        let report = health.report();
        assert!(!report.ready);
        assert_eq!(report.parts[1].detail, "connection lost");
    }

    #[test]
    fn a_report_is_one_document_with_a_line_for_each_part() {
        let health = Health::new(Lifecycle::new());
        assert_eq!(serde_json::to_value(health.report()).unwrap()["parts"], serde_json::json!([]));
        health.required("store").set_ok("sqlite");
        health.optional("sink").set_not_ready("says \"no\"\nand why");
        let report = health.report();
        let text = report.in_lines();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            serde_json::to_value(&report).unwrap()
        );
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].starts_with(r#"{"name":"store","ready":true,"#), "{text}");
        assert!(lines[2].contains(r#""detail":"says \"no\"\nand why""#), "{text}");
    }

    #[test]
    fn a_draining_process_is_not_ready() {
        let life = Lifecycle::new();
        let health = Health::new(life.clone());
        health.required("store").set_ok("");
        life.begin_drain();
        let report = health.report();
        assert!(!report.ready && report.draining && report.parts[0].ready);
    }

    #[test]
    fn since_tells_when_the_state_changed_and_not_when_it_was_last_reported() {
        let health = Health::new(Lifecycle::new());
        let part = health.required("store");
        // Far in the past, to be told apart without waiting.
        health.lock()[0].since = Timestamp::EPOCH;
        part.set_not_ready("migrating");
        assert_eq!(health.report().parts[0].since, Timestamp::EPOCH);
        assert_eq!(health.report().parts[0].detail, "migrating");
        part.set_ok("");
        assert_ne!(health.report().parts[0].since, Timestamp::EPOCH);
    }
}
