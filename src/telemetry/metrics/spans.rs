//! What became of our own spans: counted by the exporter, which starts before all other metrics.

use prometheus_client::metrics::counter::Counter;

use super::labels::SpanLoss;
use super::table::{Accounts, Table};

/// Counters of the exporter of traces. Cheap to clone; all clones count into the same rows.
#[derive(Clone, Debug)]
pub struct SpanCounters {
    /// Spans that the collector took.
    pub delivered: Counter,
    /// Spans that were lost, by reason.
    pub lost: Table<(SpanLoss,), Counter>,
}

impl Default for SpanCounters {
    fn default() -> Self {
        Self { delivered: Counter::default(), lost: Table::new(&Accounts::new(&[]), Counter::default) }
    }
}
