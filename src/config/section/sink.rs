//! `[sink.*]`: where events go.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::human::{DurationText, duration};
use crate::config::secret::{Secret, SecretUrl};
use crate::config::secret_path::SecretPath;
use crate::config::secret_source::SecretSource;

/// Where invite-ready events go; at least one sink is enabled.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    /// Events to an exchange of the broker.
    pub rabbitmq: RabbitMqSink,
    /// Events to an HTTP endpoint.
    pub webhook: WebhookSink,
    /// Events to standard output.
    pub stdout: StdoutSink,
}

/// Events to an exchange of the broker.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RabbitMqSink {
    /// Whether this sink is used.
    pub enabled: bool,
    /// Broker address; the source's unless set.
    pub url: Option<SecretUrl>,
    /// File that holds the broker address.
    pub url_file: Option<SecretPath>,
    /// File with further certificate authorities (PEM) to trust, for an `amqps://` broker; the source's unless set.
    pub ca_file: Option<PathBuf>,
    /// Exchange that events are published to; empty: the default exchange, where each routing key is a queue's name.
    pub exchange: String,
    /// Routing key of invite-ready events.
    pub routing_key: String,
    /// Routing key of invite-failed events.
    pub failed_routing_key: String,
    /// How long the broker may take to confirm one message; then its outcome is unknown and it is sent again.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub confirm_timeout: Duration,
}

/// Events to an HTTP endpoint, signed as Standard Webhooks.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSink {
    /// Whether this sink is used.
    pub enabled: bool,
    /// Address that events are posted to.
    pub url: Option<SecretUrl>,
    /// Standard Webhooks signing secret (`whsec_…`).
    pub secret: Option<Secret>,
    /// File that holds the signing secret.
    pub secret_file: Option<SecretPath>,
    /// File with further certificate authorities (PEM) to trust.
    pub ca_file: Option<PathBuf>,
    /// How long one request may take.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub timeout: Duration,
}

/// Events to standard output, one JSON document per line. They hold the codes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutSink {
    /// Whether this sink is used.
    pub enabled: bool,
}

impl RabbitMqSink {
    /// Where the sink's own URL is found; see [`super::Config::sink_rabbitmq_url`] for the one to use.
    pub fn url_source(&self) -> Option<SecretSource> {
        SecretSource::of_pair(self.url.as_ref().map(SecretUrl::as_secret), self.url_file.as_ref())
    }
}

impl WebhookSink {
    /// Where the signing secret is found; always there once the sink is enabled.
    pub fn secret_source(&self) -> Option<SecretSource> {
        SecretSource::of_pair(self.secret.as_ref(), self.secret_file.as_ref())
    }
}
