//! Whether everything the service needs is there and works: each check with a verdict, its evidence and the mend.
//!
//! [`examine`] looks and changes nothing: no queue is made, no event published, no code generated; the one
//! request to each account lists truckers and throws the answer away. A finding never holds a secret or a word of
//! a body, so that the whole report can be pasted into a ticket.
//!
//! One file per part; each gives its findings in the order in which they depend on each other, and says `skipped`
//! where an earlier one leaves nothing to look at.

mod api;
mod broker;
mod examine;
mod finding;
mod keys;
mod net;
mod ports;
mod postgres;
mod queue;
mod store;
mod telemetry;
mod webhook;

pub use examine::{at_once, examine};
pub use finding::{Counts, Finding, Report, Verdict};
