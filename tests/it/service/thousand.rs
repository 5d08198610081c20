//! The main job, a thousand times, on an ordinary bad day of the API.

use std::time::Instant;

use super::checker::check;
use super::harness::Service;
use super::webhook::{Receiver, Sender};
use super::{Api, bus};

const TRUCKERS: std::ops::RangeInclusive<u64> = 1..=1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_events_through_rabbitmq_become_a_thousand_valid_codes_on_a_flaky_api() {
    let (api, bus) = (Api::profile("flaky").await, bus("thousand").await);
    let service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    let started = Instant::now();
    bus.tell(TRUCKERS).await;
    service.settle(1000).await;
    println!(
        "rabbitmq: {} in {:?}",
        check(TRUCKERS, &bus.take_announced().await, &api.handle),
        started.elapsed()
    );
    assert!(bus.source_is_empty().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_events_through_the_webhook_become_a_thousand_valid_codes_on_a_flaky_api() {
    let (api, sender) = (Api::profile("flaky").await, Sender::new());
    let receiver = Receiver::start(&api.life).await;
    let service = Service::start(&receiver.as_sink(sender.as_source(api.settings()))).await;
    let started = Instant::now();
    sender.tell(&service, TRUCKERS).await;
    service.settle(1000).await;
    println!("webhook: {} in {:?}", check(TRUCKERS, &receiver.taken(), &api.handle), started.elapsed());
}
