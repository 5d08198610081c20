//! Secrets and personal data stay inside.

use invite_relay::dashdoc::simulator::{self, Fault, Faults, Mix};
use secrecy::SecretString;

use super::harness::Service;
use super::platform::{Bus, trucker_created};
use super::webhook::{Receiver, Sender};
use super::{Api, http};
use crate::support::rabbitmq::RabbitMq;
use crate::support::until;

const TOKEN: &str = "canary-token-1f9b";

const BROKER_USER: &str = "relay-under-test";
const BROKER_PASSWORD: &str = "canary-password-77c1";

/// Parts of the personal data in every answer of the simulator.
const PEOPLE: [&str; 9] = [
    "Simulated",
    "simulated-user",
    "@example.com",
    "+33600",
    "+33700",
    "0601020304",
    "Adèle",
    "SIM-",
    "Transport Bouvet",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_code_or_personal_data_shows_in_logs_metrics_readiness_arguments_or_dumps() {
    // Half bodies, HTML, missing codes: whatever makes parsers quote what they could not read.
    let every = |chance| Mix {
        error_after: chance,
        reply_lost: chance,
        half_body: chance,
        no_code: chance,
        garbage: chance,
        odd_code: chance,
        ..Mix::default()
    };
    let faults = Faults { post: every(0.12), read: every(0.08), ..Faults::default() };
    let settings =
        simulator::Settings { faults, rate_limit: 0, tokens: vec![TOKEN.into()], ..Default::default() };
    let (api, sender) = (Api::start(settings).await, Sender::new());
    let bus = Bus::at(tokio::task::block_in_place(broker_url), "service-canaries").await;
    let receiver = Receiver::start(&api.life).await;
    let settings = receiver
        .as_sink(bus.as_sink(sender.as_source(bus.as_source(api.settings()))))
        .with("dashdoc.token", TOKEN)
        .with("telemetry.log", "trace");
    let mut service = Service::start(&settings).await;
    api.handle.script_posts(1, [Fault::Rejected]);
    let mut shown = vec![("/readyz before", service.readiness().await.to_string())];

    bus.tell(1..=60).await;
    // Poison with a person in it, on both sources, and a sender with the wrong secret.
    let personal = r#"{"type":"trucker.created","data":{"first_name":"Adèle","phone":"0601020304"#;
    bus.send([personal.to_owned(), personal.replace("created", "renamed") + "\"}}"]).await;
    shown.push(("a refusal", sender.send(&service, personal).await.unwrap().body));
    let answer = http::post(service.webhook_url(), &[("webhook-signature", "v1,AAAA")], personal).await;
    shown.push(("an unverified refusal", answer.unwrap().body));
    until("the dead letters", async || {
        shown.extend(bus.take_dead_headers().await.into_iter().map(|text| ("a dead letter's headers", text)));
        shown.iter().filter(|(place, _)| place.contains("dead letter")).count() == 2
    })
    .await;
    assert_eq!(sender.send(&service, &trucker_created(61, "event-61")).await.unwrap().status, 202);
    until("the poison to be found", async || {
        service.count("invite_relay_events_received_total", &[r#"outcome="poison""#]).await >= 3
    })
    .await;
    until("most codes", async || receiver.taken().len() >= 55).await;

    shown.push(("/metrics", service.metrics().await));
    shown.push(("/readyz", service.readiness().await.to_string()));
    shown.push((
        "the command line",
        std::fs::read_to_string(format!("/proc/{}/cmdline", service.pid())).unwrap(),
    ));
    for arguments in [&["config", "show"][..], &["config", "show", "--output", "json"], &["invites", "list"]]
    {
        let output = service.run(arguments);
        assert!(output.status.success(), "{output:?}");
        shown.push((
            "a command's output",
            String::from_utf8([output.stdout, output.stderr].concat()).unwrap(),
        ));
    }
    service.terminate().await;
    let log = service.log();
    assert!(log.contains("\"TRACE\"") || log.contains("\"DEBUG\""), "the log is verbose");
    shown.push(("the log", log));

    let secrets = [sender.secret.reveal(), receiver.secret()];
    let mut canaries: Vec<String> = secrets.iter().map(|text| text.replace("whsec_", "")).collect();
    canaries.extend([TOKEN, BROKER_PASSWORD].map(str::to_owned));
    canaries.extend(PEOPLE.map(str::to_owned));
    let truckers = api.handle.truckers();
    canaries.extend(truckers.into_iter().flat_map(|trucker| trucker.codes).map(|issued| issued.code));
    let n_bytes: usize = shown.iter().map(|(_, text)| text.len()).sum();
    println!("canaries: {} in {n_bytes} bytes", canaries.len());
    for (place, text) in &shown {
        for canary in &canaries {
            if let Some((before, after)) = text.split_once(canary.as_str()) {
                let around = |part: &str, from_end: bool| -> String {
                    let n_skipped = if from_end { part.chars().count().saturating_sub(200) } else { 0 };
                    part.chars().skip(n_skipped).take(200).collect()
                };
                panic!("{canary} is in {place}: {}>>>{}", around(before, true), around(after, false));
            }
        }
    }
}

/// The shared broker with a user whose password is found wherever it shows.
fn broker_url() -> SecretString {
    let broker = RabbitMq::shared();
    broker.ctl(&["add_user", BROKER_USER, BROKER_PASSWORD]);
    broker.ctl(&["set_permissions", BROKER_USER, ".*", ".*", ".*"]);
    format!("amqp://{BROKER_USER}:{BROKER_PASSWORD}@{}/%2f", broker.address()).into()
}
