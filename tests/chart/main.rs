//! The Helm chart, with the real helm: what it renders, what it refuses, and what the program says to it.

#![expect(clippy::unwrap_used, reason = "a panic in a helper fails the test just as well")]

mod documents;
mod helm;
mod monitoring;
mod options;
mod promises;
mod refusals;
mod scenarios;
