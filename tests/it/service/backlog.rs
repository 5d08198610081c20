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

/// Invites that wait when memory is first looked at: by then every cache is full.
const FIRST: u64 = 10_000;
/// And when it is looked at again.
const ALL: u64 = 50_000;
/// What as many more may take. A task or a copy of its event for each of them would be several times this.
const GROWTH_MAX_KIB: u64 = 16 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_invites_that_wait_behind_a_closed_gate_takes_no_more_memory() {
    let (api, bus) = (Api::faultless().await, bus("gate").await);
    // The first call is refused, and nothing asks again for the length of the test.
    api.handle.set_tokens(["another"]);
    let settings = bus
        .as_sink(bus.as_source(api.settings()))
        .with("retry.probe_delay", "1h")
        .with("dashdoc.max_in_flight", 256);
    let service = Service::start(&settings).await;
    let accepted = async || {
        service.count("invite_relay_events_received_total", &["rabbitmq", r#"outcome="accepted""#]).await
    };
    let mut resident = Vec::new();
    for (from, to) in [(1, FIRST), (FIRST + 1, ALL)] {
        // In portions, for the sake of the test's own memory.
        for portion in (from..=to).step_by(5000) {
            bus.tell(portion..=to.min(portion + 4999)).await;
        }
        until("all events to be accepted", async || accepted().await == to).await;
        resident.push(service.resident_kib());
    }
    let (first, all) = (resident[0], resident[1]);
    println!("{FIRST} invites wait: {first} KiB; {ALL}: {all} KiB");
    assert!(all < first + GROWTH_MAX_KIB, "{} more invites took {} KiB", ALL - FIRST, all - first);
}
