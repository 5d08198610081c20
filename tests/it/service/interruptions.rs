//! The broker and the service go away in the middle, and come back.

use std::ops::RangeInclusive;

use super::checker::check;
use super::harness::Service;
use super::platform::Bus;
use super::webhook::{Receiver, Sender};
use super::{Api, bus};
use crate::support::rabbitmq::RabbitMq;

const TRUCKERS: RangeInclusive<u64> = 1..=300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_broker_in_the_middle_loses_and_doubles_nothing() {
    let api = Api::profile("flaky").await;
    let broker = tokio::task::block_in_place(RabbitMq::start);
    let bus = Bus::at(broker.url(), "restarted").await;
    let service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    bus.tell(1..=150).await;
    api.effects(40).await;
    tokio::task::block_in_place(|| broker.stop());
    // The API is called on without the broker.
    api.effects(90).await;
    tokio::task::block_in_place(|| broker.start_again());
    bus.tell(151..=300).await;
    api.effects(180).await;
    tokio::task::block_in_place(|| broker.kill());
    tokio::task::block_in_place(|| broker.start_again());
    service.settle(300).await;
    println!("broker restarts: {}", check(TRUCKERS, &bus.take_announced().await, &api.handle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_service_in_the_middle_loses_and_doubles_nothing() {
    let (api, bus) = (Api::profile("flaky").await, bus("terminated").await);
    let settings = bus.as_sink(bus.as_source(api.settings())).with("source.rabbitmq.prefetch", 50);
    let mut service = Service::start(&settings).await;
    bus.tell(TRUCKERS).await;
    for n_effects in [60, 140] {
        api.effects(n_effects).await;
        service.terminate().await;
        service.start_again().await;
    }
    service.settle(300).await;
    println!("SIGTERM twice: {}", check(TRUCKERS, &bus.take_announced().await, &api.handle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_service_again_and_again_loses_and_doubles_nothing() {
    let (api, bus) = (Api::profile("flaky").await, bus("killed").await);
    let settings = bus.as_sink(bus.as_source(api.settings())).with("source.rabbitmq.prefetch", 50);
    let mut service = Service::start(&settings).await;
    bus.tell(TRUCKERS).await;
    for n_effects in [1, 30, 90, 150, 200] {
        api.effects(n_effects).await;
        service.kill().await;
        service.start_again().await;
    }
    service.settle(300).await;
    println!("SIGKILL five times: {}", check(TRUCKERS, &bus.take_announced().await, &api.handle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_service_under_webhook_senders_that_repeat_loses_and_doubles_nothing() {
    let (api, sender) = (Api::profile("flaky").await, Sender::new());
    let receiver = Receiver::start(&api.life).await;
    let mut service = Service::start(&receiver.as_sink(sender.as_source(api.settings()))).await;
    let mut next = 1;
    for n_effects in [20, 70, 120] {
        // What was accepted before the kill is repeated after it, as by a sender that saw no answer.
        let portion = next..=next + 74;
        sender.tell(&service, portion.clone()).await;
        api.effects(n_effects).await;
        service.kill().await;
        service.start_again().await;
        sender.tell(&service, portion).await;
        next += 75;
    }
    sender.tell(&service, next..=300).await;
    service.settle(300).await;
    println!("SIGKILL under senders: {}", check(TRUCKERS, &receiver.taken(), &api.handle));
}
