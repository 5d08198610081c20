//! The configuration as an operator meets it: layers, problems, masks, and the examples that ship.
#![expect(clippy::unwrap_used, reason = "a test's helper may fail the test")]

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use invite_relay::config::{Loaded, Origin, Problems, Sources, load, schema, show, show_json};
use invite_relay::invite::AccountName;
use tempfile::TempDir;

/// Enough for a configuration without a problem.
const MINIMAL: &str = "
[source.rabbitmq]
enabled = true
url = 'amqp://relay:canary-broker@broker:5672/orders'
[sink.rabbitmq]
enabled = true
[dashdoc]
token = 'canary-token'
";

const SIGNING_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

#[derive(Default)]
struct Given<'a> {
    file: &'a str,
    env: &'a [(&'a str, &'a str)],
    sets: &'a [&'a str],
}

impl Given<'_> {
    /// Loads, with the file under a name that is the same on every machine.
    fn load(&self) -> Result<Loaded, String> {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("relay.toml");
        fs::write(&path, self.file).unwrap();
        let result = load_from(Some(path), self.env, self.sets);
        result.map_err(|problems| problems.to_string().replace(dir.path().to_str().unwrap(), "config"))
    }

    fn good(&self) -> Loaded {
        self.load().unwrap_or_else(|problems| panic!("{problems}"))
    }

    fn problems(&self) -> String {
        self.load().expect_err("there should be problems")
    }
}

fn load_from(file: Option<PathBuf>, env: &[(&str, &str)], sets: &[&str]) -> Result<Loaded, Problems> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load(Sources { file, env, sets: sets.iter().map(|set| (*set).to_owned()).collect() })
}

#[test]
fn a_wrong_key_a_wrong_type_and_a_missing_secret_are_reported_together_with_origin_and_mend() {
    let problems = Given {
        file: "[source.rabbitmq]\nenabled = true\nurl = 'amqp://broker'\nprefech = 50\n[sink.stdout]\nenabled = true\n",
        env: &[("INVITE_RELAY__DASHDOC__TIMEOUT", "soon"), ("PATH", "/bin")],
        ..Given::default()
    }
    .problems();
    insta::assert_snapshot!(problems, @r##"
    3 problems in the configuration
      dashdoc.timeout = "soon" (environment INVITE_RELAY__DASHDOC__TIMEOUT)
          not a duration; write for example 250ms, 30s, 5m or 72h
      dashdoc.token is not set
          set dashdoc.token_file to a file that holds the API token (or dashdoc.token to the token itself)
      source.rabbitmq.prefech = 50 (config/relay.toml line 4)
          unknown key; did you mean `prefetch`?
    "##);
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one file with one mistake of each kind, and what is said about them"
)]
fn every_kind_of_mistake_says_what_to_do() {
    let problems = Given {
        file: "
dashdok = { token = 'canary' }
[source.webhook]
listen = 'localhost:8080'
[dashdoc]
tokn = 'canary'
base_url = 'https://user:canary@api.example/v4'
token = 12345
rate_per_second = 0
prefetch = 10
auth_header = 'Authorization: Token canary'
auth_scheme = 'Token canary'
[dashdoc.accounts.Acme]
token_file = 'canary'
[dashdoc.accounts.empty]
[dashdoc.accounts.default]
token = 'x'
[dashdoc.accounts.other]
token = 'x'
colour = 'red'
[event]
trucker_pk = ['pk']
include = 'remote_id'
[invite]
policy = 'always'
[retry]
max_delay = '10ms'
base_delay = '0s'
[store]
url = 'mysql://user:canary@host/db'
retention = '2d'
[admin]
listen = '0.0.0.0:9090'
[telemetry]
log = 'inof'
",
        sets: &["dashdoc.accounts.other.token=canary", "shutdown.grace"],
        env: &[
            ("INVITE_RELAY__SOURCE__RABBITMQ__PREFETCH", "70000"),
            ("INVITE_RELAY__SOURCE__WEBHOOK__MAX_BODY", "64kB"),
            ("INVITE_RELAY__SINK", "5"),
        ],
    }
    .problems();
    assert!(!problems.contains("canary") && !problems.contains("12345"), "{problems}");
    insta::assert_snapshot!(problems, @r##"
    28 problems in the configuration
      --set is without a value
          write --set key.path=VALUE
      admin.token is not set
          set admin.token_file to a file that holds a token, or let admin.listen be 127.0.0.1:PORT; beyond loopback the work list needs one
      dashdoc.accounts.Acme has a name that is none
          an account name is 1 to 63 characters out of a-z, 0-9, - and _
      dashdoc.accounts.Acme.token_file (config/relay.toml line 14)
          the file cannot be read: No such file or directory (os error 2); put the secret there, correct the path, or let this user read the file
      dashdoc.accounts.default stands beside [dashdoc], which is this account
          write its keys into [dashdoc]
      dashdoc.accounts.empty.token is not set
          set dashdoc.accounts.empty.token_file to a file that holds the API token (or dashdoc.accounts.empty.token to the token itself)
      dashdoc.accounts.other.colour (config/relay.toml line 20)
          unknown key; dashdoc.accounts.other knows auth_header, auth_scheme, base_url, ca_file, max_in_flight, queue, rate_per_second, routing_key, timeout, token, token_file, webhook_path, webhook_secrets, webhook_secrets_file
      dashdoc.accounts.other.token (flag --set)
          secrets are not taken from flags, which every user of the machine can see; set dashdoc.accounts.other.token_file, or use the environment
      dashdoc.auth_header (config/relay.toml line 11)
          not a header name; write for example Authorization or X-Api-Key
      dashdoc.auth_scheme (config/relay.toml line 12)
          not an authentication scheme; write Token, Bearer, or "" for the bare token
      dashdoc.base_url = "https://********@api.example/v4" (config/relay.toml line 7)
          has a user or password in it; remove it; the token goes into token_file
      dashdoc.prefetch = 10 (config/relay.toml line 10)
          unknown key; did you mean `source.rabbitmq.prefetch`?
      dashdoc.rate_per_second = 0 (config/relay.toml line 9)
          not a number in range; write a number from 0.001 to 100000
      dashdoc.token (config/relay.toml line 8)
          not a text; write a text in quotes
      dashdoc.tokn (config/relay.toml line 6)
          unknown key; did you mean `token`?
      dashdok (config/relay.toml line 2)
          unknown section; did you mean `dashdoc`?
      event.include = "remote_id" (config/relay.toml line 23)
          not a list of texts; write for example ["a", "b"]
      event.trucker_pk = ["pk"] (config/relay.toml line 22)
          not a list of JSON pointers; write a list such as ["/data/trucker/pk"]; ~ is written ~0 and / within a name ~1
      invite.policy = "always" (config/relay.toml line 25)
          not a known choice; write one of "generate", "reuse"
      retry.base_delay = "0s" (config/relay.toml line 28)
          must be longer than nothing; write for example 250ms, 30s, 5m or 72h
      sink (environment INVITE_RELAY__SINK)
          is a section, not a key; write [sink] and its keys below
      source has nothing enabled
          set source.rabbitmq.enabled = true or source.webhook.enabled = true
      source.rabbitmq.prefetch = 70000 (environment INVITE_RELAY__SOURCE__RABBITMQ__PREFETCH)
          not a whole number in range; write a number from 1 to 10000
      source.webhook.listen = "localhost:8080" (config/relay.toml line 4)
          not an IP address and port; write for example 127.0.0.1:8080 or 0.0.0.0:8080
      source.webhook.max_body = "64kB" (environment INVITE_RELAY__SOURCE__WEBHOOK__MAX_BODY)
          not a size; write for example 65536, 64KiB or 1MiB
      store.retention = "2d" (config/relay.toml line 31)
          too short; make it at least 4d: webhook senders repeat an event for about 75 hours, and one that is forgotten by then makes a second code
      store.url (config/relay.toml line 30)
          not the address of a store; write sqlite://PATH, for example sqlite://data/invite-relay.db, or postgres://USER@HOST/DATABASE
      telemetry.log = "inof" (config/relay.toml line 35)
          no log directives; write a level (error, warn, info, debug, trace) or directives such as info,invite_relay::relay=debug
    "##);
}

#[test]
fn enabled_parts_without_their_secrets_are_refused() {
    let problems = Given {
        file: "
[source.rabbitmq]
enabled = true
url = 'http://broker'
[source.webhook]
enabled = true
listen = '127.0.0.1:9090'
[sink.rabbitmq]
enabled = true
url_file = '/nowhere/broker-url'
[sink.webhook]
enabled = true
url = 'ftp://platform.example'
secret = 'whsec_c2hvcnQ='
[dashdoc]
token = 'canary'
token_file = '/nowhere/token'
",
        ..Given::default()
    }
    .problems();
    assert!(!problems.contains("canary"), "{problems}");
    insta::assert_snapshot!(problems, @r##"
    7 problems in the configuration
      admin.listen = "127.0.0.1:9090" (default)
          the same as source.webhook.listen; use another port
      dashdoc.token_file = "/nowhere/token" (config/relay.toml line 17)
          set beside dashdoc.token; keep one of the two
      sink.rabbitmq.url_file = "/nowhere/broker-url" (config/relay.toml line 10)
          the file cannot be read: No such file or directory (os error 2); put the secret there, correct the path, or let this user read the file
      sink.webhook.secret (config/relay.toml line 14)
          holds no signing secret; write whsec_ and the base64 of 24 to 64 random bytes: echo "whsec_$(openssl rand -base64 32)"
      sink.webhook.url (config/relay.toml line 13)
          not an http or https URL; write for example https://HOST/PATH
      source.rabbitmq.url (config/relay.toml line 4)
          not an amqp or amqps URL; write amqp://USER:PASSWORD@HOST:5672/VHOST or amqps://…; "/" as a vhost is %2f, and special characters in the password are percent-encoded
      source.webhook.secrets_file is not set
          set it to a file with one signing secret (whsec_…) per line, or set source.webhook.tokens_file; without either, anyone could send events
    "##);
}

#[test]
fn syntax_errors_name_the_place_and_never_the_text() {
    let problems =
        Given { file: "[dashdoc]\ntoken = \"canary\n[admin\nlisten = canary\n", ..Given::default() }
            .problems();
    assert!(problems.contains("config/relay.toml line 2, column "), "{problems}");
    assert!(!problems.contains("canary"), "{problems}");
    let problems =
        Given { file: "[dashdoc]\ntoken = 'canary'\ntoken = 'canary'\n", ..Given::default() }.problems();
    assert!(problems.contains("config/relay.toml line 3, column 1 is not TOML: duplicate key"), "{problems}");
    assert!(!problems.contains("canary"), "{problems}");
}

#[test]
fn a_missing_file_is_the_one_problem_and_not_everything_it_would_have_set() {
    let problems = load_from(Some("/nowhere/relay.toml".into()), &[], &[]).unwrap_err();
    assert_eq!(problems.0.len(), 1, "{problems}");
    assert!(problems.to_string().contains("--config /nowhere/relay.toml cannot be read"), "{problems}");
}

#[test]
fn a_secret_file_that_is_missing_empty_or_a_directory_is_a_problem_with_its_path() {
    let dir = TempDir::new().unwrap();
    let empty = dir.path().join("empty");
    fs::write(&empty, "\n").unwrap();
    for (path, message) in [
        (dir.path().join("missing"), "cannot be read"),
        (empty, "is empty"),
        (dir.path().into(), "cannot be read"),
    ] {
        let file =
            format!("{}\ntoken_file = '{}'", MINIMAL.replace("token = 'canary-token'", ""), path.display());
        let problems = Given { file: &file, ..Given::default() }.load().unwrap_err();
        assert!(problems.starts_with("1 problem"), "{problems}");
        assert!(problems.contains("dashdoc.token_file = ") && problems.contains(message), "{problems}");
    }
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_the_default() {
    let file = format!("{MINIMAL}timeout = '2s'\nmax_in_flight = 2\nrate_per_second = 2\n");
    let loaded = Given {
        file: &file,
        env: &[
            ("INVITE_RELAY__DASHDOC__MAX_IN_FLIGHT", "3"),
            ("INVITE_RELAY__DASHDOC__RATE_PER_SECOND", "3"),
        ],
        sets: &["dashdoc.rate_per_second=4"],
    }
    .good();
    let dashdoc = &loaded.config.dashdoc;
    assert_eq!((dashdoc.timeout, dashdoc.max_in_flight), (Duration::from_secs(2), 3));
    assert!((dashdoc.rate_per_second - 4.0).abs() < f64::EPSILON);
    let origin = |key: &str| loaded.origins.get(key).unwrap().to_string();
    assert!(origin("dashdoc.timeout").ends_with("relay.toml line 9"), "{}", origin("dashdoc.timeout"));
    assert_eq!(origin("dashdoc.max_in_flight"), "environment INVITE_RELAY__DASHDOC__MAX_IN_FLIGHT");
    assert_eq!(loaded.origins.get("dashdoc.rate_per_second"), Some(&Origin::Flag));
    assert_eq!(loaded.origins.get("dashdoc.auth_scheme"), Some(&Origin::Default));
    assert_eq!(loaded.origins.get("dashdoc.ca_file"), None);
}

#[test]
fn a_table_in_the_place_of_a_key_is_refused_even_where_a_higher_layer_covers_it() {
    let problems = Given {
        file: &format!("{MINIMAL}timeout = {{ secnds = 2 }}\n"),
        env: &[("INVITE_RELAY__DASHDOC__TIMEOUT", "2s")],
        ..Given::default()
    }
    .problems();
    insta::assert_snapshot!(problems, @r"
    1 problem in the configuration
      dashdoc.timeout (config/relay.toml line 9)
          not a duration; write for example 250ms, 30s, 5m or 72h
    ");
}

#[test]
fn environment_values_are_toml_or_plain_text_or_text_where_the_key_wants_text() {
    let list = format!("[\"{SIGNING_SECRET}\"]");
    let config = Given {
        file: MINIMAL,
        env: &[
            ("INVITE_RELAY__SOURCE__WEBHOOK__ENABLED", "true"),
            ("INVITE_RELAY__SOURCE__WEBHOOK__SECRETS", &list),
            ("INVITE_RELAY__SOURCE__WEBHOOK__MAX_BODY", "2048"),
            ("INVITE_RELAY__EVENT__INCLUDE", "['remote_id', 'platform']"),
            ("INVITE_RELAY__DASHDOC__TOKEN", "123456"),
            ("INVITE_RELAY__DASHDOC__AUTH_SCHEME", "\"\""),
            ("INVITE_RELAY__DASHDOC__ACCOUNTS__ACME", "{token = 'acme', max_in_flight = 1}"),
            ("INVITE_RELAY__SOURCE__RABBITMQ__QUEUE", "true"),
            ("INVITE_RELAY__RETRY__MAX_AGE", "36h"),
        ],
        ..Given::default()
    }
    .good()
    .config;
    assert_eq!(config.source.webhook.secrets[0].reveal(), SIGNING_SECRET);
    assert_eq!(config.source.webhook.max_body.as_bytes(), 2048);
    assert_eq!(config.event.include, ["remote_id", "platform"]);
    assert_eq!(config.dashdoc.token.as_ref().unwrap().reveal(), "123456");
    assert_eq!(config.dashdoc.auth_scheme, "");
    assert_eq!(config.source.rabbitmq.queue, "true");
    assert_eq!(config.retry.max_age, Duration::from_secs(36 * 3600));
    assert_eq!(config.dashdoc.accounts["acme"].max_in_flight, Some(1));
}

#[test]
fn a_way_in_that_leads_to_two_accounts_or_is_not_guarded_is_refused() {
    let file = format!(
        "{MINIMAL}
[source.webhook]
enabled = true
secrets = ['{SIGNING_SECRET}']
[dashdoc.accounts.alone]
token = 'canary'
webhook_path = '/webhooks/alone'
[dashdoc.accounts.copied]
token = 'canary'
webhook_path = '/webhooks/copied'
webhook_secrets = ['{SIGNING_SECRET}']
queue = 'invite-relay.trucker-created.dead'
routing_key = 'trucker.#'
[dashdoc.accounts.first]
token = 'canary'
webhook_path = '/webhooks/first'
webhook_secrets = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw']
queue = 'first'
routing_key = 'first.created'
[dashdoc.accounts.half]
token = 'canary'
webhook_secrets = ['{SIGNING_SECRET}']
queue = 'half'
[dashdoc.accounts.pattern]
token = 'canary'
webhook_path = '/webhooks/:account'
webhook_secrets = ['canary']
[dashdoc.accounts.second]
token = 'canary'
webhook_path = '/webhooks/first'
webhook_secrets = ['whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw']
queue = 'first'
routing_key = '*.created'
"
    );
    let problems = Given { file: &file, ..Given::default() }.problems();
    assert!(!problems.contains("canary") && !problems.contains("whsec_C2"), "{problems}");
    insta::assert_snapshot!(problems, @r##"
    12 problems in the configuration
      dashdoc.accounts.alone.webhook_secrets_file is not set
          set it to a file with one signing secret (whsec_…) per line; nothing else is good on this path
      dashdoc.accounts.copied.queue = "invite-relay.trucker-created.dead" (config/relay.toml line 20)
          the same queue, or dead-letter queue, as source.rabbitmq.queue; write a name of its own, not the other's with .dead at its end
      dashdoc.accounts.copied.routing_key = "trucker.#" (config/relay.toml line 21)
          an event can fit this and source.rabbitmq.routing_key; write keys of which an event fits only one; it would be taken for both companies
      dashdoc.accounts.copied.webhook_secrets (config/relay.toml line 19)
          holds a secret that is one of source.webhook.secrets as well; give each company a secret of its own; whoever knows it could send for both
      dashdoc.accounts.half.routing_key is not set, but queue is
          write the routing key of this company's events, for example trucker.created.acme
      dashdoc.accounts.half.webhook_path is not set, but secrets for it are
          set webhook_path as well, or remove the secrets
      dashdoc.accounts.pattern.webhook_path = "/webhooks/:account" (config/relay.toml line 34)
          not a path; write for example /webhooks/acme
      dashdoc.accounts.pattern.webhook_secrets (config/relay.toml line 35)
          holds something that is no signing secret; write whsec_ and the base64 of 24 to 64 random bytes: echo "whsec_$(openssl rand -base64 32)"
      dashdoc.accounts.second.queue = "first" (config/relay.toml line 40)
          the same queue, or dead-letter queue, as dashdoc.accounts.first.queue; write a name of its own, not the other's with .dead at its end
      dashdoc.accounts.second.routing_key = "*.created" (config/relay.toml line 41)
          an event can fit this and source.rabbitmq.routing_key; write keys of which an event fits only one; it would be taken for both companies
      dashdoc.accounts.second.webhook_path = "/webhooks/first" (config/relay.toml line 38)
          the same as dashdoc.accounts.first.webhook_path; write a path of its own
      dashdoc.accounts.second.webhook_secrets (config/relay.toml line 39)
          holds a secret that is one of dashdoc.accounts.first.webhook_secrets as well; give each company a secret of its own; whoever knows it could send for both
    "##);
}

#[test]
fn accounts_inherit_everything_but_the_token() {
    let file =
        format!("{MINIMAL}timeout = '3s'\n[dashdoc.accounts.acme]\ntoken = 'acme'\nauth_scheme = 'Bearer'\n");
    let loaded = Given { file: &file, ..Given::default() }.good();
    let accounts = loaded.config.accounts();
    let names: Vec<_> = accounts.keys().map(AccountName::as_str).collect();
    assert_eq!(names, ["acme", "default"]);
    let acme = &accounts[&"acme".parse::<AccountName>().unwrap()];
    assert_eq!((acme.timeout, acme.auth_scheme.as_str()), (Duration::from_secs(3), "Bearer"));
    assert_eq!(acme.token.read().unwrap().reveal(), "acme");
    let default = &accounts[&AccountName::default_account()];
    assert_eq!(
        (default.auth_scheme.as_str(), default.base_url.as_str()),
        ("Token", "https://api.dashdoc.eu/api/v4")
    );
    assert_eq!(loaded.warnings[0].key, "dashdoc.accounts", "no pointer leads to the account");
}

#[test]
fn the_sink_uses_the_broker_of_the_source_unless_it_has_its_own() {
    let config = Given { file: MINIMAL, ..Given::default() }.good().config;
    assert_eq!(config.sink_rabbitmq_url().unwrap().read_url().unwrap().endpoint(), "broker:5672/orders");
    let own = [("INVITE_RELAY__SINK__RABBITMQ__URL", "amqp://other")];
    let config = Given { file: MINIMAL, env: &own, ..Given::default() }.good().config;
    assert_eq!(config.sink_rabbitmq_url().unwrap().read_url().unwrap().endpoint(), "other:5672/%2f");
}

#[test]
fn the_sink_trusts_the_authorities_of_the_source_unless_it_has_its_own() {
    let dir = TempDir::new().unwrap();
    let file = |name: &str| {
        let path = dir.path().join(name);
        fs::write(&path, "").unwrap();
        path
    };
    let (source, sink) = (file("source.pem"), file("sink.pem"));
    let sets = [format!("source.rabbitmq.ca_file={}", source.display())];
    let config = Given { file: MINIMAL, sets: &[&sets[0]], ..Given::default() }.good().config;
    assert_eq!(config.sink_rabbitmq_ca_file(), Some(&source));
    let own = format!("sink.rabbitmq.ca_file={}", sink.display());
    let config = Given { file: MINIMAL, sets: &[&sets[0], &own], ..Given::default() }.good().config;
    assert_eq!(config.sink_rabbitmq_ca_file(), Some(&sink));
}

#[test]
fn a_file_of_authorities_for_a_broker_in_plain_text_is_a_warning_and_a_missing_one_a_problem() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("ca.pem");
    let set = format!("source.rabbitmq.ca_file={}", path.display());
    let problems = Given { file: MINIMAL, sets: &[&set], ..Given::default() }.problems();
    assert!(
        problems.contains("source.rabbitmq.ca_file") && problems.contains("correct the path"),
        "{problems}"
    );
    fs::write(&path, "").unwrap();
    let loaded = Given { file: MINIMAL, sets: &[&set], ..Given::default() }.good();
    let warned: Vec<_> = loaded.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(warned, ["source.rabbitmq.ca_file"]);
    let own = set.replace("source", "sink");
    let loaded = Given { file: MINIMAL, sets: &[&own], ..Given::default() }.good();
    assert_eq!(loaded.warnings[0].key, "sink.rabbitmq.ca_file");
    // The sink has no other file.
    for end in ["SOURCE", "SINK"] {
        let key = format!("INVITE_RELAY__{end}__RABBITMQ__URL");
        let encrypted = [(key.as_str(), "amqps://broker")];
        let loaded = Given { file: MINIMAL, sets: &[&set], env: &encrypted }.good();
        assert_eq!(loaded.warnings, [], "{end}");
    }
}

#[test]
fn secrets_are_refused_as_flags_and_a_url_without_a_password_is_not_one() {
    for set in [
        "dashdoc.token=canary",
        "dashdoc={token='canary'}",
        "source.webhook.tokens=['canary']",
        "source.rabbitmq.url=amqp://user:canary@host",
    ] {
        let problems = Given { file: MINIMAL, sets: &[set], ..Given::default() }.problems();
        assert!(problems.contains("secrets are not taken from flags"), "{problems}");
        assert!(!problems.contains("canary"), "{problems}");
    }
    let sets = ["source.rabbitmq.url=amqp://host", "store.url=sqlite:///tmp/x.db"];
    let loaded = Given { file: MINIMAL, sets: &sets, ..Given::default() }.good();
    assert_eq!(loaded.config.store.url_source().read_url().unwrap().to_string(), "sqlite:///tmp/x.db");
}

#[test]
fn a_token_that_no_request_could_present_is_refused() {
    for token in ["canary", "canary with blanks in it"] {
        let file = format!("{MINIMAL}[source.webhook]\nenabled = true\ntokens = ['{token}']\n");
        let problems = Given { file: &file, ..Given::default() }.problems();
        assert!(problems.contains("source.webhook.tokens"), "{problems}");
        assert!(problems.contains("never be accepted") && !problems.contains("canary"), "{problems}");
    }
}

#[test]
fn a_store_url_file_puts_the_default_aside() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("url");
    fs::write(&path, "sqlite://elsewhere.db\n").unwrap();
    let env = [("INVITE_RELAY__STORE__URL_FILE", path.to_str().unwrap())];
    let config = Given { file: MINIMAL, env: &env, ..Given::default() }.good().config;
    assert_eq!(config.store.url_source().read().unwrap().reveal(), "sqlite://elsewhere.db");
}

#[test]
fn the_effective_configuration_shows_origins_and_no_secret() {
    let file = format!("{MINIMAL}[dashdoc.accounts.acme]\ntoken = 'canary-acme'\n");
    let loaded = Given {
        file: &file,
        env: &[
            ("INVITE_RELAY__EVENT__ACCOUNT", "/data/account"),
            ("INVITE_RELAY__SOURCE__WEBHOOK__TOKENS", "['canary-webhook']"),
            ("INVITE_RELAY__SINK__WEBHOOK__URL", "https://platform.example/hook?key=canary"),
        ],
        sets: &["shutdown.grace=90s"],
    }
    .good();
    let shown = show(&loaded);
    for text in [shown.clone(), show_json(&loaded).to_string(), format!("{loaded:?}")] {
        assert!(!text.contains("canary"), "{text}");
    }
    assert!(shown.parse::<toml::Table>().is_ok(), "{shown}");
    let path = loaded.origins.get("dashdoc.token").unwrap().to_string();
    let dir = path.strip_suffix("/relay.toml line 8").unwrap_or_else(|| panic!("{path}"));
    insta::assert_snapshot!(shown.replace(dir, "config"), @r##"
    [source.rabbitmq]
    enabled = true  # config/relay.toml line 3
    url = "amqp://relay:********@broker:5672/orders"  # config/relay.toml line 4
    queue = "invite-relay.trucker-created"
    exchange = "trucker.events"
    routing_key = "trucker.created"
    prefetch = 256
    topology = "declare"
    queue_type = "quorum"

    [source.webhook]
    enabled = false
    listen = "127.0.0.1:8080"
    path = "/webhooks/trucker-created"
    secrets = []
    tokens = ["********"]  # environment INVITE_RELAY__SOURCE__WEBHOOK__TOKENS
    token_header = "Authorization"
    max_body = "64KiB"
    insecure_accept_unsigned = false

    [event]
    types = ["trucker.created"]
    trucker_pk = ["/data/trucker/pk", "/data/pk", "/trucker/pk", "/pk"]
    account = "/data/account"  # environment INVITE_RELAY__EVENT__ACCOUNT
    source = "/invite-relay"
    include = ["remote_id"]

    [dashdoc]
    base_url = "https://api.dashdoc.eu/api/v4"
    token = "********"  # config/relay.toml line 8
    auth_header = "Authorization"
    auth_scheme = "Token"
    timeout = "10s"
    rate_per_second = 5.0
    max_in_flight = 8

    [dashdoc.accounts.acme]
    token = "********"  # config/relay.toml line 10

    [invite]
    policy = "generate"
    verify_after = "5m"

    [retry]
    base_delay = "1s"
    factor = 2.0
    max_delay = "5m"
    max_attempts = 20
    max_age = "3d"
    not_found_for = "2m"
    probe_delay = "30s"
    circuit_after = 5

    [store]
    url = "sqlite://data/invite-relay.db"
    max_backlog = 2000000
    retention = "30d"
    erase_codes_after = "1h"

    [sink.rabbitmq]
    enabled = true  # config/relay.toml line 6
    exchange = "trucker.events"
    routing_key = "invite.ready"
    failed_routing_key = "invite.failed"
    confirm_timeout = "10s"

    [sink.webhook]
    enabled = false
    url = "https://platform.example/hook?********"  # environment INVITE_RELAY__SINK__WEBHOOK__URL
    timeout = "10s"

    [sink.stdout]
    enabled = false

    [admin]
    listen = "127.0.0.1:9090"

    [telemetry]
    log_format = "json"
    log = "info"
    doctor_every = "15m"

    [shutdown]
    grace = "90s"  # flag --set
    "##);
}

#[test]
fn the_shipped_examples_load_with_what_they_ask_the_environment_for() {
    let secrets = format!("[\"{SIGNING_SECRET}\"]");
    let token = ("INVITE_RELAY__DASHDOC__TOKEN", "token");
    let rabbitmq = load_from(Some("config/rabbitmq.toml".into()), &[token], &[]).unwrap();
    assert!(rabbitmq.config.source.rabbitmq.enabled && rabbitmq.config.sink.rabbitmq.enabled);
    assert_eq!(rabbitmq.warnings, []);
    let env = [
        token,
        ("INVITE_RELAY__SOURCE__WEBHOOK__SECRETS", secrets.as_str()),
        ("INVITE_RELAY__SINK__WEBHOOK__SECRET", SIGNING_SECRET),
    ];
    let webhook = load_from(Some("config/webhook.toml".into()), &env, &[]).unwrap();
    assert!(webhook.config.source.webhook.enabled && webhook.config.sink.webhook.enabled);
    assert_eq!(webhook.warnings, []);
}

#[test]
fn the_reference_says_the_same_as_no_file_at_all() {
    let env = [
        ("INVITE_RELAY__DASHDOC__TOKEN", "token"),
        ("INVITE_RELAY__SINK__STDOUT__ENABLED", "true"),
        ("INVITE_RELAY__SOURCE__RABBITMQ__ENABLED", "true"),
        ("INVITE_RELAY__SOURCE__RABBITMQ__URL", "amqp://host"),
    ];
    let without = load_from(None, &env, &[]).unwrap();
    let with = load_from(Some("config/default.toml".into()), &env, &[]).unwrap();
    assert_eq!(show_json(&with)["config"], show_json(&without)["config"]);
}

#[test]
fn the_shipped_files_fit_the_published_schema() {
    let validator = jsonschema::validator_for(&schema()).unwrap();
    for path in ["config/default.toml", "config/rabbitmq.toml", "config/webhook.toml"] {
        let file: serde_json::Value = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let errors: Vec<_> = validator.iter_errors(&file).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{path}: {errors:?}");
    }
}

#[test]
fn an_unsigned_webhook_needs_the_explicit_insecure_setting() {
    let file = "[source.webhook]\nenabled = true\n[sink.stdout]\nenabled = true\n[dashdoc]\ntoken = 'x'\n";
    let problems = Given { file, ..Given::default() }.problems();
    assert!(problems.contains("source.webhook.secrets_file is not set"), "{problems}");
    let sets = ["source.webhook.insecure_accept_unsigned=true"];
    let loaded = Given { file, sets: &sets, ..Given::default() }.good();
    assert_eq!(loaded.warnings[0].key, "source.webhook.insecure_accept_unsigned");
}
