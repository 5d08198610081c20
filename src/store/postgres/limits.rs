//! How long anything may take. A store that hangs must look like a store that is away.

use std::time::Duration;

/// Until a connection is there, with its login.
pub(super) const CONNECT: Duration = Duration::from_secs(5);
/// Until a connection that is there answers a question of no consequence.
pub(super) const LOOK: Duration = Duration::from_secs(2);
/// A connection that is silent for this long is probed.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(10);
/// A whole transaction as we see it; beyond, its connection is given up. Longer than the server's own limits, which
/// give a better reason, and well below a lease.
pub(super) const ROUND: Duration = Duration::from_secs(12);
/// The server's own limits: one statement, the wait for a lock, and a transaction whose client has gone silent.
pub(super) const SESSION: &str = "SET statement_timeout = '10s'; SET lock_timeout = '5s'; \
     SET idle_in_transaction_session_timeout = '10s'";
