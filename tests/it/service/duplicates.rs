//! Events that ask for what is done already.

use serde_json::Value;

use super::checker::check;
use super::harness::Service;
use super::platform::trucker_created;
use super::webhook::Sender;
use super::{Api, bus};
use crate::support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_event_and_another_for_the_same_trucker_make_no_second_call() {
    let (api, bus, sender) = (Api::faultless().await, bus("duplicates").await, Sender::new());
    let settings = sender.as_source(bus.as_sink(bus.as_source(api.settings())));
    let mut service = Service::start(&settings).await;
    bus.tell([7]).await;
    service.settle(1).await;

    let same = trucker_created(7, "event-7");
    bus.send([same.clone(), same.clone(), trucker_created(7, "another")]).await;
    for event in [same, trucker_created(7, "a-third")] {
        let answer = sender.send(&service, &event).await.unwrap();
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            (answer.status, &body["status"], &body["invite"]),
            (202, &"duplicate".into(), &"default/7".into())
        );
    }
    // A trucker after them in the queue is done only after they were looked at.
    bus.tell([8]).await;
    service.settle(2).await;
    let count = async |outcome| service.count("invite_relay_events_received_total", &[outcome]).await;
    until("every event to be counted for what it was", async || {
        let accepted = count(r#"outcome="accepted""#).await;
        let duplicate = count(r#"outcome="duplicate""#).await;
        (accepted, duplicate, count(r#"outcome="joined""#).await) == (2, 3, 2)
    })
    .await;

    // Nor does a restart forget them.
    service.terminate().await;
    service.start_again().await;
    bus.tell([7, 9]).await;
    service.settle(3).await;
    let deliveries = bus.take_announced().await;
    println!("duplicates: {}", check([7, 8, 9], &deliveries, &api.handle));
    assert_eq!((api.handle.stats().posts, deliveries.len()), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_for_one_trucker_at_the_same_time_make_one_call() {
    let (api, bus, sender) = (Api::profile("flaky").await, bus("at-once").await, Sender::new());
    let service = Service::start(&sender.as_source(bus.as_sink(bus.as_source(api.settings())))).await;
    let events = |source: &str| -> Vec<String> {
        (0..100).map(|n| trucker_created(1 + n % 10, &format!("{source}-{n}"))).collect()
    };
    let by_webhook = async {
        for event in events("webhook") {
            assert_eq!(sender.send(&service, &event).await.unwrap().status, 202);
        }
    };
    tokio::join!(bus.send(events("rabbitmq")), by_webhook);
    until("all events to be taken", async || {
        service.count("invite_relay_events_received_total", &[]).await >= 200
    })
    .await;
    service.settle(10).await;
    println!("at once: {}", check(1..=10, &bus.take_announced().await, &api.handle));
}
