//! The real binary as a child process: started, watched, terminated, killed, started again on the same store.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use invite_relay::crash;
use invite_relay::invite::{Invite, StateName};
use invite_relay::store::Filter;
use invite_relay::store::postgres::{self, Address, AddressSource};
use invite_relay::store::sqlite::Peek;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::http;
use super::settings::Settings;
use crate::support::leash::Leash;
use crate::support::until;

const BINARY: &str = env!("CARGO_BIN_EXE_invite-relay");

/// A service with a directory of its own, where configuration and store outlive the process.
pub(crate) struct Service {
    directory: TempDir,
    /// The store's address, where it is not a file in the directory.
    database: Option<String>,
    environment: Vec<(&'static str, OsString)>,
    log: Log,
    process: Option<Process>,
}

struct Process {
    child: Child,
    leash: Leash,
    admin: SocketAddr,
    webhook: Option<SocketAddr>,
}

/// The lines on standard error, of all processes so far.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Service {
    /// A service that has not started.
    pub(crate) fn prepare(settings: &Settings) -> Self {
        let directory = tempfile::Builder::new().prefix("relay-service-").tempdir().unwrap();
        let database =
            settings.text("store.url").filter(|url| url.starts_with("postgres")).map(str::to_owned);
        let service =
            Self { directory, database, environment: Vec::new(), log: Log::default(), process: None };
        service.configure(settings);
        service
    }

    /// Another configuration, for the next start on the same store.
    pub(crate) fn configure(&self, settings: &Settings) {
        // A file of the settings' own would be shared by all tests.
        let file = format!("sqlite://{}", self.file("store.db").display());
        let url = self.database.clone().unwrap_or(file);
        settings.clone().with("store.url", url).write(&self.config_path());
    }

    /// From now on the test itself looks into the store at this address; the service keeps its own.
    pub(crate) fn look_into(&mut self, database: String) {
        self.database = Some(database);
    }

    /// A variable of the environment that it is started in.
    pub(crate) fn environment(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.push((name, value.into()));
    }

    /// Starts it and waits until it can accept work.
    pub(crate) async fn start(settings: &Settings) -> Self {
        let mut service = Self::prepare(settings);
        service.start_again().await;
        service
    }

    /// Starts it, on the store that is there, and waits until it can accept work.
    pub(crate) async fn start_again(&mut self) {
        self.launch_again().await;
        self.ready().await;
    }

    /// Starts it, on the store that is there, whether or not it gets ready.
    pub(crate) async fn launch_again(&mut self) {
        assert!(self.launch(None).await.is_none(), "the service ended at once; its log:\n{}", self.log());
    }

    /// Starts it with a crash point armed. `Some` if it died before it had started.
    pub(crate) async fn start_to_crash_at(&mut self, point: &str) -> Option<ExitStatus> {
        self.launch(Some(point)).await
    }

    async fn launch(&mut self, crash_point: Option<&str>) -> Option<ExitStatus> {
        assert!(self.process.is_none(), "the service is running");
        let mut command = Command::new(BINARY);
        command.arg("serve").arg("--config").arg(self.config_path());
        // What the shell is set up for must not change what is tested.
        for (name, _) in std::env::vars_os() {
            if name
                .to_str()
                .is_some_and(|name| name.starts_with("INVITE_RELAY_") || name.starts_with("OTEL_"))
            {
                command.env_remove(&name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(point) = crash_point {
            command.env(crash::VARIABLE, point);
        }
        let stderr = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = stderr.spawn().unwrap();
        let leash = Leash::on(&child);
        let n_lines_before = self.log.0.lock().unwrap().len();
        let reader = self.log.follow(child.stderr.take().unwrap());
        let mut ended = None;
        until("the start of the service", async || {
            ended = child.try_wait().unwrap();
            ended.is_some() || self.log.started_since(n_lines_before).is_some()
        })
        .await;
        if ended.is_some() {
            leash.release();
            reader.join().unwrap();
            return ended;
        }
        let started = self.log.started_since(n_lines_before).unwrap();
        let address = |name: &str| started[name].as_str().map(|text| text.parse().unwrap());
        let admin = address("admin").expect("the admin port's address");
        self.process = Some(Process { child, leash, admin, webhook: address("webhook") });
        None
    }

    /// Waits until it can accept work, from each of its sources.
    pub(crate) async fn ready(&self) {
        until("readiness", async || {
            let report = self.readiness().await;
            let parts = report["parts"].as_array().unwrap();
            let is_source = |part: &&Value| part["name"].as_str().unwrap().starts_with("source.");
            report["ready"] == true && parts.iter().filter(is_source).all(|part| part["ready"] == true)
        })
        .await;
    }

    /// The report of `/readyz`.
    pub(crate) async fn readiness(&self) -> Value {
        serde_json::from_str(&http::get(self.admin_url("/readyz")).await).unwrap()
    }

    /// One part of the report of `/readyz`.
    pub(crate) async fn part(&self, name: &str) -> Value {
        let report = self.readiness().await;
        let part = report["parts"].as_array().unwrap().iter().find(|part| part["name"] == name);
        part.unwrap_or_else(|| panic!("no part {name} in {report}")).clone()
    }

    /// The page of `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        http::get(self.admin_url("/metrics")).await
    }

    /// The sum of all series of `name` that hold all of `labels`.
    pub(crate) async fn count(&self, name: &str, labels: &[&str]) -> u64 {
        let page = self.metrics().await;
        let series = page.lines().filter(|line| {
            line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label))
        });
        let values = series.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap());
        values.reduce(|sum, value| sum + value).unwrap_or_else(|| panic!("no {name} with {labels:?}"))
    }

    /// Waits until the doctor within the service has begun and ended a look.
    pub(crate) async fn look_again(&self) {
        let moment = async || {
            let page = self.metrics().await;
            let gauge = page.lines().find(|line| line.starts_with("invite_relay_doctor_looked"));
            gauge.expect("when the doctor has looked").to_owned()
        };
        // The first one to end may have begun before.
        for _ in 0..2 {
            let last = moment().await;
            until("another look", async || moment().await != last).await;
        }
    }

    pub(crate) fn admin_url(&self, path: &str) -> String {
        format!("http://{}{path}", self.process().admin)
    }

    /// Gets from the admin port, whatever the answer.
    pub(crate) async fn ask(&self, path: &str) -> String {
        http::get(self.admin_url(path)).await
    }

    /// Posts to the admin API; `None` if nobody answers.
    pub(crate) async fn order(&self, path: &str, body: &str) -> Option<http::Answer> {
        http::post(self.admin_url(path), &[("content-type", "application/json")], body).await
    }

    /// Where events are sent to.
    pub(crate) fn webhook_url(&self) -> String {
        format!("http://{}/webhooks/trucker-created", self.process().webhook.expect("the webhook is on"))
    }

    /// Posts to the public port; `None` if nobody answers.
    pub(crate) async fn post(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<http::Answer> {
        let address = self.process().webhook.expect("the webhook is on");
        http::post(format!("http://{address}{path}"), headers, body).await
    }

    /// Waits until nothing in the store goes on by itself any more, with `n` invites in it. As long as more and more of
    /// them come to an end it may take its time: how much depends on the pace that the first refusals teach.
    pub(crate) async fn settle(&self, n: usize) {
        let mut ended = 0;
        let mut are_all = false;
        while !are_all {
            let what = format!(
                "more than {ended} of {n} invites to come to an end in {}",
                self.directory.path().display()
            );
            let before = ended;
            until(&what, async || {
                let invites = self.invites();
                ended = invites.iter().filter(|invite| invite.state.schedule().is_none()).count();
                are_all = invites.len() == n && ended == n;
                are_all || ended > before
            })
            .await;
        }
    }

    /// Every invite in the store, newest first. None before the store is made.
    pub(crate) fn invites(&self) -> Vec<Invite> {
        let all = Filter { limit: usize::MAX, ..Filter::default() };
        let Some(url) = self.database.clone() else {
            let peek = Peek::open(&self.directory.path().join("store.db"));
            return peek.and_then(|peek| peek.list(&all)).unwrap_or_default();
        };
        let source: AddressSource = Arc::new(move || Address::parse(&url).map_err(|error| error.to_string()));
        let listing = async { postgres::Peek::open(&source).await?.list(&all).await };
        // On a thread of its own: the wake-ups of this one belong to the test's future.
        let (runtime, listing) = (Handle::current(), std::pin::pin!(listing));
        let listing =
            || std::thread::scope(|scope| scope.spawn(|| runtime.block_on(listing)).join().unwrap());
        tokio::task::block_in_place(listing).unwrap_or_default()
    }

    /// Whether there are `n` invites, all in this state.
    pub(crate) fn are_all(&self, n: usize, state: StateName) -> bool {
        let invites = self.invites();
        invites.len() == n && invites.iter().all(|invite| invite.state.name() == state)
    }

    /// First signal: waits for the end, which must be a success.
    pub(crate) async fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ended().await;
        assert!(status.success(), "SIGTERM ended in {status}; its log:\n{}", self.log());
    }

    /// Ends it without warning.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended().await;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process().child), signal).unwrap();
    }

    /// Waits for the end of the process, whatever ends it.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the service is running");
        let mut status = None;
        until("the end of the service", async || {
            status = process.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        process.leash.release();
        status.unwrap()
    }

    /// Runs another command of the binary with the same configuration.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--config").arg(self.config_path());
        // The port was free to choose; an operator's configuration names it.
        if let Some(process) = &self.process {
            command.args(["--set", &format!("admin.listen={}", process.admin)]);
        }
        command.output().unwrap()
    }

    /// What it has written to standard error since the first start.
    pub(crate) fn log(&self) -> String {
        self.log.0.lock().unwrap().join("\n")
    }

    /// Waits for a line that contains `text`.
    pub(crate) async fn logged(&self, text: &str) {
        until(&format!("the log line {text:?}"), async || {
            self.log.0.lock().unwrap().iter().any(|line| line.contains(text))
        })
        .await;
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process().child.id()
    }

    /// Its memory, as the kernel counts it.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// A file beside the configuration.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where configuration and store are.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    fn config_path(&self) -> PathBuf {
        self.file("relay.toml")
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("the service is running")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(Process { mut child, leash, .. }) = self.process.take() {
            drop(leash);
            let _ = child.wait();
        }
        if std::thread::panicking() {
            let lines = self.log.0.lock().unwrap();
            let last = lines.iter().rev().take(40).rev().map(String::as_str).collect::<Vec<_>>();
            eprintln!("the service's last words:\n{}", last.join("\n"));
        }
    }
}

impl Log {
    /// Reads to the end of the pipe on a thread of its own.
    fn follow(&self, pipe: std::process::ChildStderr) -> std::thread::JoinHandle<()> {
        let lines = Arc::clone(&self.0);
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        })
    }

    /// The line that says where it listens.
    fn started_since(&self, n_lines: usize) -> Option<Value> {
        let lines = self.0.lock().unwrap();
        let parsed = lines[n_lines..].iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed.into_iter().find(|line| line["message"] == "started")
    }
}
