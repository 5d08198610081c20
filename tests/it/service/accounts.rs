//! Several companies on one service: each event finds its company, and none waits for another.

use std::time::Duration;

use invite_relay::dashdoc::simulator::{DEFAULT_TOKEN, Faults, Mix, RetryAfter};
use invite_relay::invite::{FailureClass, StateName};
use invite_relay::time;
use serde_json::{Value, json};

use super::harness::Service;
use super::platform::{Delivery, trucker_created};
use super::settings::Settings;
use super::webhook::Sender;
use super::{Api, Bus, bus, postgres};
use crate::support::until;

/// The backlog of one company while another has a single event. At one call a second it outlives every test.
/// `FAIRNESS_BACKLOG=100000` makes it as long as one cares to wait for.
const N_BACKLOG: u64 = 3000;

/// Single events whose median is printed.
const N_SINGLE: u64 = 15;

/// Where the events of these tests name their company.
const POINTER: &str = "/data/account";

/// A further company with an API of its own.
fn with_account(settings: Settings, name: &str, api: &Api) -> Settings {
    settings
        .with("event.account", POINTER)
        .with(&format!("dashdoc.accounts.{name}.token"), DEFAULT_TOKEN)
        .with(&format!("dashdoc.accounts.{name}.base_url"), api.base_url.as_str())
}

/// An event that names its company.
fn created_for(account: &str, pk: u64) -> String {
    let mut event: Value = serde_json::from_str(&trucker_created(pk, &format!("{account}-{pk}"))).unwrap();
    event["data"]["account"] = account.into();
    event.to_string()
}

/// `account/pk` of each announcement, with its type.
fn announced(deliveries: &[Delivery]) -> Vec<(String, String)> {
    let of = |delivery: &Delivery| {
        let event = delivery.json();
        let (account, pk) = (event["data"]["account"].as_str().unwrap(), &event["data"]["trucker"]["pk"]);
        (format!("{account}/{pk}"), event["type"].as_str().unwrap().to_owned())
    };
    let mut all: Vec<_> = deliveries.iter().map(of).collect();
    all.sort();
    all
}

fn ready(ids: &[&str]) -> Vec<(String, String)> {
    ids.iter().map(|id| ((*id).to_owned(), "invite.ready".to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_on_a_queue_of_one_company_is_for_that_company_and_no_other() {
    let (api, acme, bus) = (Api::faultless().await, Api::faultless().await, bus("own-queue").await);
    let settings = bus.as_sink(bus.as_source(api.settings()));
    let settings = bus.as_source_of("acme", with_account(settings, "acme", &acme));
    let settings = with_account(settings, "beta", &api);
    let service = Service::start(&settings).await;
    assert_eq!(service.part("source.rabbitmq.acme").await["ready"], true);
    bus.send_to("acme", [trucker_created(1, "unnamed"), created_for("acme", 2), created_for("beta", 3)])
        .await;
    bus.send([trucker_created(1, "general"), created_for("acme", 4), created_for("beta", 5)]).await;
    service.settle(5).await;
    let ids = ["acme/1", "acme/2", "acme/4", "beta/5", "default/1"];
    assert_eq!(announced(&bus.take_announced().await), ready(&ids));
    assert_eq!((acme.handle.stats().effects, api.handle.stats().effects), (3, 2));

    let dead = async || bus.n_dead_of("acme").await;
    until("the event for another company to be put aside", async || dead().await == 1).await;
    assert_eq!(bus.n_dead().await, 0);
    let list = |account: &[&str]| {
        let output = service.run(&[&["dead-letters", "list", "--output", "json"], account].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let listed = list(&["--account", "acme"]);
    assert_eq!(listed[0]["reason_code"], "foreign_account", "{listed}");
    assert!(listed[0]["reason"].as_str().unwrap().starts_with(POINTER), "{listed}");
    assert_eq!(list(&[]), json!([]));
    let none = service.run(&["dead-letters", "list", "--account", "beta"]);
    assert_eq!(none.status.code(), Some(2), "{}", String::from_utf8_lossy(&none.stderr));

    let doctor = service.run(&["doctor", "--output", "json"]);
    let report = String::from_utf8(doctor.stdout).unwrap();
    assert!(report.contains("source.rabbitmq.acme.dead_letters"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_of_one_company_that_is_not_there_stops_nobody_else() {
    let (api, bus) = (Api::faultless().await, bus("queue-missing").await);
    let settings = bus.as_sink(bus.as_source(api.settings()));
    let mut service = Service::start(&settings).await;
    service.terminate().await;
    // Verified from now on, and nobody has made the company's queue.
    let settings = with_account(settings, "acme", &api).with("source.rabbitmq.topology", "verify");
    service.configure(&bus.as_source_of("acme", settings));
    service.launch_again().await;
    bus.tell([1]).await;
    service.settle(1).await;
    let part = service.part("source.rabbitmq.acme").await;
    assert_eq!((&part["ready"], &part["required"]), (&json!(false), &json!(false)), "{part}");
    until("readiness", async || service.readiness().await["ready"] == true).await;
    until("the consumers to be seen as not all up", async || {
        service.metrics().await.contains("invite_relay_broker_connected{purpose=\"consume\"} 0")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_of_one_company_can_create_events_for_that_company_alone() {
    let (api, bus) = (Api::faultless().await, bus("own-path").await);
    let (everybody, acme, beta) = (Sender::new(), Sender::new(), Sender::new());
    let settings = with_account(everybody.as_source(bus.as_sink(api.settings())), "acme", &api);
    let settings = with_account(settings, "beta", &api)
        // What holds for the general path does not open the company's.
        .with("source.webhook.tokens", vec!["0f3a9c5be1d27846"])
        .with("dashdoc.accounts.beta.webhook_path", "/webhooks/beta")
        .with("dashdoc.accounts.beta.webhook_secrets", vec![beta.secret.reveal()])
        .with("dashdoc.accounts.acme.webhook_path", "/webhooks/acme");
    let mut service = Service::prepare(&settings);
    let file = service.file("acme-secrets");
    std::fs::write(&file, acme.secret.reveal()).unwrap();
    service.configure(&settings.with("dashdoc.accounts.acme.webhook_secrets_file", file.to_str().unwrap()));
    service.start_again().await;

    let general = "/webhooks/trucker-created";
    for (sender, path, event, status, expected) in [
        (&acme, "/webhooks/acme", trucker_created(1, "unnamed"), 202, "acme/1"),
        (&acme, "/webhooks/acme", created_for("acme", 2), 202, "acme/2"),
        (&acme, "/webhooks/acme", created_for("beta", 3), 422, "foreign_account"),
        (&acme, general, created_for("acme", 4), 401, "not-verified"),
        (&acme, "/webhooks/beta", created_for("beta", 4), 401, "not-verified"),
        (&everybody, "/webhooks/acme", created_for("acme", 4), 401, "not-verified"),
        (&everybody, general, created_for("acme", 5), 202, "acme/5"),
        (&everybody, general, trucker_created(6, "general"), 202, "default/6"),
        (&beta, "/webhooks/beta", trucker_created(1, "unnamed"), 202, "beta/1"),
    ] {
        let answer = sender.send_to(&service, path, &event).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
        assert!(answer.body.contains(expected), "{path}: {}", answer.body);
    }
    let token = [("authorization", "Bearer 0f3a9c5be1d27846")];
    let by_token = service.post("/webhooks/acme", &token, &trucker_created(7, "by-token")).await.unwrap();
    assert_eq!(by_token.status, 401, "{}", by_token.body);

    // A new secret needs no restart, and the old one is good no longer.
    let renewed = Sender::new();
    std::fs::write(&file, renewed.secret.reveal()).unwrap();
    until("the new secret to be good", async || {
        let answer = renewed.send_to(&service, "/webhooks/acme", &trucker_created(8, "renewed")).await;
        answer.unwrap().status == 202
    })
    .await;
    let old = acme.send_to(&service, "/webhooks/acme", &trucker_created(9, "old")).await.unwrap();
    assert_eq!(old.status, 401, "{}", old.body);
    service.settle(6).await;
    let ids = ["acme/1", "acme/2", "acme/5", "acme/8", "beta/1", "default/6"];
    assert_eq!(announced(&bus.take_announced().await), ready(&ids));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_for_a_company_nobody_knows_is_dead_with_that_cause_until_it_is_configured() {
    let (api, bus) = (Api::faultless().await, bus("unknown-company").await);
    let settings = bus.as_sink(bus.as_source(api.settings())).with("event.account", POINTER);
    let mut service = Service::start(&settings).await;
    bus.send((0..20).map(|n| created_for(&format!("stranger-{n}"), 1))).await;
    bus.send([created_for("gamma", 1), trucker_created(2, "known")]).await;
    service.settle(22).await;
    let invites = service.invites();
    let gamma = invites.iter().find(|invite| invite.key.to_string() == "gamma/1").unwrap();
    let failure = gamma.last_failure.as_ref().unwrap();
    assert_eq!(gamma.state.name(), StateName::Dead);
    assert_eq!(
        (failure.class, failure.code.as_str()),
        (FailureClass::UnknownAccount, "account_not_configured")
    );
    assert_eq!(api.handle.stats().effects, 1, "no other company's token was used for them");
    let told = bus.take_announced().await;
    let told_gamma =
        told.iter().map(Delivery::json).find(|event| event["data"]["account"] == "gamma").unwrap();
    assert_eq!(told_gamma["type"], "invite.failed");
    assert_eq!(told_gamma["data"]["failure"]["class"], "unknown_account", "{told_gamma}");
    // However many names senders think of, the metrics stay as they are.
    let dead = service.count("invite_relay_dead_total", &["account=\"other\"", "unknown_account"]).await;
    assert_eq!(dead, 21);
    let metrics = service.metrics().await;
    assert!(!metrics.contains("gamma") && !metrics.contains("stranger"), "{metrics}");

    service.terminate().await;
    service.configure(&with_account(settings, "gamma", &api));
    service.start_again().await;
    let redriven = service.run(&["invites", "redrive", "gamma/1", "--by", "ada", "--apply"]);
    assert!(redriven.status.success(), "{}", String::from_utf8_lossy(&redriven.stderr));
    let published = async || {
        let of_gamma = |id: &str| id == "gamma/1";
        let invites = service.invites();
        invites
            .iter()
            .any(|invite| of_gamma(&invite.key.to_string()) && invite.state.name() == StateName::Published)
    };
    until("the company's invite", published).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_company_with_a_backlog_or_a_closed_gate_delays_no_other() {
    let (api, bus) = (Api::faultless().await, bus("fair").await);
    let settings = bus.as_sink(bus.as_source(api.settings()));
    one_event_beside_a_backlog("sqlite", settings, &bus, &api).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_company_with_a_backlog_or_a_closed_gate_delays_no_other_on_postgres() {
    let (api, bus) = (Api::faultless().await, bus("fair-postgres").await);
    let settings = bus.as_sink(bus.as_source(api.settings()));
    let settings = postgres::on(postgres::shared(), settings);
    one_event_beside_a_backlog("postgres", settings, &bus, &api).await;
}

/// All on one queue: nothing but the service keeps the companies apart. Beta's events come one after the other, each
/// after the one before has been announced.
async fn one_event_beside_a_backlog(store: &str, settings: Settings, bus: &Bus, api: &Api) {
    let (slow, refusing, throttling) = (
        Api::faultless().await,
        Api::faultless().await,
        Api::with(Faults::posts(Mix {
            throttled: 1.0,
            retry_after: RetryAfter::Seconds(3600),
            ..Mix::default()
        }))
        .await,
    );
    refusing.handle.set_tokens(["another"]);
    let settings = with_account(settings, "beta", api);
    let settings = with_account(settings, "refused", &refusing);
    let settings = with_account(settings, "throttled", &throttling);
    let settings = with_account(settings, "acme", &slow).with("dashdoc.accounts.acme.rate_per_second", 1.0);
    let service = Service::start(&settings).await;
    let alone = median_to_ready(bus, 1).await;

    for closed in ["refused", "throttled"] {
        bus.send((1..=20).map(|pk| created_for(closed, pk))).await;
        let gate = async || service.part(&format!("account.{closed}")).await["ready"] == false;
        until("the gate to close", gate).await;
    }
    let n_backlog = std::env::var("FAIRNESS_BACKLOG").map_or(N_BACKLOG, |text| text.parse().unwrap());
    bus.send((1..=n_backlog).map(|pk| created_for("acme", pk))).await;
    let mut known = 0;
    while known < n_backlog {
        let before = known;
        until("more of the backlog to be stored", async || {
            known = service.count("invite_relay_invites", &["account=\"acme\""]).await;
            known > before
        })
        .await;
    }
    let beside = median_to_ready(bus, N_SINGLE + 1).await;

    let waiting = async |account: &str| {
        let of = format!("account=\"{account}\"");
        let all = service.count("invite_relay_invites", &[&of]).await;
        all - service.count("invite_relay_invites", &[&of, "state=\"published\""]).await
    };
    assert!(waiting("acme").await > n_backlog / 2, "beta was not served before acme's backlog was");
    for closed in ["refused", "throttled"] {
        assert_eq!(waiting(closed).await, 20, "{closed} waits, and none of it is dead");
        let dead = service.count("invite_relay_dead_total", &[&format!("account=\"{closed}\"")]).await;
        assert_eq!(dead, 0);
    }
    assert_eq!(api.handle.stats().effects, 2 * N_SINGLE);
    println!(
        "{store}, one event from sending to ready: {alone:?} alone, {beside:?} beside {n_backlog} of another company"
    );
}

/// Sends some of beta's events, one after the other; the median time from sending to the code.
async fn median_to_ready(bus: &Bus, first: u64) -> Duration {
    let mut took = Vec::new();
    for pk in first..first + N_SINGLE {
        let sent = time::now();
        bus.send([created_for("beta", pk)]).await;
        let mut at = None;
        until("beta's event to be announced", async || {
            let found = bus
                .take_announced()
                .await
                .iter()
                .map(Delivery::json)
                .find(|event| event["data"]["account"] == "beta" && event["data"]["trucker"]["pk"] == pk);
            at = found.map(|event| event["time"].as_str().unwrap().to_owned());
            at.is_some()
        })
        .await;
        let at = humantime::parse_rfc3339(&at.unwrap()).unwrap();
        let at = at.duration_since(std::time::UNIX_EPOCH).unwrap();
        took.push(at.saturating_sub(sent.since(time::Timestamp::EPOCH)));
    }
    took.sort();
    took[took.len() / 2]
}
