//! `invite-relay serve`

use std::time::Duration;

use anyhow::Context as _;
use tracing::warn;

use super::{ConfigArgs, Failure};
use crate::app;
use crate::config::{Config, Loaded};
use crate::lifecycle::Lifecycle;
use crate::telemetry::metrics::SpanCounters;
use crate::telemetry::setup::{self, Settings, Telemetry};

/// How long queued spans may take to leave at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  invite-relay serve --config config/rabbitmq.toml
  INVITE_RELAY__DASHDOC__TOKEN_FILE=/run/secrets/token invite-relay serve --config relay.toml

SIGTERM or SIGINT drains: nothing new is taken, work in hand is finished. A second signal aborts; what was in hand
is in the store and resumes at the next start.")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let loaded = args.config.load()?;
    let telemetry = start_telemetry(&loaded.config)?;
    for warning in &loaded.warnings {
        warn!(key = warning.key, "{}", warning.message);
    }
    let served = serve(&loaded, telemetry.counters()).await;
    telemetry.shutdown(FLUSH_LIMIT).await;
    Ok(served?)
}

/// Logs and traces as configured.
pub(super) fn start_telemetry(config: &Config) -> anyhow::Result<Telemetry> {
    let settings = Settings {
        log_format: config.telemetry.log_format,
        log_filter: config.telemetry.log.clone(),
        service_version: env!("CARGO_PKG_VERSION"),
    };
    setup::init(&settings).context("telemetry")
}

async fn serve(loaded: &Loaded, spans: &SpanCounters) -> anyhow::Result<()> {
    // Before anything is started: a signal during the start drains as well.
    let life = Lifecycle::new();
    life.watch_signals().context("can't watch signals")?;
    let running = app::start(loaded, spans, &life).await?;
    Ok(running.finish().await?)
}
