//! One subscription: deliveries to the handler, verdicts to the broker, until a fault or the drain.
//!
//! Acknowledgements are queued on the channel and not awaited. If the channel dies before they leave, the broker
//! delivers again; the handler knows the duplicates.

use std::future::{Future, pending};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::BasicCancelOptions;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::connection::{Change, Connection, REQUEST_TIMEOUT, within};
use super::consumer::ConsumerOptions;
use super::dead_letter::{Condemned, DeadLetters, portions};
use super::hand::{Hand, Hold, Judged, Stream, take_ready};
use super::link::{Link, backoff};
use super::message::Kept;
use super::topology::look_at_queue;
use super::{BrokerEvent, Delivery, Error, Observer, QueueLook, Verdict, WayIn};
use crate::lifecycle::Lifecycle;

/// How long what is in hand may take to finish after the broker cancelled the consumer, or after the handler is
/// done in a drain and only dead letters are left.
const WIND_DOWN: Duration = Duration::from_secs(5);

/// Everything a subscription borrows from its [`super::Consumer`].
pub(super) struct Session<'a, H> {
    pub(super) options: &'a ConsumerOptions,
    pub(super) observer: &'a Observer,
    pub(super) link: &'a mut Link,
    pub(super) dead_letters: &'a DeadLetters,
    pub(super) way_in: WayIn,
    /// After so many looks in a row that found messages we were not given, the subscription counts as dead.
    pub(super) silent_looks_max: u32,
    pub(super) handler: &'a H,
    pub(super) life: &'a Lifecycle,
}

/// What the broker gave us.
pub(super) struct Subscription {
    pub(super) channel: Channel,
    pub(super) deliveries: lapin::Consumer,
}

/// Why a subscription ended.
pub(super) enum End {
    /// Drained or aborted: do not subscribe again.
    Over,
    Fault(BrokerEvent, String),
}

/// What a subscription was good for.
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) n_received: u64,
    pub(super) n_settled: u64,
}

impl<'a, H, F> Session<'a, H>
where
    H: Fn(Vec<Delivery>) -> F + Send + Sync,
    F: Future<Output = Vec<Verdict>> + Send + 'a,
{
    pub(super) async fn run(self, mut connection: Connection, subscription: Subscription) -> Ended {
        let Subscription { channel, mut deliveries } = subscription;
        let mut hand = Hand::new(channel);
        let mut check = self.check(&connection);
        let mut way_in = self.way_in.clone();
        let (mut n_silent, mut n_received_before) = (0, 0);
        if self.way_in.closed_because().is_some() {
            self.pause(&mut hand);
        }
        let end = loop {
            let may_take = hand.hold.is_none() && hand.judging.len() < self.options.batches_in_flight;
            let hold_ends = hand.hold.as_ref().map(|hold| hold.since + self.options.hold_limit);
            let retry_at = hand.hold.as_ref().filter(|_| !hand.held.is_empty()).map(|hold| hold.retry_at);
            tokio::select! {
                biased;
                () = self.life.aborted() => return hand.ended(End::Over),
                () = self.life.draining() => break End::Over,
                change = connection.next_change() => match change {
                    Change::Died(error) => break End::Fault(BrokerEvent::Disconnected, error.to_string()),
                    Change::Blocked(reason) => self.link.blocked(reason),
                    Change::Unblocked => self.link.unblocked(),
                },
                () = way_in.changed() => self.follow_way_in(&mut hand),
                Some(judged) = hand.judging.next() => {
                    let stuck = judged.verdicts.is_none();
                    self.settle(&mut hand, judged);
                    if stuck {
                        break End::Fault(BrokerEvent::HandStuck, self.stuck(&hand));
                    }
                }
                Some(tags) = hand.burying.next() => hand.buried(&tags),
                found = &mut check => match found {
                    Ok(QueueLook { n_consumers: 0, .. }) => {
                        break End::Fault(BrokerEvent::ConsumerLost, "the queue has no consumer".into());
                    }
                    Ok(QueueLook { n_ready, .. }) => {
                        let has_room = may_take && hand.n_unsettled() < self.options.prefetch.get().into();
                        let silent = n_ready > 0 && has_room && hand.n_received == n_received_before;
                        n_silent = if silent { n_silent + 1 } else { 0 };
                        n_received_before = hand.n_received;
                        if n_silent >= self.silent_looks_max {
                            let reason = "messages are ready and the broker delivers none of them";
                            break End::Fault(BrokerEvent::DeliveriesStopped, reason.into());
                        }
                        check = self.check(&connection);
                    }
                    Err(error) => break End::Fault(BrokerEvent::ConsumerLost, error.to_string()),
                },
                () = until(hold_ends), if hold_ends.is_some() => {
                    let reason = "nothing could be accepted for too long, the deliveries go back to the broker";
                    break End::Fault(BrokerEvent::HeldTooLong, reason.into());
                }
                () = until(retry_at), if retry_at.is_some() => {
                    let batch = std::mem::take(&mut hand.held);
                    self.judge(&mut hand, batch);
                }
                next = deliveries.next(), if may_take => match next {
                    Some(Ok(first)) => {
                        let (batch, ended) = take_ready(first, &mut deliveries, self.options.batch_max);
                        hand.receive(&batch);
                        self.judge(&mut hand, batch);
                        if let Stream::Ended(error) = ended {
                            break ended_because(error, &connection);
                        }
                    }
                    Some(Err(error)) => break ended_because(Some(error), &connection),
                    None => break ended_because(None, &connection),
                },
            }
        };
        // At once, not after the winding down: readiness watches it.
        if let End::Fault(event, reason) = &end {
            self.link.down(*event, reason);
        }
        let ended = hand.ended(end);
        match ended.end {
            End::Fault(BrokerEvent::Disconnected, _) => ended,
            End::Fault(..) | End::Over => self.wind_down(hand, connection, deliveries, ended).await,
        }
    }

    /// Hands a batch to the handler, which has limited time: what it never speaks of again would fill the hand.
    fn judge(&self, hand: &mut Hand<'a>, batch: Vec<Kept>) {
        let (handler, stuck_after) = (self.handler, self.options.stuck_after);
        let judging = async move {
            let judging = handler(batch.iter().map(Kept::delivery).collect());
            let verdicts = timeout(stuck_after, judging).await.ok();
            Judged { batch, verdicts }
        };
        hand.judging.push(judging.boxed());
    }

    fn stuck(&self, hand: &Hand<'a>) -> String {
        let (n_unsettled, limit_s) = (hand.n_unsettled(), self.options.stuck_after.as_secs_f32());
        format!("{n_unsettled} deliveries in hand, and no word about some of them for {limit_s} s")
    }

    /// The way in has opened or closed.
    fn follow_way_in(&self, hand: &mut Hand<'a>) {
        if self.way_in.closed_because().is_some() {
            self.pause(hand);
        } else if hand.held.is_empty() {
            hand.hold = None;
        } else if let Some(hold) = &mut hand.hold {
            hold.retry_at = Instant::now();
        }
    }

    /// Carries verdicts out.
    fn settle(&self, hand: &mut Hand<'a>, judged: Judged) {
        let Judged { batch, verdicts } = judged;
        let Some(verdicts) = verdicts else {
            hand.held.extend(batch);
            return;
        };
        if verdicts.len() < batch.len() {
            error!(
                n_deliveries = batch.len(),
                n_verdicts = verdicts.len(),
                "the handler left deliveries unjudged"
            );
        }
        let mut accepted = Vec::with_capacity(batch.len());
        let mut condemned = Vec::new();
        let n_held = hand.held.len();
        let verdicts = verdicts.into_iter().chain(std::iter::repeat(Verdict::Hold));
        for (kept, verdict) in batch.into_iter().zip(verdicts) {
            match verdict {
                Verdict::Ack => accepted.push(kept.tag),
                Verdict::DeadLetter { reason_code, reason } => {
                    condemned.push(Condemned { kept, reason_code, reason });
                }
                Verdict::Hold => hand.held.push(kept),
            }
        }
        if hand.held.len() > n_held {
            self.hold(hand);
        } else if hand.held.is_empty() && self.way_in.closed_because().is_none() && hand.hold.take().is_some()
        {
            info!("deliveries are accepted again");
        }
        hand.ack(accepted);
        if !condemned.is_empty() {
            self.bury(hand, condemned);
        }
    }

    /// Some more could not be accepted: asks again later.
    fn hold(&self, hand: &mut Hand<'a>) {
        let hold = self.pause(hand);
        hold.n_tries += 1;
        hold.retry_at = Instant::now() + backoff(hold.n_tries, rand::random());
    }

    /// Takes nothing new. The clock of the hold limit begins to run, if it does not run yet.
    fn pause<'h>(&self, hand: &'h mut Hand<'a>) -> &'h mut Hold {
        hand.hold.get_or_insert_with(|| {
            warn!("deliveries cannot be accepted now, holding them");
            self.observer.tell(BrokerEvent::Held);
            let now = Instant::now();
            Hold { since: now, n_tries: 0, retry_at: now }
        })
    }

    /// Dead-letters until it works; the deliveries stay unacknowledged until then.
    ///
    /// In portions, of which one is on its way at a time: a flood of poison is bounded by the prefetch in memory
    /// and by one portion in the client, and what it does not fill of the prefetch is free for good deliveries.
    fn bury(&self, hand: &mut Hand<'a>, condemned: Vec<Condemned>) {
        hand.condemned.extend(condemned.iter().map(|one| one.kept.tag));
        for portion in portions(condemned) {
            let (dead_letters, observer) = (self.dead_letters, self.observer);
            let burying = async move {
                let mut n_failures = 0;
                while let Err(reason) = dead_letters.bury(&portion).await {
                    n_failures += 1;
                    observer.tell(BrokerEvent::DeadLetterFailed);
                    if dead_letters.begin_trouble() {
                        warn!(%reason, "cannot dead-letter, keeping the deliveries and trying again");
                    } else {
                        debug!(n = portion.len(), %reason, n_failures, "still cannot dead-letter");
                    }
                    sleep(backoff(n_failures, rand::random())).await;
                }
                if dead_letters.end_trouble() {
                    info!("dead-lettering works again");
                }
                for _ in &portion {
                    observer.tell(BrokerEvent::DeadLettered);
                }
                info!(n = portion.len(), "moved deliveries to the dead-letter queue");
                portion.iter().map(|one| one.kept.tag).collect()
            };
            hand.burying.push(burying.boxed());
        }
    }

    /// Looks at the queue after a while.
    fn check(&self, connection: &Connection) -> BoxFuture<'static, Result<QueueLook, Error>> {
        let (handle, queue) = (connection.handle(), self.options.topology.queue.clone());
        let every = self.options.check_every;
        async move {
            sleep(every).await;
            look_at_queue(&handle, &queue).await
        }
        .boxed()
    }

    /// Finishes what is in hand and gives back what was not started.
    ///
    /// In a drain the handler has all the time the process has; after a fault it has [`WIND_DOWN`].
    async fn wind_down(
        self,
        mut hand: Hand<'a>,
        mut connection: Connection,
        mut deliveries: lapin::Consumer,
        mut ended: Ended,
    ) -> Ended {
        let drain = matches!(ended.end, End::Over);
        // What is given back would be delivered to us again at once, and count again.
        let is_subscribed = match &ended.end {
            End::Over => true,
            End::Fault(event, _) => matches!(event, BrokerEvent::HeldTooLong | BrokerEvent::HandStuck),
        };
        if is_subscribed {
            let cancelling = hand.channel.basic_cancel(deliveries.tag(), BasicCancelOptions::default());
            if let Err(reason) = within(REQUEST_TIMEOUT, "unsubscribing", cancelling).await {
                debug!(%reason, "cannot unsubscribe; the broker takes everything back with the connection");
                return ended;
            }
        }
        let mut unstarted: Vec<u64> = Vec::new();
        while let Some(Some(Ok(delivery))) = deliveries.next().now_or_never() {
            unstarted.push(delivery.delivery_tag);
        }
        let mut give_up_at = (!drain).then(|| Instant::now() + WIND_DOWN);
        while !(hand.judging.is_empty() && hand.burying.is_empty()) {
            if hand.judging.is_empty() {
                give_up_at.get_or_insert_with(|| Instant::now() + WIND_DOWN);
            }
            tokio::select! {
                biased;
                () = self.life.aborted() => return ended,
                Some(judged) = hand.judging.next() => self.settle(&mut hand, judged),
                Some(tags) = hand.burying.next() => hand.buried(&tags),
                change = connection.next_change() => if let Change::Died(reason) = change {
                    debug!(%reason, "the connection died while winding down; the broker takes back what is left");
                    return ended;
                },
                () = until(give_up_at), if give_up_at.is_some() => break,
            }
        }
        unstarted.extend(hand.held.iter().map(|kept| kept.tag));
        unstarted.append(&mut hand.condemned);
        if !unstarted.is_empty() {
            info!(n = unstarted.len(), "giving deliveries back to the broker");
        }
        hand.give_back(&unstarted);
        let closing = hand.channel.close(200, "OK".into());
        let _ = within(WIND_DOWN, "closing the channel", closing).await;
        connection.close().await;
        ended.n_settled = hand.n_settled;
        ended
    }
}

/// A stream that ends with an error has lost its channel; one that just ends was cancelled by the broker.
fn ended_because(error: Option<lapin::Error>, connection: &Connection) -> End {
    match error {
        Some(error) => End::Fault(connection.event_of_loss(), Error::from(error).to_string()),
        None => End::Fault(BrokerEvent::ConsumerCancelled, "the broker cancelled the consumer".into()),
    }
}

/// Sleeps until `moment`, for ever if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
