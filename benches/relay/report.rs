//! What was found out: a section of `BENCHMARKS.md` for each part.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// The parts in the order of the document, with their titles.
const SECTIONS: [(&str, &str); 5] = [
    ("throughput", "Throughput and cost"),
    ("latency", "Latency at 200 events/s"),
    ("pacing", "Use of the API's limit"),
    ("catch-up", "After an outage"),
    ("stored", "With 1,000,000 stored invites"),
];

pub(crate) struct Report {
    quick: bool,
    /// Whether the document is written; otherwise sections are only shown.
    is_written: bool,
    started: Instant,
    sections: BTreeMap<&'static str, String>,
}

impl Report {
    pub(crate) fn begin(quick: bool, is_written: bool) -> Self {
        Self { quick, is_written, started: Instant::now(), sections: BTreeMap::new() }
    }

    /// Shows what a part found out, and writes it down: a later part may fail.
    pub(crate) fn section(&mut self, part: &'static str, text: &str) {
        let size = if self.quick { "*A quick run: for orientation only.*\n\n" } else { "" };
        let text = format!("{size}{}\n", text.trim_end());
        println!("\n{text}");
        self.sections.insert(part, text);
        if self.is_written {
            self.write();
        }
    }

    /// Writes the document anew, with the sections of the former one for parts that did not run, if it is of the same
    /// machine with the same versions.
    fn write(&self) {
        let path = root().join("BENCHMARKS.md");
        let machine = machine();
        let former = std::fs::read_to_string(&path).unwrap_or_default();
        let former = if former.contains(&machine) { former.as_str() } else { "" };
        let mut document = format!(
            "# Benchmarks\n\nWritten by `scripts/bench` (`scripts/bench PART` renews one section). Each subject takes its \
             turn on the same machine, so compare the columns marked × and not the absolute figures: stub, broker and \
             database share the cores with the subject.\n\n{machine}\n"
        );
        for (part, title) in SECTIONS {
            if let Some(text) = self.sections.get(part).map(String::as_str).or(section_of(former, part)) {
                let _ = write!(document, "\n## {title}\n\n`scripts/bench {part}`\n\n{text}");
            }
        }
        std::fs::write(path, document).unwrap();
        note(&format!("BENCHMARKS.md is written, {} s", self.started.elapsed().as_secs()));
    }
}

/// The text of a part in a document that [`Report::write`] wrote.
fn section_of<'d>(document: &'d str, part: &str) -> Option<&'d str> {
    let (_, text) = document.split_once(&format!("`scripts/bench {part}`\n\n"))?;
    text.split("\n## ").next()
}

/// Says what is going on.
pub(crate) fn note(text: &str) {
    eprintln!("  {text}");
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// The quartiles; `None` of nothing.
pub(crate) fn quartiles(mut values: Vec<f64>) -> Option<[f64; 3]> {
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then(|| [0.25, 0.5, 0.75].map(|part| quantile(&values, part)))
}

/// Of sorted values.
pub(crate) fn quantile(sorted: &[f64], part: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() - 1) as f64 * part).round() as usize;
    sorted[index]
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let line_of = |file: &str, name: &str| -> String {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
        line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let kib: u64 =
        line_of("/proc/meminfo", "MemTotal").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0);
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
    };
    format!(
        "| | |\n|---|---|\n| machine | {cpus} cores of {}, {} GiB, Linux {} |\n| compiler | {} |\n| broker | \
         rabbitmq-server {}, one scheduler, quorum queue for the source |\n| database | PostgreSQL {}, as it comes \
         (`fsync` on) |\n| relay | {}, release build, traces sampled at 10 % and exported |",
        line_of("/proc/cpuinfo", "model name"),
        kib.div_ceil(1024 * 1024),
        said("uname", &["-r"]),
        said("rustc", &["--version"]),
        said("dpkg-query", &["-W", "-f=${Version}", "rabbitmq-server"]),
        said("dpkg-query", &["-W", "-f=${Version}", "postgresql"]),
        env!("CARGO_PKG_VERSION"),
    )
}
