//! The wire: what comes in as "trucker created", what goes out as "invite ready" or "invite failed".
//!
//! Incoming messages are judged here once, for every transport alike: [`parse`] turns an [`Envelope`] into a
//! [`TruckerCreated`] or a [`Refusal`] that names the field, the reason and the mend, never the value.
//! Outgoing events are written here once, as [`Outgoing`]: the same input gives the same bytes, so that a
//! re-publish after a crash repeats the event instead of making a second one.
//!
//! Reading order: `rules` (what the configuration asks for), `envelope` (how a message is framed), `incoming`,
//! `outgoing`. Nothing in here does I/O or reads a clock.

mod envelope;
mod incoming;
mod outgoing;
mod refusal;
mod rules;
pub mod schema;
mod trace;

pub use envelope::{Envelope, Transport};
pub use incoming::{PLAIN_SOURCE, TruckerCreated, parse};
pub use outgoing::{CONTENT_TYPE, InviteFailed, InviteReady, Outgoing};
pub use refusal::{Refusal, RefusalKind, RefusalReason};
pub use rules::{IncludedField, Pointer, Rules, RulesError};
pub use trace::TraceContext;
