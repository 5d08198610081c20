//! Announcements: an event to every sink that still waits for it, and each confirmation into the store.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::Either;
use futures_util::stream::{self, FuturesUnordered};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Relay;
use super::trace::{self, Begun};
use crate::crash::{self, Point};
use crate::event::{InviteFailed, InviteReady, Outgoing, TraceContext};
use crate::invite::{
    Announcement, Effect, Failure, FailureClass, Input, Invite, Lane, Setback, Sink, State, event_id,
};
use crate::sink::{NotConfirmed, Trail};
use crate::store::{Due, Work};
use crate::telemetry::metrics::PublishFailure;
use crate::telemetry::spans::Attempt;

/// How long to wait after the store could not be asked.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Without any hint the store is asked this often.
const LONGEST_NAP: Duration = Duration::from_secs(30);
/// Most announcements that are taken up at once.
const TAKE_MAX: u32 = 256;

/// The trouble that each sink had last. Said when it begins, when it changes and when it is over, not per event.
#[derive(Default)]
pub(super) struct Trouble(Mutex<BTreeMap<Sink, PublishFailure>>);

impl Trouble {
    fn note(&self, sink: Sink, failure: Option<PublishFailure>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match failure {
            Some(failure) => known.insert(sink, failure),
            None => known.remove(&sink),
        };
        let sink = sink.as_str();
        match (before, failure) {
            (Some(_), None) => info!(sink, "the sink confirms events again"),
            (before, Some(failure)) if before != Some(failure) => {
                let mend = match failure {
                    PublishFailure::Unroutable => {
                        "no queue is bound for the routing key: bind one to the exchange"
                    }
                    PublishFailure::Refused => "the receiver refuses the event: look at its log",
                    PublishFailure::Nacked
                    | PublishFailure::Unconfirmed
                    | PublishFailure::Disconnected
                    | PublishFailure::Timeout
                    | PublishFailure::Other => "it is tried again for as long as it takes",
                };
                warn!(
                    sink,
                    reason = failure.as_str(),
                    mend,
                    "an event is not confirmed; it waits and is sent again"
                );
            }
            (None, None) | (Some(_) | None, Some(_)) => {}
        }
    }
}

/// A place to announce; dropping it frees the place.
pub(super) type Place = OwnedSemaphorePermit;

impl Relay {
    /// Takes up announcements that are due, until the drain begins.
    ///
    /// The drain interrupts every wait, but never the taking itself: what is taken is also carried out.
    pub(super) async fn publish_due(self: &Arc<Self>) {
        let mut returns = self.outlets.returns();
        loop {
            // In the same queue as the workers: codes that have just come in don't get ahead of what waits already.
            let places = tokio::select! {
                () = self.life.draining() => return,
                places = self.places_to_announce(TAKE_MAX) => places,
            };
            let pause = self.take_up_announcements(places).await;
            tokio::select! {
                () = self.life.draining() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.publish_wake.notified() => {}
                () = returns.changed() => {}
            }
        }
    }

    async fn take_up_announcements(self: &Arc<Self>, mut places: Place) -> Duration {
        // Sinks that are not configured any more count as up, so that what waits for them comes to an end.
        let sinks = self.outlets.up().or(self.outlets.configured().complement());
        let (limit, narrow) = (places.num_permits(), self.outlets.narrow());
        let taken = match self.store.take(Due::Publish { sinks, limit, narrow }).await {
            Ok(taken) => taken,
            Err(error) => {
                warn!(%error, "due announcements could not be taken up");
                self.metrics.store_errors.inc();
                return STORE_PAUSE;
            }
        };
        for work in taken.work {
            let place = places.split(1).expect("no more is taken than there are places");
            let relay = Arc::clone(self);
            self.life.spawn_work(async move {
                let attempt = trace::attempt(&work.invite, Begun::FromTheStore, &relay.attempts);
                relay.announce(work, place, &attempt).await;
            });
        }
        taken.next_due.map_or(LONGEST_NAP, |due| due.since(self.store.now()).min(LONGEST_NAP))
    }

    /// A place to announce at once, if one is free.
    pub(super) fn place_to_announce(&self) -> Option<Place> {
        Arc::clone(&self.announcing).try_acquire_owned().ok()
    }

    /// Waits for places to announce, first come, first served.
    pub(super) async fn places_to_announce(&self, n: u32) -> Place {
        let places = Arc::clone(&self.announcing).acquire_many_owned(n).await;
        places.expect("the semaphore is never closed")
    }

    /// Publishes to every pending sink at once and records each confirmation as it comes.
    pub(super) async fn announce(self: &Arc<Self>, mut work: Work, _place: Place, attempt: &Attempt) {
        let Some(Effect::Announce(pending)) = work.effect else { return };
        let up = self.outlets.up();
        let mut setback = (!pending.and(up.complement()).is_empty()).then_some(Setback::Away);
        if let Some(event) = self.outgoing(&work.invite) {
            let asked = work.invite.clone();
            let trail = Trail { attempt, work: trace::work(&asked) };
            let sinks = pending.and(up);
            let publish = |sink| self.publish_to(sink, &event, &trail);
            // One is the rule, and a set of futures has its price.
            let mut publishing = pin!(match sinks.only() {
                Some(sink) => Either::Left(stream::once(publish(sink))),
                None => Either::Right(sinks.iter().map(publish).collect::<FuturesUnordered<_>>()),
            });
            // Each confirmation is recorded as it comes: a slow sink holds back no other.
            while let Some((sink, result)) = publishing.next().await {
                match result {
                    Ok(()) => {
                        let Some(next) = self.record(work.invite, Input::Confirmed(sink), attempt).await
                        else {
                            return;
                        };
                        work = next;
                    }
                    // A refusal by one sink outweighs the absence of another: it is the one that needs a pause.
                    Err(NotConfirmed { setback: Setback::Refused, .. }) => setback = Some(Setback::Refused),
                    Err(NotConfirmed { setback: Setback::Away, .. }) => {
                        setback = setback.or(Some(Setback::Away));
                    }
                }
            }
        }
        if let Some((Lane::Api, _)) = work.invite.state.schedule() {
            // Published, and a second read-back is owed: its dispatcher does not know of it yet.
            self.wake_account(&work.invite);
        }
        if let Some(setback) = setback
            && self.record(work.invite, Input::Unconfirmed(setback), attempt).await.is_some()
        {
            self.publish_wake.notify_one();
        }
    }

    async fn publish_to(
        &self,
        sink: Sink,
        event: &Outgoing,
        trail: &Trail<'_>,
    ) -> (Sink, Result<(), NotConfirmed>) {
        let started = Instant::now();
        crash::pass(Point::PublishSend);
        let result = self.outlets.publish(sink, event, trail).await;
        if result.is_ok() {
            crash::pass(Point::PublishConfirmed);
        }
        let failure = result.as_ref().err().map(|error| error.reason);
        let trace = trail.attempt.trace();
        self.metrics.publish_ended(sink, event.kind, failure, started.elapsed(), trace);
        self.trouble.note(sink, failure);
        (sink, result)
    }

    /// The event of a ready or dead invite: the same bytes each time.
    fn outgoing(&self, invite: &Invite) -> Option<Outgoing> {
        let cause = &invite.cause;
        let trace = TraceContext::from_texts(cause.traceparent.as_deref(), cause.tracestate.as_deref());
        match &invite.state {
            State::Ready { issued, origin, since, .. } => Some(
                InviteReady {
                    id: event_id(&invite.key, invite.generation, Announcement::Ready),
                    source: &self.event_source,
                    account: &invite.key.account,
                    pk: invite.key.pk,
                    trucker: &cause.trucker,
                    code: &issued.code,
                    generation: invite.generation,
                    origin: *origin,
                    time: *since,
                    causation_id: Some(&cause.event_id),
                    trace: &trace,
                }
                .to_outgoing(),
            ),
            State::Dead { since, .. } => Some(
                InviteFailed {
                    id: event_id(&invite.key, invite.generation, Announcement::Failed),
                    source: &self.event_source,
                    account: &invite.key.account,
                    pk: invite.key.pk,
                    trucker: &cause.trucker,
                    generation: invite.generation,
                    failure: invite
                        .last_failure
                        .as_ref()
                        .unwrap_or(&Failure { class: FailureClass::Unknown, code: String::new() }),
                    attempts: invite.attempts,
                    time: *since,
                    causation_id: Some(&cause.event_id),
                    trace: &trace,
                }
                .to_outgoing(),
            ),
            State::Received { .. }
            | State::Calling { .. }
            | State::Waiting { .. }
            | State::Parked { .. }
            | State::Unknown { .. }
            | State::Published { .. } => None,
        }
    }
}
