//! Configuration: typed sections out of layers, every problem at once, secrets that never show.
//!
//! Four layers, later ones win: the embedded reference `config/default.toml`, one TOML file, the environment
//! (`INVITE_RELAY__SECTION__KEY`) and flags (`--set key.path=VALUE`). Each value remembers where it came from.
//!
//! In reading order: [`load()`] is the whole path from layers to [`Loaded`]; `section` holds the typed result;
//! `layer` collects values and their origins; `shape` knows which keys exist, from the sections' JSON Schema;
//! `check` holds the rules no type can express; `show` prints the outcome. [`Secret`], [`SecretSource`] and
//! [`SecretFiles`] are how a secret is held, found and followed when its file changes.
//!
//! Relative paths are relative to the working directory. [`load()`] never reads the process environment; the
//! caller passes it in, most often from [`environment`].

mod check;
mod human;
mod layer;
mod load;
mod origin;
mod problem;
mod reference;
mod schema;
mod secret;
mod secret_path;
mod secret_source;
mod section;
mod shape;
mod show;
mod suggest;
mod watch;

pub use human::{ByteSize, DurationText};
pub use layer::ENV_PREFIX;
pub use load::{Loaded, Sources, environment, load};
pub use origin::{Origin, Origins};
pub use problem::{Problem, Problems};
pub use reference::REFERENCE;
pub use schema::schema;
pub use secret::{Secret, SecretUrl};
pub use secret_path::SecretPath;
pub use secret_source::{SecretError, SecretListSource, SecretSource};
pub use section::Config;
pub use section::dashdoc::{Account, AccountQueue, AccountSection, AccountWebhook, Dashdoc};
pub use section::service::{Admin, Event, Invite, Policy, Retry, Shutdown, Store, Telemetry};
pub use section::sink::{RabbitMqSink, Sink, StdoutSink, WebhookSink};
pub use section::source::{QueueType, RabbitMqSource, Source, Topology, WebhookSource};
pub use show::{show, show_json};
pub use watch::{POLL_INTERVAL, Reread, SecretFiles, SecretListWatch, SecretWatch, Watched};
