//! The exchange that the service's queue is bound to, from the publisher's side.

use std::fmt;
use std::time::Duration;

use super::NotSent;
use super::event::Event;
use crate::broker::{
    BrokerState, Endpoint, Message, Mode, Observer, PublishError, Publisher, PublisherOptions, SinkTopology,
};
use crate::config::RabbitMqSource;
use crate::lifecycle::Lifecycle;
use crate::time;

/// How long the goodbye to the broker may take.
const GOODBYE: Duration = Duration::from_secs(5);

/// An open way to an exchange. Shows as the exchange and the broker's address.
pub(in crate::cli) struct Exchange {
    endpoint: Endpoint,
    name: String,
    routing_key: String,
    publisher: Publisher,
    life: Lifecycle,
}

impl Exchange {
    /// Connects to the configured broker, once.
    pub(in crate::cli) async fn open(source: &RabbitMqSource) -> Result<Self, NotSent> {
        let url = source.url_source().ok_or_else(|| {
            NotSent(
                "source.rabbitmq.url is not set; set source.rabbitmq.url_file, or send --to webhook"
                    .to_owned(),
            )
        })?;
        let url = url.read().map_err(|error| NotSent(format!("source.rabbitmq.url: {error}")))?;
        let endpoint = Endpoint::parse(&url.reveal().into())
            .map_err(|error| NotSent(format!("source.rabbitmq.url: {error}")))?
            .with_ca_file(source.ca_file.clone());
        // Only the service makes exchanges and queues: an exchange without its queue would drop every event.
        let topology = SinkTopology { exchange: source.exchange.clone(), mode: Mode::Verify };
        let life = Lifecycle::new();
        let options = PublisherOptions::new(endpoint.clone(), topology);
        let exchange = Self {
            endpoint,
            name: source.exchange.clone(),
            routing_key: source.routing_key.clone(),
            publisher: Publisher::start(options, Observer::default(), &life),
            life,
        };
        match exchange.connected().await {
            Ok(()) => Ok(exchange),
            Err(reason) => {
                let error = NotSent(format!(
                    "{exchange}: {reason}; check source.rabbitmq.url, and start `invite-relay serve` once, which \
                     makes exchange and queue"
                ));
                exchange.close().await;
                Err(error)
            }
        }
    }

    /// Waits for the outcome of the first attempt to connect.
    async fn connected(&self) -> Result<(), String> {
        let mut state = self.publisher.state();
        let settled = state.wait_for(|state| *state != BrokerState::Connecting).await;
        match settled.as_deref() {
            Ok(BrokerState::Up) => Ok(()),
            Ok(BrokerState::Blocked { reason }) => Err(format!("the broker takes nothing now ({reason})")),
            Ok(BrokerState::Down { reason } | BrokerState::Waiting { reason }) => Err(reason.clone()),
            Ok(BrokerState::Connecting) | Err(_) => Err("the connection could not be made".to_owned()),
        }
    }

    /// Publishes one event. `Ok` means that the broker has confirmed it and put it into a queue.
    pub(in crate::cli) async fn publish(&self, event: &Event) -> Result<(), NotSent> {
        let message = Message {
            exchange: self.name.clone(),
            routing_key: self.routing_key.clone(),
            message_id: event.id.clone(),
            correlation_id: None,
            content_type: event.content_type.to_owned(),
            headers: Vec::new(),
            timestamp: time::now(),
            body: event.body.clone().into(),
        };
        self.publisher.publish(message).await.map_err(|error| match error {
            PublishError::Unroutable => NotSent(format!(
                "{self}: no queue is bound for the routing key \"{}\"; start `invite-relay serve` with this \
                 configuration, which binds its queue",
                self.routing_key
            )),
            PublishError::TooLong => NotSent(format!("{self}: {error}; use a shorter --id")),
            PublishError::Nacked
            | PublishError::Unconfirmed
            | PublishError::Disconnected
            | PublishError::Blocked => {
                NotSent(format!("{self}: {error}; send it again with --id {}, it counts once", event.id))
            }
        })
    }

    /// Says goodbye to the broker.
    pub(in crate::cli) async fn close(self) {
        // Before the last handle goes: the publisher's end must look like what it is.
        self.life.begin_drain();
        drop(self.publisher);
        // What is confirmed is confirmed, whatever comes of the goodbye.
        let _ = self.life.finish(GOODBYE).await;
    }
}

impl fmt::Display for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exchange {} at {}", self.name, self.endpoint)
    }
}
