//! `demo` and `send` as a newcomer meets them: the real binary, its output and its exit code.
#![expect(clippy::unwrap_used, reason = "a test's helper may fail the test")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER_SECRET: &str = "whsec_AAAABBBBCCCCDDDDEEEEFFFFGGGGHHHH";
const TOKEN: &str = "canary-token-0123456789";

/// The binary, without the settings and the temporary files of whoever runs the test.
fn invite_relay(temporary: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_invite-relay"));
    command.env_clear().env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

/// What the demo printed, and whether it was satisfied.
struct Played {
    success: bool,
    screen: String,
    log: String,
}

fn play(args: &[&str]) -> Played {
    let temporary = TempDir::new().unwrap();
    let output = invite_relay(temporary.path()).arg("demo").args(args).output().unwrap();
    let left = fs::read_dir(temporary.path()).unwrap().count();
    let (screen, log) = texts(&output);
    assert_eq!(left, 0, "the demo left something behind\n{screen}\n{log}");
    // Where temporary files are is not the demo's choice.
    let place = temporary.path().display().to_string();
    for line in screen.replace(&place, "/tmp").lines() {
        assert!(line.chars().count() <= 100, "too wide: {line}");
        assert!(!line.contains('\u{1b}'), "colour outside a terminal: {line}");
    }
    Played { success: output.status.success(), screen, log }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

impl Played {
    /// The value of a line of the summary.
    fn summary(&self, name: &str) -> &str {
        let (_, summary) = self.screen.split_once("\nSummary\n").unwrap();
        let line = summary.lines().find_map(|line| line.strip_prefix("  ")?.strip_prefix(name));
        let line = line.unwrap_or_else(|| panic!("no line {name} in\n{}\n{}", self.screen, self.log));
        line.trim_start().split("  ").next().unwrap()
    }

    /// The lines of the table.
    fn invites(&self) -> Vec<Vec<&str>> {
        let lines = self.screen.lines().filter(|line| line.contains(" default/"));
        lines.map(|line| line.split("  ").map(str::trim).filter(|text| !text.is_empty()).collect()).collect()
    }
}

#[test]
fn the_demo_ends_with_every_invite_ready_and_valid() {
    let played = play(&["--events", "6", "--rate", "50", "--exit"]);
    assert!(played.success, "{}\n{}", played.screen, played.log);
    assert_eq!(played.summary("events"), "6");
    assert_eq!(played.summary("ready"), "6");
    assert_eq!(played.summary("failed"), "0");
    assert_eq!(played.summary("valid codes"), "6 of 6");
    assert_eq!(played.summary("API calls"), "6 POST, 0 GET");
    assert_eq!(played.invites().len(), 6);
    assert_eq!(played.log, "", "a run without trouble logs nothing");
}

#[test]
fn on_a_bad_day_at_the_api_every_invite_is_ready_and_valid_all_the_same() {
    let played = play(&["--faults", "flaky", "--events", "20", "--rate", "50", "--exit"]);
    assert!(played.success, "{}\n{}", played.screen, played.log);
    assert_eq!(played.summary("ready"), "20");
    assert_eq!(played.summary("valid codes"), "20 of 20");
    assert!(played.screen.contains("recovered"), "no retry was shown\n{}", played.screen);
}

#[test]
fn a_code_that_a_late_effect_replaces_is_announced_again_before_the_demo_ends() {
    let played = play(&["--faults", "late", "--events", "12", "--rate", "50", "--exit"]);
    assert!(played.success, "{}\n{}", played.screen, played.log);
    assert_eq!(played.summary("valid codes"), "12 of 12");
    let second = played.invites().iter().filter(|columns| columns[3] == "2").count();
    assert!(second > 0, "no second generation\n{}", played.screen);
}

#[test]
fn whatever_can_be_survived_is_survived() {
    let played = play(&["--faults", "hostile", "--events", "10", "--rate", "50", "--exit"]);
    assert!(played.success, "{}\n{}", played.screen, played.log);
    assert_eq!(played.summary("valid codes"), "10 of 10");
}

/// Plays two events against an API that is down, then gives the API other faults; returns the exit code.
fn play_with_a_turn(faults: &str) -> Option<i32> {
    let temporary = TempDir::new().unwrap();
    let args = ["demo", "--events", "2", "--rate", "50", "--faults", "outage", "--exit"];
    let mut demo = Running::start(invite_relay(temporary.path()).args(args).stderr(Stdio::null()));
    let line = demo.line(|line| line.contains("Dashdoc API"));
    let address = line.split("http://").nth(1).unwrap().split('/').next().unwrap().to_owned();
    demo.line(|line| line.contains("SINCE SENT"));
    let mut api = TcpStream::connect(&address).unwrap();
    let length = faults.len();
    write!(
        api,
        "PUT /_simulator/faults HTTP/1.1\r\nhost: {address}\r\ncontent-length: {length}\r\n\r\n{faults}"
    )
    .unwrap();
    let mut answer = [0; 12];
    api.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    demo.line(|line| line.starts_with("Summary"));
    demo.child.wait().unwrap().code()
}

#[test]
fn an_api_that_gets_well_again_leaves_nobody_without_a_code() {
    assert_eq!(play_with_a_turn(r#"{"profile":"none"}"#), Some(0));
}

#[test]
fn an_invite_that_failed_makes_the_exit_code_1() {
    assert_eq!(play_with_a_turn(r#"{"rejected":1.0,"read":{"rejected":1.0}}"#), Some(1));
}

#[test]
fn codes_show_only_where_they_are_asked_for() {
    let args = ["--events", "4", "--rate", "50", "--exit", "--seed", "7"];
    let shown = play(&[&args[..], &["--show-codes"]].concat());
    let codes: Vec<&str> = shown.invites().iter().map(|columns| columns[2]).collect();
    assert_eq!(codes.len(), 4);
    let masked = play(&args);
    for code in codes {
        assert_eq!(code.len(), 6, "{code}");
        assert!(!masked.screen.contains(code) && !masked.log.contains(code));
    }
    let masks = masked.invites().iter().filter(|columns| columns[2] == "••••••").count();
    assert_eq!(masks, 4);
}

#[test]
fn an_interrupt_ends_the_demo_cleanly_and_leaves_nothing_behind() {
    let temporary = TempDir::new().unwrap();
    let mut demo =
        Running::start(invite_relay(temporary.path()).args(["demo", "--events", "2", "--rate", "50"]));
    demo.line(|line| line.starts_with("Everything keeps running"));
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 1);
    assert!(demo.interrupt(), "the exit code is not 0");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

#[test]
fn a_broker_that_is_not_there_is_said_at_once_without_its_password() {
    let temporary = TempDir::new().unwrap();
    let url = "amqp://guest:canary@127.0.0.1:1/%2f";
    let output = invite_relay(temporary.path()).args(["demo", "--exit", "--rabbitmq", url]).output().unwrap();
    let (screen, log) = texts(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(log.contains("--rabbitmq: 127.0.0.1:1/"), "{log}");
    assert!(!log.contains("canary") && !screen.contains("canary"), "{log}");
    assert_eq!(fs::read_dir(temporary.path()).unwrap().count(), 0);
}

/// A command that keeps running; killed when dropped.
struct Running {
    child: Child,
    screen: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let screen = BufReader::new(child.stdout.take().unwrap());
        Self { child, screen }
    }

    /// The next line of its output that is wanted.
    fn line(&mut self, wanted: impl Fn(&str) -> bool) -> String {
        loop {
            let mut line = String::new();
            assert!(self.screen.read_line(&mut line).unwrap() > 0, "it ended without the wanted line");
            if wanted(&line) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// Interrupts it, and tells whether it ended with 0.
    fn interrupt(mut self) -> bool {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap().success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `serve` with a webhook and the simulator behind it.
struct Service {
    dir: TempDir,
    serve: Running,
    _simulator: Running,
    port: u16,
}

impl Service {
    /// Starts both; `verifier` is how senders are known.
    fn start(verifier: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let mut simulator = Running::start(
            invite_relay(dir.path()).args(["simulate", "--listen", "127.0.0.1:0"]).stderr(Stdio::null()),
        );
        let line = simulator.line(|line| line.contains("listens on"));
        let api = line.rsplit(' ').next().unwrap();
        let config = |listen: &str| {
            format!(
                "source.webhook.enabled = true\nsource.webhook.listen = '{listen}'\n{verifier}\n\
                 sink.stdout.enabled = true\ndashdoc.base_url = '{api}'\ndashdoc.token = 'demo-token'\n\
                 store.url = 'sqlite://{}'\nadmin.listen = '127.0.0.1:0'\nevent.account = '/data/account'\n",
                dir.path().join("relay.db").display()
            )
        };
        let path = dir.path().join("serve.toml");
        fs::write(&path, config("127.0.0.1:0")).unwrap();
        let mut command = invite_relay(dir.path());
        command.args(["serve", "--config"]).arg(&path).stderr(Stdio::piped());
        let mut serve = Running::start(&mut command);
        let log = BufReader::new(serve.child.stderr.take().unwrap());
        // Read to its end in the background, or the pipe would fill up.
        let (found, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if line["message"] == "listening" && line["port"] == "webhook" {
                    let _ = found.send(line["address"].as_str().unwrap_or_default().to_owned());
                }
            }
        });
        let address = address.recv().expect("serve listens");
        let port = address.rsplit(':').next().unwrap().parse().unwrap();
        fs::write(dir.path().join("send.toml"), config(&address)).unwrap();
        Self { dir, serve, _simulator: simulator, port }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("send.toml")
    }

    fn send(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = invite_relay(self.dir.path());
        command.args(["send", "--config"]).arg(self.config()).args(args);
        command
    }

    /// Sends, and returns what was printed.
    fn sent(&self, args: &[&str]) -> String {
        let output = self.send(args);
        let (screen, log) = texts(&output);
        assert!(output.status.success(), "{log}");
        screen
    }
}

#[test]
fn an_event_that_is_sent_becomes_an_invite_and_sent_again_is_a_duplicate() {
    let mut service = Service::start(&format!("source.webhook.secrets = ['{SECRET}']"));
    let place = format!("webhook 127.0.0.1:{}", service.port);
    let first = service.sent(&["--pk", "23498", "--id", "e1", "--remote-id", "R-7"]);
    assert_eq!(first, format!("sent e1 for default/23498 to {place}: accepted\n"));
    let line = service.serve.line(|line| line.starts_with('{'));
    let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(ready["type"], "invite.ready");
    assert_eq!(ready["causationid"], "e1");
    assert_eq!(ready["data"]["trucker"], serde_json::json!({ "pk": 23498, "remote_id": "R-7" }));
    let again = service.sent(&["--pk", "23498", "--id", "e1"]);
    assert_eq!(again, format!("sent e1 for default/23498 to {place}: duplicate\n"));
    let plain = service.sent(&["--pk", "23499", "--plain"]);
    assert!(plain.ends_with(": accepted\n"), "{plain}");
    let url = format!("http://127.0.0.1:{}/webhooks/trucker-created", service.port);
    let url = service.sent(&["--pk", "23500", "--url", &url]);
    assert!(url.ends_with(": accepted\n"), "{url}");
}

#[test]
fn several_events_are_reported_as_json_in_order() {
    let service = Service::start(&format!("source.webhook.secrets = ['{SECRET}']"));
    let sent = service.sent(&["--pk", "10", "--count", "3", "--account", "default", "--output", "json"]);
    let sent: serde_json::Value = serde_json::from_str(&sent).unwrap();
    let column = |name: &str| -> Vec<&str> {
        sent.as_array().unwrap().iter().map(|sent| sent[name].as_str().unwrap()).collect()
    };
    assert_eq!(column("invite"), ["default/10", "default/11", "default/12"]);
    assert_eq!(column("status"), ["accepted"; 3]);
    assert_eq!(column("to"), ["webhook"; 3]);
}

#[test]
fn a_token_opens_a_webhook_that_takes_tokens() {
    let service = Service::start(&format!("source.webhook.tokens = ['{TOKEN}']"));
    assert!(service.sent(&["--pk", "1"]).ends_with(": accepted\n"));
}

#[test]
fn a_refusal_names_what_to_mend_and_no_secret() {
    let service = Service::start(&format!("source.webhook.secrets = ['{SECRET}']"));
    let refused = |command: &mut Command, code: i32, expected: &str| {
        let output = command.output().unwrap();
        let (_, log) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{log}");
        assert!(log.contains(expected), "{log}");
        assert!(!log.contains("whsec_") && !log.contains("canary"), "{log}");
    };
    let wrong = format!("['{OTHER_SECRET}']");
    let mut unknown = service.command(&["--pk", "1"]);
    refused(
        unknown.env("INVITE_RELAY__SOURCE__WEBHOOK__SECRETS", wrong),
        1,
        "401 Unauthorized: webhook-signature",
    );
    refused(&mut service.command(&["--pk", "1", "--type", "nonsense"]), 1, "event.types");
    refused(&mut service.command(&["--pk", "0"]), 2, "--pk");
    refused(&mut service.command(&["--pk", "1", "--count", "2", "--id", "e1"]), 2, "--id");
    refused(&mut service.command(&["--pk", "1", "--to", "rabbitmq"]), 1, "source.rabbitmq.url");
    let nowhere = "http://127.0.0.1:1/canary?canary";
    refused(
        &mut service.command(&["--pk", "1", "--url", nowhere]),
        1,
        "webhook 127.0.0.1:1 can't be reached",
    );
    refused(&mut service.command(&["--pk", "1", "--url", "canary"]), 1, "--url");
}
