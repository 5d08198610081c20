//! The domain, pure: what an invite is, which states it has, and what happens next.
//!
//! Nothing in here reads a clock, rolls dice or does I/O. Reading order: [`TruckerKey`] (whom it is for),
//! [`State`] (where it stands), [`step`] (what happens), [`Rules`] (the settings), [`Gate`] and [`Circuit`] (an account's outages), [`Pace`] (its speed).

mod circuit;
mod code;
#[cfg(test)]
mod explore;
mod failure;
mod gate;
mod key;
mod pace;
mod rules;
mod state;
mod step;
#[cfg(test)]
pub(crate) mod testing;

pub use circuit::Circuit;
pub use code::{Fingerprint, FingerprintKey, InviteCode, Origin};
pub use failure::{Failure, FailureClass};
pub use gate::{Gate, GateReason, GateRules, Passage};
pub use key::{AccountName, Announcement, Generation, KeyError, TruckerKey, TruckerPk, event_id};
pub use pace::{Pace, Refusal};
pub use rules::{Backoff, BackoffError, Policy, Rules};
pub use state::{Announce, Cause, Invite, IssuedCode, Lane, Sink, Sinks, State, StateName, Verify};
pub use step::{Answer, Effect, Input, Moment, Setback, Step, step};
