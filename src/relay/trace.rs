//! Traces across the store: what is kept of an event's trace, and how an attempt refers to it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use tracing::Span;

use crate::event::TraceContext;
use crate::invite::{Invite, TruckerKey};
use crate::telemetry::propagation::{self, TraceHeaders};
use crate::telemetry::spans;

/// How an attempt came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begun {
    /// In the same breath as the event: part of its trace.
    WithTheEvent,
    /// Taken up from the store, perhaps hours later: a trace of its own, linked to the event's.
    FromTheStore,
}

/// The span of an attempt: requests and announcements are its parts.
pub(super) fn attempt(invite: &Invite, begun: Begun, attempts: &Attempts) -> spans::Attempt {
    let span = spans::attempt(&work(invite), Some(&invite.cause.event_id));
    let cause = &invite.cause;
    let stored = TraceHeaders::parse(cause.traceparent.as_deref(), cause.tracestate.as_deref());
    match begun {
        Begun::WithTheEvent => propagation::set_parent(&span, stored.as_ref()),
        Begun::FromTheStore => propagation::link(&span, stored.as_ref()),
    }
    let attempt = spans::Attempt::of(span.clone());
    if attempt.trace().is_some()
        && let Some(own) = propagation::inject(&span)
    {
        propagation::link(&span, attempts.follow(&invite.key, own).as_ref());
    }
    attempt
}

/// Invites whose last attempt is remembered. About a MiB, and only where traces are exported.
const REMEMBERED_MAX: usize = 4096;

/// The last attempt of each invite that was worked on lately, for the link from the next one. Kept in memory: after a
/// restart, or on another replica, the next attempt is linked to the event alone, and `invite.id` still finds them all.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    last: HashMap<TruckerKey, TraceHeaders>,
    /// In the order in which they are forgotten; each key once.
    order: VecDeque<TruckerKey>,
}

impl Attempts {
    /// Remembers an attempt, and returns the one before.
    fn follow(&self, invite: &TruckerKey, attempt: TraceHeaders) -> Option<TraceHeaders> {
        // Nothing that holds this lock can leave it half-written in a way that matters to a link.
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = remembered.last.insert(invite.clone(), attempt);
        if before.is_none() {
            remembered.order.push_back(invite.clone());
            if remembered.order.len() > REMEMBERED_MAX
                && let Some(oldest) = remembered.order.pop_front()
            {
                remembered.last.remove(&oldest);
            }
        }
        before
    }
}

/// What spans say about an invite.
pub(super) fn work(invite: &Invite) -> spans::Work<'_> {
    spans::Work { invite: &invite.key, generation: invite.generation, attempt: invite.attempts }
}

/// Makes an intake span a child of the sender's context, and returns what is stored for later attempts: our own
/// span's context where it is traced, otherwise the sender's.
pub fn intake(span: &Span, sender: &TraceContext) -> TraceContext {
    let incoming = TraceHeaders::parse(sender.traceparent.as_deref(), sender.tracestate.as_deref());
    propagation::set_parent(span, incoming.as_ref());
    propagation::onward(span, incoming.as_ref()).map_or_else(TraceContext::default, |headers| {
        TraceContext::from_texts(Some(headers.traceparent()), headers.tracestate())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(n: usize) -> TraceHeaders {
        let traceparent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{:016x}-01", n + 1);
        TraceHeaders::parse(Some(&traceparent), None).unwrap()
    }

    #[test]
    fn the_attempt_before_is_remembered_for_a_bounded_number_of_invites() {
        let attempts = Attempts::default();
        let key = |n: usize| format!("default/{}", n + 1).parse::<TruckerKey>().unwrap();
        assert_eq!(attempts.follow(&key(0), headers(1)), None);
        assert_eq!(attempts.follow(&key(0), headers(2)), Some(headers(1)));
        for n in 1..=REMEMBERED_MAX {
            assert_eq!(attempts.follow(&key(n), headers(n)), None);
        }
        assert_eq!(attempts.follow(&key(REMEMBERED_MAX), headers(3)), Some(headers(REMEMBERED_MAX)));
        assert_eq!(attempts.follow(&key(0), headers(4)), None, "the oldest is forgotten");
        assert!(attempts.0.lock().unwrap().last.len() <= REMEMBERED_MAX);
    }
}
