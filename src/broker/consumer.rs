//! Consuming: subscribes, and subscribes again after whatever ended the last subscription.

use std::fmt;
use std::future::Future;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use tokio::sync::watch;
use tokio::time::sleep;

use super::connection::{Connection, REQUEST_TIMEOUT, within};
use super::dead_letter::DeadLetters;
use super::link::Link;
use super::message::short;
use super::session::{End, Ended, Session, Subscription};
use super::topology::report;
use super::{
    Address, BrokerEvent, BrokerState, Delivery, Difference, Error, Observer, Topology, Verdict, WayIn,
};
use crate::lifecycle::Lifecycle;

/// Looks in a row that find messages which we are not given, before the subscription counts as dead. The first may
/// be a message that has only just come.
const SILENT_LOOKS: u32 = 2;
/// The looks double with every subscription that was silent from its beginning: where the queue has a single
/// active consumer, which is another one, this is as it should be.
const SILENCE_DOUBLINGS_MAX: u32 = 8;
/// The longest rest between fruitless subscriptions: with `RabbitMQ`'s limit of 20 they take most of a day to use
/// it up.
const REST_MAX: Duration = Duration::from_secs(3600);

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
    /// After so long without a verdict on a batch, the handler counts as stuck and the deliveries go back.
    pub stuck_after: Duration,
    /// How often to look whether the queue still has a consumer, and whether it gives us its messages.
    pub check_every: Duration,
}

impl ConsumerOptions {
    /// Batches of up to 256, four of them in flight: while one is being committed, the next ones gather.
    /// Thirty seconds of holding: longer than the restart of a database, far below the broker's limit of 30
    /// minutes on an acknowledgement. Two minutes for a verdict: many times a commit on a disk in trouble.
    pub fn new(address: impl Into<Address>, topology: Topology, prefetch: NonZeroU16) -> Self {
        Self {
            address: address.into(),
            topology,
            prefetch,
            batch_max: 256,
            batches_in_flight: 4,
            hold_limit: Duration::from_secs(30),
            stuck_after: Duration::from_secs(120),
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
    way_in: WayIn,
    /// Subscriptions in a row that gave everything back.
    n_fruitless: u32,
    /// Subscriptions in a row that ended because messages were ready and none came.
    n_silent: u32,
    /// Reported already, so that a new subscription does not repeat them.
    differences: watch::Sender<Vec<Difference>>,
}

impl Consumer {
    /// A consumer that has not started.
    pub fn new(options: ConsumerOptions, observer: Observer) -> Self {
        let link = Link::new(options.address.clone(), "consume", observer.clone());
        let dead_letters = DeadLetters::new(options.address.clone(), options.topology.clone());
        Self {
            options,
            observer,
            link,
            dead_letters,
            way_in: WayIn::always_open(),
            n_fruitless: 0,
            n_silent: 0,
            differences: watch::Sender::new(Vec::new()),
        }
    }

    /// Follows `way_in`: while it is closed, deliveries are held up to the hold limit, then given back, and there
    /// is no subscription until it opens.
    ///
    /// Every round of "delivered and given back" counts towards the delivery limit of a quorum queue (20 by
    /// default since `RabbitMQ` 4.0), beyond which good events become dead letters. With this signal an outage
    /// costs one round, however long it lasts. The limit itself is the operator's, by policy (`delivery-limit`):
    /// we do not declare one, because a queue that exists without it would refuse the declaration.
    #[must_use]
    pub fn behind(mut self, way_in: WayIn) -> Self {
        self.way_in = way_in;
        self
    }

    /// What the last subscription found with other arguments than ours; up to date whenever the state is
    /// [`BrokerState::Up`].
    pub fn differences(&self) -> watch::Receiver<Vec<Difference>> {
        self.differences.subscribe()
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
            tokio::select! {
                biased;
                () = life.draining() => return,
                () = self.permission() => {}
            }
            let connection = tokio::select! {
                biased;
                () = life.draining() => return,
                connection = self.link.connect() => connection,
            };
            // Connecting may have taken long.
            if self.way_in.closed_because().is_some() {
                connection.close().await;
                continue;
            }
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
                way_in: self.way_in.clone(),
                silent_looks_max: SILENT_LOOKS << self.n_silent.min(SILENCE_DOUBLINGS_MAX),
                handler: &handler,
                life: &life,
            };
            let Ended { end, n_received, n_settled } = session.run(connection, subscription).await;
            let End::Fault(event, _) = end else { return };
            let gave_back = matches!(event, BrokerEvent::HeldTooLong | BrokerEvent::HandStuck);
            self.n_fruitless = if gave_back && n_settled == 0 { self.n_fruitless + 1 } else { 0 };
            let silent = event == BrokerEvent::DeliveriesStopped && n_received == 0;
            self.n_silent = if silent { self.n_silent + 1 } else { 0 };
        }
    }

    /// Waits until subscribing makes sense: the way in is open, and rounds that gave everything back although it
    /// is open become rare.
    async fn permission(&mut self) {
        let rest = rest(self.n_fruitless, self.options.hold_limit);
        if rest > Duration::ZERO {
            let (n, rest_s) = (self.n_fruitless, rest.as_secs());
            self.link
                .waiting(format!("nothing was accepted in {n} subscriptions, the next is in {rest_s} s"));
            sleep(rest).await;
        }
        while let Some(reason) = self.way_in.closed_because() {
            self.link.waiting(reason);
            self.way_in.changed().await;
        }
    }

    /// Topology, channel, prefetch, subscription: all of it, every time.
    async fn subscribe(&mut self, connection: &Connection) -> Result<Subscription, Error> {
        let differences = self.options.topology.apply(connection, &self.observer).await?;
        report(&differences, &self.differences.borrow());
        self.differences.send_replace(differences);
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

/// How long to stay unsubscribed after so many rounds in a row that gave everything back.
///
/// The first round is an outage, whose end the way in tells. From the second on something behind an open way in
/// does not work, and each further round brings messages nearer to their delivery limit.
fn rest(n_fruitless: u32, hold_limit: Duration) -> Duration {
    match n_fruitless {
        0 | 1 => Duration::ZERO,
        n => hold_limit.saturating_mul(1 << (n - 2).min(16)).min(REST_MAX),
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
