//! `invite-relay` turns "trucker created" events into Dashdoc invite codes.

pub mod dashdoc;
pub mod invite;
pub mod lifecycle;
pub mod time;
