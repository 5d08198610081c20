//! What people ask for: dead invites back to work, new codes. Each order and its record are one transaction.

use rusqlite::{Connection, OptionalExtension as _, params};
use uuid::Uuid;

use super::commands::advance;
use super::{Context, row_of};
use crate::invite::{Input, State, TruckerKey};
use crate::store::Error;
use crate::store::order::{Operator, OrderKind, Redrive, Redriven, Reissued};
use crate::store::record::StoredInvite;
use crate::store::sqlite::reader::{COLUMNS, IS_CAUSE, invite_of, owner_of};
use crate::store::sqlite::unavailable;
use crate::time;

pub(super) fn redrive(db: &Connection, context: &mut Context, order: &Redrive) -> Result<Redriven, Error> {
    // The longest dead first; by the index over the dead, not by a sort of all rows.
    let query = format!(
        "SELECT {COLUMNS} FROM invites WHERE state = 'dead' AND (?1 IS NULL OR account = ?1) AND \
         (?2 IS NULL OR pk = ?2) AND (?4 IS NULL OR {IS_CAUSE}) ORDER BY ended_at LIMIT ?3"
    );
    let (account, pk) = owner_of(&order.which);
    let limit = i64::try_from(order.limit).unwrap_or(i64::MAX);
    let rows: rusqlite::Result<Vec<StoredInvite>> = db.prepare_cached(&query).and_then(|mut statement| {
        statement.query_map(params![account, pk, limit, order.which.cause], invite_of)?.collect()
    });
    let now = time::now();
    let mut redriven = Redriven { count: 0, last_due: order.after };
    for row in rows.map_err(|error| unavailable(&error))? {
        let due = redriven.last_due.map_or(now, |last| last.after(order.spacing).max(now));
        advance(db, context, row.into_invite()?, Input::Redrive { due })?;
        redriven.count += 1;
        redriven.last_due = Some(due);
    }
    record(db, order.id, &order.by, OrderKind::Redrive, &order.which.to_string(), redriven.count)?;
    Ok(redriven)
}

pub(super) fn reissue(
    db: &Connection,
    context: &mut Context,
    key: &TruckerKey,
    by: &Operator,
) -> Result<Reissued, Error> {
    let query = format!("SELECT {COLUMNS} FROM invites WHERE account = ?1 AND pk = ?2");
    let found = db
        .prepare_cached(&query)
        .and_then(|mut statement| statement.query_row(row_of(key), invite_of).optional())
        .map_err(|error| unavailable(&error))?;
    let Some(found) = found else { return Ok(Reissued::Unknown) };
    let invite = found.into_invite()?;
    let State::Published { .. } = invite.state else {
        return Ok(Reissued::NotPublished(invite.state.name()));
    };
    let begun = advance(db, context, invite, Input::Reissue)?.invite;
    record(db, Uuid::now_v7(), by, OrderKind::Reissue, &key.to_string(), 1)?;
    Ok(Reissued::Begun(Box::new(begun)))
}

fn record(
    db: &Connection,
    id: Uuid,
    by: &Operator,
    kind: OrderKind,
    target: &str,
    count: usize,
) -> Result<(), Error> {
    let sql = "INSERT INTO orders (id, at, by, kind, target, count) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (id) DO UPDATE SET count = count + excluded.count";
    let run = db.prepare_cached(sql).and_then(|mut statement| {
        statement.execute(params![
            id.to_string(),
            time::now().as_millis(),
            by.as_str(),
            kind.as_str(),
            target,
            count
        ])
    });
    run.map(drop).map_err(|error| unavailable(&error))
}
