//! Brokers and networks that fail.

use invite_relay::broker::{
    BrokerEvent, BrokerState, Consumer, Mode, Observer, PublishError, Publisher, PublisherOptions,
    SinkTopology, connect,
};
use invite_relay::lifecycle::Lifecycle;

use super::{
    Accepted, Counts, consume, drain, drain_with, endpoint, message, options, publisher, source, unique,
};
use crate::support::operator::Operator;
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::support::{soon, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_made_again_for_both_directions() {
    let rabbitmq = RabbitMq::shared();
    let proxy = Proxy::start(rabbitmq.address()).await;
    let url = RabbitMq::url_at(proxy.address());
    let topology = source(&unique("cut"));
    let (consuming, publishing, life) = (Counts::default(), Counts::default(), Lifecycle::new());
    let accepted = Accepted::default();
    consume(options(&url, &topology, 10), &consuming, &life, accepted.judge());
    consuming.reach(BrokerEvent::Connected, 1).await;
    let publisher = publisher(&url, &topology.exchange, &publishing, &life).await;
    for round in 1..=3 {
        let key = topology.routing_key.as_str();
        until("publishing", async || {
            publisher.publish(message(&topology.exchange, key, &round.to_string())).await == Ok(())
        })
        .await;
        until("the delivery", async || accepted.sorted().contains(&round)).await;
        proxy.cut();
        consuming.reach(BrokerEvent::Disconnected, round).await;
        publishing.reach(BrokerEvent::Disconnected, round).await;
        consuming.reach(BrokerEvent::Connected, round + 1).await;
        soon("the publisher", publisher.ready()).await;
    }
    drain_with(publisher, &life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_error_and_no_debug_output_holds_the_password() {
    let address = RabbitMq::shared().address();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [
        format!("amqp://guest:canary@{address}"),
        format!("amqp://canary:canary@{address}/canary-vhost"),
        format!("amqp://guest:canary@{closed}"),
    ] {
        let endpoint = endpoint(&url.clone().into());
        let error = connect(&endpoint, "test").await.map(drop).unwrap_err();
        let life = Lifecycle::new();
        let options = PublisherOptions::new(
            endpoint.clone(),
            SinkTopology { exchange: String::new(), mode: Mode::Declare },
        );
        let publisher = Publisher::start(options.clone(), Observer::default(), &life);
        let mut state = publisher.state();
        let down = state.wait_for(|state| matches!(state, BrokerState::Down { .. }));
        let down = soon("down", down).await.unwrap().clone();
        let consumer = Consumer::new(super::options(&url.into(), &source("q"), 1), Observer::default());
        let shown = format!("{error} {error:?} {down:?} {publisher:?} {options:?} {consumer:?}");
        assert!(!shown.replace("canary-vhost", "").contains("canary"), "{shown}");
        drain_with(publisher, &life).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_broker_is_given_up_and_found_again() {
    let rabbitmq = RabbitMq::shared();
    let proxy = Proxy::start(rabbitmq.address()).await;
    proxy.refuse();
    let topology = source(&unique("silent"));
    let (counts, life, accepted) = (Counts::default(), Lifecycle::new(), Accepted::default());
    consume(options(&RabbitMq::url_at(proxy.address()), &topology, 10), &counts, &life, accepted.judge());
    counts.reach(BrokerEvent::AttemptFailed, 2).await;
    proxy.resume();
    counts.reach(BrokerEvent::Connected, 1).await;
    Operator::at(rabbitmq.url()).await.fill(&topology.queue, 0..1).await;
    accepted.reach(1).await;
    drain(&life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_blocks_publishers_is_seen_and_consuming_goes_on() {
    let rabbitmq = RabbitMq::start();
    let url = rabbitmq.url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("blocked"));
    let (consuming, publishing, life) = (Counts::default(), Counts::default(), Lifecycle::new());
    let accepted = Accepted::default();
    let connection = connect(&endpoint(&url), "test").await.unwrap();
    topology.apply(&connection, &Observer::default()).await.unwrap();
    operator.fill(&topology.queue, 0..100).await;
    let publisher = publisher(&url, &topology.exchange, &publishing, &life).await;

    rabbitmq.ctl(&["set_vm_memory_high_watermark", "absolute", "1"]);
    // The broker blocks a connection when it next publishes; that message is on its way.
    let first = publisher.publish(message(&topology.exchange, "trucker.created", "100")).await;
    assert!(matches!(first, Ok(()) | Err(PublishError::Unconfirmed | PublishError::Blocked)), "{first:?}");
    publishing.reach(BrokerEvent::Blocked, 1).await;
    let second = publisher.publish(message(&topology.exchange, "trucker.created", "101")).await;
    assert_eq!(second, Err(PublishError::Blocked));
    consume(options(&url, &topology, 10), &consuming, &life, accepted.judge());
    accepted.reach(100).await;

    rabbitmq.ctl(&["set_vm_memory_high_watermark", "absolute", "1GB"]);
    publishing.reach(BrokerEvent::Unblocked, 1).await;
    soon("the publisher", publisher.ready()).await;
    let third = publisher.publish(message(&topology.exchange, "trucker.created", "102")).await;
    assert_eq!(third, Ok(()));
    until("the last one", async || accepted.sorted().contains(&102)).await;

    // A channel closed under a living connection: an acknowledgement of a delivery that never was.
    consuming.reach(BrokerEvent::Connected, 1).await;
    rabbitmq.ctl(&[
        "eval",
        "[rabbit_channel:do(C, {'basic.ack', 999999, false}) || C <- rabbit_channel:list()].",
    ]);
    consuming.reach(BrokerEvent::ChannelDied, 1).await;
    consuming.reach(BrokerEvent::Connected, 2).await;
    Operator::at(url).await.fill(&topology.queue, 200..201).await;
    until("deliveries again", async || accepted.sorted().contains(&200)).await;
    drain_with(publisher, &life).await;
}
