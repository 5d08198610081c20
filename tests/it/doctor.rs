//! The doctor against a real broker, the API simulator, and servers that answer wrongly.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{DATE, LOCATION};
use axum::response::IntoResponse;
use invite_relay::broker::{Endpoint, Mode, Observer, QueueType, Topology, connect};
use invite_relay::config::{self, Loaded, Sources};
use invite_relay::dashdoc::simulator::{DEFAULT_TOKEN, Faults, Settings, Simulator};
use invite_relay::doctor::{Finding, Report, Verdict, at_once, examine};
use invite_relay::lifecycle::Lifecycle;
use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use secrecy::{ExposeSecret, SecretString};
use tempfile::TempDir;

use crate::support::certificates::certificates;
use crate::support::operator::Operator;
use crate::support::rabbitmq::RabbitMq;
use crate::support::soon;

/// What the doctor is pointed at.
struct Given {
    broker: SecretString,
    /// Of queue and exchange.
    name: &'static str,
    topology: &'static str,
    base_url: String,
    token: &'static str,
    rate: &'static str,
}

impl Given {
    /// A broker without any topology, and an API that is never asked.
    fn broker(broker: SecretString, name: &'static str, topology: &'static str) -> Self {
        Self {
            broker,
            name,
            topology,
            base_url: "http://127.0.0.1:1".into(),
            token: "canary-token",
            rate: "5",
        }
    }

    /// A broker that is never there, and this API.
    fn api(base_url: String, token: &'static str) -> Self {
        let broker = "amqp://guest:canary-password@127.0.0.1:1".into();
        Self { broker, name: "any", topology: "verify", base_url, token, rate: "5" }
    }

    fn load(&self, dir: &TempDir, more: &[&str]) -> Loaded {
        let (name, store) = (self.name, dir.path().join("relay.db"));
        let mut sets = vec![
            "source.rabbitmq.enabled=true".into(),
            "sink.rabbitmq.enabled=true".into(),
            format!("source.rabbitmq.queue={name}"),
            format!("source.rabbitmq.exchange={name}.events"),
            format!("source.rabbitmq.topology={}", self.topology),
            format!("sink.rabbitmq.exchange={name}.events"),
            format!("dashdoc.base_url={}", self.base_url),
            format!("dashdoc.rate_per_second={}", self.rate),
            format!("store.url=sqlite://{}", store.display()),
            "admin.listen=127.0.0.1:0".into(),
        ];
        sets.extend(more.iter().map(ToString::to_string));
        let env = [
            ("INVITE_RELAY__SOURCE__RABBITMQ__URL".to_owned(), self.broker.expose_secret().to_owned()),
            ("INVITE_RELAY__DASHDOC__TOKEN".to_owned(), self.token.to_owned()),
        ];
        config::load(Sources { file: None, env, sets }).unwrap()
    }

    /// The report, which never shows a secret.
    async fn examined(&self) -> Report {
        self.examined_with(&[]).await
    }

    /// The same, with some settings more.
    async fn examined_with(&self, sets: &[&str]) -> Report {
        // Only the first caller installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = TempDir::new().unwrap();
        let loaded = self.load(&dir, sets);
        let report = soon("the doctor's report", Box::pin(examine(&loaded, |_| None, at_once))).await;
        let shown = format!("{report:?}");
        assert!(!shown.contains("canary"), "{shown}");
        report
    }
}

fn of<'r>(report: &'r Report, check: &str) -> &'r Finding {
    let found = report.checks.iter().find(|finding| finding.check == check);
    found.unwrap_or_else(|| panic!("no {check} in {report:#?}"))
}

/// Asserts the verdict of a check, with a part of its evidence and of its mend.
fn assert_found(report: &Report, check: &str, verdict: &str, evidence: &str, mend: &str) {
    let found = of(report, check);
    assert_eq!(found.verdict.as_str(), verdict, "{found:?}");
    assert!(found.evidence.contains(evidence), "{found:?}");
    assert!(found.verdict.mend().unwrap_or_default().contains(mend), "{found:?}");
}

fn topology(name: &str) -> Topology {
    Topology {
        exchange: format!("{name}.events"),
        queue: name.to_owned(),
        routing_key: "trucker.created".into(),
        queue_type: QueueType::Classic,
        mode: Mode::Declare,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_what_is_missing_on_the_broker_and_creates_nothing() {
    let url = RabbitMq::shared().url();
    let declaring = Given::broker(url.clone(), "doctor-missing", "declare");
    let report = declaring.examined().await;
    assert_found(&report, "source.rabbitmq.server", "ok", "is RabbitMQ ", "");
    assert_found(&report, "source.rabbitmq.topology", "ok", "the service declares", "");
    let verifying = Given { topology: "verify", ..declaring };
    let report = verifying.examined().await;
    let missing = "missing: exchange \"doctor-missing.events\", queue \"doctor-missing.dead\", queue \"doctor-missing\"";
    assert_found(
        &report,
        "source.rabbitmq.topology",
        "failed",
        missing,
        "source.rabbitmq.topology (flag --set)",
    );
    assert_found(
        &report,
        "sink.rabbitmq.topology",
        "failed",
        "exchange \"doctor-missing.events\"",
        "create it",
    );

    let connection = connect(&Endpoint::parse(&url).unwrap(), "test").await.unwrap();
    topology("doctor-missing").apply(&connection, &Observer::default()).await.unwrap();
    let report = verifying.examined().await;
    assert_found(&report, "source.rabbitmq.topology", "ok", "consumers: 0", "");
    assert_found(&report, "source.rabbitmq.dead_letters", "ok", "is empty", "");
    assert_found(&report, "sink.rabbitmq.topology", "ok", "is there", "");
    assert_eq!(of(&report, "sink.rabbitmq.route").verdict, Verdict::Skipped);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_sees_whether_a_queue_is_there_for_what_is_announced_to_the_default_exchange() {
    let url = RabbitMq::shared().url();
    let given = Given::broker(url.clone(), "doctor-route", "verify");
    let to_queues = [
        "sink.rabbitmq.exchange=",
        "sink.rabbitmq.routing_key=doctor-ready",
        "sink.rabbitmq.failed_routing_key=doctor-failed",
    ];
    let operator = Operator::at(url).await;
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let make = async |name: &str| {
        operator.channel.queue_declare(name.into(), durable, FieldTable::default()).await.unwrap();
    };
    make("doctor-ready").await;
    let report = given.examined_with(&to_queues).await;
    assert_found(&report, "sink.rabbitmq.topology", "ok", "default exchange always exists", "");
    let mend = "events wait in the store until there is a queue";
    assert_found(&report, "sink.rabbitmq.route", "failed", "no queue \"doctor-failed\"", mend);
    make("doctor-failed").await;
    let report = given.examined_with(&to_queues).await;
    assert_found(&report, "sink.rabbitmq.route", "ok", "both queues are there", "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_that_can_not_be_made_is_in_the_report_as_skipped() {
    // Those of the configuration are named after what is odd about it.
    let names = |report: &Report| -> BTreeSet<String> {
        let checks = report.checks.iter().map(|finding| finding.check.clone());
        checks.filter(|check| !check.starts_with("configuration.")).collect()
    };
    let (url, life) = (RabbitMq::shared().url(), Lifecycle::new());
    let connection = connect(&Endpoint::parse(&url).unwrap(), "test").await.unwrap();
    topology("doctor-all").apply(&connection, &Observer::default()).await.unwrap();
    let simulator = Simulator::bind(Settings::default()).await.unwrap();
    let base_url = simulator.base_url().clone();
    let life_of_simulator = life.clone();
    life.spawn_work(async move { simulator.run(life_of_simulator).await });
    let given = Given { base_url, token: DEFAULT_TOKEN, ..Given::broker(url, "doctor-all", "verify") };
    let report = given.examined().await;
    assert!(report.checks.iter().all(|finding| finding.verdict.as_str() != "failed"), "{report:#?}");
    let all = names(&report);
    println!("{} checks: {all:?}", all.len());

    let away = || "amqp://guest:guest@127.0.0.1:1".to_owned();
    let no_login = format!("amqp://guest:wrong@{}", RabbitMq::shared().address());
    for broker in [away(), no_login] {
        let report =
            Given { broker: broker.into(), base_url: "http://127.0.0.1:1".into(), ..given }.examined().await;
        assert_eq!(names(&report), all, "{report:#?}");
    }
    // The queue is not there, and the API's name leads nowhere.
    let report = Given { name: "doctor-none", base_url: "http://api.nowhere.invalid".into(), ..given }
        .examined()
        .await;
    assert_eq!(names(&report), all, "{report:#?}");
    for finding in report.checks {
        let says_how = finding.verdict.mend().is_some_and(|mend| !mend.is_empty());
        let is_trouble = matches!(finding.verdict.as_str(), "failed" | "warning");
        assert_eq!(says_how, is_trouble, "{finding:?}");
    }
    life.begin_drain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_points_at_dead_letters() {
    let url = RabbitMq::shared().url();
    let connection = connect(&Endpoint::parse(&url).unwrap(), "test").await.unwrap();
    topology("doctor-dead").apply(&connection, &Observer::default()).await.unwrap();
    let operator = Operator::at(url.clone()).await;
    operator.publish("", "doctor-dead.dead", "canary", BasicProperties::default()).await;
    let report = Given::broker(url, "doctor-dead", "verify").examined().await;
    assert_found(
        &report,
        "source.rabbitmq.dead_letters",
        "warning",
        "could not be read: 1",
        "dead-letters list",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_sees_a_queue_that_was_made_otherwise_and_what_the_broker_drops() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(2));
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    operator.channel.queue_declare("doctor-otherwise".into(), durable, arguments).await.unwrap();
    let given = Given::broker(url.clone(), "doctor-otherwise", "verify");
    let report = given.examined().await;
    let part = |check: &str| format!("source.rabbitmq.{check}");
    assert_found(&report, &part("arguments"), "warning", "x-delivery-limit is 2", "make it again");
    assert_found(&report, &part("dead_letter_target"), "warning", "is gone", "rabbitmqctl set_policy");
    assert_found(&report, &part("limits"), "warning", "delivery limit is 2", "20 or more");
    assert_found(&report, &part("alarms"), "ok", "takes messages", "");
    assert_eq!(operator.n_ready("doctor-otherwise").await, Some(0), "nothing is published to it");

    let connection = connect(&Endpoint::parse(&url).unwrap(), "test").await.unwrap();
    let ours = Topology { queue_type: QueueType::Quorum, ..topology("doctor-ours") };
    ours.apply(&connection, &Observer::default()).await.unwrap();
    let report = Given::broker(url, "doctor-ours", "verify").examined().await;
    assert_found(&report, &part("arguments"), "ok", "as the service declares it", "");
    assert_found(&report, &part("dead_letter_target"), "ok", "doctor-ours.dead", "");
    assert_found(&report, &part("limits"), "ok", "30 min", "");
    assert_found(&report, "sink.rabbitmq.alarms", "ok", "takes messages", "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_sees_an_alarm_that_stops_all_publishing() {
    let rabbitmq = tokio::task::block_in_place(RabbitMq::start);
    tokio::task::block_in_place(|| rabbitmq.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]));
    let report = Given::broker(rabbitmq.url(), "doctor-alarm", "declare").examined().await;
    for part in ["source.rabbitmq", "sink.rabbitmq"] {
        assert_found(&report, &format!("{part}.alarms"), "failed", "memory", "rabbitmq-diagnostics alarms");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_tells_a_wrong_password_from_a_wrong_virtual_host_and_from_no_broker() {
    let address = RabbitMq::shared().address();
    for (url, check, evidence, mend) in [
        (format!("amqp://guest:canary@{address}"), "login", "refused with 403", "user and password"),
        (format!("amqp://guest:guest@{address}/nowhere"), "login", "vhost nowhere not found", "virtual host"),
        ("amqp://guest:canary@127.0.0.1:1".into(), "server", "refused", "start the broker"),
        ("amqp://guest:canary@nowhere.invalid".into(), "server", "lookup", "correct the host"),
        (
            format!("amqps://guest:canary@{address}"),
            "server",
            "InvalidContentType",
            "correct scheme and port",
        ),
    ] {
        let report = Given::broker(url.into(), "doctor-login", "verify").examined().await;
        for part in ["source.rabbitmq", "sink.rabbitmq"] {
            assert_found(&report, &format!("{part}.{check}"), "failed", evidence, mend);
            assert_eq!(of(&report, &format!("{part}.topology")).verdict, Verdict::Skipped);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_the_file_for_a_certificate_authority_that_the_system_does_not_know() {
    let directory = TempDir::new().unwrap();
    let rabbitmq = tokio::task::block_in_place(|| {
        certificates(directory.path());
        RabbitMq::start_with_tls(directory.path())
    });
    let given = Given::broker(rabbitmq.url_with_tls("127.0.0.1"), "doctor-tls", "declare");
    let sets = |name: &str| format!("source.rabbitmq.ca_file={}", directory.path().join(name).display());
    let report = given.examined_with(&[&sets("ca.crt")]).await;
    for part in ["source.rabbitmq", "sink.rabbitmq"] {
        assert_eq!(of(&report, &format!("{part}.login")).verdict, Verdict::Ok, "{part}");
    }
    let report = given.examined().await;
    assert_found(
        &report,
        "source.rabbitmq.server",
        "failed",
        "UnknownIssuer",
        "goes into source.rabbitmq.ca_file",
    );
    assert_found(
        &report,
        "sink.rabbitmq.server",
        "failed",
        "UnknownIssuer",
        "goes into sink.rabbitmq.ca_file",
    );
    let report = given.examined_with(&[&sets("server.key")]).await;
    for part in ["source.rabbitmq", "sink.rabbitmq"] {
        let check = format!("{part}.server");
        assert_found(&report, &check, "failed", "no readable PEM", "let source.rabbitmq.ca_file");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_tells_a_good_token_from_a_refused_one_a_wrong_path_and_an_outage() {
    let life = Lifecycle::new();
    let simulator = Simulator::bind(Settings { tokens: vec!["canary-good".into()], ..Settings::default() })
        .await
        .unwrap();
    let (base_url, handle) = (simulator.base_url().clone(), simulator.handle());
    let life_of_simulator = life.clone();
    life.spawn_work(async move { simulator.run(life_of_simulator).await });

    let report = Given::api(base_url.clone(), "canary-good").examined().await;
    assert_found(&report, "api.default.token", "ok", "accepted", "");
    assert_found(&report, "api.default.clock", "ok", "agrees", "");
    let report = Given::api(base_url.clone(), "canary-bad").examined().await;
    assert_found(&report, "api.default.token", "failed", "401", "environment INVITE_RELAY__DASHDOC__TOKEN");
    let wrong = base_url.trim_end_matches('/').trim_end_matches("/v4").to_owned();
    let report = Given::api(wrong, "canary-good").examined().await;
    assert_found(&report, "api.default.token", "failed", "404", "correct the path of dashdoc.base_url");
    handle.set_faults(Faults::profile("outage").unwrap());
    let report = Given::api(base_url, "canary-good").examined().await;
    assert_found(&report, "api.default.token", "failed", "503", "nothing to mend here");
    life.begin_drain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_tells_a_name_that_leads_nowhere_from_tls_that_fails_and_a_rate_that_is_too_high() {
    let report = Given::api("https://api.nowhere.invalid/api/v4".into(), "canary-token").examined().await;
    assert_found(
        &report,
        "api.default.dns",
        "failed",
        "api.nowhere.invalid",
        "correct the host in dashdoc.base_url",
    );
    assert_eq!(of(&report, "api.default.token").verdict, Verdict::Skipped);

    let life = Lifecycle::new();
    let plain = serve(&life, StatusCode::OK).await;
    let report = Given::api(format!("https://{plain}"), "canary-token").examined().await;
    assert_found(&report, "api.default.connection", "failed", "", "correct scheme (https or http)");
    assert_eq!(of(&report, "api.default.clock").verdict, Verdict::Skipped);

    let simulator = Simulator::bind(Settings::default()).await.unwrap();
    let base_url = simulator.base_url().clone();
    let life_of_simulator = life.clone();
    life.spawn_work(async move { simulator.run(life_of_simulator).await });
    let given = Given { rate: "20", ..Given::api(base_url.clone(), DEFAULT_TOKEN) };
    let mend = "dashdoc.rate_per_second (flag --set) to 10 or less";
    assert_found(&given.examined().await, "api.default.rate", "warning", "20 requests per second", mend);
    let report = Given::api(base_url, DEFAULT_TOKEN).examined().await;
    assert_found(&report, "api.default.rate", "ok", "5 requests per second", "");
    life.begin_drain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_looks_for_the_collector_that_the_environment_names() {
    let dir = TempDir::new().unwrap();
    let loaded = Given::api("http://127.0.0.1:1".into(), "canary-token").load(&dir, &[]);
    let life = Lifecycle::new();
    let there = serve(&life, StatusCode::OK).await;
    for (endpoint, verdict, evidence) in [
        (Some(format!("http://{there}/?key=canary")), "ok", "takes connections"),
        (Some("http://127.0.0.1:1".to_owned()), "warning", "traces are dropped, invites are not affected"),
        (None, "skipped", "no OTEL_* variable"),
    ] {
        let env = |name: &str| endpoint.clone().filter(|_| name == "OTEL_EXPORTER_OTLP_ENDPOINT");
        let report = soon("the doctor's report", Box::pin(examine(&loaded, env, at_once))).await;
        assert_found(&report, "telemetry.collector", verdict, evidence, "");
        assert!(!format!("{report:?}").contains("canary"), "{report:?}");
    }
    let env = |name: &str| match name {
        "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(format!("http://{there}")),
        "OTEL_TRACES_SAMPLER" => Some("sometimes-canary".to_owned()),
        _ => None,
    };
    let report = soon("the doctor's report", Box::pin(examine(&loaded, env, at_once))).await;
    assert_found(&report, "telemetry.variables", "warning", "OTEL_TRACES_SAMPLER", "unset the variable");
    life.begin_drain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_follows_no_redirect_reads_no_body_aloud_and_sees_a_wrong_clock() {
    let life = Lifecycle::new();
    let redirect = "https://user:canary@other.example/api/v4/manager-truckers/?page=1&key=canary";
    let moved = serve(&life, (StatusCode::MOVED_PERMANENTLY, [(LOCATION, redirect)])).await;
    let report = Given::api(format!("http://{moved}"), "canary-token").examined().await;
    let mend = "dashdoc.base_url (flag --set) to https://other.example/api/v4";
    assert_found(&report, "api.default.token", "failed", "never followed", mend);

    let old = [(DATE, "Thu, 07 Apr 2022 21:39:13 GMT")];
    let page = serve(&life, (StatusCode::OK, old, "<html>canary")).await;
    let report = Given::api(format!("http://{page}"), "canary-token").examined().await;
    assert_found(&report, "api.default.token", "failed", "not the API", "correct dashdoc.base_url");
    assert_found(&report, "api.default.clock", "warning", "ahead of the API's", "synchronise");

    let busy = serve(&life, StatusCode::TOO_MANY_REQUESTS).await;
    let report = Given::api(format!("http://{busy}"), "canary-token").examined().await;
    assert_found(&report, "api.default.token", "warning", "429", "run it again");
}

/// A server that answers every request like this.
async fn serve(life: &Lifecycle, answer: impl IntoResponse + Clone + Send + Sync + 'static) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(async move || answer.clone());
    life.spawn_work(async move { axum::serve(listener, router).await });
    address
}
