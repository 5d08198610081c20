//! Events to a topic exchange: persistent, mandatory, confirmed.

use bytes::Bytes;
use tokio::sync::watch;

use super::NotConfirmed;
use crate::broker::{BrokerState, Message, PublishError, Publisher};
use crate::event::{CONTENT_TYPE, Outgoing};
use crate::invite::{Announcement, Setback};
use crate::telemetry::metrics::PublishFailure;
use crate::telemetry::spans;

/// Where and how to publish.
pub struct RabbitmqSink {
    /// The connection for publishing; none of the consumers uses it.
    pub publisher: Publisher,
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
    pub async fn publish(&self, event: &Outgoing) -> Result<(), NotConfirmed> {
        let routing_key = match event.kind {
            Announcement::Ready => &self.routing_key,
            Announcement::Failed => &self.failed_routing_key,
        };
        let mut headers: Vec<(String, String)> = event
            .attributes()
            .map(|(name, value)| (format!("cloudEvents_{name}"), value.into_owned()))
            .collect();
        // The hop: this span's context, where the attributes carry the start of the transmission.
        headers.extend(spans::outgoing_pairs(&event.trace));
        let message = Message {
            exchange: self.exchange.clone(),
            routing_key: routing_key.clone(),
            message_id: event.id.to_string(),
            correlation_id: event.causation_id.clone().filter(|id| id.len() <= 255),
            content_type: CONTENT_TYPE.to_owned(),
            headers,
            timestamp: event.time,
            body: Bytes::copy_from_slice(&event.body),
        };
        self.publisher.publish(message).await.map_err(|error| NotConfirmed {
            setback: if error.is_outage() { Setback::Away } else { Setback::Refused },
            reason: match error {
                PublishError::Unroutable => PublishFailure::Unroutable,
                PublishError::Nacked => PublishFailure::Nacked,
                PublishError::Unconfirmed => PublishFailure::Unconfirmed,
                PublishError::Disconnected | PublishError::Blocked => PublishFailure::Disconnected,
                PublishError::TooLong => PublishFailure::Refused,
            },
        })
    }
}
