//! Where events go: RabbitMQ, a webhook, stdout. Several may be on; each confirms for itself.

pub mod rabbitmq;
pub mod stdout;
pub mod webhook;

use tokio::sync::watch;

use crate::broker::BrokerState;
use crate::event::Outgoing;
use crate::invite::{Setback, Sink, Sinks};
use crate::store::Narrow;
use crate::telemetry::metrics::PublishFailure;
use crate::telemetry::spans;

use rabbitmq::RabbitmqSink;
use stdout::StdoutSink;
use webhook::WebhookSink;

/// The configured sinks.
#[derive(Default)]
pub struct Outlets {
    /// `sink.rabbitmq`.
    pub rabbitmq: Option<RabbitmqSink>,
    /// `sink.webhook`.
    pub webhook: Option<WebhookSink>,
    /// `sink.stdout`.
    pub stdout: Option<StdoutSink>,
}

/// What the spans of a publication hang on.
pub struct Trail<'a> {
    /// The attempt that publishes.
    pub attempt: &'a spans::Attempt,
    /// What is being published.
    pub work: spans::Work<'a>,
}

/// Why a sink has not confirmed an event. It is published again, with the same id, for as long as it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotConfirmed {
    /// Whether to wait for the sink's return, or to back off with this event.
    pub setback: Setback,
    /// For the metrics.
    pub reason: PublishFailure,
}

impl Outlets {
    /// The sinks that are configured.
    pub fn configured(&self) -> Sinks {
        let on = [
            self.rabbitmq.is_some().then_some(Sink::Rabbitmq),
            self.webhook.is_some().then_some(Sink::Webhook),
            self.stdout.is_some().then_some(Sink::Stdout),
        ];
        on.into_iter().flatten().collect()
    }

    /// The configured sinks that can take an event now.
    pub fn up(&self) -> Sinks {
        let up = [
            self.rabbitmq.as_ref().is_some_and(RabbitmqSink::is_up).then_some(Sink::Rabbitmq),
            self.webhook.as_ref().is_some_and(WebhookSink::is_up).then_some(Sink::Webhook),
            self.stdout.as_ref().is_some_and(StdoutSink::is_up).then_some(Sink::Stdout),
        ];
        up.into_iter().flatten().collect()
    }

    /// The sinks that take few events at a time.
    pub fn narrow(&self) -> Narrow {
        match &self.webhook {
            Some(webhook) => Narrow { sinks: Sinks::NONE.with(Sink::Webhook), places: webhook.places() },
            None => Narrow::default(),
        }
    }

    /// Publishes `event` to `sink` and waits for its confirmation.
    pub async fn publish(&self, sink: Sink, event: &Outgoing, trail: &Trail<'_>) -> Result<(), NotConfirmed> {
        match (sink, &self.rabbitmq, &self.webhook, &self.stdout) {
            (Sink::Rabbitmq, Some(rabbitmq), _, _) => rabbitmq.publish(event, trail).await,
            (Sink::Webhook, _, Some(webhook), _) => webhook.publish(event, trail).await,
            (Sink::Stdout, _, _, Some(stdout)) => stdout.publish(event).await,
            // Not configured any more: the next take drops it from the pending ones.
            (Sink::Rabbitmq | Sink::Webhook | Sink::Stdout, ..) => {
                Err(NotConfirmed { setback: Setback::Away, reason: PublishFailure::Other })
            }
        }
    }

    /// Tells when a sink may have become able to take events.
    pub fn returns(&self) -> Returns {
        Returns {
            rabbitmq: self.rabbitmq.as_ref().map(|sink| sink.state.clone()),
            webhook: self.webhook.as_ref().map(WebhookSink::state),
            stdout: self.stdout.as_ref().map(StdoutSink::state),
        }
    }
}

/// Watches the sinks. No change is missed: what changes between two calls ends the second at once.
pub struct Returns {
    rabbitmq: Option<watch::Receiver<BrokerState>>,
    webhook: Option<watch::Receiver<bool>>,
    stdout: Option<watch::Receiver<bool>>,
}

impl Returns {
    /// Resolves after a change. Spurious wake-ups are fine.
    pub async fn changed(&mut self) {
        tokio::select! {
            () = next(&mut self.rabbitmq) => {}
            () = next(&mut self.webhook) => {}
            () = next(&mut self.stdout) => {}
        }
    }
}

async fn next<T>(state: &mut Option<watch::Receiver<T>>) {
    let alive = match state {
        Some(state) => state.changed().await.is_ok(),
        None => false,
    };
    if !alive {
        // There is no such sink, or its owner has ended: nothing will change any more.
        std::future::pending::<()>().await;
    }
}
