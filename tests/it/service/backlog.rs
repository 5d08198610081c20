//! The bound of the backlog: beyond it nothing is taken in, and nothing is lost.

use invite_relay::dashdoc::simulator::DEFAULT_TOKEN;

use super::checker::check;
use super::harness::Service;
use super::platform::trucker_created;
use super::webhook::Sender;
use super::{Api, bus};
use crate::support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_backlog_leaves_events_with_their_senders_until_there_is_room() {
    let (api, bus, sender) = (Api::faultless().await, bus("backlog").await, Sender::new());
    api.handle.set_tokens(["another"]);
    let settings = sender
        .as_source(bus.as_sink(bus.as_source(api.settings())))
        .with("store.max_backlog", 20)
        .with("source.rabbitmq.prefetch", 10);
    let service = Service::start(&settings).await;
    sender.tell(&service, 1..=10).await;
    bus.tell(11..=100).await;
    until("the backlog to be full", async || service.invites().len() >= 20).await;
    until("readiness to say so", async || service.readiness().await["ready"] == false).await;
    let part = service.part("intake").await;
    assert!(part["detail"].as_str().unwrap().contains("backlog is full"), "{part}");
    let refused = sender.send(&service, &trucker_created(101, "event-101")).await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.body);
    // One batch may have been on its way when the bound was reached.
    let n_stored = service.invites().len();
    assert!((20..=30).contains(&n_stored), "{n_stored} stored with a bound of 20");

    api.handle.set_tokens([DEFAULT_TOKEN]);
    sender.tell(&service, [101]).await;
    service.settle(101).await;
    println!("a backlog of 20: {}", check(1..=101, &bus.take_announced().await, &api.handle));
    until("readiness", async || service.readiness().await["ready"] == true).await;
}
