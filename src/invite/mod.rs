//! The domain, pure: what an invite is, which states it has, and what happens next.
//!
//! Nothing in here reads a clock, rolls dice or does I/O.

mod code;
mod failure;
mod key;

pub use code::{Fingerprint, FingerprintKey, InviteCode, Origin};
pub use failure::{Failure, FailureClass};
pub use key::{AccountName, Announcement, Generation, KeyError, TruckerKey, TruckerPk, event_id};
