//! How much of the API's limit is used, and what it costs to find it. Against the simulator, which keeps the limit.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::time::Duration;

use crate::Scale;
use crate::platform::Bus;
use crate::process::Process;
use crate::report::note;
use crate::scene::{Scene, relay_binary};
use crate::support::until;

/// Requests per second that the API takes of one token; what Dashdoc documents.
const LIMIT: u64 = 10;
const SECONDS: u64 = 90;

/// What the relay is told about the limit.
const CONFIGURED: [(&str, f64); 3] =
    [("the limit, 10", 10.0), ("less, 9.5", 9.5), ("five times as much, 50", 50.0)];

struct Trial {
    what: &'static str,
    name: String,
    _bus: Bus,
    _simulator: Process,
    _relay: Process,
}

pub(crate) async fn run(scene: &mut Scene, scale: Scale) -> String {
    let seconds = scale.of(SECONDS);
    let mut trials = Vec::new();
    for (what, rate) in CONFIGURED {
        trials.push(begin(scene, what, rate, seconds).await);
    }
    // Side by side: at ten requests a second none of them feels the others.
    for trial in &trials {
        let admin = scene.admin_of(&trial.name).await;
        until("the first call", async || count(&admin, "code").await > 0).await;
    }
    let before = counts(scene, &trials).await;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let after = counts(scene, &trials).await;
    let mut text = format!(
        "The API takes {LIMIT}/s; {seconds} s with a full queue.\n\n\
         | `rate_per_second` | share of the limit used | 429s |\n|---|---:|---:|\n"
    );
    for (trial, (before, after)) in trials.iter().zip(before.iter().zip(&after)) {
        #[expect(clippy::cast_precision_loss, reason = "hundreds of requests")]
        let share = (after.0 - before.0) as f64 / (LIMIT * seconds) as f64;
        note(&format!("pacing, {}: {:.1} %, {} refused", trial.what, share * 100.0, after.1));
        writeln!(text, "| {} | {:.1} % | {} |", trial.what, share * 100.0, after.1).unwrap();
    }
    text
}

async fn begin(scene: &mut Scene, what: &'static str, rate: f64, seconds: u64) -> Trial {
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    let mut command = Command::new(relay_binary());
    command.args(["simulate", "--listen", &format!("127.0.0.1:{port}"), "--rate-limit", &LIMIT.to_string()]);
    let simulator = Process::start(command, &scene.file("simulator.log"));
    let bus = scene.bus().await;
    bus.tell(1..LIMIT * seconds * 2).await;
    let api = scene.api(0).await;
    let store = format!("sqlite://{}", scene.file(&format!("{}.db", bus.name)).display());
    let settings = scene
        .settings(&bus, &api, &store)
        .with("dashdoc.base_url", format!("http://127.0.0.1:{port}/api/v4"))
        .with("dashdoc.rate_per_second", rate)
        .with("dashdoc.max_in_flight", 8);
    let relay = scene.relay(&settings, &api.url, &bus.name);
    Trial { what, name: bus.name.clone(), _bus: bus, _simulator: simulator, _relay: relay }
}

/// Codes and refusals so far, of each trial.
async fn counts(scene: &Scene, trials: &[Trial]) -> Vec<(u64, u64)> {
    let mut counts = Vec::new();
    for trial in trials {
        let admin = scene.admin_of(&trial.name).await;
        counts.push((count(&admin, "code").await, count(&admin, "throttled").await));
    }
    counts
}

async fn count(admin: &str, outcome: &str) -> u64 {
    let series = format!(
        r#"invite_relay_api_requests_total{{account="default",operation="generate",outcome="{outcome}"}}"#
    );
    crate::scene::metric(admin, &series).await
}
