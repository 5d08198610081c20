//! `invite-relay demo`: API simulator, relay, embedded store, sample events and a receiver, in one process.
//!
//! The relay in it is the one that `serve` runs, configured and started on the same way. All else plays the world
//! around it, over real sockets: the platform that sends events and takes announcements, and the Dashdoc API.

mod announced;
mod book;
mod news;
mod rabbitmq;
mod scratch;
mod screen;
mod settings;
mod summary;
mod surroundings;
mod watch;
mod webhook;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::Failure;
use super::send::event::{self, Event, Form};
use super::send::secret_url;
use super::simulate::profile_names;
use crate::app::{self, Running};
use crate::config::{Config, Loaded, SecretUrl};
use crate::lifecycle::Lifecycle;
use crate::telemetry::metrics::SpanCounters;
use news::News;
use screen::Screen;
use summary::Summary;
use surroundings::{Platform, Surroundings};
use watch::{Ended, Watch};

/// A port of this machine's choice.
const ANY_PORT: &str = "127.0.0.1:0";
/// Calls per second that the simulator allows: Dashdoc's documented limit.
const RATE_LIMIT: u32 = 10;
/// The first trucker, the one of Dashdoc's reference.
const FIRST_PK: u64 = 23_498;
/// Truckers of one company have keys with gaps: other companies create truckers too.
const PK_GAP_MAX: u64 = 40;
/// How long queued spans may take to leave at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  invite-relay demo                           watch 20 truckers get their codes, then look around
  invite-relay demo --faults flaky --exit     errors, lost answers and 429s; ends by itself
  invite-relay demo --faults outage           nothing works, nothing is lost, and how to mend it
  invite-relay demo --events 200 --rate 50    more than the API allows: paced, not a single 429
  invite-relay demo --rabbitmq amqp://guest:guest@127.0.0.1:5672/%2f --exit

No other service is needed, and nothing is left behind. Settings in INVITE_RELAY__… are not used.")]
pub(super) struct Args {
    /// How many truckers are created
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    events: u32,
    /// Created truckers per second
    #[arg(long, value_name = "R", default_value_t = 5.0, value_parser = rate)]
    rate: f64,
    /// What goes wrong at the API
    #[arg(long, value_name = "PROFILE", default_value = "none", value_parser = profile_names())]
    faults: String,
    /// Events in and out through this broker instead of webhooks, on queues that are removed at the end
    #[arg(long, value_name = "URL", env = "INVITE_RELAY_DEMO_RABBITMQ", hide_env_values = true, value_parser = secret_url)]
    rabbitmq: Option<SecretUrl>,
    /// End when every invite is ready or failed; exit code 0 if all are ready and valid, else 1
    #[arg(long)]
    exit: bool,
    /// Print the codes instead of a mask
    #[arg(long)]
    show_codes: bool,
    /// The same seed makes the same truckers, codes and faults
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.01..=1000.0).contains(rate));
    rate.ok_or_else(|| "write a number from 0.01 to 1000".to_owned())
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let (news, latest) = mpsc::unbounded_channel();
    let around = tokio::select! {
        started = Surroundings::start(&args, news.clone()) => started?,
        // A broker may take its time to answer.
        _ = tokio::signal::ctrl_c() => return Err(Failure::Failed(anyhow::anyhow!("interrupted"))),
    };
    let played = play(&args, &around, news, latest).await;
    let ended = around.end().await;
    if let (Err(_), Err(error)) = (&played, &ended) {
        eprintln!("warning: {error:#}");
    }
    played?;
    ended?;
    if !args.exit {
        Screen::stdout(args.show_codes).say("Stopped; nothing is left behind.").context("stdout")?;
    }
    Ok(())
}

/// Starts the relay, sends the events, watches, sums up, and ends the relay.
async fn play(
    args: &Args,
    around: &Surroundings,
    news: news::Sender,
    latest: mpsc::UnboundedReceiver<News>,
) -> Result<(), Failure> {
    let loaded = around.settings.load()?;
    let telemetry = super::serve::start_telemetry(&loaded.config)?;
    let played = relay(args, &loaded, telemetry.counters(), around, news, latest).await;
    telemetry.shutdown(FLUSH_LIMIT).await;
    played
}

async fn relay(
    args: &Args,
    loaded: &Loaded,
    spans: &SpanCounters,
    around: &Surroundings,
    news: news::Sender,
    latest: mpsc::UnboundedReceiver<News>,
) -> Result<(), Failure> {
    // Before anything is started: a signal during the start drains as well.
    let life = Lifecycle::new();
    life.watch_signals().context("can't watch signals")?;
    let running = app::start(loaded, spans, &life).await?;
    let (life, metrics) = (running.life.clone(), running.metrics.clone());
    let watched = watch(args, &loaded.config, around, &running, news, latest).await;
    // Whatever came of it: the relay ends as it does in production.
    life.begin_drain();
    let finished = running.finish().await;
    let (mut watch, ended) = watched?;
    finished.map_err(anyhow::Error::from)?;
    if ended == Ended::Over && !args.exit {
        return Ok(());
    }
    watch.last_news().context("stdout")?;
    let summary = Summary::of(args.events as usize, &watch.book, &around.api, &metrics);
    watch.screen.summary(&summary).context("stdout")?;
    if ended == Ended::Over {
        watch.screen.look_next("Look next", &after_the_end(args)).context("stdout")?;
    }
    if args.exit && !summary.is_good() { Err(Failure::Unsatisfied) } else { Ok(()) }
}

/// Until all is over; without `--exit` also the summary, and then until a signal.
async fn watch(
    args: &Args,
    config: &Config,
    around: &Surroundings,
    running: &Running,
    news: news::Sender,
    latest: mpsc::UnboundedReceiver<News>,
) -> anyhow::Result<(Watch<std::io::Stdout>, Ended)> {
    let settings = around.write_settings(running)?;
    let platform = around.platform(config, running).await?;
    let mut screen = Screen::stdout(args.show_codes);
    screen.heading(args, around, running)?;
    let store = app::store_path(config)?;
    let mut watch = Watch::open(screen, latest, around.api.clone(), &store, args.events as usize)?;
    let sending = send_all(platform, sample_events(args, config)?, args.rate, news, running.life.clone());
    running.life.spawn_work(sending);

    let mend = mend(around);
    let ended = watch.until_over(&running.life, &mend).await?;
    match ended {
        Ended::Over if !args.exit => {
            let summary = Summary::of(args.events as usize, &watch.book, &around.api, &running.metrics);
            watch.screen.summary(&summary)?;
            watch
                .screen
                .look_next("Look around, while it runs", &while_it_runs(around, running, &settings))?;
            watch.screen.say("Everything keeps running; Ctrl-C ends it and removes the store.")?;
            watch.until_drained(&running.life).await?;
        }
        Ended::Over => {}
        Ended::Drained => {
            watch.screen.say("Ending: work in hand is finished first (Ctrl-C again cuts it short).")?;
        }
    }
    Ok((watch, ended))
}

/// Truckers with plausible keys, the same for the same seed.
fn sample_events(args: &Args, config: &Config) -> anyhow::Result<Vec<Event>> {
    let form = Form::new(&config.event, false, None).map_err(anyhow::Error::msg)?;
    let mut rng = StdRng::seed_from_u64(args.seed);
    let mut pk = FIRST_PK;
    let mut events = Vec::new();
    for n in 1..=args.events {
        let remote_id = format!("DRIVER-{n:04}");
        events.push(form.write(event::new_id(), "trucker.created", pk.try_into()?, Some(&remote_id)));
        pk += rng.random_range(1..=PK_GAP_MAX);
    }
    Ok(events)
}

/// Sends the events at an even pace, until the drain.
async fn send_all(platform: Platform, events: Vec<Event>, rate: f64, news: news::Sender, life: Lifecycle) {
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for event in events {
        tokio::select! {
            biased;
            () = life.draining() => break,
            _ = pace.tick() => {}
        }
        let pk = event.key.pk.get();
        // Nobody listens any more once the demo is over.
        let _ = news.send(News::Sending { pk, at: Instant::now() });
        if let Err(error) = platform.send(&event).await {
            let _ = news.send(News::NotSent { pk, why: error.to_string() });
        }
    }
    platform.close().await;
}

/// How to make the simulated API well.
fn mend(around: &Surroundings) -> String {
    let url = around.api_origin();
    format!("to mend the API: curl -X PUT -d '{{\"profile\":\"none\"}}' {url}/_simulator/faults")
}

fn while_it_runs(around: &Surroundings, running: &Running, settings: &Path) -> Vec<(String, &'static str)> {
    let (admin, settings) = (running.admin, settings.display());
    // The file has no password in it.
    let url = if around.has_broker() { "INVITE_RELAY__SOURCE__RABBITMQ__URL=… \\\n  " } else { "" };
    let api = around.api_origin();
    vec![
        (format!("curl http://{admin}/metrics"), "every number that is counted"),
        (format!("curl http://{admin}/readyz"), "each part, and whether it works"),
        (format!("invite-relay invites list --config {settings}"), "the invites in the store"),
        (
            format!("{url}invite-relay send --config {settings} --pk 4711"),
            "one more trucker; its line appears below",
        ),
        (format!("curl {api}/_simulator/truckers/{FIRST_PK}"), "a trucker as the API sees it, code in clear"),
        (
            format!("curl -X PUT -d '{{\"profile\":\"flaky\"}}' {api}/_simulator/faults"),
            "make the API flaky, or well again with \"none\"",
        ),
    ]
}

fn after_the_end(args: &Args) -> Vec<(String, &'static str)> {
    let mut next = vec![("README.md".to_owned(), "what it promises, how to configure and run it")];
    if args.faults == "none" {
        let what = "the same on a bad day at the API";
        next.push(("invite-relay demo --faults flaky".to_owned(), what));
    }
    next.push(("invite-relay demo".to_owned(), "without --exit it keeps running: look inside, send more"));
    next.push(("invite-relay serve --help".to_owned(), "the service itself"));
    next
}
