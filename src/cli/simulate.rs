//! `invite-relay simulate`

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;

use super::Failure;
use crate::dashdoc::simulator::{Faults, Settings, Simulator};
use crate::lifecycle::Lifecycle;
use crate::telemetry::setup::{self, LogFormat};

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  invite-relay simulate --listen 127.0.0.1:8090 --faults flaky
  curl -X POST -H 'Authorization: Token demo-token' \\
       http://127.0.0.1:8090/api/v4/manager-truckers/23498/generate-invite-code/
  curl http://127.0.0.1:8090/_simulator/truckers/23498      how often it was called, which code is valid
  curl -X PUT -d '{\"profile\":\"outage\"}' http://127.0.0.1:8090/_simulator/faults

Point the service at it with dashdoc.base_url=http://127.0.0.1:8090/api/v4 and dashdoc.token=demo-token.")]
pub(super) struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Faults by profile
    #[arg(long, value_name = "PROFILE", default_value = "none", value_parser = profile_names())]
    faults: String,
    /// Faults from a TOML or JSON file instead
    #[arg(long, value_name = "FILE", conflicts_with = "faults")]
    faults_file: Option<PathBuf>,
    /// Requests per second of one token, 0 for no limit; the documented limit is 10
    #[arg(long, default_value_t = 10)]
    rate_limit: u32,
    /// The same seed makes the same codes and faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The names of the fault profiles, for the parser and its help.
pub(super) fn profile_names() -> clap::builder::PossibleValuesParser {
    let named =
        |(name, help): &(&'static str, &'static str)| clap::builder::PossibleValue::new(*name).help(*help);
    Faults::PROFILES.iter().map(named).collect::<Vec<_>>().into()
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let log = setup::Settings {
        log_format: LogFormat::Text,
        log_filter: "info".to_owned(),
        service_version: env!("CARGO_PKG_VERSION"),
    };
    let _telemetry = setup::init(&log).context("telemetry")?;
    let faults = match &args.faults_file {
        Some(path) => Faults::from_file(path).map_err(|error| Failure::Usage(error.to_string()))?,
        None => Faults::profile(&args.faults).unwrap_or_default(),
    };
    let settings = Settings {
        listen: args.listen,
        faults,
        rate_limit: args.rate_limit,
        seed: args.seed,
        ..Settings::default()
    };
    let life = Lifecycle::new();
    life.watch_signals().context("can't watch signals")?;
    let simulator =
        Simulator::bind(settings).await.with_context(|| format!("can't listen on {}", args.listen))?;
    println!("the API simulator listens on {}", simulator.base_url());
    simulator.run(life).await;
    Ok(())
}
