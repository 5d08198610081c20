//! Events per second, CPU per event and memory, with a full queue.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::time::Instant;

use crate::Scale;
use crate::platform::Bus;
use crate::process::Process;
use crate::report::{median, note, quartiles};
use crate::scene::{Api, Scene, Subject};

/// Events of one run. In shorter ones the start weighs too much.
const N_EVENTS: u64 = 20_000;
/// Rounds of a full benchmark. In each, every subject has its turn. On a shared machine single rounds differ by a third,
/// and medians of five still by a tenth.
const N_ROUNDS: usize = 9;
/// The first of every so many warm up.
const WARM_UP_PART: u64 = 5;
const LATENCIES_MS: [u64; 2] = [0, 50];
const SUBJECTS: [Subject; 4] = [Subject::Bare, Subject::Sqlite, Subject::Postgres, Subject::Broker];

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) per_second: f64,
    /// CPU seconds per 1,000 events.
    pub(crate) cpu: f64,
    pub(crate) peak_mib: f64,
}

pub(crate) async fn run(scene: &mut Scene, scale: Scale) -> String {
    let n_rounds = if scale.n_runs == 1 { 1 } else { N_ROUNDS };
    let mut text = format!(
        "{} events wait in a quorum queue; counted from the first {}th heard of on. Medians of {} rounds; × (a) is the \
         median of the rounds' ratios, with their quartiles. The relay brings its allocator, the loop uses the system's.\n\n\
         | API | subject | events/s | × (a) | CPU s per 1,000 | × (a) | peak MiB |\n|---|---|---:|---:|---:|---:|---:|\n",
        scale.of(N_EVENTS),
        WARM_UP_PART,
        n_rounds
    );
    for latency in LATENCIES_MS {
        let api = scene.api(latency).await;
        let mut runs: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
        // In turns: whatever else the machine does hits all of them.
        for _ in 0..n_rounds {
            for subject in SUBJECTS.into_iter().filter(|subject| scale.wants(*subject)) {
                if subject == Subject::Broker && latency > 0 {
                    continue;
                }
                let run = measure(scene, &api, subject, scale.of(N_EVENTS)).await;
                note(&format!(
                    "throughput {latency} ms, {}: {:.0}/s, {:.3} CPU s per 1,000, {:.0} MiB",
                    subject.name(),
                    run.per_second,
                    run.cpu,
                    run.peak_mib
                ));
                runs.entry(subject.name()).or_default().push(run);
            }
        }
        // One subject alone has nothing to be compared with.
        let bare = runs.get(Subject::Bare.name()).cloned().unwrap_or_default();
        let ratio = |runs: &[Run], of: fn(&Run) -> f64| {
            let ratios = quartiles(runs.iter().zip(&bare).map(|(run, bare)| of(run) / of(bare)).collect());
            ratios.map_or("–".to_owned(), |[low, middle, high]| format!("{middle:.2} ({low:.2}–{high:.2})"))
        };
        for (name, runs) in &runs {
            let run = middle(runs);
            writeln!(
                text,
                "| {latency} ms | {name} | {:.0} | {} | {:.3} | {} | {:.0} |",
                run.per_second,
                ratio(runs, |run| run.per_second),
                run.cpu,
                ratio(runs, |run| run.cpu),
                run.peak_mib
            )
            .unwrap();
        }
    }
    text
}

pub(crate) fn middle(runs: &[Run]) -> Run {
    let of = |value: fn(&Run) -> f64| median(runs.iter().map(value).collect());
    Run { per_second: of(|run| run.per_second), cpu: of(|run| run.cpu), peak_mib: of(|run| run.peak_mib) }
}

async fn measure(scene: &mut Scene, api: &Api, subject: Subject, n_events: u64) -> Run {
    let bus = scene.bus().await;
    measure_on(&bus, 1..n_events + 1, || scene.start(subject, &bus, api)).await
}

/// Tells of truckers, starts the subject, and hears of their invites.
pub(crate) async fn measure_on(bus: &Bus, pks: Range<u64>, start: impl FnOnce() -> Process) -> Run {
    let n_events = pks.end - pks.start;
    bus.tell(pks).await;
    let mut ear = bus.listen().await;
    let process = start();
    let warm = n_events / WARM_UP_PART;
    for _ in 0..warm {
        ear.hear().await;
    }
    let (from, cpu) = (Instant::now(), process.cpu_seconds());
    for _ in warm..n_events {
        ear.hear().await;
    }
    #[expect(clippy::cast_precision_loss, reason = "thousands of events")]
    let counted = (n_events - warm) as f64;
    Run {
        per_second: counted / from.elapsed().as_secs_f64(),
        cpu: (process.cpu_seconds() - cpu) / counted * 1000.0,
        peak_mib: process.memory().peak,
    }
}
