//! The numbers at the end of the demo, and the check that matters: is what was announced what is valid?

use std::time::Duration;

use super::book::Book;
use super::screen::human;
use crate::dashdoc::simulator::{Handle, Stats};
use crate::telemetry::metrics::{Metrics, UnknownCause, UnknownResolution};

/// What the demo came to.
pub(super) struct Summary {
    n_events: usize,
    n_sent: usize,
    n_ready: usize,
    n_failed: usize,
    /// Announced codes that are the one valid code of their trucker at the API.
    n_valid: usize,
    p50: Option<Duration>,
    p95: Option<Duration>,
    api: Stats,
    n_unknown: u64,
    n_read_back: u64,
    /// Announced codes that a late effect replaced, and whose successor was announced.
    n_changed: u64,
}

/// One line: what, how much, and a word about it.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) note: String,
    /// Whether it is as it should be; `None` for what is neither good nor bad.
    pub(super) good: Option<bool>,
}

impl Summary {
    /// Compares the demo's books with the API's.
    pub(super) fn of(n_events: usize, book: &Book, api: &Handle, metrics: &Metrics) -> Self {
        let is_valid = |pk: u64, code: &str| {
            api.trucker(pk).is_some_and(|trucker| trucker.code.as_deref() == Some(code))
        };
        let resolved = |how: UnknownResolution| metrics.unknown_resolved.of(how).get();
        Self {
            n_events,
            n_sent: book.n_sent(),
            n_ready: book.n_ready(),
            n_failed: book.n_failed(),
            n_valid: book.codes().filter(|(pk, code)| is_valid(*pk, code.reveal())).count(),
            p50: book.time_to_ready(50),
            p95: book.time_to_ready(95),
            api: api.stats(),
            n_unknown: UnknownCause::ALL.iter().map(|&cause| metrics.unknown_opened.of(cause).get()).sum(),
            n_read_back: resolved(UnknownResolution::Code) + resolved(UnknownResolution::NoCode),
            n_changed: resolved(UnknownResolution::Changed),
        }
    }

    /// Whether every event ended in a valid code.
    pub(super) fn is_good(&self) -> bool {
        self.n_ready == self.n_events && self.n_valid == self.n_events
    }

    /// The lines to print.
    pub(super) fn lines(&self) -> Vec<Line> {
        let line = |name, value, note: &str, good| Line { name, value, note: note.to_owned(), good };
        let all = |n: usize| Some(n == self.n_events);
        let count = |n: usize| {
            if n == self.n_events { n.to_string() } else { format!("{n} of {}", self.n_events) }
        };
        let times = match (self.p50, self.p95) {
            (Some(p50), Some(p95)) => format!("p50 {}, p95 {}", human(p50), human(p95)),
            (None, _) | (_, None) => "-".to_owned(),
        };
        let calls = format!("{} POST, {} GET", self.api.posts, self.api.gets);
        let refused = format!("{} answered 429 (too many requests)", self.api.throttled);
        let failed_note = if self.n_failed == 0 { "" } else { "they wait for a person: `invites list`" };
        let unknown = match self.n_unknown {
            0 => "0".to_owned(),
            n => format!("{n}, {} resolved", self.n_read_back),
        };
        let unknown_note = match (self.n_unknown, self.n_changed) {
            (0, _) => "no call ended without a clear answer".to_owned(),
            (_, 0) => "read back first, never blindly called again".to_owned(),
            (_, n) => format!("{n} codes replaced by a late effect, announced again"),
        };
        vec![
            line(
                "events",
                self.n_sent.to_string(),
                "trucker.created, accepted by the relay",
                all(self.n_sent),
            ),
            line("ready", count(self.n_ready), "invite.ready, received", all(self.n_ready)),
            line("failed", self.n_failed.to_string(), failed_note, (self.n_failed > 0).then_some(false)),
            line(
                "valid codes",
                format!("{} of {}", self.n_valid, self.n_events),
                "published code == valid code at the API",
                all(self.n_valid),
            ),
            line("time to ready", times, "from sending the event to receiving its code", None),
            line("API calls", calls, &refused, None),
            line("unknown outcomes", unknown, &unknown_note, None),
        ]
    }
}
