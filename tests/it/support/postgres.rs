//! A private `PostgreSQL` server: own data, own port, gone when the test process is gone. Also used by the unit tests.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long the server may take to start. Generous: two cores run many tests at once.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of the superuser.
const PASSWORD: &str = "canary-postgres-password";

/// A server. Dropping it ends it and removes its data.
pub(crate) struct Postgres {
    bin: PathBuf,
    home: PathBuf,
    port: u16,
    /// Whom the server runs as: it refuses to be root.
    user: Option<(u32, u32)>,
    tls: bool,
    /// Whether a commit is on the disk: only a power cut could tell, or a clock. Then the rest is as installed, too.
    durable: bool,
    server: Mutex<Option<Child>>,
    /// Reads the server's process id, line by line, and ends the last one when this pipe closes, whichever way.
    watchdog: Mutex<(Child, Option<ChildStdin>)>,
}

impl Postgres {
    /// Makes a server and waits until it takes connections.
    pub(crate) fn start() -> Self {
        Self::make(None, false)
    }

    /// The same with commits that wait for the disk, and without what spares a machine that runs many servers at once.
    pub(crate) fn start_durable() -> Self {
        Self::make(None, true)
    }

    /// The same with TLS: `server.crt` and `server.key` are in this directory.
    pub(crate) fn start_with_tls(certificate: &Path) -> Self {
        Self::make(Some(certificate), false)
    }

    fn make(certificate: Option<&Path>, durable: bool) -> Self {
        let postgres = Self::prepare(certificate.is_some(), durable);
        postgres.initialise();
        if let Some(certificate) = certificate {
            postgres.take_over(certificate);
        }
        postgres.start_again();
        postgres
    }

    /// A place for a server, without data.
    fn prepare(tls: bool, durable: bool) -> Self {
        let bin = binaries();
        let home = tempfile::Builder::new().prefix("relay-postgres-").tempdir().unwrap().keep();
        let user = rustix::process::geteuid().is_root().then(unprivileged);
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(&home, Some(uid), Some(gid)).unwrap();
        }
        // The first number is asked to go at once (SIGQUIT), so that it takes its own processes along.
        let script = r#"while read -r line; do server=$line; done
            if [ -n "$server" ]; then kill -QUIT "$server"; kill -CONT "$server"; while kill -0 "$server"; do sleep 0.05; done; fi 2>/dev/null
            rm -rf "$0""#;
        let mut watchdog = Command::new("sh")
            .args(["-c", script])
            .arg(&home)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let pipe = watchdog.stdin.take();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let watchdog = Mutex::new((watchdog, pipe));
        Self { bin, home, port, user, tls, durable, server: Mutex::new(None), watchdog }
    }

    /// A standby of this server, which from now on commits nothing that is not with the standby.
    pub(crate) fn standby(&self) -> Self {
        let standby = Self::prepare(false, self.durable);
        let mut command = standby.command("pg_basebackup");
        command.args([
            "-h",
            "127.0.0.1",
            "-p",
            &self.port.to_string(),
            "-U",
            "postgres",
            "--write-recovery-conf",
        ]);
        command.args(["--wal-method=stream", "--checkpoint=fast", "--no-sync", "-D"]).arg(standby.data());
        let output = command.output().unwrap();
        assert!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        standby.start_again();
        self.set("synchronous_standby_names", "*");
        let started = Instant::now();
        while self.run("postgres", "SELECT sync_state FROM pg_stat_replication") != "sync" {
            assert!(started.elapsed() < PATIENCE, "the standby does not follow; its log:\n{}", standby.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        standby
    }

    /// Makes a standby the server that takes writes.
    pub(crate) fn promote(&self) {
        assert_eq!(self.run("postgres", "SELECT pg_promote()"), "t", "the standby's log:\n{}", self.log());
    }

    /// Changes a setting of the running server.
    pub(crate) fn set(&self, name: &str, value: &str) {
        self.run("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"));
        self.run("postgres", "SELECT pg_reload_conf()");
    }

    /// The server that tests share, each with a database of its own. It ends with the test process.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    fn initialise(&self) {
        let password = self.home.join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        let mut command = self.command("initdb");
        command.args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]);
        command.arg(format!("--pwfile={}", password.display())).arg(self.data());
        let output = command.output().unwrap();
        assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Copies the certificate to where the server finds it, and only the server.
    fn take_over(&self, certificate: &Path) {
        use std::os::unix::fs::PermissionsExt as _;
        for name in ["server.crt", "server.key"] {
            let copy = self.data().join(name);
            std::fs::copy(certificate.join(name), &copy).unwrap();
            std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o600)).unwrap();
            if let Some((uid, gid)) = self.user {
                std::os::unix::fs::chown(&copy, Some(uid), Some(gid)).unwrap();
            }
        }
    }

    /// Starts the server that was stopped or killed, with the same data and port.
    pub(crate) fn start_again(&self) {
        let mut server = self.server.lock().unwrap();
        assert!(server.is_none(), "the server is running");
        let mut child = self.spawn();
        let started = Instant::now();
        while !self.answers() {
            if child.try_wait().unwrap().is_some() {
                // Soon after a kill its processes may still be there; an init system would try again too.
                child = self.spawn();
            }
            assert!(started.elapsed() < PATIENCE, "PostgreSQL does not start; its log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
        *server = Some(child);
    }

    fn spawn(&self) -> Child {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.home.join("log")).unwrap();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-k", ""]);
        // `synchronous_commit` is decided by each session, never by the server.
        let mut settings = vec!["max_connections=200", "synchronous_commit=off"];
        settings.push(if self.tls { "ssl=on" } else { "ssl=off" });
        if !self.durable {
            // What a process has written survives the process; only a power cut would need more. To vacuum
            // this often takes CPU from whatever would be measured.
            settings.extend(["fsync=off", "shared_buffers=32MB", "autovacuum_naptime=5s"]);
        }
        for setting in settings {
            command.args(["-c", setting]);
        }
        let child = command.stderr(log).process_group(0).spawn().unwrap();
        self.tell_watchdog(&child.id().to_string());
        child
    }

    fn answers(&self) -> bool {
        TcpStream::connect(self.address()).is_ok()
            && self.psql("postgres", "SELECT 1").output().is_ok_and(|output| output.status.success())
    }

    /// Asks the server to end (connections are cut off), and waits.
    pub(crate) fn stop(&self) {
        self.end(rustix::process::Signal::INT);
    }

    /// Kills the server without warning.
    pub(crate) fn kill(&self) {
        self.end(rustix::process::Signal::KILL);
    }

    /// Freezes the server with all its processes: connections are taken by the kernel, and nothing answers.
    pub(crate) fn freeze(&self) {
        let server = self.server.lock().unwrap();
        let server = rustix::process::Pid::from_child(server.as_ref().unwrap());
        rustix::process::kill_process(server, rustix::process::Signal::STOP).unwrap();
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else { continue };
            // pid (name) state parent …
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
            if parent == Some(&server.as_raw_nonzero().to_string()) {
                let pid = stat.split(' ').next().and_then(|pid| pid.parse().ok());
                let pid = pid.and_then(rustix::process::Pid::from_raw).unwrap();
                // It may have ended meanwhile.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::STOP);
            }
        }
    }

    fn end(&self, signal: rustix::process::Signal) {
        let Some(mut server) = self.server.lock().unwrap().take() else { return };
        rustix::process::kill_process(rustix::process::Pid::from_child(&server), signal).unwrap();
        server.wait().unwrap();
        self.tell_watchdog("");
    }

    /// Where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// A new, empty database; its name.
    pub(crate) fn database(&self) -> String {
        static NAMES: AtomicUsize = AtomicUsize::new(0);
        let name = format!("relay_{}", NAMES.fetch_add(1, Ordering::Relaxed));
        self.run("postgres", &format!("CREATE DATABASE {name}"));
        name
    }

    /// The URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        Self::url_at(self.address(), database)
    }

    /// The same through a proxy at `address`.
    pub(crate) fn url_at(address: SocketAddr, database: &str) -> String {
        format!("postgres://postgres:{PASSWORD}@{address}/{database}")
    }

    /// The URL of a database that is on either of two servers.
    pub(crate) fn url_of_either(servers: [&Self; 2], database: &str) -> String {
        let [first, second] = servers.map(Self::address);
        format!("postgres://postgres:{PASSWORD}@{first},{second}/{database}")
    }

    /// Runs SQL as an operator; what it prints.
    pub(crate) fn run(&self, database: &str, sql: &str) -> String {
        let output = self.psql(database, sql).output().unwrap();
        assert!(output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Everything in a database, as a dump.
    pub(crate) fn dump(&self, database: &str) -> Vec<u8> {
        let mut command = self.client("pg_dump");
        command.arg(database);
        let output = command.output().unwrap();
        assert!(output.status.success(), "pg_dump: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn psql(&self, database: &str, sql: &str) -> Command {
        let mut command = self.client("psql");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql]);
        command
    }

    fn client(&self, name: &str) -> Command {
        let mut command = self.command(name);
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres"]);
        command
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.join(name));
        command.current_dir(&self.home).env_clear().env("PGPASSWORD", PASSWORD).env("LC_ALL", "C");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.join("log")).unwrap_or_default()
    }

    fn tell_watchdog(&self, pid: &str) {
        if let Some(pipe) = &mut self.watchdog.lock().unwrap().1 {
            writeln!(pipe, "{pid}").unwrap();
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Also while a test fails with a lock in its hands.
        let server = self.server.get_mut().unwrap_or_else(PoisonError::into_inner);
        let (watchdog, pipe) = self.watchdog.get_mut().unwrap_or_else(PoisonError::into_inner);
        drop(pipe.take());
        if let Some(server) = server {
            let _ = server.wait();
        }
        let _ = watchdog.wait();
    }
}

/// The binaries of the newest version that is installed. Debian keeps them off the `PATH`.
fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.filter_map(|version| {
        let number = version.file_name().to_str()?.parse::<u32>().ok()?;
        Some((number, version.path().join("bin")))
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let others = std::env::split_paths(&path).map(|place| (0, place));
    let found = debian.chain(others).filter(|(_, place)| is_complete(place)).max();
    let Some((_, place)) = found else {
        panic!("PostgreSQL is not installed: apt-get install postgresql (or run scripts/test)");
    };
    place
}

fn is_complete(place: &Path) -> bool {
    ["initdb", "postgres", "psql", "pg_dump", "pg_basebackup"].iter().all(|name| place.join(name).exists())
}

/// User and group of an account that may run a server.
fn unprivileged() -> (u32, u32) {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let find = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody")).expect("an unprivileged account")
}
