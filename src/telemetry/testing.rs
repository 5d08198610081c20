//! Places for tests to look at: a log in memory, and the spans that ended.

use std::io;
use std::sync::{Arc, Mutex};

use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing_subscriber::fmt::MakeWriter;

use super::lines::Lines;
use super::setup::{LogFormat, subscriber};

/// A log in memory.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(super) fn json(&self) -> Vec<serde_json::Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Keeps the spans that ended, in the order they ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Sink(Arc<Mutex<Vec<SpanData>>>);

impl Sink {
    pub(super) fn provider(&self) -> SdkTracerProvider {
        SdkTracerProvider::builder().with_simple_exporter(self.clone()).build()
    }

    pub(super) fn taken(&self) -> Vec<SpanData> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl SpanExporter for Sink {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

/// Runs `work` as under the process's subscriber and returns the spans that ended.
pub(super) fn spans_of(work: impl FnOnce()) -> Vec<SpanData> {
    use opentelemetry::trace::TracerProvider;
    let sink = Sink::default();
    let lines = Lines::new(LogFormat::Json, false, io::sink);
    let subscriber = subscriber("info", lines, sink.provider().tracer("test")).unwrap();
    tracing::subscriber::with_default(subscriber, work);
    sink.taken()
}

/// Runs `work` as in a process without an exporter.
pub(super) fn without_exporter<T>(work: impl FnOnce() -> T) -> T {
    let lines = Lines::new(LogFormat::Json, false, io::sink);
    let subscriber = subscriber("info", lines, opentelemetry::trace::noop::NoopTracer::new()).unwrap();
    tracing::subscriber::with_default(subscriber, work)
}
