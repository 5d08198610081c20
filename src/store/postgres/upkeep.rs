//! Writes that are rare, each a transaction of its own: gates, erasing and retiring, giving work back.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio_postgres::{Client, Transaction};

use super::connect::unavailable;
use super::rows::clock;
use crate::crash::{self, Point};
use crate::invite::{AccountName, Gate};
use crate::store::{Error, Tidied};
use crate::time::Timestamp;

/// Rows that one portion of tidying looks at: bounds how long it holds its locks.
const TIDY_PORTION: i64 = 500;
/// Its changes of the counts go to a shard that no connection of a writer has.
const TIDY_SHARD: i16 = 65;

type Outcome<T> = Result<T, tokio_postgres::Error>;

pub(super) async fn set_gate(client: &Client, account: &AccountName, gate: Gate) -> Result<(), Error> {
    crash::pass(Point::GateCommit);
    let run = match gate {
        Gate::Open => client.execute("DELETE FROM gates WHERE account = $1", &[&account.as_str()]).await,
        Gate::Closed { reason, until, strikes } => {
            let sql = "INSERT INTO gates (account, reason, until, strikes) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (account) DO UPDATE SET reason = $2, until = $3, strikes = $4";
            let (until, strikes) = (until.as_millis(), i64::from(strikes));
            client.execute(sql, &[&account.as_str(), &reason.as_str(), &until, &strikes]).await
        }
    };
    run.map_err(|error| unavailable(&error))?;
    crash::pass(Point::GateCommit);
    Ok(())
}

/// Where the sweep for old rows goes on.
#[derive(Default)]
pub(super) struct Cursor(AtomicI64);

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
        cursor.0.store(next, Ordering::Relaxed);
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
    let sql = "UPDATE invites SET code = NULL, fence = fence + 1 WHERE seq IN (SELECT seq FROM invites \
         WHERE state = 'published' AND code IS NOT NULL AND ended_at <= $1 ORDER BY ended_at LIMIT $2 \
         FOR UPDATE SKIP LOCKED)";
    transaction.execute(sql, &[&before, &TIDY_PORTION]).await
}

/// Removes published invites that are past the retention, with all their events, a portion at a time and in the
/// order of acceptance. A younger event keeps its invite: its sender may still repeat it.
/// Returns how many, whether there are rows left to look at, and where to go on.
async fn retire(transaction: &Transaction<'_>, before: i64, cursor: &Cursor) -> Outcome<(usize, bool, i64)> {
    let portion = "SELECT seq, state = 'published' AND lane = 0 AND ended_at <= $2 FROM invites \
         WHERE seq > $1 AND accepted_at <= $2 ORDER BY seq LIMIT $3";
    let from = cursor.0.load(Ordering::Relaxed);
    let portion = transaction.query(portion, &[&from, &before, &TIDY_PORTION]).await?;
    let old: Vec<i64> = portion.iter().filter(|row| row.get(1)).map(|row| row.get(0)).collect();
    let mut removed = 0;
    if !old.is_empty() {
        // An event that is joining one of them right now holds its row, so that one is left out. Whoever comes later
        // waits, and finds the trucker retired.
        let lock = "SELECT seq FROM invites WHERE seq = ANY($1) ORDER BY account, pk FOR UPDATE SKIP LOCKED";
        let locked = transaction.query(lock, &[&old]).await?;
        let locked: Vec<i64> = locked.iter().map(|row| row.get(0)).collect();
        // A statement of its own: it sees what was committed before the rows were locked.
        let remove = "WITH gone AS ( \
               DELETE FROM invites i WHERE seq = ANY($1) AND state = 'published' AND lane = 0 AND ended_at <= $2 \
                 AND NOT EXISTS (SELECT 1 FROM events e WHERE e.account = i.account AND e.pk = i.pk \
                   AND e.accepted_at > $2) \
               RETURNING account, pk, generation \
             ), forgotten AS ( \
               DELETE FROM events e USING gone WHERE e.account = gone.account AND e.pk = gone.pk \
             ), kept AS ( \
               INSERT INTO retired (account, pk, generation) SELECT account, pk, generation FROM gone \
               ON CONFLICT (account, pk) DO UPDATE SET generation = excluded.generation \
             ), counted AS ( \
               INSERT INTO counts AS c (account, state, shard, n) \
               SELECT account, 'published', $3::int2, -count(*) FROM gone GROUP BY account ORDER BY account \
               ON CONFLICT (account, state, shard) DO UPDATE SET n = c.n + excluded.n \
             ) SELECT count(*) FROM gone";
        let gone = transaction.query_one(remove, &[&locked, &before, &TIDY_SHARD]).await?;
        removed = usize::try_from(gone.get::<_, i64>(0)).unwrap_or_default();
    }
    let unread = i64::try_from(portion.len()).is_ok_and(|rows| rows == TIDY_PORTION);
    let next = if unread { portion.last().map_or(0, |row| row.get(0)) } else { 0 };
    Ok((removed, unread, next))
}

/// What this process has in hand is due at once, for the other replicas. Its own late writes are refused.
pub(super) async fn give_back(client: &Client, owner: i64) -> Result<u64, Error> {
    // Two statements, so that each can use its partial index.
    let mut given = 0;
    for lanes in ["lane = 8", "lane BETWEEN 1 AND 7"] {
        let sql = format!(
            "UPDATE invites SET due = least(due, {}), owner = NULL, fence = fence + 1 WHERE {lanes} AND owner = $1",
            clock!()
        );
        given += client.execute(&sql, &[&owner]).await.map_err(|error| unavailable(&error))?;
    }
    Ok(given)
}
