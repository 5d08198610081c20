//! The JSON Schemas of the events (draft 2020-12), as shipped in `schemas/` and shown in the API documents.

/// Incoming `trucker.created`, in the forms that the default rules take.
pub const TRUCKER_CREATED: &str = include_str!("../../schemas/trucker.created.json");

/// Outgoing `invite.ready`.
pub const INVITE_READY: &str = include_str!("../../schemas/invite.ready.json");

/// Outgoing `invite.failed`.
pub const INVITE_FAILED: &str = include_str!("../../schemas/invite.failed.json");

#[cfg(test)]
mod tests;
