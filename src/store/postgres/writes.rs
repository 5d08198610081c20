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

/// How a statement is given its rows.
#[derive(Clone, Copy)]
enum Form {
    /// Each column as an array.
    Arrays,
    /// The values of the only row.
    Values,
}

impl Form {
    fn column<T: ToSql + Sync>(self, values: &Vec<T>) -> &(dyn ToSql + Sync)
    where
        Vec<T>: ToSql,
    {
        match (self, values.as_slice()) {
            (Self::Values, [only]) => only,
            _ => values,
        }
    }
}

/// Writes the rows that are still in the version they were read in; returns their keys, and the clock.
pub(super) async fn updates(
    client: &ClientWrapper,
    statements: &Statements,
    records: &Records,
    from_states: &Vec<&'static str>,
    expected: Option<ExpectedClock>,
) -> Result<Vec<Row>, Error> {
    match records.len() {
        0 => Ok(Vec::new()),
        1 => update(client, &statements.update_one, Form::Values, records, from_states, expected).await,
        _ => update(client, &statements.update, Form::Arrays, records, from_states, expected).await,
    }
}

/// The same for whoever has prepared no more than [`UPDATE`](super::statements::UPDATE), and holds the rows.
pub(super) async fn update_held(
    client: &ClientWrapper,
    statement: &Statement,
    records: &Records,
    from_states: &Vec<&'static str>,
) -> Result<Vec<Row>, Error> {
    update(client, statement, Form::Arrays, records, from_states, None).await
}

async fn update(
    client: &ClientWrapper,
    statement: &Statement,
    form: Form,
    r: &Records,
    from_states: &Vec<&'static str>,
    expected: Option<ExpectedClock>,
) -> Result<Vec<Row>, Error> {
    let (now, off) = (expected.map(|clock| clock.now), expected.map(|clock| clock.off));
    let params: Params<'_> = vec![
        form.column(&r.keys.accounts),
        form.column(&r.keys.pks),
        form.column(&r.fences),
        form.column(&r.owners),
        form.column(&r.generations),
        form.column(&r.states),
        form.column(&r.lanes),
        form.column(&r.dues),
        form.column(&r.attempts),
        form.column(&r.tries),
        form.column(&r.ever_unknown),
        form.column(&r.not_found_since),
        form.column(&r.failure_classes),
        form.column(&r.failure_codes),
        form.column(&r.begun_at),
        form.column(&r.codes),
        form.column(&r.fingerprints),
        form.column(&r.origins),
        form.column(&r.ready_at),
        form.column(&r.ended_at),
        form.column(&r.previous),
        form.column(from_states),
        &now,
        &off,
    ];
    client.query(statement, &params).await
}

/// Writes new invites; returns the keys of those that no other replica was quicker with.
pub(super) async fn inserts(
    client: &ClientWrapper,
    statements: &Statements,
    records: &Records,
    causes: &Causes,
) -> Result<Vec<Row>, Error> {
    if records.is_empty() {
        return Ok(Vec::new());
    }
    client.query(&statements.insert, &new(Form::Arrays, records, causes)).await
}

/// Writes new invites, all or none, if the clock is as expected and none of the truckers is known;
/// returns their keys, and the clock.
pub(super) async fn inserts_unseen(
    client: &ClientWrapper,
    statements: &Statements,
    records: &Records,
    causes: &Causes,
    expected: ExpectedClock,
) -> Result<Vec<Row>, Error> {
    let (statement, form) = match records.len() {
        0 => return Ok(Vec::new()),
        1 => (&statements.insert_one_unseen, Form::Values),
        _ => (&statements.insert_unseen, Form::Arrays),
    };
    let mut params = new(form, records, causes);
    params.extend([&expected.now as &(dyn ToSql + Sync), &expected.off]);
    client.query(statement, &params).await
}

fn new<'a>(form: Form, r: &'a Records, c: &'a Causes) -> Params<'a> {
    vec![
        form.column(&r.keys.accounts),
        form.column(&r.keys.pks),
        form.column(&r.owners),
        form.column(&r.generations),
        form.column(&r.states),
        form.column(&r.lanes),
        form.column(&r.dues),
        form.column(&r.attempts),
        form.column(&r.tries),
        form.column(&r.ever_unknown),
        form.column(&r.not_found_since),
        form.column(&r.failure_classes),
        form.column(&r.failure_codes),
        form.column(&r.begun_at),
        form.column(&r.ended_at),
        form.column(&c.accepted_at),
        form.column(&c.event_ids),
        form.column(&c.event_sources),
        form.column(&c.truckers),
        form.column(&c.traceparents),
        form.column(&c.tracestates),
    ]
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
