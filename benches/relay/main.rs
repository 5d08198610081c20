//! How fast, how heavy, how late: the real binary beside a bare loop that promises nothing.
//!
//! `scripts/bench` builds and runs it; its head says how. Every figure that matters is a *ratio* of runs that take
//! turns on one machine, because absolute ones say more about the machine than about the service. The subjects:
//!
//! | subject | what it is |
//! |---|---|
//! | `bare` | [`bare`]: the same client libraries, no store: consume, call, publish with confirm, acknowledge |
//! | `sqlite`, `postgres` | the relay with everything on: durable, de-duplicating, traces sampled at 10 %, metrics |
//! | `broker` | the bare loop without its call: what the broker alone allows |
//!
//! Each subject, and the stub of the API ([`stub`]), is a process of its own, so that its CPU time and memory are its
//! own. The broker and the database are private nodes, as in the tests.

#![expect(clippy::unwrap_used, reason = "a benchmark that can't measure fails")]

mod bare;
mod catch_up;
mod latency;
mod pacing;
mod platform;
mod process;
mod report;
mod scene;
#[path = "../../tests/it/service/settings.rs"]
#[expect(dead_code, reason = "shared with the integration tests, which use more of it")]
mod settings;
mod stored;
mod stub;
#[path = "../../tests/it/support/mod.rs"]
#[expect(dead_code, reason = "shared with the integration tests, which use more of it")]
mod support;
mod throughput;
mod versions;

use std::path::Path;

use report::Report;
use scene::{Scene, Subject};

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    /// Runs of each kind; their median is reported.
    n_runs: usize,
    /// Divides what a run does.
    divisor: u64,
    /// Of the subjects only this one, and nothing to compare it with: for a profile.
    only: Option<Subject>,
}

impl Scale {
    /// `full` of a full benchmark, the matching part of a quick one.
    fn of(self, full: u64) -> u64 {
        full / self.divisor
    }

    fn wants(self, subject: Subject) -> bool {
        self.only.is_none_or(|only| only == subject)
    }
}

const PARTS: [&str; 5] = ["throughput", "latency", "pacing", "catch-up", "stored"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    // Fails only where another has been installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match arguments.first().map(String::as_str) {
        Some("as-stub") => return stub::main(&arguments[1..]),
        Some("as-bare") => return bare::main(&arguments[1..]),
        _ => {}
    }
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let only = arguments.iter().find_map(|argument| Subject::of(argument.strip_prefix("--only=")?));
    let (n_runs, divisor) = if quick { (1, 8) } else { (3, 1) };
    let scale = Scale { n_runs, divisor, only };
    let named: Vec<&str> = arguments.iter().map(String::as_str).filter(|name| PARTS.contains(name)).collect();
    let wanted = |part: &str| named.is_empty() || named.contains(&part);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut scene = Scene::set();
        if let Some(other) = arguments.iter().find_map(|argument| argument.strip_prefix("--against=")) {
            return versions::run(&mut scene, Path::new(other), only).await;
        }
        // One subject alone is no report.
        let mut report = Report::begin(quick, only.is_none());
        if wanted("throughput") {
            report.section("throughput", &throughput::run(&mut scene, scale).await);
        }
        if wanted("latency") {
            report.section("latency", &latency::run(&mut scene, scale).await);
        }
        if wanted("pacing") {
            report.section("pacing", &pacing::run(&mut scene, scale).await);
        }
        if wanted("stored") {
            report.section("stored", &stored::run(&mut scene, scale).await);
        }
        // Last: it stops the broker.
        if wanted("catch-up") {
            report.section("catch-up", &catch_up::run(&mut scene, scale).await);
        }
    });
}
