//! Consuming: subscribes, and subscribes again after whatever ended the last subscription.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::sync::watch;

use super::connection::{Connection, REQUEST_TIMEOUT, within};
use super::dead_letter::DeadLetters;
use super::link::Link;
use super::message::short;
use super::session::{End, Session, Subscription};
use super::topology::report;
use super::{Address, BrokerEvent, BrokerState, Delivery, Difference, Error, Observer, Topology, Verdict};
use crate::lifecycle::Lifecycle;

/// How a [`Consumer`] works.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The broker.
    pub address: Address,
    /// Applied with every subscription.
    pub topology: Topology,
    /// Most unacknowledged deliveries. There is no "unlimited".
    pub prefetch: NonZeroU16,
    /// Most deliveries handed to the handler at once.
    pub batch_max: usize,
    /// Most batches with the handler at the same time.
    pub batches_in_flight: usize,
    /// After so long without the handler accepting anything, the deliveries go back to the broker.
    pub hold_limit: Duration,
    /// How often to ask the broker whether the queue still has a consumer.
    pub check_every: Duration,
}

impl ConsumerOptions {
    /// Batches of up to 256, four of them in flight: while one is being committed, the next ones gather.
    /// Thirty seconds of holding: longer than the restart of a database, far below the broker's limit of 30
    /// minutes on an acknowledgement.
    pub fn new(address: impl Into<Address>, topology: Topology, prefetch: NonZeroU16) -> Self {
        Self {
            address: address.into(),
            topology,
            prefetch,
            batch_max: 256,
            batches_in_flight: 4,
            hold_limit: Duration::from_secs(30),
            check_every: Duration::from_secs(15),
        }
    }
}

/// Consumes one queue for as long as the process lives.
pub struct Consumer {
    options: ConsumerOptions,
    observer: Observer,
    link: Link,
    dead_letters: DeadLetters,
    /// Reported already, so that a new subscription does not repeat them.
    differences: Vec<Difference>,
}

impl Consumer {
    /// A consumer that has not started.
    pub fn new(options: ConsumerOptions, observer: Observer) -> Self {
        let link = Link::new(options.address.clone(), "consume", observer.clone());
        let dead_letters = DeadLetters::new(options.address.clone(), options.topology.clone());
        Self { options, observer, link, dead_letters, differences: Vec::new() }
    }

    /// The state of the subscription, for readiness.
    pub fn state(&self) -> watch::Receiver<BrokerState> {
        self.link.subscribe()
    }

    /// Hands deliveries to `handler` in batches until the drain; returns when all of them are settled.
    ///
    /// The handler answers with one verdict for each delivery, in order; a missing one counts as
    /// [`Verdict::Hold`]. Several batches are with the handler at the same time. Its future is dropped when the
    /// subscription ends first, and what it was judging is delivered again: it must be safe to drop and repeat.
    pub async fn run<H, F>(mut self, life: Lifecycle, handler: H)
    where
        H: Fn(Vec<Delivery>) -> F + Send + Sync,
        F: Future<Output = Vec<Verdict>> + Send,
    {
        while !life.is_draining() {
            let connection = tokio::select! {
                biased;
                () = life.draining() => return,
                connection = self.link.connect() => connection,
            };
            let subscribing = tokio::select! {
                biased;
                () = life.draining() => return connection.close().await,
                subscribing = self.subscribe(&connection) => subscribing,
            };
            let subscription = match subscribing {
                Ok(subscription) => subscription,
                Err(error) => {
                    self.link.down(BrokerEvent::AttemptFailed, &error);
                    continue;
                }
            };
            self.link.up();
            let session = Session {
                options: &self.options,
                observer: &self.observer,
                link: &mut self.link,
                dead_letters: &self.dead_letters,
                handler: &handler,
                life: &life,
            };
            match session.run(connection, subscription).await {
                End::Over => return,
                End::Fault(event, reason) => self.link.down(event, &reason),
            }
        }
    }

    /// Topology, channel, prefetch, subscription: all of it, every time.
    async fn subscribe(&mut self, connection: &Connection) -> Result<Subscription, Error> {
        let differences = self.options.topology.apply(connection, &self.observer).await?;
        report(differences, &mut self.differences);
        let channel = connection.channel().await?;
        let prefetch = channel.basic_qos(self.options.prefetch.get(), BasicQosOptions { global: false });
        within(REQUEST_TIMEOUT, "setting the prefetch", prefetch).await?;
        let queue = short(&self.options.topology.queue, "the queue's name")?;
        let tag = short(&consumer_tag(), "the consumer's tag")?;
        let consuming =
            channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default());
        let deliveries = within(REQUEST_TIMEOUT, "subscribing", consuming).await?;
        Ok(Subscription { channel, deliveries })
    }
}

/// Tells an operator which process holds the queue, and is new for every subscription.
fn consumer_tag() -> String {
    static SUBSCRIPTIONS: AtomicU64 = AtomicU64::new(1);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.trim().chars().take(64).collect();
    let n_subscription = SUBSCRIPTIONS.fetch_add(1, Ordering::Relaxed);
    format!("invite-relay-{host}-{}-{n_subscription}", std::process::id())
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("options", &self.options).finish_non_exhaustive()
    }
}
