//! `invite-relay doctor`

use std::io::IsTerminal as _;

use serde::Serialize;

use super::output::{Output, print_json};
use super::{ConfigArgs, Failure};
use crate::doctor::{Counts, Finding, Report, Verdict, at_once, examine};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  invite-relay doctor --config relay.toml
  invite-relay doctor --config relay.toml --output json | jq '.checks[] | select(.mend)'
  invite-relay doctor --config relay.toml && invite-relay serve --config relay.toml

It looks and changes nothing: no queue is made, no event published, no code generated. Each
account gets one request, which lists truckers. The service may be running. No secret is shown.

Exit codes: 0 nothing failed (there may be warnings), 1 something failed, 2 wrong configuration.")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Document<'a> {
    version: &'static str,
    counts: Counts,
    checks: &'a [Finding],
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let loaded = args.config.load()?;
    let report = Box::pin(examine(&loaded, |name| std::env::var(name).ok(), at_once)).await;
    let counts = report.counts();
    match args.output {
        Output::Json => {
            print_json(&Document { version: env!("CARGO_PKG_VERSION"), counts, checks: &report.checks });
        }
        Output::Table => print(&report, counts),
    }
    if counts.failed > 0 { Err(Failure::Unsatisfied) } else { Ok(()) }
}

/// One line for each check, and the mend below where there is one: both may be long, so this is no table.
fn print(report: &Report, counts: Counts) {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let width = report.checks.iter().map(|finding| finding.check.len()).max().unwrap_or_default();
    for Finding { check, verdict, evidence } in &report.checks {
        let word = format!("{:<7}", verdict.as_str());
        let word = if colours { format!("\x1b[{}m{word}\x1b[0m", colour(verdict)) } else { word };
        println!("{word}  {check:<width$}  {evidence}");
        if let Some(mend) = verdict.mend() {
            println!("{:<7}  {:<width$}  → {mend}", "", "");
        }
    }
    let Counts { ok, warning, failed, skipped } = counts;
    println!("\n{ok} ok, {warning} warnings, {failed} failed, {skipped} skipped");
}

const fn colour(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Ok => 32,
        Verdict::Warning { .. } => 33,
        Verdict::Failed { .. } => 31,
        Verdict::Skipped => 90,
    }
}
