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
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, error, info, warn};

use super::connection::{Change, Connection, REQUEST_TIMEOUT, within};
use super::consumer::ConsumerOptions;
use super::dead_letter::{Condemned, DeadLetters};
use super::hand::{Hand, Hold, Judged, Stream, take_ready};
use super::link::{Link, backoff};
use super::message::Kept;
use super::topology::look_at_queue;
use super::{BrokerEvent, Delivery, Error, Observer, Verdict};
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

impl<'a, H, F> Session<'a, H>
where
    H: Fn(Vec<Delivery>) -> F + Send + Sync,
    F: Future<Output = Vec<Verdict>> + Send + 'a,
{
    pub(super) async fn run(self, mut connection: Connection, subscription: Subscription) -> End {
        let Subscription { channel, mut deliveries } = subscription;
        let mut hand = Hand::new(channel);
        let mut check = self.check(&connection);
        let end = loop {
            let may_take = hand.hold.is_none() && hand.judging.len() < self.options.batches_in_flight;
            let hold_ends = hand.hold.as_ref().map(|hold| hold.since + self.options.hold_limit);
            let retry_at = hand.hold.as_ref().filter(|_| !hand.held.is_empty()).map(|hold| hold.retry_at);
            tokio::select! {
                biased;
                () = self.life.aborted() => return End::Over,
                () = self.life.draining() => break End::Over,
                change = connection.next_change() => match change {
                    Change::Died(error) => return End::Fault(BrokerEvent::Disconnected, error.to_string()),
                    Change::Blocked(reason) => self.link.blocked(reason),
                    Change::Unblocked => self.link.unblocked(),
                },
                Some(judged) = hand.judging.next() => self.settle(&mut hand, judged),
                Some(tags) = hand.burying.next() => hand.buried(&tags),
                found = &mut check => match found {
                    Ok(n) if n > 0 => {
                        self.observer.tell(BrokerEvent::ConsumerSeen);
                        check = self.check(&connection);
                    }
                    Ok(_) => break End::Fault(BrokerEvent::ConsumerLost, "the queue has no consumer".into()),
                    Err(error) => break End::Fault(BrokerEvent::ConsumerLost, error.to_string()),
                },
                () = until(hold_ends), if hold_ends.is_some() => {
                    let reason = "nothing could be accepted for too long, the deliveries go back to the broker";
                    return End::Fault(BrokerEvent::HeldTooLong, reason.into());
                }
                () = until(retry_at), if retry_at.is_some() => {
                    let batch = std::mem::take(&mut hand.held);
                    self.judge(&mut hand, batch);
                }
                next = deliveries.next(), if may_take => match next {
                    Some(Ok(first)) => {
                        let (batch, ended) = take_ready(first, &mut deliveries, self.options.batch_max);
                        for kept in &batch {
                            hand.ledger.receive(kept.tag);
                        }
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
        self.wind_down(hand, connection, deliveries, matches!(end, End::Over)).await;
        end
    }

    /// Hands a batch to the handler.
    fn judge(&self, hand: &mut Hand<'a>, batch: Vec<Kept>) {
        let handler = self.handler;
        let judging = async move {
            let verdicts = handler(batch.iter().map(Kept::delivery).collect()).await;
            Judged { batch, verdicts }
        };
        hand.judging.push(judging.boxed());
    }

    /// Carries verdicts out.
    fn settle(&self, hand: &mut Hand<'a>, judged: Judged) {
        let Judged { batch, verdicts } = judged;
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
        } else if hand.held.is_empty() && hand.hold.take().is_some() {
            info!("deliveries are accepted again");
        }
        hand.ack(accepted);
        if !condemned.is_empty() {
            self.bury(hand, condemned);
        }
    }

    fn hold(&self, hand: &mut Hand<'a>) {
        let now = Instant::now();
        let hold = hand.hold.get_or_insert_with(|| {
            warn!("deliveries cannot be accepted now, holding them");
            self.observer.tell(BrokerEvent::Held);
            Hold { since: now, n_tries: 0, retry_at: now }
        });
        hold.n_tries += 1;
        hold.retry_at = now + backoff(hold.n_tries, rand::random());
    }

    /// Dead-letters until it works; the deliveries stay unacknowledged until then.
    fn bury(&self, hand: &mut Hand<'a>, condemned: Vec<Condemned>) {
        hand.condemned.extend(condemned.iter().map(|one| one.kept.tag));
        let (dead_letters, observer) = (self.dead_letters, self.observer);
        let burying = async move {
            let mut n_failures = 0;
            while let Err(reason) = dead_letters.bury(&condemned).await {
                n_failures += 1;
                observer.tell(BrokerEvent::DeadLetterFailed);
                if n_failures == 1 {
                    warn!(n = condemned.len(), %reason, "cannot dead-letter, keeping the deliveries and trying again");
                } else {
                    debug!(n = condemned.len(), %reason, n_failures, "still cannot dead-letter");
                }
                sleep(backoff(n_failures, rand::random())).await;
            }
            for one in &condemned {
                observer.tell(BrokerEvent::DeadLettered);
                info!(reason = one.reason_code, "moved a delivery to the dead-letter queue");
            }
            condemned.iter().map(|one| one.kept.tag).collect()
        };
        hand.burying.push(burying.boxed());
    }

    /// Asks after a while how many consumers the queue has.
    fn check(&self, connection: &Connection) -> BoxFuture<'static, Result<u32, Error>> {
        let (handle, queue) = (connection.handle(), self.options.topology.queue.clone());
        let every = self.options.check_every;
        async move {
            sleep(every).await;
            look_at_queue(&handle, &queue).await.map(|look| look.n_consumers)
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
        drain: bool,
    ) {
        if drain {
            let cancelling = hand.channel.basic_cancel(deliveries.tag(), BasicCancelOptions::default());
            if let Err(reason) = within(REQUEST_TIMEOUT, "unsubscribing", cancelling).await {
                debug!(%reason, "cannot unsubscribe; the broker takes everything back with the connection");
                return;
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
                () = self.life.aborted() => return,
                Some(judged) = hand.judging.next() => self.settle(&mut hand, judged),
                Some(tags) = hand.burying.next() => hand.buried(&tags),
                change = connection.next_change() => if let Change::Died(reason) = change {
                    debug!(%reason, "the connection died while winding down; the broker takes back what is left");
                    return;
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
