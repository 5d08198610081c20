//! The sections of the configuration, as types. Their doc comments are the descriptions in the JSON Schema.
//!
//! Defaults are not here but in `config/default.toml`; a field is an `Option` only where there is no default.

pub(super) mod dashdoc;
pub(super) mod service;
pub(super) mod sink;
pub(super) mod source;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret_source::SecretSource;
use dashdoc::Dashdoc;
use service::{Admin, Event, Invite, Retry, Shutdown, Store, Telemetry};
use sink::Sink;
use source::Source;

/// The configuration of invite-relay.
///
/// A value from [`super::load()`] has passed every check; the accessors of the sections rely on that.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(title = "invite-relay", description = "The configuration of invite-relay.")]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where trucker-created events come from.
    pub source: Source,
    /// How a trucker-created event is read, and what the outgoing event says.
    pub event: Event,
    /// The Dashdoc API.
    pub dashdoc: Dashdoc,
    /// How a code is obtained.
    pub invite: Invite,
    /// How failed calls are repeated.
    pub retry: Retry,
    /// Where invites are kept.
    pub store: Store,
    /// Where invite-ready events go.
    pub sink: Sink,
    /// The port for operators: health, metrics, work list.
    pub admin: Admin,
    /// Logs.
    pub telemetry: Telemetry,
    /// How the process ends.
    pub shutdown: Shutdown,
}

impl Config {
    /// The broker that invite-ready events go to: the sink's own URL, else the source's.
    pub fn sink_rabbitmq_url(&self) -> Option<SecretSource> {
        self.sink.rabbitmq.url_source().or_else(|| self.source.rabbitmq.url_source())
    }

    /// Further authorities to trust for that broker: the sink's own file, else the source's.
    pub fn sink_rabbitmq_ca_file(&self) -> Option<&PathBuf> {
        self.sink.rabbitmq.ca_file.as_ref().or(self.source.rabbitmq.ca_file.as_ref())
    }
}
