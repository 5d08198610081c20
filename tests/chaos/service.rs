//! The real binary, kept running as an init system would: started again whenever it has ended.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use invite_relay::crash;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::settings::Settings;
use crate::support::leash::Leash;
use crate::timeline::Timeline;

const BINARY: &str = env!("CARGO_BIN_EXE_invite-relay");
/// How often the process is looked after.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Before a process that could not start is started again.
const PAUSE: Duration = Duration::from_millis(300);

/// The service, over all its processes.
pub(crate) struct Service {
    config: PathBuf,
    clock: Option<Clock>,
    timeline: Arc<Timeline>,
    log: Arc<Mutex<File>>,
    process: Mutex<Option<Process>>,
    /// Where the process that runs now listens, once it has started.
    ports: Arc<watch::Sender<Option<Ports>>>,
    /// Whether it is to run; otherwise it stays down.
    wanted: AtomicBool,
    n_starts: AtomicUsize,
    /// The crash point of the next start.
    armed: Mutex<Option<String>>,
    /// Whether an end with a failure is to be expected now: no disk to start on, a drain that can't finish.
    may_fail: AtomicBool,
    /// Ends that nothing explains.
    surprises: Mutex<Vec<String>>,
}

struct Process {
    child: Child,
    leash: Leash,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Ports {
    pub(crate) admin: SocketAddr,
    pub(crate) webhook: SocketAddr,
}

impl Service {
    /// One that is not running yet.
    pub(crate) fn new(settings: &Settings, clock: Option<Clock>, timeline: Arc<Timeline>) -> Self {
        let config = timeline.path("relay.toml");
        settings.write(&config);
        Self {
            config,
            clock,
            log: Arc::new(Mutex::new(File::create(timeline.path("service.log")).unwrap())),
            timeline,
            process: Mutex::default(),
            ports: Arc::new(watch::Sender::new(None)),
            wanted: AtomicBool::new(true),
            n_starts: AtomicUsize::new(0),
            armed: Mutex::default(),
            may_fail: AtomicBool::new(false),
            surprises: Mutex::default(),
        }
    }

    /// Keeps it running, for ever.
    pub(crate) async fn keep(&self) {
        loop {
            if let Some(status) = self.ended() {
                self.ports.send_replace(None);
                self.judge(status);
                if !status.success() && status.signal().is_none() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            if self.wanted.load(Ordering::Relaxed) && self.process.lock().unwrap().is_none() {
                self.launch();
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn ended(&self) -> Option<ExitStatus> {
        let mut process = self.process.lock().unwrap();
        let status = process.as_mut()?.child.try_wait().unwrap()?;
        process.take().expect("it was there").leash.release();
        Some(status)
    }

    fn judge(&self, status: ExitStatus) {
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        if !killed && !self.may_fail.load(Ordering::Relaxed) {
            self.surprise(&format!("the service ended by itself: {status}"));
        }
    }

    /// Notes something that the service should not do.
    pub(crate) fn surprise(&self, what: &str) {
        self.timeline.note(what);
        self.surprises.lock().unwrap().push(what.to_owned());
    }

    fn launch(&self) {
        let mut command = Command::new(BINARY);
        command.arg("serve").arg("--config").arg(&self.config);
        bare(&mut command);
        if let Some(clock) = &self.clock {
            clock.equip(&mut command);
        }
        if let Some(point) = self.armed.lock().unwrap().take() {
            command.env(crash::VARIABLE, point);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        self.n_starts.fetch_add(1, Ordering::Relaxed);
        let mut child = command.spawn().unwrap();
        let leash = Leash::on(&child);
        let (pipe, log, ports) =
            (child.stderr.take().unwrap(), Arc::clone(&self.log), Arc::clone(&self.ports));
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if let Some(started) = ports_in(&line) {
                    ports.send_replace(Some(started));
                }
                writeln!(log.lock().unwrap(), "{line}").unwrap();
            }
        });
        *self.process.lock().unwrap() = Some(Process { child, leash });
    }

    /// Sends a signal, if it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(process) = &*self.process.lock().unwrap() {
            // Fails only if it has ended by now and was not looked after yet.
            let _ = kill_process(Pid::from_child(&process.child), signal);
        }
    }

    /// Whether it is to be started again when it has ended.
    pub(crate) fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Whether an end with a failure is in order.
    pub(crate) fn may_fail(&self, may_fail: bool) {
        self.may_fail.store(may_fail, Ordering::Relaxed);
    }

    /// Arms a crash point for the next start.
    pub(crate) fn arm(&self, point: String) {
        *self.armed.lock().unwrap() = Some(point);
    }

    /// How often it was started so far.
    pub(crate) fn n_starts(&self) -> usize {
        self.n_starts.load(Ordering::Relaxed)
    }

    /// Where it listens now, if it has started.
    pub(crate) fn ports(&self) -> Option<Ports> {
        *self.ports.borrow()
    }

    /// Waits until it has started.
    pub(crate) async fn started(&self) {
        let started = self.ports.subscribe().wait_for(Option::is_some).await.map(drop);
        started.expect("the sender is in this value");
    }

    pub(crate) fn clock(&self) -> Option<&Clock> {
        self.clock.as_ref()
    }

    pub(crate) fn surprises(&self) -> Vec<String> {
        self.surprises.lock().unwrap().clone()
    }

    /// Every invite in its store, as the command line shows them. Whatever the store is.
    pub(crate) async fn invites(&self) -> Result<Vec<Value>, String> {
        let config = self.config.clone();
        let asked = tokio::task::spawn_blocking(move || list(&config));
        asked.await.expect("the listing does not panic")
    }
}

fn list(config: &Path) -> Result<Vec<Value>, String> {
    let mut command = Command::new(BINARY);
    command.args(["invites", "list", "--output", "json", "--limit", "100000000", "--config"]).arg(config);
    bare(&mut command);
    let output = command.output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())
}

/// What the shell is set up for must not change what is tested.
fn bare(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("INVITE_RELAY_") || name.starts_with("OTEL_")) {
            command.env_remove(&name);
        }
    }
}

fn ports_in(line: &str) -> Option<Ports> {
    let started = serde_json::from_str::<Value>(line).ok().filter(|line| line["message"] == "started")?;
    let port = |name: &str| started[name].as_str()?.parse().ok();
    Some(Ports { admin: port("admin")?, webhook: port("webhook")? })
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(Process { mut child, leash }) = self.process.get_mut().unwrap().take() {
            drop(leash);
            let _ = child.wait();
        }
    }
}
