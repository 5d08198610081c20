//! Several processes on one database, one queue and one rate: killed, frozen, and with a clock that is wrong.

use std::path::PathBuf;

use invite_relay::dashdoc::simulator::Settings;
use rustix::process::Signal;

use super::checker::check;
use super::harness::Service;
use super::{Api, bus};
use crate::support::postgres::Postgres;
use crate::support::until;

/// Sets the wall clock of a process and leaves its other clocks alone; of the Debian package `faketime`.
fn faketime() -> PathBuf {
    let libraries = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|entry| entry.path());
    let library = libraries.map(|path| path.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists());
    library.expect("missing, install and run again: apt-get install faketime")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_replicas_of_which_one_is_killed_one_frozen_and_one_an_hour_ahead_double_nothing() {
    let (api, bus) = (Api::start(Settings::default()).await, bus("replicas").await);
    let server = tokio::task::block_in_place(Postgres::shared);
    let database = tokio::task::block_in_place(|| server.database());
    let settings = bus
        .as_sink(bus.as_source(api.settings()))
        .with("store.url", server.url(&database))
        .with("source.rabbitmq.prefetch", 10)
        .with("dashdoc.rate_per_second", 9.0)
        // The lease follows from the longest timeout; this makes it half a minute.
        .with("sink.rabbitmq.confirm_timeout", "5s");
    let (mut killed, frozen) = (Service::start(&settings).await, Service::start(&settings).await);
    let mut ahead = Service::prepare(&settings);
    ahead.environment("LD_PRELOAD", faketime());
    ahead.environment("FAKETIME", "+3600s");
    ahead.environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    ahead.start_again().await;
    for service in [&killed, &frozen, &ahead] {
        service.logged("\"replicas\":3").await;
    }

    bus.tell(1..=90).await;
    api.effects(15).await;
    killed.kill().await;
    api.effects(30).await;
    frozen.signal(Signal::STOP);
    // What they had in hand is taken over when their leases are over; nobody gives it back.
    ahead.settle(90).await;
    frozen.signal(Signal::CONT);
    until("the frozen one to work again", async || frozen.readiness().await["ready"] == true).await;
    ahead.settle(90).await;

    println!("replicas: {}", check(1..=90, &bus.take_announced().await, &api.handle));
    let throttled = api.handle.stats().throttled;
    assert!(throttled <= 4, "one rate for all of them, and {throttled} were refused");
}
