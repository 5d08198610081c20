//! The broker module against a real node.

mod consuming;
mod liveness;
mod outages;
mod poison;
mod publishing;
mod tls;
mod topology;

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use invite_relay::broker::{
    BrokerEvent, Consumer, ConsumerOptions, Delivery, Endpoint, Message, Mode, Observer, Publisher,
    PublisherOptions, QueueType, SinkTopology, Topology, Verdict,
};
use invite_relay::lifecycle::Lifecycle;
use invite_relay::time::Timestamp;
use secrecy::SecretString;

use crate::support::operator::number;
use crate::support::{soon, until};

/// Counts events.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<HashMap<BrokerEvent, usize>>>);

impl Counts {
    fn observer(&self) -> Observer {
        let counts = Arc::clone(&self.0);
        Observer::new(move |event| *counts.lock().unwrap().entry(event).or_default() += 1)
    }

    fn of(&self, event: BrokerEvent) -> usize {
        self.0.lock().unwrap().get(&event).copied().unwrap_or(0)
    }

    async fn reach(&self, event: BrokerEvent, n_times: usize) {
        until(&format!("{event:?}"), async || self.of(event) >= n_times).await;
    }
}

/// A name that no other test uses.
fn unique(name: &str) -> String {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    format!("{name}-{}", NAMES.fetch_add(1, Ordering::Relaxed))
}

fn endpoint(url: &SecretString) -> Endpoint {
    Endpoint::parse(url).unwrap()
}

fn source(name: &str) -> Topology {
    Topology {
        exchange: format!("{name}.events"),
        queue: name.to_owned(),
        routing_key: "trucker.created".into(),
        queue_type: QueueType::Quorum,
        mode: Mode::Declare,
    }
}

fn options(url: &SecretString, topology: &Topology, prefetch: u16) -> ConsumerOptions {
    ConsumerOptions::new(endpoint(url), topology.clone(), NonZeroU16::new(prefetch).unwrap())
}

/// Runs a consumer that judges each delivery by itself.
fn consume(
    options: ConsumerOptions,
    counts: &Counts,
    life: &Lifecycle,
    judge: impl Fn(&Delivery) -> Verdict + Clone + Send + Sync + 'static,
) {
    let consumer = Consumer::new(options, counts.observer());
    life.spawn_long(
        "consumer",
        consumer.run(life.clone(), move |batch| {
            let judge = judge.clone();
            async move { batch.iter().map(judge).collect() }
        }),
    );
}

/// Collects the numbers it is given, and accepts them.
#[derive(Clone, Default)]
struct Accepted(Arc<Mutex<Vec<usize>>>);

impl Accepted {
    fn judge(&self) -> impl Fn(&Delivery) -> Verdict + Clone + Send + Sync + 'static {
        let accepted = Arc::clone(&self.0);
        move |delivery| {
            accepted.lock().unwrap().push(number(&delivery.body));
            Verdict::Ack
        }
    }

    fn sorted(&self) -> Vec<usize> {
        let mut numbers = self.0.lock().unwrap().clone();
        numbers.sort_unstable();
        numbers
    }

    async fn reach(&self, n: usize) {
        until(&format!("{n} deliveries"), async || self.0.lock().unwrap().len() >= n).await;
    }
}

async fn drain(life: &Lifecycle) {
    life.begin_drain();
    assert_eq!(life.finish(Duration::from_secs(30)).await, Ok(()));
}

/// The publisher outlives the beginning of the drain and ends with its last handle.
async fn drain_with(publisher: Publisher, life: &Lifecycle) {
    life.begin_drain();
    drop(publisher);
    drain(life).await;
}

async fn publisher(url: &SecretString, exchange: &str, counts: &Counts, life: &Lifecycle) -> Publisher {
    let topology = SinkTopology { exchange: exchange.into(), mode: Mode::Declare };
    let mut options = PublisherOptions::new(endpoint(url), topology);
    options.confirm_timeout = Duration::from_secs(5);
    let publisher = Publisher::start(options, counts.observer(), life);
    soon("the publisher", publisher.ready()).await;
    publisher
}

fn message(exchange: &str, routing_key: &str, id: &str) -> Message {
    Message {
        exchange: exchange.into(),
        routing_key: routing_key.into(),
        message_id: id.into(),
        correlation_id: Some("cause".into()),
        content_type: "application/cloudevents+json".into(),
        headers: vec![("cloudEvents_type".into(), "invite.ready".into())],
        timestamp: Timestamp::from_millis(1_649_367_553_000),
        body: id.to_owned().into(),
    }
}
