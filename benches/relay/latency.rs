//! From publishing an event to hearing of its invite, at a steady rate; and the memory of a relay that has nothing to do.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};

use crate::Scale;
use crate::report::{median, note, quantile, quartiles};
use crate::scene::{Api, Scene, Subject};

const RATE: u64 = 200;
const SECONDS: u64 = 16;
/// Rounds of a full benchmark: a disk's fsync takes three times as long in one minute as in another.
const N_ROUNDS: usize = 7;
/// Events before those that count.
const WARM_UP: u64 = 2 * RATE;
const SUBJECTS: [Subject; 3] = [Subject::Bare, Subject::Sqlite, Subject::Postgres];

struct Run {
    /// Milliseconds: the median, the 95th and the 99th of a hundred.
    quantiles: [f64; 3],
    idle_mib: f64,
    /// CPU seconds per 1,000 events.
    cpu: f64,
}

pub(crate) async fn run(scene: &mut Scene, scale: Scale) -> String {
    let api = scene.api(0).await;
    let n_counted = scale.of(SECONDS * RATE);
    let mut runs: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
    let n_rounds = if scale.n_runs == 1 { 1 } else { N_ROUNDS };
    for _ in 0..n_rounds {
        for subject in SUBJECTS.into_iter().filter(|subject| scale.wants(*subject)) {
            let run = measure(scene, &api, subject, n_counted).await;
            note(&format!(
                "latency, {}: {:.1?} ms, idle {:.0} MiB, {:.3} CPU s per 1,000",
                subject.name(),
                run.quantiles,
                run.idle_mib,
                run.cpu
            ));
            runs.entry(subject.name()).or_default().push(run);
        }
    }
    let mut text = format!(
        "From the platform's publish to its hearing of the invite, API at 0 ms, {n_counted} events. Medians of {n_rounds} \
         rounds; − (a) is the median of the rounds' differences, with their quartiles.\n\n\
         | subject | p50 ms | p95 ms | p99 ms | p99 − (a) | CPU s per 1,000 | idle MiB |\n\
         |---|---:|---:|---:|---:|---:|---:|\n"
    );
    let of = |runs: &[Run], value: &dyn Fn(&Run) -> f64| median(runs.iter().map(value).collect());
    let bare = runs.get(Subject::Bare.name());
    let behind = |runs: &[Run]| {
        let rounds = runs.iter().zip(bare.into_iter().flatten());
        let behind = quartiles(rounds.map(|(run, bare)| run.quantiles[2] - bare.quantiles[2]).collect());
        behind
            .map_or("–".to_owned(), |[low, middle, high]| format!("{middle:+.1} ({low:+.1} to {high:+.1})"))
    };
    for (name, runs) in &runs {
        let [p50, p95, p99] = [0, 1, 2].map(|index| of(runs, &|run| run.quantiles[index]));
        let (cpu, idle) = (of(runs, &|run| run.cpu), of(runs, &|run| run.idle_mib));
        writeln!(
            text,
            "| {name} | {p50:.1} | {p95:.1} | {p99:.1} | {} | {cpu:.3} | {idle:.0} |",
            behind(runs)
        )
        .unwrap();
    }
    text
}

async fn measure(scene: &mut Scene, api: &Api, subject: Subject, n_counted: u64) -> Run {
    let bus = scene.bus().await;
    let mut ear = bus.listen().await;
    let process = scene.start(subject, &bus, api);
    // It works as soon as the first comes through.
    bus.tell_of(u64::MAX / 4).await;
    ear.hear().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (idle_mib, cpu) = (process.memory().now, process.cpu_seconds());

    let n = WARM_UP + n_counted;
    let started = Instant::now();
    let moment = |pk: u64| started + Duration::from_micros(pk * 1_000_000 / RATE);
    let telling = stream::iter(1..=n)
        .then(async |pk| {
            tokio::time::sleep_until(moment(pk).into()).await;
            pk
        })
        .for_each_concurrent(None, |pk| bus.tell_of(pk));
    let hearing = async {
        let mut waits = Vec::new();
        for _ in 0..n {
            let heard = ear.hear().await;
            if heard.pk >= WARM_UP {
                // From the moment at which it was due: a late publisher must not flatter.
                waits.push(heard.at.saturating_duration_since(moment(heard.pk)).as_secs_f64() * 1000.0);
            }
        }
        waits
    };
    let ((), mut waits) = tokio::join!(telling, hearing);
    waits.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "thousands of events")]
    let cpu = (process.cpu_seconds() - cpu) / n as f64 * 1000.0;
    Run { quantiles: [0.5, 0.95, 0.99].map(|part| quantile(&waits, part)), idle_mib, cpu }
}
