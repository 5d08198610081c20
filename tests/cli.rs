//! The real binary, as a person or a script meets it: help, exit codes, messages.
#![expect(clippy::unwrap_used, reason = "a test's helper may fail the test")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Output;

use assert_cmd::Command;
use serde_json::Value;
use tempfile::TempDir;

/// A configuration without a problem, for a broker that nobody has.
const GOOD: &str = "
[source.rabbitmq]
enabled = true
url = 'amqp://relay:canary-broker@127.0.0.1:1'
[sink.rabbitmq]
enabled = true
[dashdoc]
base_url = 'http://127.0.0.1:1/api/v4'
token = 'canary-token'
[admin]
listen = '127.0.0.1:0'
";

/// What a run of the binary left behind.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A directory to run in, so that relative paths and messages are the same on every machine.
struct Bench(TempDir);

impl Bench {
    fn new(config: &str) -> Self {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("relay.toml"), config).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.run_with(&[], args)
    }

    fn run_with(&self, env: &[(&str, &str)], args: &[&str]) -> Ran {
        let mut command = Command::new(env!("CARGO_BIN_EXE_invite-relay"));
        command.current_dir(self.path()).env_clear().envs(env.iter().copied()).args(args);
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ran { code: status.code(), out: text(stdout), err: text(stderr) }
    }
}

impl Ran {
    /// The output of a run that must have ended with `code`, and shown no secret.
    fn ended(self, code: i32) -> Self {
        let Self { code: ended, out, err } = &self;
        assert_eq!(*ended, Some(code), "stdout:\n{out}\nstderr:\n{err}");
        assert!(!out.contains("canary") && !err.contains("canary"), "{out}\n{err}");
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in\n{}", self.out))
    }
}

/// The commands that a help text lists, without `help` itself.
fn listed(help: &str) -> Vec<String> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    commands
        .take_while(|line| !line.trim().is_empty())
        // Longer descriptions go on in lines that are indented further.
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .filter(|name| name != "help")
        .collect()
}

/// Every command that does something, as its words.
fn commands(bench: &Bench, words: &[&str]) -> Vec<Vec<String>> {
    let help = bench.run(&[words, &["--help"]].concat()).ended(0).out;
    let below = listed(&help);
    if below.is_empty() {
        return vec![words.iter().map(|&word| word.to_owned()).collect()];
    }
    below.iter().flat_map(|name| commands(bench, &[words, &[name.as_str()]].concat())).collect()
}

#[test]
fn every_command_explains_itself_with_an_example_of_its_own() {
    let bench = Bench::new("");
    let all = commands(&bench, &[]);
    let names: Vec<String> = all.iter().map(|words| words.join(" ")).collect();
    let contract = [
        "serve",
        "demo",
        "simulate",
        "send",
        "doctor",
        "config check",
        "config show",
        "config schema",
        "invites list",
        "invites show",
        "invites causes",
        "invites redrive",
        "invites reissue",
        "invites orders",
        "version",
    ];
    for name in contract {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
    for words in &all {
        let mut args: Vec<&str> = words.iter().map(String::as_str).collect();
        args.push("--help");
        let help = bench.run(&args).ended(0).out;
        let name = words.join(" ");
        let examples = help.split_once("Example").map(|(_, examples)| examples).unwrap_or_default();
        assert!(examples.contains(&format!("invite-relay {name}")), "{name} has no example:\n{help}");
        let long = help.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None, "{name}");
    }
}

/// Commands as they stand in a text, such as `kubectl exec POD -- invite-relay doctor`.
fn commands_in(text: &str) -> Vec<Vec<String>> {
    let words = |command: &str| {
        let filled = |word: &str| match word {
            "ACCOUNT" => "default".to_owned(),
            "PK" => "23498".to_owned(),
            "ACCOUNT/PK" => "default/23498".to_owned(),
            other => other.to_owned(),
        };
        command.split_whitespace().map(filled).collect()
    };
    let spans = text.split('`').skip(1).step_by(2);
    spans.filter_map(|span| span.split_once("invite-relay ").map(|(_, command)| words(command))).collect()
}

#[test]
fn every_command_in_the_runbook_and_the_readme_is_one_that_exists() {
    let bench = Bench::new(GOOD);
    for (text, n_at_least) in [(include_str!("../docs/runbook.md"), 10), (include_str!("../README.md"), 6)] {
        // Blocks of code have other delimiters, and are more than a command.
        let commands = commands_in(&text.replace("```", ""));
        assert!(commands.len() >= n_at_least, "{commands:?}");
        for command in commands {
            let mut words: Vec<&str> = command.iter().map(String::as_str).collect();
            words.push("--help");
            assert!(bench.run(&words).ended(0).out.contains("Usage: "), "{command:?}");
        }
    }
}

#[test]
fn wrong_usage_ends_with_2_and_says_so_on_stderr() {
    let bench = Bench::new(GOOD);
    for args in [
        &["serv"] as &[&str],
        &["version", "--output", "xml"],
        &["invites", "show", "no-pk", "--config", "relay.toml"],
        &["invites", "list", "--state", "happy"],
        &["serve", "--config", "relay.toml", "--surprise"],
    ] {
        let ran = bench.run(args).ended(2);
        assert!(ran.out.is_empty() && ran.err.starts_with("error: "), "{args:?}: {}{}", ran.out, ran.err);
    }
    // No command at all is a question for help, and still an error for a script.
    let ran = bench.run(&[]).ended(2);
    assert!(ran.err.contains("Usage: invite-relay"), "{}", ran.err);
}

#[test]
fn all_problems_of_a_configuration_are_reported_at_once_with_key_origin_and_mend() {
    let bench = Bench::new(
        "[source.rabbitmq]\nenabled = true\nurl = 'amqp://relay:canary@broker'\nprefech = 50\n\
         [sink.rabbitmq]\nenabled = true\n",
    );
    let env = [("INVITE_RELAY__DASHDOC__TIMEOUT", "soon")];
    for command in [&["config", "check"] as &[&str], &["serve"], &["doctor"], &["invites", "list"]] {
        let ran = bench.run_with(&env, &[command, &["--config", "relay.toml"]].concat()).ended(2);
        assert_eq!(ran.out, "");
        insta::allow_duplicates! {
            insta::assert_snapshot!(ran.err, @r#"
            error: 3 problems in the configuration
              dashdoc.timeout = "soon" (environment INVITE_RELAY__DASHDOC__TIMEOUT)
                  not a duration; write for example 250ms, 30s, 5m or 72h
              dashdoc.token is not set
                  set dashdoc.token_file to a file that holds the API token (or dashdoc.token to the token itself)
              source.rabbitmq.prefech = 50 (relay.toml line 4)
                  unknown key; did you mean `prefetch`?
            "#);
        }
    }
}

#[test]
fn a_configuration_that_is_not_there_is_a_problem_like_any_other() {
    let ran = Bench::new("").run(&["config", "check", "--config", "elsewhere.toml"]).ended(2);
    insta::assert_snapshot!(ran.err, @r#"
    error: 1 problem in the configuration
      --config elsewhere.toml cannot be read: No such file or directory (os error 2)
          correct the path, or let this user read the file
    "#);
}

#[test]
fn a_secret_file_that_cannot_be_read_is_named_with_its_key() {
    let bench = Bench::new(&GOOD.replace("token = 'canary-token'", "token_file = 'secrets/token'"));
    let ran = bench.run(&["config", "check", "--config", "relay.toml"]).ended(2);
    insta::assert_snapshot!(ran.err, @r#"
    error: 1 problem in the configuration
      dashdoc.token_file = "secrets/token" (relay.toml line 9)
          the file cannot be read: No such file or directory (os error 2); put the secret there, correct the path, or let this user read the file
    "#);
}

#[test]
fn a_good_configuration_passes_and_its_warnings_go_to_stderr() {
    let bench = Bench::new(GOOD);
    let ran = bench.run(&["config", "check", "--config", "relay.toml"]).ended(0);
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("the configuration is fine\n", ""));
    let clear = [("INVITE_RELAY__DASHDOC__BASE_URL", "http://api.example/api/v4")];
    let ran = bench.run_with(&clear, &["config", "check", "--config", "relay.toml"]).ended(0);
    assert_eq!(ran.out, "the configuration is fine\n");
    insta::assert_snapshot!(ran.err, @r#"
    warning: dashdoc.base_url = "http://api.example/api/v4" (environment INVITE_RELAY__DASHDOC__BASE_URL)
          token and codes travel unencrypted to another machine; use https
    "#);
}

#[test]
fn the_effective_configuration_masks_secrets_and_is_toml_or_json() {
    let bench = Bench::new(GOOD);
    let shown = bench.run(&["config", "show", "--config", "relay.toml"]).ended(0).out;
    assert!(shown.contains("token = \"********\"  # relay.toml line 9"), "{shown}");
    shown.parse::<toml::Table>().unwrap();
    let json = bench.run(&["config", "show", "--config", "relay.toml", "--output", "json"]).ended(0).json();
    assert!(json.is_object());
}

#[test]
fn the_schema_is_a_json_schema_that_the_shipped_examples_fit() {
    let schema = Bench::new("").run(&["config", "schema"]).ended(0).json();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for example in ["rabbitmq.toml", "webhook.toml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(example);
        let table: toml::Table = fs::read_to_string(path).unwrap().parse().unwrap();
        assert!(validator.is_valid(&serde_json::to_value(table).unwrap()), "{example}");
    }
}

#[test]
fn the_version_is_said_to_people_and_to_machines() {
    let bench = Bench::new("");
    let json = bench.run(&["version", "--output", "json"]).ended(0).json();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert!(json["sqlite"].is_string());
    let said = bench.run(&["version"]).ended(0).out;
    assert!(said.starts_with(concat!("invite-relay ", env!("CARGO_PKG_VERSION"))), "{said}");
    let flag = bench.run(&["--version"]).ended(0).out;
    assert_eq!(flag, concat!("invite-relay ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[test]
fn invites_of_a_store_that_is_not_there_end_with_1_and_what_to_do() {
    let bench = Bench::new(GOOD);
    for command in [&["invites", "list"] as &[&str], &["invites", "show", "default/23498"]] {
        let ran = bench.run(&[command, &["--config", "relay.toml"]].concat()).ended(1);
        assert_eq!(ran.out, "");
        insta::allow_duplicates! {
            insta::assert_snapshot!(ran.err, @r#"
            error: can't read the store data/invite-relay.db: unable to open database file: data/invite-relay.db; it is made by the first `invite-relay serve`
            "#);
        }
        assert!(!bench.path().join("data").exists(), "looking makes nothing");
    }
}

#[test]
fn a_crash_point_that_does_not_exist_is_refused_before_anything_runs() {
    let ran = Bench::new("").run_with(&[("INVITE_RELAY_CRASH_POINT", "nowhere")], &["version"]).ended(2);
    assert_eq!(ran.out, "");
    assert!(
        ran.err.starts_with("error: INVITE_RELAY_CRASH_POINT=nowhere names no crash point"),
        "{}",
        ran.err
    );
    assert!(ran.err.contains("accept.commit, "), "{}", ran.err);
}

#[test]
fn a_port_that_is_taken_stops_the_start_with_1_and_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let bench = Bench::new(GOOD);
    let set = format!("admin.listen={address}");
    let ran = bench.run(&["serve", "--config", "relay.toml", "--set", &set]).ended(1);
    assert!(ran.err.contains(&format!("error: admin.listen: can't listen on {address}")), "{}", ran.err);
    assert!(!bench.path().join("data").exists(), "nothing was touched");
}

#[test]
fn the_doctor_ends_with_1_when_something_failed_and_prints_a_mend_for_it() {
    let bench = Bench::new(GOOD);
    let ran = bench.run(&["doctor", "--config", "relay.toml", "--output", "json"]).ended(1);
    let report = ran.json();
    let checks = report["checks"].as_array().unwrap();
    let of =
        |name: &str| checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!(of("configuration.values")["verdict"], "ok");
    assert_eq!(of("store.directory")["verdict"], "ok");
    assert_eq!(of("source.rabbitmq.server")["verdict"], "failed");
    assert_eq!(of("source.rabbitmq.topology")["verdict"], "skipped");
    assert_eq!(of("api.default.connection")["verdict"], "failed");
    for check in checks {
        let needs_a_mend = check["verdict"] == "failed" || check["verdict"] == "warning";
        assert_eq!(check["mend"].is_string(), needs_a_mend, "{check}");
    }
    let counts = &report["counts"];
    let sum: u64 =
        ["ok", "warning", "failed", "skipped"].iter().map(|word| counts[word].as_u64().unwrap()).sum();
    assert_eq!(sum, checks.len() as u64);
    assert!(!bench.path().join("data").exists(), "looking makes nothing");

    let table = bench.run(&["doctor", "--config", "relay.toml"]).ended(1).out;
    assert!(table.contains("→ start the broker"), "{table}");
    assert!(table.contains("source.rabbitmq.url (relay.toml line 4)"), "{table}");
}
