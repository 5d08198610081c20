//! `invite-relay` turns "trucker created" events into Dashdoc invite codes.

pub mod http;
pub mod invite;
pub mod lifecycle;
pub mod telemetry;
pub mod time;
