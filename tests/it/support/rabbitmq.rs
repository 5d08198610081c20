//! A private `RabbitMQ` node: own data, own ports, own `epmd`, gone when the test process is gone.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;

use super::PATIENCE;

/// Where distributions install the node's own script. The `rabbitmq-server` on the `PATH` of Debian changes the
/// user and cannot be stopped by its process id.
const SCRIPTS: [&str; 3] = ["/usr/lib/rabbitmq/bin", "/opt/rabbitmq/sbin", "/usr/local/sbin"];

/// A node. Dropping it kills it and removes its data.
pub(crate) struct RabbitMq {
    scripts: &'static Path,
    home: PathBuf,
    ports: Ports,
    tls: bool,
    node: Mutex<Option<Child>>,
    /// Reads the node's process id, line by line, and kills the last one when this pipe closes, whichever way.
    watchdog: Mutex<(Child, Option<ChildStdin>)>,
    epmd: Mutex<Child>,
}

struct Ports {
    amqp: u16,
    amqps: u16,
    dist: u16,
    epmd: u16,
}

impl RabbitMq {
    /// Starts a node and waits until it takes connections.
    pub(crate) fn start() -> Self {
        Self::make(None)
    }

    /// The same, which takes TLS connections too: `server.crt` and `server.key` are in this directory.
    pub(crate) fn start_with_tls(certificate: &Path) -> Self {
        Self::make(Some(certificate))
    }

    fn make(certificate: Option<&Path>) -> Self {
        let scripts = SCRIPTS.iter().map(Path::new).find(|path| path.join("rabbitmq-server").exists());
        let Some(scripts) = scripts else {
            panic!("RabbitMQ is not installed: apt-get install rabbitmq-server (or run scripts/test)");
        };
        let home = tempfile::Builder::new().prefix("relay-rabbitmq-").tempdir().unwrap().keep();
        let ports = Ports::free();
        let mut conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nvm_memory_high_watermark.absolute = 1GB\n\
             disk_free_limit.absolute = 1MB\nlog.file.level = warning\n",
            ports.amqp
        );
        if let Some(certificate) = certificate {
            let file = |name: &str| certificate.join(name).display().to_string();
            let tls = format!(
                "listeners.ssl.1 = 127.0.0.1:{}\nssl_options.certfile = {}\nssl_options.keyfile = {}\n\
                 ssl_options.verify = verify_none\n",
                ports.amqps,
                file("server.crt"),
                file("server.key")
            );
            conf.push_str(&tls);
        }
        std::fs::write(home.join("rabbitmq.conf"), conf).unwrap();
        std::fs::write(home.join("enabled_plugins"), "[].").unwrap();
        std::fs::write(home.join("env.conf"), "").unwrap();
        // Started by us, in the foreground: the node would start one that outlives it.
        let epmd = Command::new("epmd")
            .args(["-port", &ports.epmd.to_string(), "-address", "127.0.0.1"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("epmd comes with Erlang");
        let script =
            r#"while read -r line; do node=$line; done; kill -KILL $node "$0" 2>/dev/null; rm -rf "$1""#;
        let mut watchdog = Command::new("sh")
            .args(["-c", script, &epmd.id().to_string()])
            .arg(&home)
            .stdin(Stdio::piped())
            // Out of reach of a Ctrl-C at the terminal.
            .process_group(0)
            .spawn()
            .unwrap();
        let pipe = watchdog.stdin.take();
        let rabbitmq = Self {
            scripts,
            home,
            ports,
            tls: certificate.is_some(),
            node: Mutex::new(None),
            watchdog: Mutex::new((watchdog, pipe)),
            epmd: Mutex::new(epmd),
        };
        rabbitmq.start_again();
        rabbitmq
    }

    /// The node that tests share; they use names of their own on it. It ends with the test process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<RabbitMq> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// Starts the node that was stopped or killed, with the same data and ports.
    pub(crate) fn start_again(&self) {
        let mut node = self.node.lock().unwrap();
        assert!(node.is_none(), "the node is running");
        let mut child = self.spawn();
        let started = Instant::now();
        while !self.listens() {
            if child.try_wait().unwrap().is_some() {
                // Soon after a kill the node's name or port may still be taken; an init system would try again too.
                child = self.spawn();
            }
            assert!(started.elapsed() < PATIENCE, "RabbitMQ does not start; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        *node = Some(child);
    }

    /// A node takes plain connections some moments before those over TLS.
    fn listens(&self) -> bool {
        let port = if self.tls { self.ports.amqps } else { self.ports.amqp };
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
    }

    fn spawn(&self) -> Child {
        let child = self.command("rabbitmq-server").process_group(0).spawn().unwrap();
        self.tell_watchdog(&child.id().to_string());
        child
    }

    /// Asks the node to end, and waits.
    pub(crate) fn stop(&self) {
        self.end(Signal::TERM);
    }

    /// Kills the node without warning.
    pub(crate) fn kill(&self) {
        self.end(Signal::KILL);
    }

    /// Where the node listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.amqp).into()
    }

    /// URL with the credentials of a fresh node.
    pub(crate) fn url(&self) -> SecretString {
        Self::url_at(self.address())
    }

    /// The same over TLS, of a node that was started with it; `host` is what its certificate is to be for.
    pub(crate) fn url_with_tls(&self, host: &str) -> SecretString {
        format!("amqps://guest:guest@{host}:{}/%2f", self.ports.amqps).into()
    }

    /// The same through a proxy at `address`.
    pub(crate) fn url_at(address: SocketAddr) -> SecretString {
        format!("amqp://guest:guest@{address}/%2f").into()
    }

    /// Runs `rabbitmqctl` against the node. Takes seconds.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> String {
        let asked = Instant::now();
        loop {
            let mut command = self.command("rabbitmqctl");
            command.arg("-q").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
            let output = command.output().unwrap();
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
            // A node takes connections some moments before it takes commands.
            assert!(asked.elapsed() < PATIENCE, "rabbitmqctl {arguments:?} failed: {output:?}");
        }
    }

    fn command(&self, script: &str) -> Command {
        let Ports { amqp, dist, epmd, amqps: _ } = self.ports;
        let mut command = Command::new(self.scripts.join(script));
        command
            .env("HOME", &self.home)
            .env("RABBITMQ_MNESIA_BASE", self.home.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", self.home.join("log"))
            .env("RABBITMQ_CONFIG_FILE", self.home.join("rabbitmq.conf"))
            .env("RABBITMQ_CONF_ENV_FILE", self.home.join("env.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", self.home.join("enabled_plugins"))
            .env("RABBITMQ_NODENAME", format!("relay-{amqp}@localhost"))
            .env("RABBITMQ_NODE_PORT", amqp.to_string())
            .env("RABBITMQ_DIST_PORT", dist.to_string())
            .env("ERL_EPMD_PORT", epmd.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            // A node that is killed may write a dump; not into the directory of the sources.
            .env("ERL_CRASH_DUMP", self.home.join("erl_crash.dump"))
            // One scheduler that does not spin: the machine is shared with the tests.
            .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "+S 1:1 +sbwt none")
            // Makes the script become the node instead of waiting for it, so that its process id is the node's.
            .env("RUNNING_UNDER_SYSTEMD", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn end(&self, signal: Signal) {
        let Some(mut node) = self.node.lock().unwrap().take() else { return };
        kill_process(Pid::from_child(&node), signal).unwrap();
        node.wait().unwrap();
        self.tell_watchdog("");
    }

    fn tell_watchdog(&self, pid: &str) {
        if let Some(pipe) = &mut self.watchdog.lock().unwrap().1 {
            writeln!(pipe, "{pid}").unwrap();
        }
    }

    fn log(&self) -> String {
        let logs = std::fs::read_dir(self.home.join("log")).into_iter().flatten().flatten();
        logs.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect()
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        // Also while a test fails with a lock in its hands.
        let (watchdog, pipe) = self.watchdog.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(pipe.take());
        let _ = watchdog.wait();
        if let Some(node) = self.node.get_mut().unwrap_or_else(PoisonError::into_inner) {
            let _ = node.wait();
        }
        let _ = self.epmd.get_mut().unwrap_or_else(PoisonError::into_inner).wait();
    }
}

impl Ports {
    /// Four ports that were free a moment ago, all held until all are known, so that they differ.
    fn free() -> Self {
        let held: Vec<TcpListener> =
            (0..4).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let port = |index: usize| held[index].local_addr().unwrap().port();
        Self { amqp: port(0), dist: port(1), epmd: port(2), amqps: port(3) }
    }
}
