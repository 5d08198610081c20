//! What a check found.

use serde::Serialize;

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: the part, then the property, for example `source.rabbitmq.topology`. Stable.
    pub check: String,
    /// The verdict, with what to do about it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// What was seen, for people. Holds no secret.
    pub evidence: String,
}

/// How a check ended. Only what is wrong has a mend, and what is wrong always has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The service works, but not as well or as safely as it should.
    Warning {
        /// What to do.
        mend: String,
    },
    /// The service can't do its work like this.
    Failed {
        /// What to do.
        mend: String,
    },
    /// Could not, or need not, be looked at; the evidence says why.
    Skipped,
}

impl Verdict {
    /// The word for people and machines.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning { .. } => "warning",
            Self::Failed { .. } => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// What to do, where something is to be done.
    pub fn mend(&self) -> Option<&str> {
        match self {
            Self::Warning { mend } | Self::Failed { mend } => Some(mend),
            Self::Ok | Self::Skipped => None,
        }
    }
}

/// Everything that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// In a fixed order: configuration, store, sources, sinks, API, ports, telemetry.
    pub checks: Vec<Finding>,
}

/// How many checks ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// As they should be.
    pub ok: usize,
    /// Worth a look.
    pub warning: usize,
    /// To be mended.
    pub failed: usize,
    /// Not looked at.
    pub skipped: usize,
}

impl Report {
    /// The counts.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for finding in &self.checks {
            match finding.verdict {
                Verdict::Ok => counts.ok += 1,
                Verdict::Warning { .. } => counts.warning += 1,
                Verdict::Failed { .. } => counts.failed += 1,
                Verdict::Skipped => counts.skipped += 1,
            }
        }
        counts
    }
}

/// Collects the findings about one part.
pub(super) struct Findings {
    part: String,
    pub(super) found: Vec<Finding>,
}

impl Findings {
    pub(super) fn about(part: impl Into<String>) -> Self {
        Self { part: part.into(), found: Vec::new() }
    }

    pub(super) fn ok(&mut self, property: &str, evidence: impl Into<String>) {
        self.add(property, Verdict::Ok, evidence.into());
    }

    pub(super) fn warning(&mut self, property: &str, evidence: impl Into<String>, mend: impl Into<String>) {
        self.add(property, Verdict::Warning { mend: mend.into() }, evidence.into());
    }

    pub(super) fn failed(&mut self, property: &str, evidence: impl Into<String>, mend: impl Into<String>) {
        self.add(property, Verdict::Failed { mend: mend.into() }, evidence.into());
    }

    pub(super) fn skipped(&mut self, property: &str, why: impl Into<String>) {
        self.add(property, Verdict::Skipped, why.into());
    }

    fn add(&mut self, property: &str, verdict: Verdict, evidence: String) {
        self.found.push(Finding { check: format!("{}.{property}", self.part), verdict, evidence });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_reported_with_its_mend_and_what_is_right_without() {
        let mut findings = Findings::about("store");
        findings.ok("space", "10 GB free");
        findings.failed("file", "no database", "move it away");
        let json = serde_json::to_value(&findings.found).unwrap();
        let expected = serde_json::json!([
            { "check": "store.space", "verdict": "ok", "evidence": "10 GB free" },
            { "check": "store.file", "verdict": "failed", "mend": "move it away", "evidence": "no database" },
        ]);
        assert_eq!(json, expected);
    }

    #[test]
    fn every_finding_is_counted_once() {
        let mut findings = Findings::about("any");
        findings.ok("a", "");
        findings.ok("b", "");
        findings.warning("c", "", "");
        findings.skipped("d", "");
        let counts = Report { checks: findings.found }.counts();
        assert_eq!(counts, Counts { ok: 2, warning: 1, failed: 0, skipped: 1 });
    }
}
