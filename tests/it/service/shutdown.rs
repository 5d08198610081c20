//! Signals while work is in hand.

use invite_relay::dashdoc::simulator::HoldAt;
use invite_relay::invite::{Invite, StateName};
use rustix::process::Signal;
use tokio::io::AsyncWriteExt as _;

use super::checker::check;
use super::harness::Service;
use super::{Api, bus};
use crate::support::{soon, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_hand_is_finished_and_announced_before_the_service_ends() {
    let (api, bus) = (Api::faultless().await, bus("drained").await);
    let mut service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    let held = api.handle.hold_post(1, HoldAt::BeforeReply);
    bus.tell([1]).await;
    held.arrived().await;
    service.signal(Signal::TERM);
    service.logged("draining").await;
    let report = service.readiness().await;
    assert_eq!((&report["ready"], &report["draining"]), (&false.into(), &true.into()));
    // Nothing new is taken.
    bus.tell([2]).await;
    held.release();
    assert!(service.ended().await.success());
    check([1], &bus.take_announced().await, &api.handle);
    assert_eq!(service.invites().len(), 1);

    service.start_again().await;
    service.settle(2).await;
    check([2], &bus.take_announced().await, &api.handle);
    assert_eq!(api.handle.stats().gets, 0, "no outcome was unknown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_aborts_and_the_call_is_read_back_after_the_restart() {
    let (api, bus) = (Api::faultless().await, bus("aborted").await);
    let mut service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    let held = api.handle.hold_post(1, HoldAt::BeforeReply);
    bus.tell([1]).await;
    held.arrived().await;
    service.signal(Signal::TERM);
    service.logged("draining").await;
    service.signal(Signal::TERM);
    assert_eq!(service.ended().await.code(), Some(1), "what was cut short is no success");
    held.release();

    service.start_again().await;
    service.settle(1).await;
    println!("second signal: {}", check([1], &bus.take_announced().await, &api.handle));
    let trucker = api.handle.trucker(1).unwrap();
    assert_eq!(trucker.posts, 1, "the outcome was unknown: no blind second call");
    assert!(trucker.gets >= 2, "read back before the announcement and once more after it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_abort_no_request_leaves_any_more() {
    let (api, bus) = (Api::faultless().await, bus("cut-short").await);
    let settings = bus.as_sink(bus.as_source(api.settings())).with("dashdoc.max_in_flight", 8);
    let mut service = Service::start(&settings.with("dashdoc.timeout", "60s")).await;
    let held: Vec<_> = (1..=20).map(|pk| api.handle.hold_post(pk, HoldAt::BeforeEffect)).collect();
    bus.tell(1..=20).await;
    // Eight are at the API, and four wait for their turn.
    let calling = |invite: &Invite| invite.state.name() == StateName::Calling;
    until("work ahead of its turn", async || service.invites().iter().filter(|it| calling(it)).count() == 12)
        .await;
    let at_the_api = api.handle.wait_for(|view| view.stats().in_flight == 8);
    soon("eight requests at the API", at_the_api).await;
    // The process lasts a while longer: it waits for whoever asks on the admin port.
    let admin = service.admin_url("");
    let mut asking = tokio::net::TcpStream::connect(admin.strip_prefix("http://").unwrap()).await.unwrap();
    asking.write_all(b"GET /readyz HTTP/1.1\r\n").await.unwrap();
    service.signal(Signal::TERM);
    service.logged("draining").await;
    service.signal(Signal::TERM);
    service.logged("second signal").await;
    drop(held);
    assert_eq!(service.ended().await.code(), Some(1));
    assert_eq!(api.handle.stats().posts, 8, "what was in hand had been given back");
    drop(asking);

    service.start_again().await;
    service.settle(20).await;
    println!("cut short: {}", check(1..=20, &bus.take_announced().await, &api.handle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_outlasts_the_grace_is_cut_and_read_back_after_the_restart() {
    let (api, bus) = (Api::faultless().await, bus("outlasted").await);
    let settings = bus.as_sink(bus.as_source(api.settings())).with("shutdown.grace", "300ms");
    let mut service = Service::start(&settings).await;
    let held = api.handle.hold_post(1, HoldAt::BeforeEffect);
    bus.tell([1]).await;
    held.arrived().await;
    service.signal(Signal::TERM);
    assert_eq!(service.ended().await.code(), Some(1));

    // The effect comes after the new process has announced what it read: only the second read-back can find it.
    let (first_read, second_read) =
        (api.handle.hold_get(1, HoldAt::BeforeEffect), api.handle.hold_get(1, HoldAt::BeforeEffect));
    first_read.release();
    service.start_again().await;
    second_read.arrived().await;
    held.release();
    api.effects(1).await;
    second_read.release();
    service.settle(1).await;
    println!("cut by the grace: {}", check([1], &bus.take_announced().await, &api.handle));
    assert_eq!(service.invites()[0].generation.get(), 2);
}
