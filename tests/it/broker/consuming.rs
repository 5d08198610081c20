//! Prefetch, holding, re-subscribing, draining.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use invite_relay::broker::{BrokerEvent, Consumer, Delivery, Observer, Verdict, connect};
use invite_relay::lifecycle::Lifecycle;
use lapin::BasicProperties;
use lapin::options::QueueDeleteOptions;
use tokio::sync::Semaphore;

use super::{Accepted, Counts, consume, drain, endpoint, options, source, unique};
use crate::support::operator::Operator;
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_prefetch_holds_again_after_a_reconnect() {
    let rabbitmq = RabbitMq::shared();
    let operator = Operator::at(rabbitmq.url()).await;
    let topology = source(&unique("prefetch"));
    let connection = connect(&endpoint(&rabbitmq.url()), "test").await.unwrap();
    topology.apply(&connection, &Observer::default()).await.unwrap();
    operator.fill(&topology.queue, 0..10_000).await;
    let proxy = Proxy::start(rabbitmq.address()).await;
    let (counts, life) = (Counts::default(), Lifecycle::new());
    let in_hand = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let mut options = options(&RabbitMq::url_at(proxy.address()), &topology, 50);
    options.batches_in_flight = 1000;
    let consumer = Consumer::new(options, counts.observer());
    let (now, peak) = (Arc::clone(&in_hand), Arc::clone(&most));
    life.spawn_long(
        "consumer",
        consumer.run(life.clone(), move |batch: Vec<Delivery>| {
            peak.fetch_max(now.fetch_add(batch.len(), Ordering::SeqCst) + batch.len(), Ordering::SeqCst);
            let leaving = Leaving(Arc::clone(&now), batch.len());
            async move {
                let _leaving = leaving;
                std::future::pending().await
            }
        }),
    );
    for n_connections in 1..=3 {
        counts.reach(BrokerEvent::Connected, n_connections).await;
        until("all slots taken", async || in_hand.load(Ordering::SeqCst) == 50).await;
        until("the rest ready", async || operator.n_ready(&topology.queue).await == Some(9950)).await;
        proxy.cut();
        counts.reach(BrokerEvent::Disconnected, n_connections).await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 50);
    life.begin_drain();
    // The handler never answers, so the drain is not worth waiting for.
    let _ = life.finish(Duration::ZERO).await;
}

/// Notes that a batch is no longer in hand.
struct Leaving(Arc<AtomicUsize>, usize);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_deleted_is_declared_and_consumed_again() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("deleted"));
    let (counts, life, accepted) = (Counts::default(), Lifecycle::new(), Accepted::default());
    consume(options(&url, &topology, 10), &counts, &life, accepted.judge());
    for round in 1..=3 {
        counts.reach(BrokerEvent::Connected, round).await;
        operator
            .publish(&topology.exchange, "trucker.created", &round.to_string(), BasicProperties::default())
            .await;
        accepted.reach(round).await;
        let deleting =
            operator.channel.queue_delete(topology.queue.as_str().into(), QueueDeleteOptions::default());
        deleting.await.unwrap();
        counts.reach(BrokerEvent::ConsumerCancelled, round).await;
    }
    counts.reach(BrokerEvent::Connected, 4).await;
    assert_eq!(accepted.sorted(), [1, 2, 3]);
    drain(&life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_accepted_now_is_kept_and_accepted_later() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("held"));
    let (counts, life, accepted) = (Counts::default(), Lifecycle::new(), Accepted::default());
    let store_is_up = Arc::new(AtomicBool::new(false));
    // By delivery: how many fit into the first batch is the broker's choice.
    let n_asked = Arc::new(Mutex::new(HashMap::<u64, usize>::new()));
    let (up, asked, accept) = (Arc::clone(&store_is_up), Arc::clone(&n_asked), accepted.judge());
    consume(options(&url, &topology, 100), &counts, &life, move |delivery| {
        *asked.lock().unwrap().entry(delivery.delivery_tag).or_default() += 1;
        assert!(!delivery.redelivered, "never went back to the broker");
        if up.load(Ordering::SeqCst) { accept(delivery) } else { Verdict::Hold }
    });
    counts.reach(BrokerEvent::Connected, 1).await;
    operator.fill(&topology.queue, 0..20).await;
    counts.reach(BrokerEvent::Held, 1).await;
    until("asked again", async || n_asked.lock().unwrap().values().any(|n_times| *n_times >= 3)).await;
    assert_eq!(operator.n_ready(&topology.queue).await, Some(0), "all in hand");
    store_is_up.store(true, Ordering::SeqCst);
    accepted.reach(20).await;
    operator.fill(&topology.queue, 20..30).await;
    accepted.reach(30).await;
    drain(&life).await;
    assert_eq!(operator.n_ready(&topology.queue).await, Some(0), "acknowledged");
    assert_eq!(accepted.sorted(), (0..30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_too_long_goes_back_for_other_replicas() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("too-long"));
    let (counts, life) = (Counts::default(), Lifecycle::new());
    let mut options_of_the_sick = options(&url, &topology, 100);
    options_of_the_sick.hold_limit = Duration::from_millis(300);
    consume(options_of_the_sick, &counts, &life, |_| Verdict::Hold);
    counts.reach(BrokerEvent::Connected, 1).await;
    operator.fill(&topology.queue, 0..20).await;
    counts.reach(BrokerEvent::HeldTooLong, 1).await;
    let (others, accepted) = (Counts::default(), Accepted::default());
    consume(options(&url, &topology, 100), &others, &life, accepted.judge());
    until("all accepted elsewhere", async || {
        let mut numbers = accepted.sorted();
        numbers.dedup();
        numbers.len() == 20
    })
    .await;
    drain(&life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_acknowledges_what_was_accepted_and_gives_back_the_rest() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("drained"));
    let connection = connect(&endpoint(&url), "test").await.unwrap();
    topology.apply(&connection, &Observer::default()).await.unwrap();
    operator.fill(&topology.queue, 0..3000).await;
    let (counts, life, accepted) = (Counts::default(), Lifecycle::new(), Accepted::default());
    let gate = Arc::new(Semaphore::new(5));
    let mut options = options(&url, &topology, 500);
    options.batch_max = 20;
    let consumer = Consumer::new(options, counts.observer());
    let (judge, entry) = (accepted.judge(), Arc::clone(&gate));
    life.spawn_long(
        "consumer",
        consumer.run(life.clone(), move |batch: Vec<Delivery>| {
            let (judge, entry) = (judge.clone(), Arc::clone(&entry));
            async move {
                entry.acquire().await.unwrap().forget();
                batch.iter().map(judge).collect()
            }
        }),
    );
    accepted.reach(1).await;
    until("the gate closed", async || gate.available_permits() == 0).await;
    life.begin_drain();
    gate.add_permits(1000);
    assert_eq!(life.finish(Duration::from_secs(30)).await, Ok(()));
    let mut all = accepted.sorted();
    assert!(all.len() < 3000, "the drain came too late to show anything");
    all.extend(operator.take_all(&topology.queue).await);
    all.sort_unstable();
    assert_eq!(all, (0..3000).collect::<Vec<_>>(), "each either accepted or back in the queue, none both");
}
