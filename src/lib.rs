//! `invite-relay` turns "trucker created" events into Dashdoc invite codes: exactly one valid code for each trucker,
//! announced in one event, whatever crashes on the way.
//!
//! The modules in reading order (`ARCHITECTURE.md` has the whole picture):
//!
//! - [`invite`]: the domain, pure: states, [`step`](invite::step), backoff, the gate of an account
//! - [`event`], [`signature`]: what comes in and goes out, and who may send it
//! - [`store`]: where every event lives until it is published
//! - [`dashdoc`]: the API: its client, the meaning of its answers, a simulator of it
//! - [`broker`]: RabbitMQ; the only module that knows the client library
//! - [`source`], [`sink`]: the ways in and out
//! - [`relay`]: the shell that carries out what `invite` decides
//! - [`http`], [`telemetry`], [`config`], [`lifecycle`], [`crash`], [`time`]: what every service needs
//! - [`app`], [`cli`]: the parts put together, and the commands

pub mod app;
pub mod broker;
pub mod cli;
pub mod config;
pub mod crash;
pub mod dashdoc;
pub mod doctor;
pub mod event;
pub mod http;
pub mod invite;
pub mod lifecycle;
pub mod relay;
pub mod signature;
pub mod sink;
pub mod source;
pub mod store;
pub mod telemetry;
pub mod time;
