//! Invites as rows, to read and to write.

use std::fmt;

use postgres_types::ToSql;
use tokio_postgres::Row;

use crate::invite::{AccountName, Invite, StateName, TruckerKey, TruckerPk};
use crate::store::Error;
use crate::store::record::{CodeText, Record, StoredInvite, trucker_text};

/// The columns that [`invite_of`] reads, in its order.
pub(super) const COLUMNS: &str = "account, pk, generation, fence, state, lane, due, attempts, tries, ever_unknown, \
     not_found_since, failure_class, failure_code, accepted_at, begun_at, code, fingerprint, origin, ready_at, \
     ended_at, event_id, event_source, trucker, traceparent, tracestate, previous";

/// Milliseconds since the epoch, on the server's clock, at this very moment.
macro_rules! clock {
    () => {
        "floor(extract(epoch FROM clock_timestamp()) * 1000)::int8"
    };
}
/// The same at the beginning of the statement: constant within it, so that an index can be searched for it.
macro_rules! statement_clock {
    () => {
        "floor(extract(epoch FROM statement_timestamp()) * 1000)::int8"
    };
}
pub(super) use {clock, statement_clock};

/// A row that can't be read: which one, in which version, and why.
pub(super) struct Damaged {
    pub key: Option<TruckerKey>,
    pub fence: i64,
    pub error: Error,
}

/// Reads one row of [`COLUMNS`].
pub(super) fn invite_of(row: &Row) -> Result<Invite, Error> {
    readable(row).map_err(|damaged| damaged.error)
}

/// Like [`invite_of`], for whoever can leave a damaged row aside.
pub(super) fn readable(row: &Row) -> Result<Invite, Damaged> {
    let damaged = |error| Damaged { key: key_of(row), fence: row.try_get(3).unwrap_or_default(), error };
    let stored = stored(row)
        .map_err(|column| damaged(Error::Unavailable(format!("a row can't be read: column {column}"))))?;
    stored.into_invite().map_err(|error| damaged(error.into()))
}

fn stored(row: &Row) -> Result<StoredInvite, &'static str> {
    macro_rules! get {
        ($index:literal) => {
            row.try_get($index).map_err(|_| COLUMNS.split(", ").nth($index).unwrap_or_default())?
        };
    }
    let print = |bytes: Option<&[u8]>, column| bytes.map(|it| it.try_into().map_err(|_| column)).transpose();
    let (generation, attempts, tries): (i64, i64, i64) = (get!(2), get!(7), get!(8));
    let (fence, lane): (i64, i16) = (get!(3), get!(5));
    let code: Option<String> = get!(15);
    let small = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
    Ok(StoredInvite {
        key: key_of(row).ok_or("account, pk")?,
        fence: fence.unsigned_abs(),
        accepted_at: get!(13),
        state: get!(4),
        failure_class: get!(11),
        origin: get!(17),
        trucker: get!(22),
        event_id: get!(20),
        event_source: get!(21),
        traceparent: get!(23),
        tracestate: get!(24),
        record: Record {
            generation: small(generation),
            lane: u8::try_from(lane).map_err(|_| "lane")?,
            due: get!(6),
            attempts: small(attempts),
            tries: small(tries),
            ever_unknown: get!(9),
            not_found_since: get!(10),
            failure_code: get!(12),
            begun_at: get!(14),
            code: code.map(CodeText),
            fingerprint: print(get!(16), "fingerprint")?,
            ready_at: get!(18),
            ended_at: get!(19),
            previous: print(get!(25), "previous")?,
            ..Record::default()
        },
    })
}

/// The key in the first two columns.
pub(super) fn key_of(row: &Row) -> Option<TruckerKey> {
    let account: &str = row.try_get(0).ok()?;
    let pk: i64 = row.try_get(1).ok()?;
    let account: AccountName = account.parse().ok()?;
    Some(TruckerKey { account, pk: TruckerPk::try_from(u64::try_from(pk).ok()?).ok()? })
}

/// A pk as the database keeps it.
pub(super) fn stored_pk(key: &TruckerKey) -> i64 {
    i64::try_from(key.pk.get()).expect("a pk fits 63 bits")
}

/// Keys as two arrays.
#[derive(Default)]
pub(super) struct Keys {
    pub accounts: Vec<String>,
    pub pks: Vec<i64>,
}

impl Keys {
    pub(super) fn push(&mut self, key: &TruckerKey) {
        self.accounts.push(key.account.as_str().to_owned());
        self.pks.push(stored_pk(key));
    }

    /// The keys in the first two columns, as they are stored.
    pub(super) fn in_rows(rows: &[Row]) -> Self {
        Self {
            accounts: rows.iter().map(|row| row.get(0)).collect(),
            pks: rows.iter().map(|row| row.get(1)).collect(),
        }
    }

    pub(super) fn of<'k>(keys: impl IntoIterator<Item = &'k TruckerKey>) -> Self {
        let mut columns = Self::default();
        keys.into_iter().for_each(|key| columns.push(key));
        columns
    }
}

/// A new invite with the event that it is made for. The type of this name in the database has the same fields: a batch is
/// one array of it.
#[derive(ToSql)]
#[postgres(name = "new_invite")]
pub(super) struct NewInvite {
    account: String,
    pk: i64,
    owner: Option<i64>,
    generation: i64,
    state: &'static str,
    lane: i16,
    due: Option<i64>,
    attempts: i64,
    tries: i64,
    ever_unknown: bool,
    not_found_since: Option<i64>,
    failure_class: Option<&'static str>,
    failure_code: Option<String>,
    accepted_at: i64,
    begun_at: i64,
    ended_at: Option<i64>,
    event_id: String,
    event_source: String,
    trucker: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
}

impl NewInvite {
    pub(super) fn of(invite: &Invite, owner: Option<i64>) -> Self {
        let record = Record::of(invite);
        let cause = &invite.cause;
        Self {
            account: invite.key.account.as_str().to_owned(),
            pk: stored_pk(&invite.key),
            owner,
            generation: record.generation.into(),
            state: record.state,
            lane: record.lane.into(),
            due: record.due,
            attempts: record.attempts.into(),
            tries: record.tries.into(),
            ever_unknown: record.ever_unknown,
            not_found_since: record.not_found_since,
            failure_class: record.failure_class,
            failure_code: record.failure_code,
            accepted_at: invite.accepted_at.as_millis(),
            begun_at: record.begun_at,
            ended_at: record.ended_at,
            event_id: cause.event_id.clone(),
            event_source: cause.event_source.clone(),
            trucker: trucker_text(cause),
            traceparent: cause.traceparent.clone(),
            tracestate: cause.tracestate.clone(),
        }
    }
}

/// An invite as it is to be written over the version `fence`. Like [`NewInvite`], an array of a type of this name.
#[derive(ToSql)]
#[postgres(name = "moved_invite")]
pub(super) struct MovedInvite {
    account: String,
    pk: i64,
    fence: i64,
    from_state: &'static str,
    owner: Option<i64>,
    generation: i64,
    state: &'static str,
    lane: i16,
    due: Option<i64>,
    attempts: i64,
    tries: i64,
    ever_unknown: bool,
    not_found_since: Option<i64>,
    failure_class: Option<&'static str>,
    failure_code: Option<String>,
    begun_at: i64,
    code: Option<String>,
    fingerprint: Option<Vec<u8>>,
    previous: Option<Vec<u8>>,
    origin: Option<&'static str>,
    ready_at: Option<i64>,
    ended_at: Option<i64>,
}

impl MovedInvite {
    /// `invite`, which was in the state `from` in the version `fence`.
    pub(super) fn of(invite: &Invite, from: StateName, fence: u64, owner: Option<i64>) -> Self {
        let record = Record::of(invite);
        Self {
            account: invite.key.account.as_str().to_owned(),
            pk: stored_pk(&invite.key),
            fence: i64::try_from(fence).unwrap_or(i64::MAX),
            from_state: from.as_str(),
            owner,
            generation: record.generation.into(),
            state: record.state,
            lane: record.lane.into(),
            due: record.due,
            attempts: record.attempts.into(),
            tries: record.tries.into(),
            ever_unknown: record.ever_unknown,
            not_found_since: record.not_found_since,
            failure_class: record.failure_class,
            failure_code: record.failure_code,
            begun_at: record.begun_at,
            code: record.code.map(|code| code.0),
            fingerprint: record.fingerprint.map(|bytes| bytes.to_vec()),
            previous: record.previous.map(|bytes| bytes.to_vec()),
            origin: record.origin,
            ready_at: record.ready_at,
            ended_at: record.ended_at,
        }
    }
}

/// The driver writes parameters to its debug log: neither the trucker's fields nor a code.
macro_rules! shown_by_its_key {
    ($($row:ty),+) => {
        $(impl fmt::Debug for $row {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", self.account, self.pk)
            }
        })+
    };
}
shown_by_its_key!(NewInvite, MovedInvite);

/// Events to be remembered.
#[derive(Default)]
pub(super) struct Events {
    pub keys: Keys,
    pub ids: Vec<String>,
    pub sources: Vec<String>,
}
