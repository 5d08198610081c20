//! W3C trace context, in and out, as text that can travel in headers and rest in the store.
//!
//! A trace context comes in with an event, is stored with the invite, and leaves with the outgoing event.
//! With an exporter it leaves as the context of our own publish span; without one it leaves as it came.

use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TraceId};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Longest `traceparent` that is taken: version 00 has 55 characters, later ones may append to it.
const TRACEPARENT_MAX: usize = 128;

/// Longest `tracestate` that is taken: what every implementation should pass on (W3C, §3.3.1.5).
const TRACESTATE_MAX: usize = 512;

/// A valid trace context in its W3C text form, exactly as it came or as our own span wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceHeaders {
    traceparent: String,
    tracestate: Option<String>,
}

impl TraceHeaders {
    /// Takes a context from outside. An invalid `traceparent` is no context; an invalid or overlong
    /// `tracestate` is left out, as the W3C says.
    pub fn parse(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<Self> {
        let traceparent = traceparent?.trim();
        let plain = |text: &str| text.bytes().all(|b| (b' '..=b'~').contains(&b));
        if traceparent.len() > TRACEPARENT_MAX || !plain(traceparent) {
            return None;
        }
        let valid = |tracestate: Option<&str>| {
            let context = read(traceparent, tracestate);
            let span = context.span();
            let ids = span.span_context();
            (ids.is_valid(), !ids.trace_state().header().is_empty())
        };
        let tracestate = tracestate
            .map(str::trim)
            .filter(|text| text.len() <= TRACESTATE_MAX && plain(text) && valid(Some(text)).1);
        valid(None)
            .0
            .then(|| Self { traceparent: traceparent.to_owned(), tracestate: tracestate.map(str::to_owned) })
    }

    /// The value of the `traceparent` header.
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// The value of the `tracestate` header.
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    fn context(&self) -> Context {
        read(&self.traceparent, self.tracestate())
    }
}

/// Reads a context from headers; an invalid one reads as no context.
pub fn extract(traceparent: Option<&str>, tracestate: Option<&str>) -> Context {
    TraceHeaders::parse(traceparent, tracestate).map_or_else(Context::new, |headers| headers.context())
}

/// The context of `span`, to be sent or stored. `None` if nobody traces it.
pub fn inject(span: &Span) -> Option<TraceHeaders> {
    let mut written = Written::default();
    TraceContextPropagator::new().inject_context(&span.context(), &mut written);
    let tracestate = written.tracestate.filter(|state| !state.is_empty());
    Some(TraceHeaders { traceparent: written.traceparent?, tracestate })
}

/// The trace that `span` belongs to, if it is recorded: what an exemplar refers to.
pub fn sampled_trace(span: &Span) -> Option<TraceId> {
    let context = span.context();
    let span = context.span();
    let ids = span.span_context();
    (ids.is_valid() && ids.is_sampled()).then(|| ids.trace_id())
}

/// What an outgoing message carries: the context of `span` where it is traced, else the `incoming` one,
/// unchanged.
pub fn onward(span: &Span, incoming: Option<&TraceHeaders>) -> Option<TraceHeaders> {
    inject(span).or_else(|| incoming.cloned())
}

/// The headers of an outgoing HTTP request that belong to the current span; empty where nobody traces it.
pub fn outgoing_headers() -> reqwest::header::HeaderMap {
    let mut headers = reqwest::header::HeaderMap::new();
    if let Some(context) = inject(&Span::current()) {
        let pairs = [("traceparent", Some(context.traceparent())), ("tracestate", context.tracestate())];
        for (name, value) in pairs {
            if let Some(Ok(value)) = value.map(str::parse) {
                headers.insert(name, value);
            }
        }
    }
    headers
}

/// Makes `span` a child of `headers`. Call it before the span is entered or used as a parent; a span that
/// has begun keeps the parent it has.
pub fn set_parent(span: &Span, headers: Option<&TraceHeaders>) {
    if let Some(headers) = headers {
        // Fails where nobody traces the span, and there it does not matter.
        let _ = span.set_parent(headers.context());
    }
}

/// Links `span` to `headers`: caused by it, but not part of its trace, because hours may lie between.
pub fn link(span: &Span, headers: Option<&TraceHeaders>) {
    if let Some(headers) = headers {
        span.add_link(headers.context().span().span_context().clone());
    }
}

fn read(traceparent: &str, tracestate: Option<&str>) -> Context {
    // Not onto the current context: what is current here says nothing about who sent this.
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Read { traceparent, tracestate })
}

/// The two headers as the propagator reads them. A map would do; this is done several times for each event.
struct Read<'a> {
    traceparent: &'a str,
    tracestate: Option<&'a str>,
}

impl Extractor for Read<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

/// The two headers as the propagator writes them.
#[derive(Default)]
struct Written {
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl Injector for Written {
    fn set(&mut self, key: &str, value: String) {
        match key {
            "traceparent" => self.traceparent = Some(value),
            "tracestate" => self.tracestate = Some(value),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::{spans_of, without_exporter};
    use tracing::info_span;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(traceparent: &str, tracestate: Option<&str>) -> Option<TraceHeaders> {
        TraceHeaders::parse(Some(traceparent), tracestate)
    }

    #[test]
    fn a_context_comes_out_as_it_went_in() {
        let taken = headers(PARENT, Some("vendor=1,other=a b")).unwrap();
        assert_eq!(taken.traceparent(), PARENT);
        assert_eq!(taken.tracestate(), Some("vendor=1,other=a b"));
        let context = extract(Some(PARENT), Some("vendor=1"));
        assert!(context.span().span_context().is_remote());
        assert_eq!(context.span().span_context().span_id().to_string(), "00f067aa0ba902b7");
    }

    #[test]
    fn what_is_no_context_is_not_passed_on() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let long = format!("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-{}", "x".repeat(100));
        for bad in ["", "00", "garbage", zero_trace, &PARENT.to_uppercase(), &format!("{PARENT}-x"), &long] {
            assert_eq!(headers(bad, None), None, "{bad}");
        }
        assert_eq!(TraceHeaders::parse(None, Some("vendor=1")), None);
        assert!(!extract(None, None).span().span_context().is_valid());
    }

    #[test]
    fn a_bad_tracestate_does_not_cost_the_context() {
        for bad in ["", "no-equals-sign", "a=\u{e9}", "a=1\r\nx: y", &format!("a={}", "x".repeat(600))] {
            assert_eq!(headers(PARENT, Some(bad)).unwrap().tracestate(), None, "{bad:?}");
        }
    }

    #[test]
    fn an_own_span_continues_the_callers_trace_under_its_own_id() {
        let mut sent = None;
        let spans = spans_of(|| {
            let incoming = headers(PARENT, Some("vendor=1"));
            let span = info_span!("publish");
            set_parent(&span, incoming.as_ref());
            sent = onward(&span, incoming.as_ref());
        });
        let own = spans[0].span_context.clone();
        let sent = sent.unwrap();
        assert_eq!(sent.traceparent(), format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", own.span_id()));
        assert_eq!(sent.tracestate(), Some("vendor=1"));
        assert_eq!(spans[0].parent_span_id.to_string(), "00f067aa0ba902b7");
        assert!(spans[0].parent_span_is_remote);
    }

    #[test]
    fn a_link_starts_no_child() {
        let spans = spans_of(|| {
            let span = info_span!(parent: None, "attempt");
            link(&span, headers(PARENT, None).as_ref());
            link(&span, None);
        });
        assert_eq!(spans[0].links.len(), 1);
        assert_eq!(spans[0].links[0].span_context.span_id().to_string(), "00f067aa0ba902b7");
        assert_ne!(spans[0].span_context.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn without_an_exporter_the_callers_context_passes_unchanged() {
        without_exporter(|| {
            let incoming = headers(PARENT, Some("vendor=1"));
            let child = info_span!("publish");
            set_parent(&child, incoming.as_ref());
            assert_eq!(onward(&child, incoming.as_ref()), incoming);
            let linked = info_span!("attempt");
            link(&linked, incoming.as_ref());
            assert_eq!(onward(&linked, incoming.as_ref()), incoming);
            assert_eq!(onward(&linked, None), None);
        });
        let incoming = headers(PARENT, None);
        assert_eq!(onward(&Span::none(), incoming.as_ref()), incoming);
    }
}
