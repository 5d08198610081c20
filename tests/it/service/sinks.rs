//! Several sinks, and the events of those that get no code.

use invite_relay::dashdoc::simulator::Fault;
use invite_relay::invite::StateName;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::checker::check;
use super::harness::Service;
use super::webhook::{Mood, Receiver};
use super::{Api, bus};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_receiver_that_fails_holds_back_no_event_of_the_rabbitmq_sink() {
    one_sink_in_trouble(Mood::Refuse).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_receiver_that_stalls_holds_back_no_event_of_the_rabbitmq_sink() {
    one_sink_in_trouble(Mood::Stall).await;
}

async fn one_sink_in_trouble(trouble: Mood) {
    let (api, bus) = (Api::faultless().await, bus("two-sinks").await);
    let receiver = Receiver::start(&api.life).await;
    let settings = receiver.as_sink(bus.as_sink(bus.as_source(api.settings())));
    let settings = settings.with("sink.webhook.timeout", "1s");
    let mut service = Service::start(&settings).await;
    receiver.be(trouble);
    bus.tell(1..=100).await;
    until("all events on RabbitMQ", async || {
        service.count("invite_relay_published_total", &[r#"sink="rabbitmq""#]).await >= 100
    })
    .await;
    let deliveries = bus.take_announced().await;
    check(1..=100, &deliveries, &api.handle);
    assert_eq!(deliveries.len(), 100, "one sink's failure repeats nothing on the other");
    assert!(receiver.taken().is_empty());
    assert_eq!(service.readiness().await["ready"], true, "a sink that is away does not stop the intake");

    // What it is owed survives a restart.
    service.terminate().await;
    service.start_again().await;
    receiver.be(Mood::Take);
    service.settle(100).await;
    println!("two sinks: {}", check(1..=100, &receiver.taken(), &api.handle));
    assert!(bus.take_announced().await.is_empty(), "RabbitMQ had them all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_whose_confirms_are_lost_with_the_connection_are_sent_again() {
    let (api, bus) = (Api::faultless().await, bus("unconfirmed").await);
    let broker = tokio::task::block_in_place(RabbitMq::shared);
    let proxy = Proxy::start(broker.address()).await;
    let through_proxy = RabbitMq::url_at(proxy.address());
    let settings = bus.as_sink(bus.as_source(api.settings()));
    let settings = settings.with("sink.rabbitmq.url", through_proxy.expose_secret());
    let service = Service::start(&settings).await;
    until("the sink", async || service.part("sink.rabbitmq").await["ready"] == true).await;
    proxy.stall();
    bus.tell(1..=50).await;
    until("all codes to be ready", async || service.are_all(50, StateName::Ready)).await;
    proxy.cut();
    proxy.resume();
    service.settle(50).await;
    println!("lost confirms: {}", check(1..=50, &bus.take_announced().await, &api.handle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_announcements_stand_still_no_more_codes_are_asked_for_than_can_be_announced() {
    const N_EVENTS: u64 = 3000;
    /// Announcements under way at once, and the work in hand whose codes wait for a place among them: what may be at
    /// the API, and half as much ahead of its turn.
    const BOUND: u64 = 1024 + 100 + 50;
    let (api, bus) = (Api::faultless().await, bus("standstill").await);
    let broker = tokio::task::block_in_place(RabbitMq::shared);
    let proxy = Proxy::start(broker.address()).await;
    let through_proxy = RabbitMq::url_at(proxy.address());
    let settings = bus
        .as_sink(bus.as_source(api.settings()))
        .with("dashdoc.max_in_flight", 100)
        .with("dashdoc.rate_per_second", 5000);
    let settings = settings.with("sink.rabbitmq.url", through_proxy.expose_secret());
    let service = Service::start(&settings).await;
    until("the sink", async || service.part("sink.rabbitmq").await["ready"] == true).await;
    proxy.stall();
    bus.tell(1..=N_EVENTS).await;
    let mut n_calls = 0;
    until("the first announcement to be given up", async || {
        let given_up =
            service.count("invite_relay_publish_failures_total", &[r#"sink="rabbitmq""#]).await > 0;
        if !given_up {
            n_calls = api.handle.stats().posts;
        }
        given_up
    })
    .await;
    assert!((1000..=BOUND).contains(&n_calls), "{n_calls} calls while nothing could be announced");
    proxy.cut();
    proxy.resume();
    service.settle(usize::try_from(N_EVENTS).unwrap()).await;
    check(1..=N_EVENTS, &bus.take_announced().await, &api.handle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn announcements_that_no_queue_wants_wait_until_one_does() {
    let (api, bus) = (Api::faultless().await, bus("unrouted").await);
    let service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    bus.stop_listening().await;
    bus.tell(1..=50).await;
    until("the announcements to come back", async || {
        service.count("invite_relay_publish_failures_total", &[r#"reason="unroutable""#]).await >= 50
    })
    .await;
    // Ready, and none published: nobody has got it.
    until("all codes to be ready", async || service.are_all(50, StateName::Ready)).await;
    bus.listen().await;
    service.settle(50).await;
    println!("unrouted: {}", check(1..=50, &bus.take_announced().await, &api.handle));
    assert_eq!(api.handle.stats().posts, 50, "publishing again does not call again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_the_default_exchange_announcements_reach_a_queue_by_its_name() {
    let (api, bus) = (Api::faultless().await, bus("by-name").await);
    api.handle.script_posts(2, [Fault::Rejected]);
    let service = Service::start(&bus.as_sink_by_name(bus.as_source(api.settings()))).await;
    bus.tell(1..=2).await;
    service.settle(2).await;
    let announced = bus.take_announced().await;
    let mut kinds: Vec<_> =
        announced.iter().map(|one| one.json()["type"].as_str().unwrap().to_owned()).collect();
    kinds.sort();
    assert_eq!(kinds, ["invite.failed", "invite.ready"]);
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
