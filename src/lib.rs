//! `invite-relay` turns "trucker created" events into Dashdoc invite codes.

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
