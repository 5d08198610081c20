//! `[source.*]`: where events come from.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::human::ByteSize;
use crate::config::secret::{Secret, SecretUrl};
use crate::config::secret_path::SecretPath;
use crate::config::secret_source::{SecretListSource, SecretSource};

/// Where trucker-created events come from; at least one source is enabled.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Events from a queue of the broker.
    pub rabbitmq: RabbitMqSource,
    /// Events from HTTP requests.
    pub webhook: WebhookSource,
}

/// Events from a queue of the broker.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RabbitMqSource {
    /// Whether this source is used.
    pub enabled: bool,
    /// Broker address: amqp:// or amqps://, user, password, host, port and vhost.
    pub url: Option<SecretUrl>,
    /// File that holds the broker address.
    pub url_file: Option<SecretPath>,
    /// File with further certificate authorities (PEM) to trust, for an `amqps://` broker.
    pub ca_file: Option<PathBuf>,
    /// Queue that is consumed; poison goes to the queue of the same name with `.dead` at its end.
    pub queue: String,
    /// Topic exchange the queue is bound to.
    pub exchange: String,
    /// Routing key of the binding.
    pub routing_key: String,
    /// Deliveries in hand before the first of them is acknowledged.
    #[schemars(range(min = 1, max = 10_000))]
    pub prefetch: u16,
    /// Whether exchange, queue and binding are declared at start or must exist.
    pub topology: Topology,
    /// Type of a queue that is declared.
    pub queue_type: QueueType,
}

/// What happens to exchanges, queues and bindings at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Topology {
    /// They are declared.
    Declare,
    /// They must exist; nothing is created.
    Verify,
}

/// The type of a declared queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QueueType {
    /// Replicated; the choice for a cluster.
    Quorum,
    /// On one node.
    Classic,
}

impl QueueType {
    /// The value of the `x-queue-type` argument.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        }
    }
}

/// Events from HTTP requests.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSource {
    /// Whether this source is used.
    pub enabled: bool,
    /// Address and port of the public server.
    #[schemars(with = "String", extend("format" = "socket-address"))]
    pub listen: SocketAddr,
    /// Path that events are posted to.
    pub path: String,
    /// Standard Webhooks signing secrets (`whsec_…`); any of them may have signed.
    pub secrets: Vec<Secret>,
    /// File with one signing secret per line.
    pub secrets_file: Option<SecretPath>,
    /// Fixed tokens that senders present; any of them is good.
    pub tokens: Vec<Secret>,
    /// File with one token per line.
    pub tokens_file: Option<SecretPath>,
    /// Header that carries the token: `Bearer TOKEN` in Authorization, the bare token in any other.
    pub token_header: String,
    /// Largest body that is read.
    pub max_body: ByteSize,
    /// Accepts events from anyone. For trials only.
    pub insecure_accept_unsigned: bool,
}

impl RabbitMqSource {
    /// The same source, for the queue of one company.
    #[must_use]
    pub fn for_queue(&self, own: &super::dashdoc::AccountQueue) -> Self {
        Self { queue: own.queue.clone(), routing_key: own.routing_key.clone(), ..self.clone() }
    }

    /// Where the broker's URL is found; always there once the source is enabled.
    pub fn url_source(&self) -> Option<SecretSource> {
        SecretSource::of_pair(self.url.as_ref().map(SecretUrl::as_secret), self.url_file.as_ref())
    }
}

impl WebhookSource {
    /// Where the signing secrets are found, if signatures are accepted.
    pub fn secrets_source(&self) -> Option<SecretListSource> {
        SecretListSource::of_pair(&self.secrets, self.secrets_file.as_ref())
    }

    /// Where the tokens are found, if tokens are accepted.
    pub fn tokens_source(&self) -> Option<SecretListSource> {
        SecretListSource::of_pair(&self.tokens, self.tokens_file.as_ref())
    }
}
