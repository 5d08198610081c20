//! Spans on their way to the collector: a bounded queue before a thread of its own, and every span accounted for.
//!
//! A span that ends is queued, or lost because the queue is full; a queued one is delivered, or lost because the
//! collector did not take it. [`SpanCounters`] counts all of these, so that delivered + lost + queued = ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor,
};
use tracing::{info, warn};

use super::metrics::{SpanCounters, SpanLoss};

/// The standard's default for `OTEL_BSP_MAX_QUEUE_SIZE`.
pub(super) const DEFAULT_QUEUE: usize = 2048;

/// Queues spans for `exporter`, at most `bound` at a time, those under way included.
pub(super) fn queue<E>(exporter: E, bound: usize, counters: &SpanCounters) -> Queue
where
    E: SpanExporter + 'static,
{
    let waiting = Arc::new(AtomicUsize::new(0));
    let watched = Watched {
        inner: exporter,
        failing: AtomicBool::new(false),
        waiting: Arc::clone(&waiting),
        counters: counters.clone(),
    };
    // The SDK's own bound is the same, so it never drops a span that was let through here. It counts what it drops for
    // itself alone, which is why the bound is kept here as well.
    let config = BatchConfigBuilder::default().with_max_queue_size(bound).build();
    let inner = BatchSpanProcessor::builder(watched).with_batch_config(config).build();
    Queue { inner, bound, waiting, counters: counters.clone() }
}

/// The bounded queue.
#[derive(Debug)]
pub(super) struct Queue {
    inner: BatchSpanProcessor,
    bound: usize,
    /// Queued or under way; the exporter takes off what it is done with.
    waiting: Arc<AtomicUsize>,
    counters: SpanCounters,
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.inner.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= self.bound {
            self.waiting.fetch_sub(1, Ordering::AcqRel);
            self.counters.lost.of(SpanLoss::QueueFull).inc();
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Says once that spans cannot be delivered, and once that they can again. The SDK itself is silent here.
#[derive(Debug)]
struct Watched<E> {
    inner: E,
    failing: AtomicBool,
    waiting: Arc<AtomicUsize>,
    counters: SpanCounters,
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let n_spans = batch.len();
        let result = self.inner.export(batch).await;
        self.waiting.fetch_sub(n_spans, Ordering::AcqRel);
        let counted = u64::try_from(n_spans).unwrap_or(u64::MAX);
        match &result {
            Ok(()) => self.counters.delivered.inc_by(counted),
            Err(_) => self.counters.lost.of(SpanLoss::NotDelivered).inc_by(counted),
        };
        // No span is current on this thread, so these lines never become traces themselves.
        match &result {
            Ok(()) if self.failing.swap(false, Ordering::Relaxed) => info!("traces are delivered again"),
            Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                warn!(n_spans, %error, "traces cannot be delivered; spans are lost until the collector answers");
            }
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_sdk::error::OTelSdkError;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use std::sync::mpsc;

    /// Answers an export when it is told to.
    #[derive(Debug)]
    struct Collector(std::sync::Mutex<mpsc::Receiver<bool>>);

    impl SpanExporter for Collector {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            let takes = self.0.lock().unwrap().recv().unwrap_or(true);
            if takes { Ok(()) } else { Err(OTelSdkError::InternalFailure("away".into())) }
        }
    }

    #[test]
    fn every_span_is_delivered_or_counted_as_lost() {
        let (answer, answers) = mpsc::channel();
        let counters = SpanCounters::default();
        let queue = queue(Collector(std::sync::Mutex::new(answers)), 100, &counters);
        let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
        let tracer = provider.tracer("test");
        let end = |n: usize| (0..n).for_each(|_| drop(tracer.start("span")));
        let lost = |reason| counters.lost.of(reason).get();
        // The collector hangs: what the bound does not hold is lost, exactly.
        end(250);
        assert_eq!(lost(SpanLoss::QueueFull), 150);
        // Then it refuses the first hundred, and takes the next.
        answer.send(false).unwrap();
        provider.force_flush().unwrap();
        assert_eq!((lost(SpanLoss::NotDelivered), counters.delivered.get()), (100, 0));
        end(7);
        answer.send(true).unwrap();
        provider.force_flush().unwrap();
        assert_eq!(counters.delivered.get(), 7);
        assert_eq!(lost(SpanLoss::QueueFull) + lost(SpanLoss::NotDelivered) + counters.delivered.get(), 257);
    }
}
