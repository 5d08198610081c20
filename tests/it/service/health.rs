//! Probes: what is alive is not restarted because something else is away, and what is not ready says why.

use invite_relay::lifecycle::Lifecycle;

use super::Api;
use super::harness::Service;
use super::webhook::{Mood, Receiver, Sender};
use crate::service::platform::Bus;
use crate::support::rabbitmq::RabbitMq;
use crate::support::until;

/// Status and body, as a probe sees them.
async fn ask(url: String) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.execute(client.get(url).build().unwrap()).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_outage_restarts_no_pod_and_readiness_says_why() {
    let api = Api::faultless().await;
    let broker = tokio::task::block_in_place(RabbitMq::start);
    let bus = Bus::at(broker.url(), "probed").await;
    let service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    // The startup probe asks for the same: it is answered once everything has started.
    let alive = async || ask(service.admin_url("/livez")).await;
    let pid = service.pid();
    assert_eq!(alive().await, (200, "ok\n".to_owned()));

    tokio::task::block_in_place(|| broker.stop());
    until("readiness to say no", async || {
        // As often as the kubelet likes to ask.
        assert_eq!(alive().await, (200, "ok\n".to_owned()));
        ask(service.admin_url("/readyz")).await.0 == 503
    })
    .await;
    let report = service.readiness().await;
    let parts = report["parts"].as_array().unwrap();
    for name in ["store", "intake", "account.default", "sink.rabbitmq", "source.rabbitmq"] {
        let part = parts.iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("{report}"));
        let is_broker = name.ends_with("rabbitmq");
        assert_eq!(part["ready"], !is_broker, "{part}");
        assert_eq!(part["required"], !name.starts_with("sink") && !name.starts_with("account"), "{part}");
        assert_eq!(part["detail"].as_str().unwrap().contains("not connected"), is_broker, "{part}");
        assert!(part["since"].is_string(), "{part}");
    }
    tokio::task::block_in_place(|| broker.start_again());
    until("readiness", async || ask(service.admin_url("/readyz")).await.0 == 200).await;
    assert_eq!((alive().await.0, service.pid()), (200, pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_is_named_by_readiness_and_keeps_no_event_out() {
    let (api, life, sender) = (Api::faultless().await, Lifecycle::new(), Sender::new());
    let receiver = Receiver::start(&life).await;
    let service = Service::start(&sender.as_source(receiver.as_sink(api.settings()))).await;
    receiver.be(Mood::Refuse);
    sender.tell(&service, 1..=10).await;
    let part = async || service.part("sink.webhook").await;
    until("the sink's part to say no", async || part().await["ready"] == false).await;
    let said = part().await;
    assert_eq!(said["required"], false, "{said}");
    assert!(said["detail"].as_str().unwrap().contains("fails"), "{said}");
    // The store takes what the receiver doesn't.
    assert_eq!(ask(service.admin_url("/readyz")).await.0, 200);
    sender.tell(&service, 11..=12).await;
    receiver.be(Mood::Take);
    service.settle(12).await;
    until("the sink's part to say yes", async || part().await["ready"] == true).await;
    life.begin_drain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_drifts_away_is_seen_by_the_doctor_within_the_service() {
    let (api, bus) = (Api::faultless().await, super::bus("drift").await);
    let settings = bus.as_sink(bus.as_source(api.settings())).with("telemetry.doctor_every", "1s");
    let mut service = Service::start(&settings).await;
    let failed = async |part: &str| {
        let labels = [&*format!("part=\"{part}\""), "verdict=\"failed\""];
        service.count("invite_relay_doctor_findings", &labels).await
    };
    let ok = ["part=\"api\"", "verdict=\"ok\""];
    until("the first look", async || service.count("invite_relay_doctor_findings", &ok).await > 0).await;
    for part in ["configuration", "store", "source", "sink", "api", "admin", "telemetry"] {
        assert_eq!(failed(part).await, 0, "{part}: {}", service.log());
    }
    // The command agrees, beside the running service, and says so by its exit code.
    let output = service.run(&["doctor", "--output", "json"]);
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["counts"]["failed"], 0, "{report}");

    api.handle.set_tokens(["another"]);
    until("the drift to be seen", async || failed("api").await > 0).await;
    assert_eq!(service.run(&["doctor"]).status.code(), Some(1));
    service.look_again().await;
    api.handle.set_tokens([invite_relay::dashdoc::simulator::DEFAULT_TOKEN]);
    until("the mend to be seen", async || failed("api").await == 0).await;
    service.terminate().await;
    let log = service.log();
    assert_eq!(log.matches("a check of the doctor fails").count(), 1, "said once: {log}");
    assert_eq!(log.matches("a check of the doctor no longer fails").count(), 1, "{log}");
}
