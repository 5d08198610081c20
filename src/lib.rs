//! `invite-relay` turns "trucker created" events into Dashdoc invite codes.

pub mod crash;
pub mod dashdoc;
pub mod event;
pub mod http;
pub mod invite;
pub mod lifecycle;
pub mod signature;
pub mod store;
pub mod telemetry;
pub mod time;
