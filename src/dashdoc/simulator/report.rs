//! What the simulator tells about itself: counts, truckers, and the history of their codes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::faults::Fault;
use super::state::World;
use crate::time::Timestamp;

/// Counts over all truckers. Control requests are not in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Generate POSTs that arrived, whatever they were answered.
    pub posts: u64,
    /// GETs of a trucker or a page that arrived, whatever they were answered.
    pub gets: u64,
    /// Codes made by a POST, late ones included once they are made.
    pub effects: u64,
    /// Answers by status. A body that was cut counts by its status line.
    pub by_status: BTreeMap<u16, u64>,
    /// Answers with 429, of the rate limit and of the fault `throttled`.
    pub throttled: u64,
    /// Requests that got no answer: connection closed or reset, by a fault or by the client.
    pub unanswered: u64,
    /// Requests being worked on now.
    pub in_flight: u64,
    /// The most there were of them at once.
    pub peak_in_flight: u64,
    /// Truckers that exist.
    pub truckers: u64,
}

/// One trucker, seen from Dashdoc's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TruckerReport {
    /// The primary key.
    pub pk: u64,
    /// Whether it exists; requests for one that doesn't are counted too.
    pub exists: bool,
    /// The customer's own id.
    pub remote_id: Option<String>,
    /// Generate POSTs that arrived for it.
    pub posts: u64,
    /// GETs that arrived for it.
    pub gets: u64,
    /// Codes made by a POST; with the one of its creation, all in `codes`.
    pub effects: u64,
    /// The most POSTs for it that were worked on at once.
    pub peak_posts_in_flight: u64,
    /// What each finished POST was answered, in the order they finished; none if it got no answer.
    pub post_answers: Vec<Option<u16>>,
    /// The one code that a driver could use now.
    pub code: Option<String>,
    /// Every code it ever had, oldest first.
    pub codes: Vec<IssuedCode>,
}

/// A code and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct IssuedCode {
    /// The code.
    pub code: String,
    /// When it was made.
    pub at: Timestamp,
    /// Why it was made.
    #[serde(flatten)]
    pub cause: Cause,
    /// Why it is no longer valid; absent while it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// Why a code was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "cause")]
pub enum Cause {
    /// With its trucker.
    Creation,
    /// By a POST.
    Generate {
        /// The fault that the POST met.
        fault: Fault,
    },
}

/// Why a code stopped being valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// A newer one was made.
    Replaced,
    /// A driver used it.
    Used,
}

/// The state at one moment, lent to the predicate of [`Handle::wait_for`](super::Handle::wait_for).
pub struct View<'a>(pub(super) &'a World);

impl View<'_> {
    /// The counts.
    pub fn stats(&self) -> &Stats {
        &self.0.stats
    }

    /// One trucker, if it was ever asked for or created.
    pub fn trucker(&self, pk: u64) -> Option<TruckerReport> {
        self.0.truckers.get(&pk).map(|trucker| trucker.report(pk))
    }
}
