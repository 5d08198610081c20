//! The sections about the service itself: events, invites, retries, store, admin port, logs, shutdown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::human::{DurationText, duration};
use crate::config::secret::{Secret, SecretUrl};
use crate::config::secret_path::SecretPath;
use crate::config::secret_source::SecretSource;
use crate::telemetry::setup::LogFormat;

/// How a trucker-created event is read, and what the outgoing event says.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Event {
    /// Event types that are taken; an event without a type is taken too.
    pub types: Vec<String>,
    /// JSON pointers (RFC 6901) to the trucker's primary key; the first that finds something wins.
    pub trucker_pk: Vec<String>,
    /// JSON pointer to the account's name; without it every event is for the account `default`.
    pub account: Option<String>,
    /// The `source` of outgoing events.
    pub source: String,
    /// Trucker fields of the API's answer that the outgoing event carries.
    pub include: Vec<String>,
}

/// How a code is obtained.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Invite {
    /// Whether a code that is already there is replaced or announced.
    pub policy: Policy,
    /// How long after publishing an invite that ever was unknown is read back once more.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub verify_after: Duration,
}

/// What to do about a code that is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Always generate a new code: one POST per trucker.
    Generate,
    /// Read the trucker first, announce the code that is there, generate only when there is none.
    Reuse,
}

/// How failed calls are repeated.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Delay before the second attempt, before jitter.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub base_delay: Duration,
    /// What each further delay is multiplied by.
    #[schemars(range(min = 1.0, max = 100.0))]
    pub factor: f64,
    /// Longest delay.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub max_delay: Duration,
    /// Attempts before an invite needs a person. Outages, throttling and refused tokens do not count.
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: u32,
    /// Age at which an invite needs a person.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub max_age: Duration,
    /// How long a trucker the API does not know is asked for again: the platform may be ahead of Dashdoc.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub not_found_for: Duration,
    /// How often an account whose token is refused is probed, and the longest pause between probes in an outage.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub probe_delay: Duration,
    /// Failures in a row, of connections or with 5xx, after which an account is parked instead of spending attempts.
    #[schemars(range(min = 1, max = 1000))]
    pub circuit_after: u32,
}

/// Where invites are kept.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Address of the store: `sqlite://PATH`, or `postgres://USER@HOST/DATABASE` for several replicas.
    pub url: Option<SecretUrl>,
    /// File that holds the address of the store.
    pub url_file: Option<SecretPath>,
    /// Unfinished invites beyond which no events are taken in: they stay with their sender.
    #[schemars(range(min = 1))]
    pub max_backlog: u64,
    /// File that holds the password of a Postgres store; read again for every new connection.
    pub password_file: Option<SecretPath>,
    /// File with further certificate authorities to trust, for a Postgres store.
    pub ca_file: Option<PathBuf>,
    /// How long a published invite is remembered, so that a repeated event is known; at least 4 days.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub retention: Duration,
    /// How long after publishing the code itself is erased from the store.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub erase_codes_after: Duration,
    /// File with the key of the fingerprints that stay when codes are erased; the store makes one unless set.
    pub fingerprint_key_file: Option<SecretPath>,
}

/// The port for operators: health, metrics, work list.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Address and port of the admin server.
    #[schemars(with = "String", extend("format" = "socket-address"))]
    pub listen: SocketAddr,
    /// Token for everything but health and metrics; required once `listen` is not loopback.
    pub token: Option<Secret>,
    /// File that holds the token.
    pub token_file: Option<SecretPath>,
}

/// Logs. Traces follow the standard `OTEL_*` variables.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged: a level, or directives such as `info,invite_relay::relay=debug`.
    pub log: String,
    /// How often the doctor's checks run within the service; `0s` is never.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub doctor_every: Duration,
}

/// How the process ends.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    /// How long work in hand may take after the first signal; below the pod's termination grace period.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub grace: Duration,
}

impl Store {
    /// Where the store's address is found. A `url_file` puts the default `url` aside.
    pub fn url_source(&self) -> SecretSource {
        SecretSource::of_pair(self.url.as_ref().map(SecretUrl::as_secret), self.url_file.as_ref())
            .expect("the reference has a default for store.url")
    }
}

impl Admin {
    /// Where the token is found, if one is asked for.
    pub fn token_source(&self) -> Option<SecretSource> {
        SecretSource::of_pair(self.token.as_ref(), self.token_file.as_ref())
    }
}
