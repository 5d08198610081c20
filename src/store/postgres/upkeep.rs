//! Writes that are rare, each a transaction of its own: gates, erasing and retiring, giving work back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::{Client, Transaction};

use super::connect::unavailable;
use super::hints::Hints;
use super::reader::gate_of;
use super::rows::{Keys, clock};
use crate::crash::{self, Point};
use crate::invite::{AccountName, Gate};
use crate::store::{Error, GateDecision, REPLICA_SILENT, Tidied};
use crate::time::Timestamp;

/// Rows that one portion of tidying looks at: bounds how long it holds its locks.
const TIDY_PORTION: i64 = 500;
/// Notes that are summed up at once: bounds how long that takes the server.
const SUM_UP_PORTION: i64 = 5_000;

type Outcome<T> = Result<T, tokio_postgres::Error>;

/// The advisory lock of whoever sums up.
const SUMMING_UP: i64 = 0x6972_7703;
/// Another, for each account: one decision about its gate at a time, also if that has no row.
const GATES: i32 = 0x6972_7702;

pub(super) async fn move_gate(
    client: &mut Client,
    account: &AccountName,
    decide: &GateDecision,
) -> Result<Gate, Error> {
    let moved = async {
        let transaction = client.transaction().await?;
        let lock = "SELECT pg_advisory_xact_lock($1, hashtext($2))";
        transaction.execute(lock, &[&GATES, &account.as_str()]).await?;
        let query = concat!(
            "SELECT reason, until, strikes, ",
            clock!(),
            " FROM (SELECT 1) AS one \
             LEFT JOIN gates ON account = $1"
        );
        let row = transaction.query_one(query, &[&account.as_str()]).await?;
        let kept = gate_of(row.get(0), row.get(1), row.get(2));
        let Some(gate) = decide(kept, Timestamp::from_millis(row.get(3))) else { return Ok(kept) };
        match gate {
            Gate::Open => {
                transaction.execute("DELETE FROM gates WHERE account = $1", &[&account.as_str()]).await?;
            }
            Gate::Closed { reason, until, strikes } => {
                let sql = "INSERT INTO gates (account, reason, until, strikes) VALUES ($1, $2, $3, $4) \
                     ON CONFLICT (account) DO UPDATE SET reason = $2, until = $3, strikes = $4";
                let (until, strikes) = (until.as_millis(), i64::from(strikes));
                transaction.execute(sql, &[&account.as_str(), &reason.as_str(), &until, &strikes]).await?;
            }
        }
        crash::pass(Point::GateCommit);
        transaction.commit().await?;
        crash::pass(Point::GateCommit);
        Ok(gate)
    };
    moved.await.map_err(|error: tokio_postgres::Error| unavailable(&error))
}

/// Where the sweep for old rows goes on.
#[derive(Default)]
pub(super) struct Cursor(Mutex<Position>);

/// After this `ended_at` and `seq`.
type Position = (i64, i64);

/// Ages after which something is done.
#[derive(Clone, Copy)]
pub(super) struct Ages {
    pub erase_codes_after: Duration,
    pub retention: Duration,
}

pub(super) async fn tidy(client: &mut Client, ages: Ages, cursor: &Cursor) -> Result<Tidied, Error> {
    let tidied = async {
        let transaction = client.transaction().await?;
        let now = transaction.query_one(concat!("SELECT ", clock!()), &[]).await?;
        let now = Timestamp::from_millis(now.get(0));
        let pulse = "INSERT INTO pulse VALUES (1, $1) ON CONFLICT (one) DO UPDATE SET at = excluded.at";
        transaction.execute(pulse, &[&now.as_millis()]).await?;
        let codes = erase(&transaction, before(now, ages.erase_codes_after)).await?;
        let (invites, unread, next) = retire(&transaction, before(now, ages.retention), cursor).await?;
        crash::pass(Point::TidyCommit);
        transaction.commit().await?;
        crash::pass(Point::TidyCommit);
        *cursor.0.lock().unwrap_or_else(PoisonError::into_inner) = next;
        let more = unread || i64::try_from(codes).is_ok_and(|codes| codes == TIDY_PORTION);
        Ok(Tidied { codes: usize::try_from(codes).unwrap_or(usize::MAX), invites, more })
    };
    tidied.await.map_err(|error: tokio_postgres::Error| unavailable(&error))
}

fn before(now: Timestamp, age: Duration) -> i64 {
    now.as_millis().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}

async fn erase(transaction: &Transaction<'_>, before: i64) -> Outcome<u64> {
    // Several replicas tidy: what one has in hand, the others leave alone.
    let sql = "UPDATE invites SET code = NULL, fence = fence + 1 WHERE (pk, account) IN (SELECT pk, account FROM invites \
         WHERE state = 'published' AND code IS NOT NULL AND ended_at <= $1 ORDER BY ended_at LIMIT $2 \
         FOR UPDATE SKIP LOCKED)";
    transaction.execute(sql, &[&before, &TIDY_PORTION]).await
}

/// Removes published invites that are past the retention, with all their events, a portion at a time. A younger event
/// keeps its invite: its sender may still repeat it. The cursor passes over those, and begins anew at the end.
/// Returns how many, whether there are rows left to look at, and where to go on.
async fn retire(
    transaction: &Transaction<'_>,
    before: i64,
    cursor: &Cursor,
) -> Outcome<(usize, bool, Position)> {
    let portion = "SELECT account, pk, ended_at, seq FROM invites WHERE state = 'published' AND lane = 0 \
         AND ended_at <= $3 AND (ended_at, seq) > ($1, $2) ORDER BY ended_at, seq LIMIT $4";
    let (ended, seq) = *cursor.0.lock().unwrap_or_else(PoisonError::into_inner);
    let portion = transaction.query(portion, &[&ended, &seq, &before, &TIDY_PORTION]).await?;
    let old = Keys::in_rows(&portion);
    let mut removed = 0;
    if !old.pks.is_empty() {
        // An event that is joining one of them right now holds its row, so that one is left out. Whoever comes later
        // waits, and finds the trucker retired.
        let lock = "SELECT i.account, i.pk FROM invites i JOIN unnest($1::text[], $2::int8[]) AS k(account, pk) \
             ON i.account = k.account AND i.pk = k.pk ORDER BY i.account, i.pk FOR UPDATE OF i SKIP LOCKED";
        let locked = Keys::in_rows(&transaction.query(lock, &[&old.accounts, &old.pks]).await?);
        // A statement of its own: it sees what was committed before the rows were locked.
        let remove = "WITH gone AS ( \
               DELETE FROM invites i USING unnest($1::text[], $2::int8[]) AS k(account, pk) \
               WHERE i.account = k.account AND i.pk = k.pk \
                 AND state = 'published' AND lane = 0 AND ended_at <= $3 \
                 AND NOT EXISTS (SELECT 1 FROM events e WHERE e.account = i.account AND e.pk = i.pk \
                   AND e.accepted_at > $3) \
               RETURNING i.account, i.pk, generation \
             ), forgotten AS ( \
               DELETE FROM events e USING gone WHERE e.account = gone.account AND e.pk = gone.pk \
             ), kept AS ( \
               INSERT INTO retired (account, pk, generation) SELECT account, pk, generation FROM gone \
               ON CONFLICT (account, pk) DO UPDATE SET generation = excluded.generation \
             ), noted AS ( \
               INSERT INTO moves (account, from_state, n) \
               SELECT account, 'published', count(*) FROM gone GROUP BY account \
             ) SELECT count(*) FROM gone";
        let gone = transaction.query_one(remove, &[&locked.accounts, &locked.pks, &before]).await?;
        removed = usize::try_from(gone.get::<_, i64>(0)).unwrap_or_default();
    }
    let unread = i64::try_from(portion.len()).is_ok_and(|rows| rows == TIDY_PORTION);
    let last = portion.last().map(|row| (row.get(2), row.get(3))).filter(|_| unread);
    let next = last.unwrap_or_default();
    Ok((removed, unread, next))
}

/// Sums up what the writers have noted, a portion at a time, unless another replica is about it. Rows are not locked before
/// they are deleted: that would be a quarter of what this costs the server.
pub(super) async fn sum_up(client: &Client) -> Result<(), Error> {
    let sql = "WITH held AS ( \
           SELECT ctid FROM moves WHERE (SELECT pg_try_advisory_xact_lock($2)) LIMIT $1 \
         ), noted AS ( \
           DELETE FROM moves m USING held WHERE m.ctid = held.ctid \
           RETURNING m.account, m.from_state, m.to_state, m.n \
         ), summed AS ( \
           INSERT INTO counts AS c (account, state, n) \
           SELECT account, state, sum(n)::int8 FROM ( \
             SELECT account, from_state AS state, -n AS n FROM noted WHERE from_state IS NOT NULL \
             UNION ALL SELECT account, to_state, n FROM noted WHERE to_state IS NOT NULL) AS m \
           GROUP BY account, state HAVING sum(n) <> 0 ORDER BY account, state \
           ON CONFLICT (account, state) DO UPDATE SET n = c.n + excluded.n \
         ) SELECT count(*) FROM noted";
    loop {
        let row = client
            .query_one(sql, &[&SUM_UP_PORTION, &SUMMING_UP])
            .await
            .map_err(|error| unavailable(&error))?;
        if row.get::<_, i64>(0) < SUM_UP_PORTION {
            return Ok(());
        }
    }
}

/// Says that `owner` is at work; returns how many are. Forgets those that are silent.
pub(super) async fn report_for_duty(client: &Client, owner: i64) -> Result<u32, Error> {
    let sql = concat!(
        "WITH clock AS (SELECT ",
        clock!(),
        " AS now), said AS ( \
           INSERT INTO replicas (owner, seen) SELECT $1, now FROM clock \
           ON CONFLICT (owner) DO UPDATE SET seen = excluded.seen \
         ), gone AS ( \
           DELETE FROM replicas USING clock WHERE owner <> $1 AND seen < now - $2 \
         ) SELECT count(*) FROM replicas, clock WHERE owner <> $1 AND seen >= now - $2"
    );
    let silent = i64::try_from(REPLICA_SILENT.as_millis()).unwrap_or(i64::MAX);
    let row = client.query_one(sql, &[&owner, &silent]).await.map_err(|error| unavailable(&error))?;
    Ok(u32::try_from(row.get::<_, i64>(0)).unwrap_or(u32::MAX).saturating_add(1))
}

/// This process is not at work any more.
pub(super) async fn sign_off(client: &Client, owner: i64) -> Result<u64, Error> {
    let gone = client.execute("DELETE FROM replicas WHERE owner = $1", &[&owner]).await;
    gone.map_err(|error| unavailable(&error))
}

/// What this process has in hand is due at once, for the other replicas. Its own late writes are refused.
pub(super) async fn give_back(client: &Client, hints: &Hints, owner: i64) -> Result<u64, Error> {
    // Two statements, so that each can use its partial index.
    crash::pass(Point::GiveBackCommit);
    let mut given = 0;
    for lanes in ["lane = 8", "lane BETWEEN 1 AND 7"] {
        let sql = format!(
            "UPDATE invites SET due = least(due, {}), owner = NULL, fence = fence + 1 WHERE {lanes} AND owner = $1",
            clock!()
        );
        given += client.execute(&sql, &[&owner]).await.map_err(|error| unavailable(&error))?;
    }
    if given > 0 {
        hints.tell_all(client).await?;
    }
    Ok(given)
}
