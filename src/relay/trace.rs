//! Traces across the store: what is kept of an event's trace, and how an attempt refers to it.

use tracing::Span;

use crate::event::TraceContext;
use crate::invite::Invite;
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

/// The span of an attempt: requests and announcements are its children.
pub(super) fn attempt(invite: &Invite, begun: Begun) -> Span {
    let span = spans::attempt(&work(invite), Some(&invite.cause.event_id));
    let cause = &invite.cause;
    let stored = TraceHeaders::parse(cause.traceparent.as_deref(), cause.tracestate.as_deref());
    match begun {
        Begun::WithTheEvent => propagation::set_parent(&span, stored.as_ref()),
        Begun::FromTheStore => propagation::link(&span, stored.as_ref()),
    }
    span
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
