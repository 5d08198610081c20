//! Events from a queue: judged, committed, then acknowledged, a batch at a time.

use std::sync::Arc;

use tracing::{Span, warn};

use crate::broker::{Address, Delivery, Verdict};
use crate::crash::{self, Point};
use crate::event::{self, Envelope, Refusal, Transport, TruckerCreated};
use crate::relay::{self, Intake};
use crate::telemetry::metrics::{EventOutcome, Metrics, Source};
use crate::telemetry::spans;

/// Judges deliveries. Cheap to clone.
#[derive(Clone)]
pub struct RabbitmqSource {
    intake: Intake,
    rules: Arc<event::Rules>,
    /// Largest body that is looked at, in bytes; the same limit as on the webhook.
    max_body: usize,
    queue: Arc<str>,
    address: Address,
    metrics: Arc<Metrics>,
}

impl RabbitmqSource {
    /// A source that feeds `intake`.
    pub fn new(
        intake: Intake,
        rules: Arc<event::Rules>,
        max_body: usize,
        queue: &str,
        address: Address,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { intake, rules, max_body, queue: Arc::from(queue), address, metrics }
    }

    /// Judges one batch: one verdict for each delivery, in their order.
    pub async fn judge(self, deliveries: Vec<Delivery>) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(deliveries.len());
        let mut events = Vec::with_capacity(deliveries.len());
        let mut spans = Vec::with_capacity(deliveries.len());
        for delivery in &deliveries {
            match self.parse(delivery) {
                Ok(event) => {
                    let (span, event) = self.traced(delivery, event);
                    events.push(event);
                    spans.push(span);
                    verdicts.push(Verdict::Ack);
                }
                Err(refusal) => {
                    self.metrics.events_received.of(Source::Rabbitmq, EventOutcome::Poison).inc();
                    warn!(
                        reason = refusal.reason_code(),
                        field = refusal.field,
                        delivery_tag = delivery.delivery_tag,
                        "poison: the message goes to the dead-letter queue"
                    );
                    verdicts.push(Verdict::DeadLetter {
                        reason_code: refusal.reason_code().to_owned(),
                        reason: refusal.to_string(),
                    });
                }
            }
        }
        if events.is_empty() {
            return verdicts;
        }
        match self.intake.accept(Source::Rabbitmq, events).await {
            Ok(taken) => {
                for (span, taken) in spans.iter().zip(&taken) {
                    spans::identify_invite(span, &taken.key);
                }
                crash::pass(Point::SourceAck);
            }
            Err(error) => {
                warn!(%error, events = spans.len(), "events can't be accepted now, they stay with the broker");
                for verdict in verdicts.iter_mut().filter(|verdict| **verdict == Verdict::Ack) {
                    *verdict = Verdict::Hold;
                }
            }
        }
        verdicts
    }

    /// The span of taking one delivery in, and the event with the context that later attempts refer to.
    fn traced(&self, delivery: &Delivery, mut event: TruckerCreated) -> (Span, TruckerCreated) {
        let endpoint = self.address.current();
        let span = spans::process_delivery(&spans::Delivery {
            server: spans::Server { host: endpoint.host(), port: endpoint.port() },
            exchange: &delivery.exchange,
            routing_key: &delivery.routing_key,
            queue: &self.queue,
            tag: delivery.delivery_tag,
            message_id: delivery.message_id.as_deref(),
        });
        event.trace = relay::trace_intake(&span, &event.trace);
        spans::identify_event(&span, &event.event_id, Some(&event.event_source), None);
        (span, event)
    }

    fn parse(&self, delivery: &Delivery) -> Result<TruckerCreated, Refusal> {
        if delivery.body.len() > self.max_body {
            return Err(Refusal::body_too_large(self.max_body));
        }
        let headers: Vec<(&str, &str)> =
            delivery.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let envelope = Envelope {
            transport: Transport::Amqp,
            content_type: delivery.content_type.as_deref(),
            headers: &headers,
            message_id: delivery.message_id.as_deref(),
            body: &delivery.body,
        };
        event::parse(&self.rules, &envelope)
    }
}
