//! What a group writes, as parameters of its statements.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row, Statement};

use super::clock::JUMP;
use super::rows::{Causes, Events, Records};
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
    r: &Records,
    from_states: &Vec<&'static str>,
    shard: i16,
    expected: Option<ExpectedClock>,
) -> Result<Vec<Row>, Error> {
    if r.is_empty() {
        return Ok(Vec::new());
    }
    let (now, off) = (expected.map(|clock| clock.now), expected.map(|clock| clock.off));
    let params: Params<'_> = vec![
        &r.keys.accounts,
        &r.keys.pks,
        &r.fences,
        &r.owners,
        &r.generations,
        &r.states,
        &r.lanes,
        &r.dues,
        &r.attempts,
        &r.tries,
        &r.ever_unknown,
        &r.not_found_since,
        &r.failure_classes,
        &r.failure_codes,
        &r.begun_at,
        &r.codes,
        &r.fingerprints,
        &r.origins,
        &r.ready_at,
        &r.ended_at,
        &r.previous,
        from_states,
        &shard,
        &now,
        &off,
    ];
    client.query(statement, &params).await
}

/// Writes new invites; returns the keys of those that no other replica was quicker with. With an expected clock, all
/// or none together with their events, and the clock is returned too.
pub(super) async fn inserts(
    client: &ClientWrapper,
    statements: &Statements,
    r: &Records,
    c: &Causes,
    shard: i16,
    expected: Option<ExpectedClock>,
) -> Result<Vec<Row>, Error> {
    if r.is_empty() {
        return Ok(Vec::new());
    }
    let mut params: Params<'_> = vec![
        &r.keys.accounts,
        &r.keys.pks,
        &r.owners,
        &r.generations,
        &r.states,
        &r.lanes,
        &r.dues,
        &r.attempts,
        &r.tries,
        &r.ever_unknown,
        &r.not_found_since,
        &r.failure_classes,
        &r.failure_codes,
        &r.begun_at,
        &r.ended_at,
        &c.accepted_at,
        &c.event_ids,
        &c.event_sources,
        &c.truckers,
        &c.traceparents,
        &c.tracestates,
        &shard,
    ];
    let Some(clock) = &expected else { return client.query(&statements.insert, &params).await };
    params.extend([&clock.now as &(dyn ToSql + Sync), &clock.off]);
    client.query(&statements.insert_unseen, &params).await
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
