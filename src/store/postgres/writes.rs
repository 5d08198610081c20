//! What a group writes, as parameters of its statements.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};

use super::clock::JUMP;
use super::rows::{Events, MovedInvite, NewInvite};
use super::statements::Statements;
use crate::time::Timestamp;

pub(super) type Params<'a> = Vec<&'a (dyn ToSql + Sync)>;

/// The clock that was decided by, for the server to compare with its own.
#[derive(Clone, Copy)]
pub(super) struct ExpectedClock {
    now: i64,
    off: i64,
}

impl ExpectedClock {
    /// The server's clock shows about this, unless it was set.
    pub(super) fn about(now: Timestamp) -> Self {
        Self { now: now.as_millis(), off: i64::try_from(JUMP.as_millis()).unwrap_or(i64::MAX) }
    }
}

/// Writes the rows that are still in the version they were read in; returns their keys, and the clock.
pub(super) async fn updates(
    client: &ClientWrapper,
    statement: &Statement,
    moved: &Vec<MovedInvite>,
    expected: Option<ExpectedClock>,
) -> Result<Vec<Row>, Error> {
    if moved.is_empty() {
        return Ok(Vec::new());
    }
    let (now, off) = (expected.map(|clock| clock.now), expected.map(|clock| clock.off));
    client.query(statement, &[moved, &now, &off]).await
}

/// Writes new invites; returns the keys of those that no other replica was quicker with.
pub(super) async fn inserts(
    client: &ClientWrapper,
    statements: &Statements,
    new: &Vec<NewInvite>,
) -> Result<Vec<Row>, Error> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    client.query(&statements.insert, &[new]).await
}

/// Writes new invites, all or none, if the clock is as expected and none of the truckers is known;
/// returns their keys, and the clock.
pub(super) async fn inserts_unseen(
    client: &ClientWrapper,
    statements: &Statements,
    new: &Vec<NewInvite>,
    expected: ExpectedClock,
) -> Result<Vec<Row>, Error> {
    if new.is_empty() {
        return Ok(Vec::new());
    }
    client.query(&statements.insert_unseen, &[new, &expected.now, &expected.off]).await
}

/// Remembers events; returns those that were not known.
pub(super) async fn events(
    client: &ClientWrapper,
    statements: &Statements,
    e: &Events,
    now: Timestamp,
) -> Result<Vec<Row>, Error> {
    if e.ids.is_empty() {
        return Ok(Vec::new());
    }
    let now = now.as_millis();
    let params: Params<'_> = vec![&e.keys.accounts, &e.keys.pks, &e.ids, &e.sources, &now];
    client.query(&statements.remember, &params).await
}
