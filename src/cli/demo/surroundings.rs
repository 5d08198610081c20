//! Everything around the relay: a simulated API, two ends for events, and a directory, all for one run.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;

use super::news;
use super::rabbitmq::Broker;
use super::scratch::Scratch;
use super::settings::Settings;
use super::webhook::Webhooks;
use super::{Args, RATE_LIMIT};
use crate::app::Running;
use crate::cli::send::NotSent;
use crate::cli::send::event::Event;
use crate::cli::send::rabbitmq::Exchange;
use crate::cli::send::webhook::Webhook;
use crate::config::{Config, SecretUrl};
use crate::dashdoc::simulator::{self, DEFAULT_TOKEN, Faults, Handle, Simulator};
use crate::lifecycle::Lifecycle;

/// How long the simulator and the ends may take to close.
const GRACE: Duration = Duration::from_secs(5);

/// The world that the relay lives in.
pub(super) struct Surroundings {
    /// The API's remote control.
    pub(super) api: Handle,
    /// The API's address.
    pub(super) api_url: String,
    /// The relay's configuration.
    pub(super) settings: Settings,
    ends: Ends,
    scratch: Scratch,
    life: Lifecycle,
}

/// How events come in and announcements go out.
enum Ends {
    Webhooks(Webhooks),
    Broker(Broker),
}

/// The platform, as far as it sends events.
pub(super) enum Platform {
    Webhook(Webhook),
    Exchange(Exchange),
}

impl Surroundings {
    /// Starts everything that has to be there before the relay.
    pub(super) async fn start(args: &Args, news: news::Sender) -> anyhow::Result<Self> {
        let suffix = format!("{:08x}", rand::random::<u32>());
        let scratch = Scratch::make(&suffix).context("no temporary directory")?;
        let life = Lifecycle::new();
        let simulator = Simulator::bind(simulator::Settings {
            faults: Faults::profile(&args.faults).unwrap_or_default(),
            rate_limit: RATE_LIMIT,
            seed: args.seed,
            ..simulator::Settings::default()
        });
        let simulator = simulator.await.context("no port for the API simulator")?;
        let (api, api_url) = (simulator.handle(), simulator.base_url());
        life.spawn_long("API simulator", simulator.run(life.clone()));

        let mut settings = relay_settings(&api_url, &scratch);
        let ends = match &args.rabbitmq {
            Some(url) => Ends::Broker(Broker::start(url, &suffix, &mut settings, news, &life).await?),
            None => Ends::Webhooks(Webhooks::start(&mut settings, news, &life).await?),
        };
        Ok(Self { api, api_url, settings, ends, scratch, life })
    }

    /// The API's address without the path of its version.
    pub(super) fn api_origin(&self) -> &str {
        self.api_url.strip_suffix("/api/v4").unwrap_or(&self.api_url)
    }

    /// Where the relay takes events.
    pub(super) fn entrance(&self, webhook: Option<SocketAddr>) -> String {
        match (&self.ends, webhook) {
            (Ends::Broker(broker), _) => broker.entrance(),
            (Ends::Webhooks(_), Some(listen)) => Webhooks::entrance(listen),
            (Ends::Webhooks(_), None) => String::new(),
        }
    }

    /// Where the relay's announcements arrive.
    pub(super) fn exit(&self) -> String {
        match &self.ends {
            Ends::Broker(broker) => broker.exit(),
            Ends::Webhooks(webhooks) => webhooks.exit(),
        }
    }

    /// Whether events go over a broker.
    pub(super) fn has_broker(&self) -> bool {
        matches!(self.ends, Ends::Broker(_))
    }

    /// The directory of this run.
    pub(super) fn directory(&self) -> &std::path::Path {
        self.scratch.path()
    }

    /// Writes the configuration of the running relay, for the other commands, and tells where.
    pub(super) fn write_settings(&self, running: &Running) -> anyhow::Result<std::path::PathBuf> {
        let mut settings = self.settings.clone();
        settings.set("admin.listen", running.admin.to_string());
        if let Some(listen) = running.webhook {
            settings.set("source.webhook.listen", listen.to_string());
        }
        // The broker's password is not ours to leave in a file.
        settings.mask("source.rabbitmq.url", |url| SecretUrl::new(url).to_string());
        let path = self.scratch.path().join("relay.toml");
        settings.write(&path).context("the demo's relay.toml can't be written")?;
        Ok(path)
    }

    /// The way that events take to the relay.
    pub(super) async fn platform(&self, config: &Config, running: &Running) -> Result<Platform, NotSent> {
        match (&self.ends, running.webhook) {
            (Ends::Broker(_), _) => Ok(Platform::Exchange(Exchange::open(&config.source.rabbitmq).await?)),
            (Ends::Webhooks(webhooks), Some(listen)) => Ok(Platform::Webhook(webhooks.sender(listen)?)),
            (Ends::Webhooks(_), None) => Err(NotSent("the webhook does not listen".to_owned())),
        }
    }

    /// Ends everything, after the relay has ended, and leaves nothing behind.
    pub(super) async fn end(self) -> anyhow::Result<()> {
        self.life.begin_drain();
        let ended = self.life.finish(GRACE).await;
        if let Ends::Broker(broker) = &self.ends {
            broker.remove().await?;
        }
        Ok(ended?)
    }
}

impl Platform {
    /// Sends one event.
    pub(super) async fn send(&self, event: &Event) -> Result<(), NotSent> {
        match self {
            Self::Webhook(webhook) => webhook.post(event).await.map(drop),
            Self::Exchange(exchange) => exchange.publish(event).await,
        }
    }

    /// Hangs up.
    pub(super) async fn close(self) {
        match self {
            Self::Webhook(_) => {}
            Self::Exchange(exchange) => exchange.close().await,
        }
    }
}

/// The relay against the simulator. Waits are short, so that retries can be watched; all else is the default.
fn relay_settings(api_url: &str, scratch: &Scratch) -> Settings {
    let mut settings = Settings::default();
    settings.set("dashdoc.base_url", api_url);
    settings.set("dashdoc.token", DEFAULT_TOKEN);
    settings.set("dashdoc.rate_per_second", f64::from(RATE_LIMIT - 1));
    settings.set("dashdoc.timeout", "2s");
    settings.set("retry.base_delay", "200ms");
    settings.set("retry.max_delay", "2s");
    settings.set("retry.probe_delay", "1s");
    // After the latest effect of a simulated call whose connection was lost, which comes within 2 s.
    settings.set("invite.verify_after", "3s");
    settings.set("store.url", format!("sqlite://{}", scratch.path().join("relay.db").display()));
    settings.set("admin.listen", super::ANY_PORT);
    settings.set("telemetry.log_format", "text");
    // Readiness would repeat what the account has said.
    settings.set("telemetry.log", "warn,invite_relay::http::health=error".to_owned());
    settings.set("shutdown.grace", "10s");
    settings
}
