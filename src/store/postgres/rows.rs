//! Invites as rows, and as columns: a batch is one statement over arrays.

use tokio_postgres::Row;

use crate::invite::{AccountName, Invite, TruckerKey, TruckerPk};
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

    pub(super) fn of<'k>(keys: impl IntoIterator<Item = &'k TruckerKey>) -> Self {
        let mut columns = Self::default();
        keys.into_iter().for_each(|key| columns.push(key));
        columns
    }
}

/// A batch of records, one array for each column.
#[derive(Default)]
pub(super) struct Records {
    pub keys: Keys,
    pub fences: Vec<i64>,
    pub owners: Vec<Option<i64>>,
    pub generations: Vec<i64>,
    pub states: Vec<&'static str>,
    pub lanes: Vec<i16>,
    pub dues: Vec<Option<i64>>,
    pub attempts: Vec<i64>,
    pub tries: Vec<i64>,
    pub ever_unknown: Vec<bool>,
    pub not_found_since: Vec<Option<i64>>,
    pub failure_classes: Vec<Option<&'static str>>,
    pub failure_codes: Vec<Option<String>>,
    pub begun_at: Vec<i64>,
    pub codes: Vec<Option<String>>,
    pub fingerprints: Vec<Option<Vec<u8>>>,
    pub origins: Vec<Option<&'static str>>,
    pub ready_at: Vec<Option<i64>>,
    pub ended_at: Vec<Option<i64>>,
    pub previous: Vec<Option<Vec<u8>>>,
}

impl Records {
    /// Adds `invite` as it is to be written over the version `fence`.
    pub(super) fn push(&mut self, invite: &Invite, fence: u64, owner: Option<i64>) {
        let record = Record::of(invite);
        self.keys.push(&invite.key);
        self.fences.push(i64::try_from(fence).unwrap_or(i64::MAX));
        self.owners.push(owner);
        self.generations.push(record.generation.into());
        self.states.push(record.state);
        self.lanes.push(record.lane.into());
        self.dues.push(record.due);
        self.attempts.push(record.attempts.into());
        self.tries.push(record.tries.into());
        self.ever_unknown.push(record.ever_unknown);
        self.not_found_since.push(record.not_found_since);
        self.failure_classes.push(record.failure_class);
        self.failure_codes.push(record.failure_code);
        self.begun_at.push(record.begun_at);
        self.codes.push(record.code.map(|code| code.0));
        self.fingerprints.push(record.fingerprint.map(|bytes| bytes.to_vec()));
        self.origins.push(record.origin);
        self.ready_at.push(record.ready_at);
        self.ended_at.push(record.ended_at);
        self.previous.push(record.previous.map(|bytes| bytes.to_vec()));
    }

    pub(super) fn len(&self) -> usize {
        self.fences.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fences.is_empty()
    }
}

/// What is written of new invites beside their records.
#[derive(Default)]
pub(super) struct Causes {
    pub accepted_at: Vec<i64>,
    pub event_ids: Vec<String>,
    pub event_sources: Vec<String>,
    pub truckers: Vec<Option<String>>,
    pub traceparents: Vec<Option<String>>,
    pub tracestates: Vec<Option<String>>,
}

impl Causes {
    pub(super) fn push(&mut self, invite: &Invite) {
        self.accepted_at.push(invite.accepted_at.as_millis());
        self.event_ids.push(invite.cause.event_id.clone());
        self.event_sources.push(invite.cause.event_source.clone());
        self.truckers.push(trucker_text(&invite.cause));
        self.traceparents.push(invite.cause.traceparent.clone());
        self.tracestates.push(invite.cause.tracestate.clone());
    }
}

/// Events to be remembered.
#[derive(Default)]
pub(super) struct Events {
    pub keys: Keys,
    pub ids: Vec<String>,
    pub sources: Vec<String>,
}
