//! A consumer that looks healthy works (promise 10): what goes wrong without an error is noticed, counted and healed.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use invite_relay::broker::{BrokerEvent, BrokerState, Consumer, Topology, Verdict, WayIn};
use invite_relay::lifecycle::Lifecycle;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use tokio::sync::watch;

use super::{Accepted, Counts, consume, drain, options, source, unique};
use crate::support::operator::Operator;
use crate::support::rabbitmq::RabbitMq;
use crate::support::{soon, until};

/// Declares the topology's queue with these arguments besides ours, as an operator may have done.
async fn declared_otherwise(operator: &Operator, topology: &Topology, more: &[(&str, AMQPValue)]) {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    for (name, value) in more {
        arguments.insert((*name).into(), value.clone());
    }
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    operator.channel.queue_declare(topology.queue.as_str().into(), durable, arguments).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handler_that_never_answers_is_noticed_and_its_deliveries_go_to_others() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("stuck"));
    let (counts, life) = (Counts::default(), Lifecycle::new());
    let mut options_of_the_stuck = options(&url, &topology, 10);
    options_of_the_stuck.stuck_after = Duration::from_millis(300);
    let consumer = Consumer::new(options_of_the_stuck, counts.observer());
    life.spawn_long("consumer", consumer.run(life.clone(), |_| pending::<Vec<Verdict>>()));
    counts.reach(BrokerEvent::Connected, 1).await;
    operator.fill(&topology.queue, 0..20).await;
    counts.reach(BrokerEvent::HandStuck, 1).await;
    let (others, accepted) = (Counts::default(), Accepted::default());
    consume(options(&url, &topology, 100), &others, &life, accepted.judge());
    until("all accepted elsewhere", async || accepted.sorted().len() >= 20).await;
    assert_eq!(accepted.sorted(), (0..20).collect::<Vec<_>>());
    drain(&life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_given_nothing_though_messages_wait_is_made_anew() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("silent"));
    // Another consumer is the only active one, and takes one message only.
    declared_otherwise(&operator, &topology, &[("x-single-active-consumer", AMQPValue::Boolean(true))]).await;
    operator.channel.basic_qos(1, BasicQosOptions::default()).await.unwrap();
    let subscribing = operator.channel.basic_consume(
        topology.queue.as_str().into(),
        "idle".into(),
        BasicConsumeOptions::default(),
        FieldTable::default(),
    );
    let idle = subscribing.await.unwrap();
    operator.fill(&topology.queue, 0..20).await;
    let (counts, life, accepted) = (Counts::default(), Lifecycle::new(), Accepted::default());
    let mut options = options(&url, &topology, 100);
    options.check_every = Duration::from_millis(50);
    consume(options, &counts, &life, accepted.judge());
    counts.reach(BrokerEvent::DeliveriesStopped, 2).await;
    assert_eq!(accepted.sorted(), Vec::<usize>::new());
    drop(idle);
    operator.close().await;
    until("all accepted", async || accepted.sorted().len() >= 20).await;
    let silent = counts.of(BrokerEvent::DeliveriesStopped);
    drain(&life).await;
    println!("given nothing in {silent} subscriptions");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_behind_the_consumer_uses_up_no_delivery_limit() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("limited"));
    // More than two returns, and the broker drops the message.
    declared_otherwise(&operator, &topology, &[("x-delivery-limit", AMQPValue::LongInt(2))]).await;
    operator.fill(&topology.queue, 0..20).await;
    let (counts, life, accepted) = (Counts::default(), Lifecycle::new(), Accepted::default());
    let (open, way_in) = watch::channel(Ok(()));
    let store_is_up = Arc::new(AtomicBool::new(false));
    let (up, accept) = (Arc::clone(&store_is_up), accepted.judge());
    let mut options = options(&url, &topology, 100);
    options.hold_limit = Duration::from_millis(200);
    let consumer = Consumer::new(options, counts.observer()).behind(WayIn::following(way_in));
    let mut state = consumer.state();
    let judging = consumer.run(life.clone(), move |batch| {
        let up = up.load(Ordering::SeqCst);
        let verdicts =
            batch.iter().map(|delivery| if up { accept(delivery) } else { Verdict::Hold }).collect();
        async move { verdicts }
    });
    life.spawn_long("consumer", judging);
    counts.reach(BrokerEvent::Held, 1).await;
    for reason in ["the disk is full", "the disk is read-only", "the store takes no writes"] {
        open.send(Err(reason.to_owned())).unwrap();
        let waits = state.wait_for(
            |state| matches!(state, BrokerState::Waiting { reason: told } if told.contains(reason)),
        );
        soon(&format!("the consumer to wait because {reason}"), waits).await.unwrap();
    }
    // While it lasts everything is in the queue, and there was one round.
    until("all in the queue", async || operator.n_ready(&topology.queue).await == Some(20)).await;
    assert_eq!((counts.of(BrokerEvent::Connected), counts.of(BrokerEvent::HeldTooLong)), (1, 1));
    store_is_up.store(true, Ordering::SeqCst);
    open.send(Ok(())).unwrap();
    until("all accepted", async || accepted.sorted().len() >= 20).await;
    assert_eq!(accepted.sorted(), (0..20).collect::<Vec<_>>());
    drain(&life).await;
}
