//! Log lines: one JSON object per line for machines, or one readable line for people.
//!
//! Both carry the event's own fields and, from the spans around it, the ids that tell which invite a line
//! is about ([`CORRELATED`]). The JSON form adds `trace_id` and `span_id` of the current OpenTelemetry
//! context. Without an exporter that is the context of the caller's trace, so the log still joins it.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use opentelemetry::Context as OtelContext;
use opentelemetry::trace::{SpanId, TraceContextExt, TraceId};
use serde::ser::{SerializeMap, Serializer as _};
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::setup::LogFormat;
use crate::time::{self, Timestamp};

/// The span fields that are repeated on every line written within the span.
const CORRELATED: [&str; 4] = ["invite.id", "invite.generation", "invite.attempt", "event.id"];

/// Keys that a line always has or may have; an event's field of the same name is written as `field.NAME`.
const RESERVED: [&str; 6] = ["timestamp", "level", "target", "message", "trace_id", "span_id"];

/// Writes each event as one line, with one write, so that lines of several threads don't mix.
pub(super) struct Lines<W> {
    format: LogFormat,
    colour: bool,
    writer: W,
}

impl<W> Lines<W> {
    /// Lines in `format`; `colour` is heeded by the text form only.
    pub(super) fn new(format: LogFormat, colour: bool, writer: W) -> Self {
        Self { format, colour, writer }
    }
}

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        let mut fields = SpanFields::default();
        attributes.record(&mut fields);
        if let Some(span) = ctx.span(id) {
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        if let Some(span) = ctx.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<SpanFields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, ctx: Context<'_, S>) {
        let mut fields = EventFields::default();
        event.record(&mut fields);
        for span in ctx.event_scope(event).into_iter().flatten() {
            if let Some(SpanFields(outer)) = span.extensions().get::<SpanFields>() {
                fields.complete_from(outer);
            }
        }
        let line = Line {
            at: time::now(),
            level: *event.metadata().level(),
            target: event.metadata().target(),
            trace: current_trace(),
            fields: &fields,
        };
        let mut buffer = match self.format {
            LogFormat::Json => line.json(),
            LogFormat::Text => line.text(self.colour).into_bytes(),
        };
        buffer.push(b'\n');
        // A log that cannot be written must not stop the work, and there is nowhere left to say so.
        let _ = self.writer.make_writer().write_all(&buffer);
    }
}

/// The ids of the OpenTelemetry span that is current on this thread.
fn current_trace() -> Option<(TraceId, SpanId)> {
    OtelContext::map_current(|context| {
        let span = context.span();
        let ids = span.span_context();
        ids.is_valid().then(|| (ids.trace_id(), ids.span_id()))
    })
}

struct Line<'a> {
    at: Timestamp,
    level: Level,
    target: &'a str,
    trace: Option<(TraceId, SpanId)>,
    fields: &'a EventFields,
}

impl Line<'_> {
    fn json(&self) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(256);
        self.write_json(&mut buffer)
            .expect("strings and numbers always serialize, and a Vec always takes them");
        buffer
    }

    fn write_json(&self, buffer: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut serializer = serde_json::Serializer::new(buffer);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &self.at.to_string())?;
        map.serialize_entry("level", self.level.as_str())?;
        map.serialize_entry("target", self.target)?;
        map.serialize_entry("message", &self.fields.message)?;
        if let Some((trace, span)) = self.trace {
            map.serialize_entry("trace_id", &trace.to_string())?;
            map.serialize_entry("span_id", &span.to_string())?;
        }
        for (name, value) in &self.fields.named {
            if RESERVED.contains(name) {
                map.serialize_entry(&format!("field.{name}"), value)?;
            } else {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }

    fn text(&self, colour: bool) -> String {
        let (on, dim, off) = if colour { (paint(self.level), "\x1b[2m", "\x1b[0m") } else { ("", "", "") };
        let target = self.target.strip_prefix("invite_relay::").unwrap_or(self.target);
        let mut text =
            format!("{dim}{}{off} {on}{:>5}{off} {dim}{target}{off}: ", self.at, self.level.as_str());
        push_visible(&mut text, &self.fields.message);
        for (name, value) in &self.fields.named {
            // A JSON string is quoted and has its control characters escaped, so no value can forge a line.
            let _ = write!(text, " {dim}{name}={off}{value}");
        }
        text
    }
}

const fn paint(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// Appends `message` with its control characters escaped: what came from outside can't forge a line.
fn push_visible(text: &mut String, message: &str) {
    for c in message.chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
}

/// The fields of one event, in the order they were written; no name twice.
#[derive(Default)]
struct EventFields {
    message: String,
    named: Vec<(&'static str, Value)>,
}

impl EventFields {
    fn set(&mut self, field: &Field, value: Value) {
        if field.name() != "message" {
            replace(&mut self.named, field.name(), value);
        } else if let Value::String(text) = value {
            self.message = text;
        } else {
            self.message = value.to_string();
        }
    }

    /// Adds what an outer span knows and nothing nearer has said.
    fn complete_from(&mut self, outer: &[(&'static str, Value)]) {
        for (name, value) in outer {
            if !self.named.iter().any(|(known, _)| known == name) {
                self.named.push((name, value.clone()));
            }
        }
    }
}

/// What is kept of a span for the lines within it.
#[derive(Default)]
struct SpanFields(Vec<(&'static str, Value)>);

impl SpanFields {
    fn set(&mut self, field: &Field, value: Value) {
        replace(&mut self.0, field.name(), value);
    }
}

fn replace(fields: &mut Vec<(&'static str, Value)>, name: &'static str, value: Value) {
    match fields.iter_mut().find(|(known, _)| *known == name) {
        Some((_, old)) => *old = value,
        None => fields.push((name, value)),
    }
}

impl Visit for EventFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            let _ = write!(text, ": {error}");
            cause = error.source();
        }
        self.set(field, text.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }
}

/// Spans have many more fields, for the traces; those are not even formatted here.
impl Visit for SpanFields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        if CORRELATED.contains(&field.name()) {
            self.set(field, value.into());
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if CORRELATED.contains(&field.name()) {
            self.set(field, value.into());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if CORRELATED.contains(&field.name()) {
            self.set(field, format!("{value:?}").into());
        }
    }
}
