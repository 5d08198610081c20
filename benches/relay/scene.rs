//! What the subjects stand on: a broker, a database, the API; and how each subject is started.

use std::path::{Path, PathBuf};
use std::process::Command;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use crate::platform::{Bus, a_moment};
use crate::process::Process;
use crate::settings::Settings;
use crate::support::postgres::Postgres;
use crate::support::rabbitmq::RabbitMq;

/// Calls in flight at once, for every subject.
const IN_FLIGHT: u16 = 256;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Bare,
    Sqlite,
    Postgres,
    Broker,
}

impl Subject {
    /// By its word on the command line.
    pub(crate) fn of(word: &str) -> Option<Self> {
        match word {
            "bare" => Some(Self::Bare),
            "sqlite" => Some(Self::Sqlite),
            "postgres" => Some(Self::Postgres),
            "broker" => Some(Self::Broker),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "(a) bare loop",
            Self::Sqlite => "(b) relay, SQLite",
            Self::Postgres => "(c) relay, Postgres",
            Self::Broker => "(d) broker alone",
        }
    }
}

/// The servers. The database is started when it is needed first.
pub(crate) struct Scene {
    pub(crate) broker: RabbitMq,
    postgres: Option<Postgres>,
    directory: TempDir,
    n_names: usize,
}

/// An API stub and its address.
pub(crate) struct Api {
    pub(crate) process: Process,
    pub(crate) url: String,
}

impl Scene {
    pub(crate) fn set() -> Self {
        let directory = tempfile::Builder::new().prefix("relay-bench-").tempdir().unwrap();
        Self { broker: RabbitMq::start(), postgres: None, directory, n_names: 0 }
    }

    /// A name that nothing has yet.
    pub(crate) fn name(&mut self) -> String {
        self.n_names += 1;
        format!("bench-{}", self.n_names)
    }

    /// A file of this name that goes with the scene.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// New queues.
    pub(crate) async fn bus(&mut self) -> Bus {
        let name = self.name();
        Bus::make(self.broker.url(), name).await
    }

    /// An API that takes so long for each answer.
    pub(crate) async fn api(&mut self, latency_ms: u64) -> Api {
        let port = self.name();
        let port = self.file(&format!("{port}.port"));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["as-stub", &latency_ms.to_string()]).arg(&port);
        let process = Process::start(command, &self.file("stub.log"));
        while !port.exists() {
            a_moment().await;
        }
        let port = std::fs::read_to_string(&port).unwrap();
        Api { process, url: format!("http://127.0.0.1:{port}") }
    }

    /// Starts a subject between the queues of `bus` and `api`, on a store of its own.
    pub(crate) fn start(&mut self, subject: Subject, bus: &Bus, api: &Api) -> Process {
        let log = self.file(&format!("{}.log", bus.name));
        match subject {
            Subject::Bare | Subject::Broker => {
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg("as-bare").arg(self.broker.url().expose_secret());
                command.args([bus.name.as_str(), &IN_FLIGHT.to_string()]);
                if subject == Subject::Bare {
                    command.arg(&api.url);
                }
                Process::start(command, &log)
            }
            Subject::Sqlite | Subject::Postgres => {
                let url = self.store_of(subject, bus);
                self.relay(&self.settings(bus, api, &url), &api.url, &bus.name)
            }
        }
    }

    /// The address of a new store of the subject's kind.
    pub(crate) fn store_of(&mut self, subject: Subject, bus: &Bus) -> String {
        if subject == Subject::Postgres {
            let postgres = self.postgres.get_or_insert_with(Postgres::start_durable);
            return postgres.url(&postgres.database());
        }
        format!("sqlite://{}", self.file(&format!("{}.db", bus.name)).display())
    }

    /// The relay's configuration between `bus` and `api`.
    pub(crate) fn settings(&self, bus: &Bus, api: &Api, store: &str) -> Settings {
        let url = self.broker.url();
        Settings::fast(&api.url)
            .with("dashdoc.rate_per_second", 100_000.0)
            .with("dashdoc.max_in_flight", i64::from(IN_FLIGHT))
            .with("dashdoc.timeout", "10s")
            .with("store.url", store)
            .with("source.rabbitmq.enabled", true)
            .with("source.rabbitmq.url", url.expose_secret())
            .with("source.rabbitmq.exchange", format!("{}.events", bus.name))
            .with("source.rabbitmq.queue", format!("{}.trucker-created", bus.name))
            .with("source.rabbitmq.prefetch", i64::from(IN_FLIGHT))
            .with("sink.rabbitmq.enabled", true)
            .with("sink.rabbitmq.url", url.expose_secret())
            .with("sink.rabbitmq.exchange", format!("{}.events", bus.name))
    }

    /// Starts the relay with everything on: a tenth of the traces go to `collector`.
    pub(crate) fn relay(&self, settings: &Settings, collector: &str, name: &str) -> Process {
        self.relay_as(&relay_binary(), settings, collector, name)
    }

    /// The same, with another build of it.
    pub(crate) fn relay_as(
        &self,
        binary: &Path,
        settings: &Settings,
        collector: &str,
        name: &str,
    ) -> Process {
        let config = self.file(&format!("{name}.toml"));
        settings.write(&config);
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(&config);
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector)
            .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
            .env("OTEL_TRACES_SAMPLER_ARG", "0.1");
        Process::start(command, &self.file(&format!("{name}.log")))
    }

    /// The port of the admin side of the relay that was started under this name.
    pub(crate) async fn admin_of(&self, name: &str) -> String {
        format!("http://{}", self.listening(name, "admin").await)
    }

    /// An address that the relay says it listens on.
    pub(crate) async fn listening(&self, name: &str, side: &str) -> String {
        let log = self.file(&format!("{name}.log"));
        loop {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let mut lines =
                text.lines().rev().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            let started = lines.find(|line| line["message"] == "started");
            if let Some(address) = started.and_then(|line| line[side].as_str().map(str::to_owned)) {
                return address;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

/// The binary that is measured: built without what only tests need, see `scripts/bench`.
pub(crate) fn relay_binary() -> PathBuf {
    let named = std::env::var_os("BENCH_RELAY").map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_invite-relay")).to_owned())
}

/// The value of one series of `/metrics`, labels included; 0 where there is none.
#[expect(clippy::disallowed_methods, reason = "the operator, not the service")]
pub(crate) async fn metric(admin: &str, series: &str) -> u64 {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let page = http.get(format!("{admin}/metrics")).send().await.unwrap().text().await.unwrap();
    let line = page.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}
