//! One build of the relay beside another, in turns: what a change is worth on a machine whose speed changes by the
//! minute.

use std::path::Path;

use crate::report::{median, note};
use crate::scene::{Scene, Subject, relay_binary};
use crate::throughput::{Run, measure_on, middle};

/// Pairs of runs of each kind.
const N_PAIRS: usize = 10;
/// Events of one run: short, so that the two of a pair meet the same machine.
const N_EVENTS: u64 = 8_000;

/// Prints the ratio of `BENCH_RELAY` to `other`.
pub(crate) async fn run(scene: &mut Scene, other: &Path, only: Option<Subject>) {
    let this = relay_binary();
    for latency in [0, 50] {
        let api = scene.api(latency).await;
        for subject in [Subject::Sqlite, Subject::Postgres] {
            if only.is_some_and(|only| only != subject) {
                continue;
            }
            let (mut this_runs, mut other_runs) = (Vec::new(), Vec::new());
            for pair in 0..N_PAIRS {
                let mut turn = [(this.as_path(), &mut this_runs), (other, &mut other_runs)];
                // Whoever goes second may find a warmer machine.
                if pair % 2 == 1 {
                    turn.reverse();
                }
                for (binary, runs) in turn {
                    let bus = scene.bus().await;
                    let url = scene.store_of(subject, &bus);
                    let settings = scene.settings(&bus, &api, &url);
                    let start = || scene.relay_as(binary, &settings, &api.url, &bus.name);
                    runs.push(measure_on(&bus, 1..N_EVENTS + 1, start).await);
                }
            }
            let (this, other) = (middle(&this_runs), middle(&other_runs));
            let pairs = || this_runs.iter().zip(&other_runs);
            note(&format!(
                "{latency} ms, {}: {:.0} and {:.0}/s, {:.3} and {:.3} CPU s per 1,000; median of the ratios: {:.3} × \
                 the events, {:.3} × the CPU",
                subject.name(),
                this.per_second,
                other.per_second,
                this.cpu,
                other.cpu,
                median(
                    pairs().map(|(this, other): (&Run, &Run)| this.per_second / other.per_second).collect()
                ),
                median(pairs().map(|(this, other)| this.cpu / other.cpu).collect()),
            ));
        }
    }
}
