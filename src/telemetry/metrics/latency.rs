//! A histogram of durations, each bucket with the trace of its latest observation.

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::trace::TraceId;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::{MetricType, TypedMetric};

use crate::time::{self, Timestamp};

/// The label of an exemplar, as Grafana looks for it.
const TRACE_ID: &str = "trace_id";

/// Durations in seconds. A bucket's exemplar leads from a slow one to what happened in it. Cheap to clone; all clones
/// count into the same buckets.
#[derive(Clone, Debug)]
pub struct Latency(HistogramWithExemplars<[(&'static str, String); 1]>);

impl Latency {
    /// Nothing observed yet. `bounds` are the upper ends of the buckets, in seconds.
    pub(super) fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        Self(HistogramWithExemplars::new(bounds.into_iter()))
    }

    /// Counts one duration; `trace` is the sampled trace in which it was spent, where there is one.
    pub fn observe(&self, seconds: f64, trace: Option<TraceId>) {
        let label = trace.map(|trace| [(TRACE_ID, trace.to_string())]);
        let now = label.is_some().then(|| {
            let since_epoch = time::now().since(Timestamp::EPOCH);
            UNIX_EPOCH + Duration::from_millis(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
        });
        self.0.observe(seconds, label, now);
    }
}

impl EncodeMetric for Latency {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Latency {
    const TYPE: MetricType = MetricType::Histogram;
}
