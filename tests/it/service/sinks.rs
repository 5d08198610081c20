//! Several sinks, and the events of those that get no code.

use invite_relay::dashdoc::simulator::Fault;
use serde_json::Value;

use super::checker::check;
use super::harness::Service;
use super::platform::Receiver;
use super::{Api, bus};
use crate::support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_webhook_sink_holds_back_no_event_of_the_rabbitmq_sink() {
    let (api, bus) = (Api::faultless().await, bus("two-sinks").await);
    let receiver = Receiver::start(&api.life).await;
    let settings = receiver.as_sink(bus.as_sink(bus.as_source(api.settings())));
    let mut service = Service::start(&settings).await;
    receiver.fail(true);
    bus.tell(1..=100).await;
    until("all events on RabbitMQ", async || {
        service.count("invite_relay_published_total", &[r#"sink="rabbitmq""#]).await >= 100
    })
    .await;
    let deliveries = bus.take_announced().await;
    check(1..=100, &deliveries, &api.handle);
    assert_eq!(deliveries.len(), 100, "one sink's failure repeats nothing on the other");
    assert!(receiver.n_refused() > 0 && receiver.taken().is_empty());
    assert_eq!(service.readiness().await["ready"], true, "a sink that is away does not stop the intake");

    // What it is owed survives a restart.
    service.terminate().await;
    service.start_again().await;
    receiver.fail(false);
    service.settle(100).await;
    println!("two sinks: {}", check(1..=100, &receiver.taken(), &api.handle));
    assert!(bus.take_announced().await.is_empty(), "RabbitMQ had them all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_trucker_is_announced_as_failed_and_is_on_the_work_list() {
    let (api, bus) = (Api::faultless().await, bus("rejected").await);
    let service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    api.handle.script_posts(1, [Fault::Rejected]);
    bus.tell([1, 2]).await;
    service.settle(2).await;

    let (failed, ready): (Vec<_>, Vec<_>) = bus
        .take_announced()
        .await
        .into_iter()
        .partition(|delivery| delivery.json()["type"] == "invite.failed");
    check([2], &ready, &api.handle);
    assert_eq!(failed.len(), 1);
    let event = failed[0].json();
    assert_eq!(event["data"]["trucker"]["pk"], 1);
    assert_eq!(event["data"]["failure"]["class"], "rejected", "{event}");
    assert!(event["data"].get("invite_code").is_none(), "{event}");

    let listed = service.run(&["invites", "list", "--state", "dead", "--output", "json"]);
    assert!(listed.status.success(), "{listed:?}");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["invite"], "default/1");
    assert_eq!(listed[0]["failure"]["class"], "rejected");
    let table = service.run(&["invites", "list", "--state", "dead"]).stdout;
    assert!(String::from_utf8(table).unwrap().contains("default/1"));
}
