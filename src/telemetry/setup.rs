//! Starts and ends logs and traces.
//!
//! Logs go to stderr. Traces leave only when the standard `OTEL_*` variables ask for it; without them
//! spans still carry the caller's trace context through, so that log lines and outgoing events join the
//! caller's trace.

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::trace::noop::NoopTracer;
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::{Deserialize, Serialize};
use tracing::{Subscriber, info, warn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;

use super::filter;
use super::lines::Lines;
use super::metrics::SpanCounters;
use super::{otlp, panics};

/// Name of the instrumentation scope of all our spans.
const SCOPE: &str = "invite-relay";

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    #[default]
    Json,
    /// One readable line, coloured on a terminal.
    Text,
}

/// What [`init`] needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The form of the log.
    pub log_format: LogFormat,
    /// Directives such as `info` or `info,invite_relay::broker=debug`. Other crates never get below `info`.
    pub log_filter: String,
    /// The version reported with the traces.
    pub service_version: &'static str,
}

/// Why telemetry could not start. Trouble with traces is never among it: that is a warning in the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter cannot be read.
    #[error("the log filter is not valid")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// [`init`] ran before in this process.
    #[error("telemetry has been started before")]
    AlreadyStarted,
}

/// Running telemetry. [`Telemetry::shutdown`] delivers what is still queued.
#[must_use = "spans that are still queued are lost without a shutdown"]
#[derive(Debug)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
    counters: SpanCounters,
}

/// What the `OTEL_*` variables ask for, as far as it can be checked from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedExport {
    /// Host and port of the collector; `None` when no traces are wanted.
    pub collector: Option<(String, u16)>,
    /// Variables that can't be followed, by name; never with their values.
    pub warnings: Vec<String>,
}

/// Reads the variables through `lookup`, as [`init`] does from the environment.
pub fn wanted_export(lookup: impl Fn(&str) -> Option<String>) -> WantedExport {
    let wish = otlp::Wish::from_env(lookup);
    WantedExport { collector: wish.target.as_ref().map(otlp::Target::host_and_port), warnings: wish.warnings }
}

/// Starts logs and traces for the whole process; call it once, before anything is logged.
pub fn init(settings: &Settings) -> Result<Telemetry, Error> {
    let telemetry = start(settings, &otlp::Wish::from_env(|name| std::env::var(name).ok()))?;
    panics::log_panics();
    Ok(telemetry)
}

fn start(settings: &Settings, wish: &otlp::Wish) -> Result<Telemetry, Error> {
    let mut warnings = wish.warnings.clone();
    let counters = SpanCounters::default();
    let provider = wish.target.as_ref().and_then(|target| {
        let built = otlp::provider(target, settings.service_version, &counters);
        built.map_err(|reason| warnings.push(format!("traces are off: {reason}"))).ok()
    });
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = Lines::new(settings.log_format, colour, std::io::stderr);
    // Not through `log`: what libraries say there has no place for a cap, and none of it is needed.
    let started = if let Some(provider) = &provider {
        let subscriber = subscriber(&settings.log_filter, lines, provider.tracer(SCOPE))?;
        tracing::subscriber::set_global_default(subscriber)
    } else {
        let subscriber = subscriber(&settings.log_filter, lines, NoopTracer::new())?;
        tracing::subscriber::set_global_default(subscriber)
    };
    started.map_err(|_| Error::AlreadyStarted)?;
    if !warnings.is_empty() {
        warn!(problems = warnings.join("; "), "some OTEL_* settings are not followed");
    }
    if let (Some(target), Some(_)) = (&wish.target, &provider) {
        info!(collector = target.address(), "traces are exported");
    }
    Ok(Telemetry { provider, counters })
}

/// The process's subscriber: log lines and spans, each under its own filter.
pub(super) fn subscriber<W, T>(
    log_filter: &str,
    lines: Lines<W>,
    tracer: T,
) -> Result<impl Subscriber + Send + Sync + 'static, Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    T: Tracer + Send + Sync + 'static,
    T::Span: Span + Send + Sync,
{
    // Boxed: the layers' own types nest deeply, and this is built once.
    let export = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(filter::traces())
        .boxed();
    let lines = lines.with_filter(filter::log(log_filter).map_err(Error::Filter)?).boxed();
    Ok(Registry::default().with(vec![export, lines]))
}

impl Telemetry {
    #[cfg(test)]
    pub(super) fn exporting(provider: SdkTracerProvider) -> Self {
        Self { provider: Some(provider), counters: SpanCounters::default() }
    }

    /// What becomes of the spans.
    pub fn counters(&self) -> &SpanCounters {
        &self.counters
    }

    /// Delivers the spans that are still queued, for at most `limit`. Call it last: spans that end later
    /// are lost.
    pub async fn shutdown(self, limit: Duration) {
        let Some(provider) = self.provider else { return };
        // The SDK waits for its exporter thread, and blocks while it does.
        let flush = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
        match tokio::time::timeout(limit, flush).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => {
                warn!("the collector did not take the last spans in time, they are lost");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::{Log, Sink};
    use tracing::subscriber::with_default;
    use tracing::{debug, error, info_span, trace};

    /// Runs `work` under the process's subscriber with the given filter and returns the log.
    fn logged(format: LogFormat, filter: &str, work: impl FnOnce()) -> Log {
        let log = Log::default();
        let spans = Sink::default();
        let tracer = spans.provider().tracer(SCOPE);
        let lines = Lines::new(format, false, log.clone());
        with_default(subscriber(filter, lines, tracer).unwrap(), work);
        log
    }

    #[test]
    fn a_json_line_is_one_object_with_flat_fields_and_the_ids_of_the_current_span() {
        let log = logged(LogFormat::Json, "info", || {
            let span = info_span!("attempt", invite.id = "default/7", invite.attempt = 2_i64, secret = "x");
            let _inside = span.enter();
            let cause = std::io::Error::other("refused\nby \"peer\"");
            warn!(
                status = 503_u64,
                ratio = 0.5,
                late = true,
                error = &cause as &dyn std::error::Error,
                "call failed"
            );
        });
        let lines = log.json();
        let line = lines.first().unwrap();
        assert_eq!(lines.len(), 1);
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "call failed");
        assert_eq!(line["target"], "invite_relay::telemetry::setup::tests");
        assert_eq!(line["status"], 503);
        assert_eq!(line["late"], true);
        assert_eq!(line["error"], "refused\nby \"peer\"");
        assert_eq!(line["invite.id"], "default/7");
        assert_eq!(line["invite.attempt"], 2);
        assert!(line.get("secret").is_none(), "only the correlating fields of a span are repeated");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
        assert_eq!(line["trace_id"].as_str().unwrap().len(), 32);
        assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
    }

    #[test]
    fn a_line_outside_any_span_has_no_trace_ids() {
        let log = logged(LogFormat::Json, "info", || info!("ready"));
        assert!(log.json()[0].get("trace_id").is_none());
    }

    #[test]
    fn no_key_appears_twice_in_a_line() {
        let log = logged(LogFormat::Json, "info", || {
            let outer = info_span!("outer", invite.id = "default/1", event.id = "e");
            let _outer = outer.enter();
            let inner = info_span!("inner", invite.id = "default/2");
            let _inner = inner.enter();
            info!(invite.id = "default/3", level = "mine", "said");
            inner.record("invite.id", "default/4");
            info!("said again");
        });
        let text = log.text();
        assert_eq!(text.lines().next().unwrap().matches("invite.id").count(), 1, "{text}");
        let lines = log.json();
        assert_eq!(lines[0]["invite.id"], "default/3");
        assert_eq!(lines[0]["field.level"], "mine");
        assert_eq!(lines[1]["invite.id"], "default/4");
        assert_eq!(lines[1]["event.id"], "e");
    }

    #[test]
    fn a_text_line_is_readable_and_a_value_cannot_forge_another() {
        let log = logged(LogFormat::Text, "info", || {
            info!(name = "a\nb", "two\nlines \x1b[31m{}", "\r");
        });
        let text = log.text();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(text.contains(" INFO telemetry::setup::tests: two\\nlines"), "{text:?}");
        assert!(text.contains(r#"name="a\nb""#), "{text:?}");
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn no_filter_lets_other_crates_log_what_they_send_and_receive() {
        for filter in [
            "trace",
            "trace,lapin=trace",
            "lapin::channel=trace,hyper=debug,h2=trace,rustls=debug",
            "lapin[frame]=trace",
        ] {
            let log = logged(LogFormat::Json, filter, || {
                trace!(target: "lapin::channel", "StartOk CANARY");
                debug!(target: "lapin::buffer", "CANARY");
                debug!(target: "amq_protocol::frame", "CANARY");
                trace!(target: "hyper::proto::h1::io", "CANARY");
                debug!(target: "h2::codec", "CANARY");
                debug!(target: "rustls::client", "CANARY");
                debug!(target: "reqwest::connect", "CANARY");
                debug!(target: "tokio_postgres", "CANARY");
                // lapin really does this, with the body of the returned message.
                warn!(target: "lapin::returned_messages", message = "CANARY", "Server returned us a message");
                let span = tracing::trace_span!(target: "lapin::channel", "frame", invite.id = "CANARY");
                let _inside = span.enter();
                error!(target: "hyper::io_loop", "io error");
            });
            assert!(!log.text().contains("CANARY"), "{filter}: {}", log.text());
            let heard = log.text().contains("io error");
            assert!(heard || filter != "trace", "the cap swallowed an error");
        }
    }

    #[test]
    fn our_own_modules_follow_the_filter() {
        let work = || {
            trace!("fine");
            warn!("grave");
        };
        assert_eq!(logged(LogFormat::Json, "trace", work).json().len(), 2);
        assert_eq!(logged(LogFormat::Json, "warn", work).json().len(), 1);
        assert_eq!(logged(LogFormat::Json, "off", work).json().len(), 0);
    }

    #[test]
    fn a_filter_that_cannot_be_read_is_an_error() {
        let lines = Lines::new(LogFormat::Json, false, std::io::sink);
        assert!(subscriber("invite_relay=loud", lines, NoopTracer::new()).is_err());
    }

    #[test]
    fn a_quiet_log_does_not_mean_empty_traces() {
        let spans = Sink::default();
        let tracer = spans.provider().tracer(SCOPE);
        let lines = Lines::new(LogFormat::Json, false, std::io::sink);
        with_default(subscriber("error", lines, tracer).unwrap(), || {
            let _span = info_span!("kept").entered();
            let _foreign = info_span!(target: "lapin", "not ours").entered();
        });
        let names: Vec<_> = spans.taken().into_iter().map(|span| span.name).collect();
        assert_eq!(names, ["kept"]);
    }
}
