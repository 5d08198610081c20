//! Every number the service counts: one struct, declared once, all series at zero from the start.
//!
//! [`Metrics::new`] is the table to read. The documentation is generated from the same declarations
//! ([`Metrics::catalog`]), so it cannot differ from what is exported.

mod labels;
mod latency;
mod recording;
pub mod reference;
mod spans;
mod table;

use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeMetric, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::metrics::{MetricType, TypedMetric, gauge};
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;

pub use labels::{
    ApiOutcome, CheckVerdict, Ended, EventOutcome, HttpStatus, Part, PublishFailure, Purpose, Route, Source,
    SpanLoss, UnknownCause, UnknownResolution, WaitingState,
};
pub use latency::Latency;
pub use spans::SpanCounters;
pub use table::{Label, LabelSet, Table};

use crate::broker::BrokerEvent;
use crate::dashdoc::answer::Operation;
use crate::invite::{AccountName, Announcement, FailureClass, GateReason, Origin, Sink, StateName};
use crate::time::{self, Timestamp};
use table::Accounts;

/// A gauge of whole numbers.
pub type Gauge = gauge::Gauge;

/// A gauge of seconds.
pub type SecondsGauge = gauge::Gauge<f64, AtomicU64>;

/// A gauge of events per second.
pub type Rate = gauge::Gauge<f64, AtomicU64>;

/// `Content-Type` of [`Metrics::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Stands before the name of each of our own metrics.
const PREFIX: &str = "invite_relay";

/// Seconds of one request or publish: the buckets of the OpenTelemetry semantic conventions, and one for
/// calls that run into their timeout.
const CALL_SECONDS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0];

/// Attempts at one code.
const ATTEMPTS: [f64; 6] = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0];

/// Seconds from an event to its code: from the hot path to an outage over night.
const READY_SECONDS: [f64; 17] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1_800.0, 7_200.0, 28_800.0,
    86_400.0,
];

/// Seconds of one commit: from a fast disk's flush to a stalled one.
const COMMIT_SECONDS: [f64; 12] =
    [0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Commands in one commit.
const BATCH_SIZES: [f64; 11] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0];

/// All metrics. The fields' meanings are in [`Metrics::new`], beside their declarations.
#[derive(Debug)]
#[expect(missing_docs, reason = "the help text of each declaration says it, and is what operators read")]
pub struct Metrics {
    pub events_received: Table<(Source, EventOutcome), Counter>,
    pub invites: Table<(AccountName, StateName), Gauge>,
    pub oldest_waiting: Table<(AccountName, WaitingState), SecondsGauge>,
    pub intake_open: Gauge,
    pub backlog_limit: Gauge,
    pub api_requests: Table<(AccountName, Operation, ApiOutcome), Counter>,
    pub api_request_duration: Table<(Operation,), Latency>,
    pub attempts: Table<(Ended,), Histogram>,
    pub invites_ready: Table<(AccountName, Origin), Counter>,
    pub time_to_ready: Table<(Origin,), Latency>,
    pub odd_codes: Counter,
    pub unknown_opened: Table<(UnknownCause,), Counter>,
    pub unknown_resolved: Table<(UnknownResolution,), Counter>,
    pub gate_closed: Table<(AccountName, GateReason), Gauge>,
    pub gate_closings: Table<(AccountName, GateReason), Counter>,
    pub pace: Table<(AccountName,), Rate>,
    pub published: Table<(Sink, Announcement), Counter>,
    pub publish_failures: Table<(Sink, PublishFailure), Counter>,
    pub publish_duration: Table<(Sink,), Latency>,
    pub dead: Table<(AccountName, FailureClass), Counter>,
    pub broker_wanted: Table<(Purpose,), Gauge>,
    pub broker_connected: Table<(Purpose,), Gauge>,
    pub broker_events: Table<(Purpose, BrokerEvent), Counter>,
    pub consumer_seen: SecondsGauge,
    pub store_batch_size: Histogram,
    pub store_commit_duration: Histogram,
    pub store_errors: Counter,
    pub http_server_request_duration: Table<(Route, HttpStatus), Latency>,
    pub doctor_findings: Table<(Part, CheckVerdict), Gauge>,
    pub doctor_looked: SecondsGauge,
    accounts: Accounts,
    /// Each connection to the broker. None is ever taken out.
    brokers: Mutex<Vec<recording::BrokerState>>,
    registry: Registry,
    catalog: Vec<MetricDoc>,
}

/// One of the connections to the broker, of which there may be several for one purpose.
#[derive(Debug)]
pub struct BrokerConnection {
    purpose: Purpose,
    /// Its place among [`Metrics::brokers`].
    index: usize,
}

/// What the documentation says about one metric.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetricDoc {
    /// The name as exported, with unit and `_total`. A histogram adds `_bucket`, `_sum` and `_count`.
    pub name: String,
    /// `counter`, `gauge`, `histogram` or `info`.
    pub kind: &'static str,
    /// The unit, where there is one.
    pub unit: Option<&'static str>,
    /// Its labels.
    pub labels: Vec<LabelDoc>,
    /// What it counts.
    pub help: &'static str,
    /// Whether its buckets carry trace ids.
    pub exemplars: bool,
}

/// What the documentation says about a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LabelDoc {
    /// Its name.
    pub name: &'static str,
    /// All its values.
    pub values: Vec<String>,
}

impl Metrics {
    /// Declares all metrics. `accounts` are the configured ones; all others count as `other`.
    pub fn new(accounts: &[AccountName]) -> Self {
        Self::with_spans(accounts, &SpanCounters::default())
    }

    /// The same, with the counters that the exporter of traces counts into.
    pub fn with_spans(accounts: &[AccountName], spans: &SpanCounters) -> Self {
        Self::started_at(accounts, spans, time::now())
    }

    #[expect(clippy::too_many_lines, reason = "one declaration for each metric: a table to read")]
    fn started_at(accounts: &[AccountName], spans: &SpanCounters, start: Timestamp) -> Self {
        let counter = Counter::default;
        let mut d = Declarations::new(accounts);
        d.facts(env!("CARGO_PKG_VERSION"), start);
        Self {
            events_received: d.table(
                ("events_received", "Incoming trucker-created events, by what became of them"),
                counter,
            ),
            invites: d.table(("invites", "Stored invites by state"), Gauge::default),
            oldest_waiting: d.table(
                ("oldest_waiting_seconds", "Age of the oldest invite that is not published and not dead, by its state"),
                SecondsGauge::default,
            ),
            intake_open: d.single(("intake_open", "1 while events are taken in, 0 while the store or the backlog forbids it"), Gauge::default()),
            backlog_limit: d.single(("backlog_limit", "Unfinished invites beyond which no event is taken in (store.max_backlog)"), Gauge::default()),
            api_requests: d.table(("api_requests", "Requests to the Dashdoc API, by outcome"), counter),
            api_request_duration: d.latencies(
                ("api_request_duration_seconds", "Duration of requests to the Dashdoc API"),
                &CALL_SECONDS,
            ),
            attempts: d.table(
                ("invite_attempts", "Attempts that an invite took, by how they ended"),
                || Histogram::new(ATTEMPTS),
            ),
            invites_ready: d
                .table(("invites_ready", "Invite codes obtained, by how the service came by them"), counter),
            time_to_ready: d.latencies(
                ("time_to_ready_seconds", "Time from accepting the event to the first stored code"),
                &READY_SECONDS,
            ),
            odd_codes: d.single(
                ("odd_codes", "Codes that do not have the 6 characters Dashdoc documents"),
                counter(),
            ),
            unknown_opened: d
                .table(("unknown_opened", "Calls whose outcome is not known, by cause"), counter),
            unknown_resolved: d.table(
                ("unknown_resolved", "Unknown outcomes that became known, by what was found"),
                counter,
            ),
            gate_closed: d.table(
                ("gate_closed", "1 while an account's calls are held back, by reason"),
                Gauge::default,
            ),
            gate_closings: d.table(
                ("gate_closings", "How often an account's calls began to be held back, by reason"),
                counter,
            ),
            pace: d.table(
                ("pace", "Requests per second that an account makes at most, as configured or as learned from the API"),
                Rate::default,
            ),
            published: d.table(("published", "Outgoing events that were confirmed, by sink"), counter),
            publish_failures: d.table(
                ("publish_failures", "Publishing attempts that failed; each is repeated until confirmed"),
                counter,
            ),
            publish_duration: d.latencies(
                ("publish_duration_seconds", "Time from sending an event to its confirm"),
                &CALL_SECONDS,
            ),
            dead: d.table(("dead", "Invites that ended on the work list, by failure class"), counter),
            broker_wanted: d.table(
                ("broker_wanted", "1 if the configuration asks for this connection to RabbitMQ"),
                Gauge::default,
            ),
            broker_connected: d.table(
                ("broker_connected", "1 while every connection to RabbitMQ works: subscribed, or ready to publish"),
                Gauge::default,
            ),
            broker_events: d
                .table(("broker_events", "What happened on the connections to RabbitMQ"), counter),
            consumer_seen: d.single(
                ("consumer_seen_timestamp_seconds", "When the broker last said that our consumer is on the queue, in seconds since the Unix epoch; 0 before the first time"),
                SecondsGauge::default(),
            ),
            store_batch_size: d.single(
                ("store_batch_size", "Commands per commit of the store"),
                Histogram::new(BATCH_SIZES),
            ),
            store_commit_duration: d.single(
                ("store_commit_duration_seconds", "Duration of a commit of the store"),
                Histogram::new(COMMIT_SECONDS),
            ),
            store_errors: d.single(("store_errors", "Failed operations of the store"), counter()),
            http_server_request_duration: d.latencies(
                ("http_server_request_duration_seconds", "Duration of requests to the public port"),
                &CALL_SECONDS,
            ),
            brokers: Mutex::default(),
            doctor_findings: d.table(
                ("doctor_findings", "What the doctor's checks found when they last ran within the service, by part and verdict"),
                Gauge::default,
            ),
            doctor_looked: d.single(
                ("doctor_looked_timestamp_seconds", "When the doctor's checks last ran within the service, in seconds since the Unix epoch; 0 before the first time"),
                SecondsGauge::default(),
            ),
            accounts: d.accounts.clone(),
            registry: {
                d.adopt(("spans_lost", "Spans that no collector got, by reason"), &spans.lost);
                d.single(("spans_delivered", "Spans that the collector took"), spans.delivered.clone());
                d.registry
            },
            catalog: d.catalog,
        }
    }

    /// What is declared, in order, for the documentation.
    pub fn catalog(&self) -> &[MetricDoc] {
        &self.catalog
    }

    /// All series as `OpenMetrics` text; serve it as [`CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut page = String::new();
        text::encode(&mut page, &self.registry).expect("a String takes everything");
        page
    }
}

/// Registers a metric and notes its documentation, in one step.
struct Declarations {
    registry: Registry,
    catalog: Vec<MetricDoc>,
    accounts: Accounts,
}

impl Declarations {
    fn new(accounts: &[AccountName]) -> Self {
        Self { registry: Registry::default(), catalog: Vec::new(), accounts: Accounts::new(accounts) }
    }

    /// Declares a metric with labels.
    fn table<L, M>(&mut self, what: (&'static str, &'static str), new: impl Fn() -> M) -> Table<L, M>
    where
        L: LabelSet,
        M: EncodeMetric + TypedMetric + std::fmt::Debug + Send + Sync + 'static,
    {
        let table = Table::<L, M>::new(&self.accounts, new);
        self.adopt(what, &table);
        table
    }

    /// Declares durations, whose buckets carry trace ids.
    fn latencies<L: LabelSet>(
        &mut self,
        what: (&'static str, &'static str),
        bounds: &[f64],
    ) -> Table<L, Latency> {
        let table = self.table(what, || Latency::new(bounds.iter().copied()));
        self.catalog.last_mut().expect("it was declared just now").exemplars = true;
        table
    }

    /// Declares a metric that exists already.
    fn adopt<L, M>(&mut self, what: (&'static str, &'static str), table: &Table<L, M>)
    where
        L: LabelSet,
        M: EncodeMetric + TypedMetric + std::fmt::Debug + Send + Sync + 'static,
    {
        let axes = L::axes(&self.accounts).into_iter();
        let labels = axes.map(|(name, values)| LabelDoc { name, values }).collect();
        self.declare(PREFIX, what, labels, table.rows());
    }

    /// Declares a metric without labels.
    fn single<M>(&mut self, what: (&'static str, &'static str), metric: M) -> M
    where
        M: EncodeMetric + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        self.declare(PREFIX, what, Vec::new(), metric.clone());
        metric
    }

    /// Declares what never changes while the process lives.
    fn facts(&mut self, version: &'static str, start: Timestamp) {
        let build = Info::new(vec![("version", version)]);
        self.declare(
            PREFIX,
            ("build", "The version that runs"),
            vec![LabelDoc { name: "version", values: vec![version.to_owned()] }],
            build,
        );
        let started = SecondsGauge::default();
        started.set(start.since(Timestamp::EPOCH).as_secs_f64());
        // Without our prefix: by this name, dashboards know it from every process.
        let what = ("process_start_time_seconds", "Start of the process, in seconds since the Unix epoch");
        self.declare("", what, Vec::new(), started);
    }

    fn declare<M>(
        &mut self,
        prefix: &'static str,
        (name, help): (&'static str, &'static str),
        labels: Vec<LabelDoc>,
        metric: M,
    ) where
        M: EncodeMetric + std::fmt::Debug + Send + Sync + 'static,
    {
        let (kind, suffix) = match metric.metric_type() {
            MetricType::Counter => ("counter", "_total"),
            MetricType::Gauge => ("gauge", ""),
            MetricType::Histogram => ("histogram", ""),
            MetricType::Info => ("info", "_info"),
            MetricType::Unknown => ("unknown", ""),
        };
        let (stem, unit) = match name.strip_suffix("_seconds") {
            Some(stem) => (stem, Some(Unit::Seconds)),
            None => (name, None),
        };
        let dash = if prefix.is_empty() { "" } else { "_" };
        self.catalog.push(MetricDoc {
            name: format!("{prefix}{dash}{name}{suffix}"),
            kind,
            unit: unit.as_ref().map(|_| "seconds"),
            labels,
            help,
            exemplars: false,
        });
        let stem = format!("{prefix}{dash}{stem}");
        match unit {
            Some(unit) => self.registry.register_with_unit(stem, help, unit, metric),
            None => self.registry.register(stem, help, metric),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};

    fn metrics() -> Metrics {
        let (accounts, start) = ([AccountName::default_account()], Timestamp::from_millis(1_700_000_000_000));
        Metrics::started_at(&accounts, &SpanCounters::default(), start)
    }

    #[test]
    fn the_metrics_page_at_zero_is_the_published_contract() {
        let page = metrics().encode().replace(env!("CARGO_PKG_VERSION"), "VERSION");
        insta::assert_snapshot!("metrics_at_zero", page);
    }

    #[test]
    fn every_exported_metric_is_in_the_catalog_with_its_kind_and_labels() {
        let metrics = metrics();
        let page = metrics.encode();
        let kinds: HashMap<&str, &str> =
            page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
        assert_eq!(kinds.len(), metrics.catalog().len());
        for doc in metrics.catalog() {
            let family = doc.name.strip_suffix("_total").unwrap_or(&doc.name);
            let family = if doc.kind == "info" { family.strip_suffix("_info").unwrap() } else { family };
            assert_eq!(kinds.get(family), Some(&doc.kind), "{family}");
            let sample =
                if doc.kind == "histogram" { format!("{}_count", doc.name) } else { doc.name.clone() };
            let line = page.lines().find(|l| l.starts_with(&sample)).unwrap_or_else(|| panic!("no {sample}"));
            for label in &doc.labels {
                assert!(line.contains(&format!("{}=\"", label.name)), "{line} has no {}", label.name);
            }
            assert!(!doc.help.ends_with('.'), "the registry adds the full stop");
        }
    }

    #[test]
    fn no_series_is_exported_twice_and_counting_adds_none() {
        let metrics = metrics();
        let series = |page: &str| {
            page.lines()
                .filter(|l| !l.starts_with('#'))
                .map(|l| l.rsplit_once(' ').unwrap().0.to_owned())
                .collect()
        };
        let before: Vec<String> = series(&metrics.encode());
        assert_eq!(before.iter().collect::<HashSet<_>>().len(), before.len());
        let stranger: AccountName = "stranger".parse().unwrap();
        metrics.api_requests.of(&stranger, Operation::Generate, ApiOutcome::Code).inc();
        metrics.events_received.of(Source::Webhook, EventOutcome::Poison).inc();
        metrics.http_server_request_duration.of(Route::Other, HttpStatus::of(418)).observe(0.1, None);
        metrics.dead.of(&stranger, FailureClass::UnknownAccount).inc();
        let page = metrics.encode();
        assert_eq!(series(&page), before);
        assert!(
            page.contains(r#"api_requests_total{account="other",operation="generate",outcome="code"} 1"#)
        );
        assert!(page.contains(r#"dead_total{account="other",class="unknown_account"} 1"#));
    }
}
