//! What one subscription has in hand: with the handler, on hold, on the way to the dead-letter queue.

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use tokio::time::Instant;

use super::Verdict;
use super::ledger::Ledger;
use super::message::Kept;
use super::session::{End, Ended};
use crate::crash::{self, Point};

/// A batch with its verdicts.
pub(super) struct Judged {
    pub(super) batch: Vec<Kept>,
    /// `None` if the handler gave no answer in time.
    pub(super) verdicts: Option<Vec<Verdict>>,
}

/// What is in hand.
pub(super) struct Hand<'a> {
    pub(super) channel: Channel,
    pub(super) ledger: Ledger,
    /// Batches with the handler.
    pub(super) judging: FuturesUnordered<BoxFuture<'a, Judged>>,
    /// Dead letters on their way; each ends with the tags to acknowledge.
    pub(super) burying: FuturesUnordered<BoxFuture<'a, Vec<u64>>>,
    /// Tags with `burying`.
    pub(super) condemned: Vec<u64>,
    /// What the handler could not accept.
    pub(super) held: Vec<Kept>,
    /// Set while something is held or the way in is closed.
    pub(super) hold: Option<Hold>,
    pub(super) n_received: u64,
    pub(super) n_settled: u64,
}

/// Since when nothing could be accepted, and when to ask again.
pub(super) struct Hold {
    pub(super) since: Instant,
    pub(super) n_tries: u32,
    pub(super) retry_at: Instant,
}

impl Hand<'_> {
    pub(super) fn new(channel: Channel) -> Self {
        Self {
            channel,
            ledger: Ledger::new(),
            judging: FuturesUnordered::new(),
            burying: FuturesUnordered::new(),
            condemned: Vec::new(),
            held: Vec::new(),
            hold: None,
            n_received: 0,
            n_settled: 0,
        }
    }

    /// The end of the subscription, with what it was good for.
    pub(super) fn ended(&self, end: End) -> Ended {
        Ended { end, n_received: self.n_received, n_settled: self.n_settled }
    }

    /// Notes new deliveries.
    pub(super) fn receive(&mut self, batch: &[Kept]) {
        for kept in batch {
            self.ledger.receive(kept.tag);
        }
        self.n_received += batch.len() as u64;
    }

    /// Deliveries that the broker waits for a word about, as far as we know of them.
    pub(super) fn n_unsettled(&self) -> u64 {
        self.n_received - self.n_settled
    }

    /// These are safe in the dead-letter queue.
    pub(super) fn buried(&mut self, tags: &[u64]) {
        self.condemned.retain(|tag| !tags.contains(tag));
        self.ack(tags.to_vec());
    }

    /// Acknowledges, in as few frames as is safe.
    pub(super) fn ack(&mut self, tags: Vec<u64>) {
        self.n_settled += tags.len() as u64;
        let acks = self.ledger.settle(tags);
        let bundle = acks.up_to.map(|tag| (tag, true));
        let any = bundle.is_some() || !acks.single.is_empty();
        for (tag, multiple) in bundle.into_iter().chain(acks.single.into_iter().map(|tag| (tag, false))) {
            // One look queues the frame. That it may never leave is a dead channel, which is noticed elsewhere.
            let _ = self.channel.basic_ack(tag, BasicAckOptions { multiple }).now_or_never();
        }
        if any {
            crash::pass(Point::SourceAcked);
        }
    }

    /// Puts these back into the queue. For the end of a subscription only: in a loop it would be a storm.
    pub(super) fn give_back(&self, tags: &[u64]) {
        for &tag in tags {
            let options = BasicNackOptions { multiple: false, requeue: true };
            let _ = self.channel.basic_nack(tag, options).now_or_never();
        }
    }
}

/// Whether more can come. An ended stream must not be asked again: it would wait for ever.
pub(super) enum Stream {
    Open,
    /// With the error that ended it, if it was one.
    Ended(Option<lapin::Error>),
}

/// `first` and what else is there already, at most `max`. Never waits.
pub(super) fn take_ready(
    first: lapin::message::Delivery,
    deliveries: &mut lapin::Consumer,
    max: usize,
) -> (Vec<Kept>, Stream) {
    let mut batch = vec![Kept::new(first)];
    while batch.len() < max {
        match deliveries.next().now_or_never() {
            Some(Some(Ok(delivery))) => batch.push(Kept::new(delivery)),
            Some(Some(Err(error))) => return (batch, Stream::Ended(Some(error))),
            Some(None) => return (batch, Stream::Ended(None)),
            None => break,
        }
    }
    (batch, Stream::Open)
}
