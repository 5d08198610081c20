//! Reads, on a connection of their own, so that a list never holds up a commit.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use super::unavailable;
use crate::invite::{
    AccountName, Failure, FailureClass, Gate, GateReason, Invite, StateName, TruckerKey, TruckerPk,
};
use crate::store::oldest::Found;
use crate::store::order::OrderKind;
use crate::store::record::{CodeText, Record, StoredInvite};
use crate::store::{DeadCause, Error, Filter, OrderRecord, SeenEvent, Selection, Story};
use crate::time::Timestamp;

/// Different causes of death that are told apart: more is no list that a person reads.
const CAUSES_MAX: i64 = 1000;

/// The columns that [`invite_of`] reads, in its order.
pub(super) const COLUMNS: &str = "account, pk, generation, fence, state, lane, due, attempts, tries, ever_unknown, \
     not_found_since, failure_class, failure_code, accepted_at, begun_at, code, fingerprint, origin, ready_at, \
     ended_at, event_id, event_source, trucker, traceparent, tracestate, previous";

/// Whether the last failure is the one that parameter 4 names; see [`order::is_cause`](crate::store::order::is_cause).
pub(super) const IS_CAUSE: &str =
    "(failure_code = ?4 OR failure_class = ?4 OR failure_class || '/' || failure_code = ?4)";

/// A read-only connection.
pub(super) struct Reader(Mutex<Connection>);

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| {
            Error::Open(format!(
                "can't read the store {}: {error}; it is made by the first `invite-relay serve`",
                path.display()
            ))
        })?;
        connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(|error| unavailable(&error))?;
        Ok(Self(Mutex::new(connection)))
    }

    pub(super) fn run<T>(&self, query: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        query(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads one row of [`COLUMNS`].
pub(super) fn invite_of(row: &Row<'_>) -> rusqlite::Result<StoredInvite> {
    let account: String = row.get(0)?;
    let pk: u64 = row.get(1)?;
    let bad =
        |column, error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error);
    Ok(StoredInvite {
        key: TruckerKey {
            account: account.parse::<AccountName>().map_err(|error| bad(0, Box::new(error)))?,
            pk: TruckerPk::try_from(pk).map_err(|error| bad(1, Box::new(error)))?,
        },
        fence: row.get(3)?,
        accepted_at: row.get(13)?,
        state: row.get(4)?,
        failure_class: row.get(11)?,
        origin: row.get(17)?,
        trucker: row.get(22)?,
        event_id: row.get(20)?,
        event_source: row.get(21)?,
        traceparent: row.get(23)?,
        tracestate: row.get(24)?,
        record: Record {
            generation: row.get(2)?,
            lane: row.get(5)?,
            due: row.get(6)?,
            attempts: row.get(7)?,
            tries: row.get(8)?,
            ever_unknown: row.get(9)?,
            not_found_since: row.get(10)?,
            failure_code: row.get(12)?,
            begun_at: row.get(14)?,
            code: row.get::<_, Option<String>>(15)?.map(CodeText),
            fingerprint: row.get(16)?,
            ready_at: row.get(18)?,
            ended_at: row.get(19)?,
            previous: row.get(25)?,
            ..Record::default()
        },
    })
}

pub(super) fn show(db: &Connection, key: &TruckerKey) -> Result<Option<Story>, Error> {
    let query = format!("SELECT {COLUMNS}, seq FROM invites WHERE account = ?1 AND pk = ?2");
    let found = db
        .query_row(&query, params![key.account.as_str(), key.pk.get()], |row| {
            Ok((invite_of(row)?, row.get::<_, i64>(26)?))
        })
        .optional()
        .map_err(|error| unavailable(&error))?;
    let Some((stored, seq)) = found else { return Ok(None) };
    let first = SeenEvent {
        id: stored.event_id.clone(),
        source: stored.event_source.clone(),
        accepted_at: Timestamp::from_millis(stored.accepted_at),
    };
    // What an earlier version wrote has the first one among those that joined as well.
    let joined = "SELECT id, source, accepted_at FROM events \
         WHERE invite = ?1 AND NOT (id = ?2 AND source = ?3) ORDER BY seq";
    let joined: rusqlite::Result<Vec<SeenEvent>> = db.prepare_cached(joined).and_then(|mut statement| {
        let rows = statement.query_map(params![seq, first.id, first.source], |row| {
            Ok(SeenEvent {
                id: row.get(0)?,
                source: row.get(1)?,
                accepted_at: Timestamp::from_millis(row.get(2)?),
            })
        })?;
        rows.collect()
    });
    let joined = joined.map_err(|error| unavailable(&error))?;
    let events = std::iter::once(first).chain(joined).collect();
    Ok(Some(Story { invite: stored.into_invite()?, events }))
}

pub(super) fn list(db: &Connection, filter: &Filter) -> Result<Vec<Invite>, Error> {
    let query = format!(
        "SELECT {COLUMNS} FROM invites WHERE (?1 IS NULL OR state = ?1) AND (?2 IS NULL OR account = ?2) AND \
         (?4 IS NULL OR {IS_CAUSE}) ORDER BY seq DESC LIMIT ?3"
    );
    let state = filter.state.map(StateName::as_str);
    let account = filter.account.as_ref().map(AccountName::as_str);
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let rows: rusqlite::Result<Vec<StoredInvite>> = db.prepare_cached(&query).and_then(|mut statement| {
        statement.query_map(params![state, account, limit, filter.cause], invite_of)?.collect()
    });
    let rows = rows.map_err(|error| unavailable(&error))?;
    rows.into_iter().map(|row| row.into_invite().map_err(Error::from)).collect()
}

pub(super) fn causes(db: &Connection, which: &Selection) -> Result<Vec<DeadCause>, Error> {
    let query = format!(
        "SELECT account, failure_class, failure_code, count(*), min(ended_at), max(ended_at) FROM invites \
         WHERE state = 'dead' AND (?1 IS NULL OR account = ?1) AND (?2 IS NULL OR pk = ?2) AND \
         (?4 IS NULL OR {IS_CAUSE}) GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT ?3"
    );
    let (account, pk) = owner_of(which);
    let rows = db.prepare_cached(&query).and_then(|mut statement| {
        let rows = statement.query_map(params![account, pk, CAUSES_MAX, which.cause], |row| {
            let (account, class): (String, String) = (row.get(0)?, row.get(1)?);
            let (Ok(account), Some(class)) = (account.parse(), FailureClass::from_stored(&class)) else {
                return Ok(None);
            };
            Ok(Some(DeadCause {
                account,
                failure: Failure { class, code: row.get(2)? },
                count: row.get(3)?,
                first: Timestamp::from_millis(row.get(4)?),
                last: Timestamp::from_millis(row.get(5)?),
            }))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    });
    Ok(rows.map_err(|error| unavailable(&error))?.into_iter().flatten().collect())
}

/// Account and key as parameters.
pub(super) fn owner_of(which: &Selection) -> (Option<&str>, Option<u64>) {
    match &which.invite {
        Some(key) => (Some(key.account.as_str()), Some(key.pk.get())),
        None => (which.account.as_ref().map(AccountName::as_str), None),
    }
}

pub(super) fn orders(db: &Connection, limit: usize) -> Result<Vec<OrderRecord>, Error> {
    let query = "SELECT id, at, by, kind, target, count FROM orders ORDER BY seq DESC LIMIT ?1";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = db.prepare_cached(query).and_then(|mut statement| {
        let rows = statement.query_map([limit], |row| {
            let (id, by, kind): (String, String, String) = (row.get(0)?, row.get(2)?, row.get(3)?);
            let (Ok(id), Ok(by), Some(kind)) = (id.parse(), by.parse(), OrderKind::from_stored(&kind)) else {
                return Ok(None);
            };
            let at = Timestamp::from_millis(row.get(1)?);
            Ok(Some(OrderRecord { id, at, by, kind, target: row.get(4)?, count: row.get(5)? }))
        })?;
        rows.collect::<rusqlite::Result<Vec<_>>>()
    });
    Ok(rows.map_err(|error| unavailable(&error))?.into_iter().flatten().collect())
}

pub(super) fn gates(db: &Connection) -> Result<Vec<(AccountName, Gate)>, Error> {
    let rows: rusqlite::Result<Vec<(String, String, i64, u32)>> =
        db.prepare_cached("SELECT account, reason, until, strikes FROM gates").and_then(|mut statement| {
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?.collect()
        });
    let known = |(account, reason, until, strikes): (String, String, i64, u32)| {
        let reason = GateReason::from_stored(&reason)?;
        let until = Timestamp::from_millis(until);
        Some((account.parse().ok()?, Gate::Closed { reason, until, strikes }))
    };
    Ok(rows.map_err(|error| unavailable(&error))?.into_iter().filter_map(known).collect())
}

/// When the oldest unfinished invite of each account and state was accepted.
pub(super) fn oldest(db: &Connection) -> Result<Found, Error> {
    // Both queries run over partial indexes: over what is unfinished, not over what is stored.
    let query = "SELECT account, state, min(accepted_at) FROM invites WHERE lane = 8 GROUP BY account, state \
         UNION ALL \
         SELECT account, state, min(accepted_at) FROM invites WHERE lane BETWEEN 1 AND 7 GROUP BY account, state";
    let rows = db.prepare_cached(query).and_then(|mut statement| {
        let at = |row: &Row<'_>| row.get(2).map(Timestamp::from_millis);
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, at(row)?)))?.collect()
    });
    rows.map_err(|error| unavailable(&error))
}
