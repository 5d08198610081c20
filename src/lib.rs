//! `invite-relay` turns "trucker created" events into Dashdoc invite codes.

pub mod broker;
pub mod invite;
pub mod lifecycle;
pub mod time;
