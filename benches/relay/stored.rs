//! A million invites in the store: start, memory, throughput. And a million that wait behind a closed gate.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use invite_relay::invite::{Backoff, Policy, Rules, Sink, Sinks};
use invite_relay::lifecycle::Lifecycle;
use invite_relay::store::sqlite::{Settings, SqliteStore};
use rusqlite::Connection;

use crate::Scale;
use crate::process::Process;
use crate::report::note;
use crate::scene::{Api, Scene, metric};
use crate::support::until;
use crate::throughput::{Run, measure_on, middle};

const N_STORED: u64 = 1_000_000;
/// Events of one run.
const N_EVENTS: u64 = 20_000;
/// How long the gate stays closed after the store is filled.
const GATE: Duration = Duration::from_secs(40);
/// How long the relay is watched.
const WATCHED: Duration = Duration::from_secs(12);

/// What is stored.
#[derive(Clone, Copy)]
enum Fill {
    /// Invites that were published a while ago, with their events.
    Published,
    /// Invites that have just come in, and a gate that is closed.
    Waiting,
}

pub(crate) async fn run(scene: &mut Scene, scale: Scale) -> String {
    let n = scale.of(N_STORED);
    let api = scene.api(0).await;
    let (published, waiting) = (scene.file("published.db"), scene.file("waiting.db"));
    make(&published, Fill::Published, n);
    let mut text = start_and_rest(scene, &api, &published, n).await;
    text.push_str(&flat(scene, &api, &published, scale).await);
    make(&waiting, Fill::Waiting, n);
    text.push_str(&behind_the_gate(scene, &api, &waiting, n).await);
    text
}

/// How long the start takes, and what memory it takes to have them.
async fn start_and_rest(scene: &mut Scene, api: &Api, path: &Path, n: u64) -> String {
    let mut text = format!(
        "{n} published invites, SQLite.\n\n| stored | file MiB | start ms | MiB after the start | MiB later |\n\
         |---:|---:|---:|---:|---:|\n"
    );
    let empty = scene.file("empty.db");
    for (stored, path) in [(0, empty.as_path()), (n, path)] {
        let (relay, _, took) = start(scene, api, path).await;
        let after = relay.memory().now;
        tokio::time::sleep(WATCHED).await;
        let later = relay.memory().now;
        note(&format!("{stored} stored: start {took:.0?}, {after:.0} MiB, later {later:.0} MiB"));
        writeln!(
            text,
            "| {stored} | {:.0} | {:.0} | {after:.0} | {later:.0} |",
            mebibytes(path),
            took.as_secs_f64() * 1000.0
        )
        .unwrap();
    }
    text
}

/// Throughput with none and with all of them, in turns.
async fn flat(scene: &mut Scene, api: &Api, path: &Path, scale: Scale) -> String {
    let mut runs: BTreeMap<u64, Vec<Run>> = BTreeMap::new();
    for run in 0..scale.n_runs {
        for stored in [0, scale.of(N_STORED)] {
            let store = if stored == 0 { scene.file(&format!("flat-{run}.db")) } else { path.to_path_buf() };
            let n_events = scale.of(N_EVENTS);
            // Other truckers in each run, because the full store is used again.
            let first = 1 + u64::try_from(run).unwrap() * n_events;
            let bus = scene.bus().await;
            let settings = scene.settings(&bus, api, &format!("sqlite://{}", store.display()));
            let measured =
                measure_on(&bus, first..first + n_events, || scene.relay(&settings, &api.url, &bus.name));
            let measured = measured.await;
            note(&format!("{stored} stored: {:.0}/s, {:.3} CPU s", measured.per_second, measured.cpu));
            runs.entry(stored).or_default().push(measured);
        }
    }
    let mut text = format!(
        "\nThroughput at 0 ms, medians of {}.\n\n| stored | events/s | × 0 stored | CPU s per 1,000 | peak MiB |\n\
         |---:|---:|---:|---:|---:|\n",
        scale.n_runs
    );
    let none = middle(&runs[&0]).per_second;
    for (stored, runs) in &runs {
        let run = middle(runs);
        let (ratio, cpu, peak) = (run.per_second / none, run.cpu, run.peak_mib);
        writeln!(text, "| {stored} | {:.0} | {ratio:.2} | {cpu:.3} | {peak:.0} |", run.per_second).unwrap();
    }
    text
}

/// All of them wait behind a closed gate; then it opens.
async fn behind_the_gate(scene: &mut Scene, api: &Api, path: &Path, n: u64) -> String {
    let (relay, name, took) = start(scene, api, path).await;
    let after = relay.memory().now;
    let admin = scene.admin_of(&name).await;
    tokio::time::sleep(WATCHED).await;
    let cpu = relay.cpu_seconds();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle_cpu = (relay.cpu_seconds() - cpu) / 5.0 * 100.0;
    let later = relay.memory().now;
    let series = r#"invite_relay_published_total{sink="stdout",event="ready"}"#;
    assert_eq!(metric(&admin, series).await, 0, "the gate was not closed");
    until("the gate to open", async || metric(&admin, series).await > 0).await;
    let (from, opened) = (metric(&admin, series).await, Instant::now());
    tokio::time::sleep(WATCHED).await;
    #[expect(clippy::cast_precision_loss, reason = "thousands of events")]
    let rate = (metric(&admin, series).await - from) as f64 / opened.elapsed().as_secs_f64();
    let peak = relay.memory().peak;
    note(&format!(
        "{n} waiting: start {took:.0?}, {after:.0} MiB, later {later:.0} MiB, {idle_cpu:.1} % CPU, then {rate:.0}/s, \
         peak {peak:.0} MiB"
    ));
    format!(
        "\n{n} invites wait behind a closed gate; then it opens.\n\n| start ms | MiB after the start | MiB later | \
         CPU while closed | then | peak MiB |\n|---:|---:|---:|---:|---:|---:|\n\
         | {:.0} | {after:.0} | {later:.0} | {idle_cpu:.1} % | {rate:.0}/s | {peak:.0} |\n",
        took.as_secs_f64() * 1000.0
    )
}

/// Starts a relay on the store, with a webhook as its source; also how long that took.
async fn start(scene: &mut Scene, api: &Api, store: &Path) -> (Process, String, Duration) {
    let bus = scene.bus().await;
    let settings = scene
        .settings(&bus, api, &format!("sqlite://{}", store.display()))
        .with("source.rabbitmq.enabled", false)
        .with("source.webhook.enabled", true)
        .with("source.webhook.insecure_accept_unsigned", true)
        .with("sink.rabbitmq.enabled", false)
        .with("sink.stdout.enabled", true);
    let started = Instant::now();
    let relay = scene.relay(&settings, &api.url, &bus.name);
    scene.listening(&bus.name, "admin").await;
    (relay, bus.name.clone(), started.elapsed())
}

fn mebibytes(path: &Path) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    std::fs::metadata(path).map_or(0.0, |file| file.len() as f64 / 1024.0 / 1024.0)
}

/// A store as the relay makes it, filled with SQL: to fill it event by event would take minutes.
fn make(path: &Path, fill: Fill, n: u64) {
    let settings = Settings {
        path: path.to_owned(),
        rules: rules(),
        erase_codes_after: Duration::from_secs(3600),
        retention: Duration::from_secs(30 * 86400),
        fingerprint_key: None,
        observer: Arc::new(|_, _| {}),
    };
    drop(SqliteStore::open(settings, &Lifecycle::new()).unwrap());
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let ago = now - 2 * 3_600_000;
    let db = Connection::open(path).unwrap();
    db.execute_batch("PRAGMA synchronous = OFF; BEGIN").unwrap();
    // Scattered, as the keys of many companies' truckers are.
    let numbers = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n}), \
         k(i, pk) AS (SELECT i, 1000000 + i * 2654435761 % 4294967296 FROM n)"
    );
    let common = r#"'event-' || i, '/platform', '{"remote_id":"driver-' || i || '"}'"#;
    let invites = match fill {
        Fill::Published => format!(
            "{numbers} INSERT INTO invites (account, pk, generation, fence, taken, state, lane, attempts, tries, \
             ever_unknown, accepted_at, begun_at, fingerprint, origin, ready_at, ended_at, event_id, event_source, \
             trucker) SELECT 'default', pk, 1, 3, 0, 'published', 0, 1, 0, 0, {ago} + i, {ago} + i, randomblob(16), \
             'generated', {ago} + i, {ago} + i, {common} FROM k"
        ),
        Fill::Waiting => format!(
            "{numbers} INSERT INTO invites (account, pk, generation, fence, taken, state, lane, due, attempts, tries, \
             ever_unknown, accepted_at, begun_at, event_id, event_source, trucker) SELECT 'default', pk, 1, 0, 0, \
             'received', 8, {ago} + i, 0, 0, 0, {now}, {now}, {common} FROM k"
        ),
    };
    db.execute_batch(&invites).unwrap();
    db.execute_batch(&format!(
        "INSERT INTO counts SELECT account, state, count(*) FROM invites GROUP BY account, state; {}",
        match fill {
            Fill::Published => String::new(),
            Fill::Waiting => {
                let until = now + GATE.as_millis();
                format!("INSERT INTO gates (account, reason, until, strikes) VALUES ('default', 'throttled', {until}, 1)")
            }
        }
    ))
    .unwrap();
    db.execute_batch("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
}

/// Only to open the file with: nothing happens under them.
fn rules() -> Rules {
    Rules {
        policy: Policy::Generate,
        lease: Duration::from_secs(60),
        backoff: Backoff::try_new(Duration::from_secs(1), 2.0, Duration::from_secs(60)).unwrap(),
        max_attempts: 20,
        max_age: Duration::from_secs(86400),
        not_found_for: Duration::from_secs(60),
        verify_after: Duration::from_secs(60),
        sinks: Sinks::NONE.with(Sink::Rabbitmq),
    }
}
