//! Events to a topic exchange: persistent, mandatory, confirmed.

use super::{NotConfirmed, Trail};
use crate::broker::{Address, BrokerState, Message, PublishError, Publisher};
use crate::event::{CONTENT_TYPE, Outgoing};
use crate::invite::{Announcement, Setback};
use crate::telemetry::metrics::PublishFailure;
use crate::telemetry::propagation::{self, TraceHeaders};
use crate::telemetry::spans;
use bytes::Bytes;
use tokio::sync::watch;

/// Where and how to publish.
pub struct RabbitmqSink {
    /// The connection for publishing; none of the consumers uses it.
    pub publisher: Publisher,
    /// The broker, for spans.
    pub address: Address,
    /// Its state, for taking work only while it is up.
    pub state: watch::Receiver<BrokerState>,
    /// `sink.rabbitmq.exchange`.
    pub exchange: String,
    /// `sink.rabbitmq.routing_key`.
    pub routing_key: String,
    /// `sink.rabbitmq.failed_routing_key`.
    pub failed_routing_key: String,
}

impl RabbitmqSink {
    /// Whether the broker takes messages now.
    pub fn is_up(&self) -> bool {
        matches!(*self.state.borrow(), BrokerState::Up)
    }

    /// Publishes one event. `Ok` means confirmed *and* routed to a queue.
    pub async fn publish(&self, event: &Outgoing, trail: &Trail<'_>) -> Result<(), NotConfirmed> {
        let routing_key = match event.kind {
            Announcement::Ready => &self.routing_key,
            Announcement::Failed => &self.failed_routing_key,
        };
        let mut headers: Vec<(String, String)> = event
            .attributes()
            .map(|(name, value)| (format!("cloudEvents_{name}"), value.into_owned()))
            .collect();
        // The hop: this span's context, where the attributes carry the start of the transmission.
        let id = event.id.to_string();
        let endpoint = self.address.current();
        let server = spans::Server { host: endpoint.host(), port: endpoint.port() };
        let described = spans::OutgoingEvent { server, id: &id, kind: event.type_ };
        let span = trail
            .attempt
            .part(|parent| spans::publish(parent, &described, &self.exchange, routing_key, &trail.work));
        let incoming =
            TraceHeaders::parse(event.trace.traceparent.as_deref(), event.trace.tracestate.as_deref());
        if let Some(hop) = propagation::onward(&span, incoming.as_ref()) {
            headers.push(("traceparent".to_owned(), hop.traceparent().to_owned()));
            headers.extend(hop.tracestate().map(|state| ("tracestate".to_owned(), state.to_owned())));
        }
        let message = Message {
            exchange: self.exchange.clone(),
            routing_key: routing_key.clone(),
            message_id: id,
            correlation_id: event.causation_id.clone().filter(|id| id.len() <= 255),
            content_type: CONTENT_TYPE.to_owned(),
            headers,
            timestamp: event.time,
            body: Bytes::copy_from_slice(&event.body),
        };
        self.publisher.publish(message).await.map_err(|error| {
            let reason = reason_of(error);
            spans::failed(&span, reason.as_str());
            NotConfirmed { setback: setback_of(error), reason }
        })
    }
}

/// Only an absence that the connection's state shows is waited out; what the state doesn't show backs off, or
/// it would be tried again at once.
fn setback_of(error: PublishError) -> Setback {
    match error {
        PublishError::Disconnected | PublishError::Blocked => Setback::Away,
        PublishError::Unroutable
        | PublishError::Nacked
        | PublishError::Unconfirmed
        | PublishError::TooLong => Setback::Refused,
    }
}

fn reason_of(error: PublishError) -> PublishFailure {
    match error {
        PublishError::Unroutable => PublishFailure::Unroutable,
        PublishError::Nacked => PublishFailure::Nacked,
        PublishError::Unconfirmed => PublishFailure::Unconfirmed,
        PublishError::Disconnected | PublishError::Blocked => PublishFailure::Disconnected,
        PublishError::TooLong => PublishFailure::Refused,
    }
}
