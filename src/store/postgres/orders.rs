//! What people ask for: dead invites back to work, new codes. Each order and its record are one transaction.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::connect::unavailable;
use super::reader::{IS_CAUSE, owner_of};
use super::rows::{COLUMNS, MovedInvite, clock, invite_of, key_of, stored_pk};
use super::statements::UPDATE;
use super::writes;
use crate::crash::{self, Point};
use crate::invite::{Input, Invite, Moment, Rules, State, TruckerKey, step};
use crate::store::order::{Operator, OrderKind, Redrive, Redriven, Reissued};
use crate::store::{Error, Work};
use crate::time::Timestamp;

/// Invites on their way to another state.
#[derive(Default)]
struct Moves(Vec<MovedInvite>);

impl Moves {
    fn add(&mut self, invite: Invite, input: Input, rules: &Rules, now: Timestamp) -> Work {
        let (fence, from) = (invite.fence, invite.state.name());
        let moved = step(invite, input, rules, Moment { now, dice: rand::random() });
        let mut next = moved.next;
        self.0.push(MovedInvite::of(&next, from, fence, None));
        next.fence += 1;
        Work { invite: next, effect: moved.effect }
    }

    /// Writes them; the rows are locked, so all of them are still as they were read.
    async fn write(&self, client: &ClientWrapper) -> Result<Vec<Row>, Error> {
        let wrap = |error: tokio_postgres::Error| unavailable(&error);
        let statement = client.prepare_cached(UPDATE).await.map_err(wrap)?;
        writes::updates(client, &statement, &self.0, None).await.map_err(wrap)
    }
}

pub(super) async fn redrive(
    client: &ClientWrapper,
    rules: &Rules,
    order: &Redrive,
) -> Result<Redriven, Error> {
    in_transaction(client, async {
        // The longest dead first.
        let query = format!(
            "SELECT {COLUMNS} FROM invites WHERE state = 'dead' AND ($1::text IS NULL OR account = $1) AND \
             ($2::int8 IS NULL OR pk = $2) AND ($4::text IS NULL OR {IS_CAUSE}) ORDER BY ended_at LIMIT $3 FOR UPDATE"
        );
        let (account, pk) = owner_of(&order.which);
        let limit = i64::try_from(order.limit).unwrap_or(i64::MAX);
        let rows = client.query(&query, &[&account, &pk, &limit, &order.which.cause]).await;
        let rows = rows.map_err(|error| unavailable(&error))?;
        let now = now(client).await?;
        let (mut moves, mut last_due) = (Moves::default(), order.after);
        for row in &rows {
            let due = last_due.map_or(now, |last| last.after(order.spacing).max(now));
            moves.add(invite_of(row)?, Input::Redrive { due }, rules, now);
            last_due = Some(due);
        }
        let count = moves.write(client).await?.iter().filter_map(key_of).count();
        record(client, order.id, &order.by, OrderKind::Redrive, &order.which.to_string(), count, now).await?;
        Ok(Redriven { count, last_due })
    })
    .await
}

pub(super) async fn reissue(
    client: &ClientWrapper,
    rules: &Rules,
    key: &TruckerKey,
    by: &Operator,
) -> Result<Reissued, Error> {
    in_transaction(client, async {
        let query = format!("SELECT {COLUMNS} FROM invites WHERE account = $1 AND pk = $2 FOR UPDATE");
        let found = client.query_opt(&query, &[&key.account.as_str(), &stored_pk(key)]).await;
        let Some(found) = found.map_err(|error| unavailable(&error))? else { return Ok(Reissued::Unknown) };
        let invite = invite_of(&found)?;
        let State::Published { .. } = invite.state else {
            return Ok(Reissued::NotPublished(invite.state.name()));
        };
        let (now, mut moves) = (now(client).await?, Moves::default());
        let begun = moves.add(invite, Input::Reissue, rules, now).invite;
        moves.write(client).await?;
        record(client, Uuid::now_v7(), by, OrderKind::Reissue, &key.to_string(), 1, now).await?;
        Ok(Reissued::Begun(Box::new(begun)))
    })
    .await
}

async fn in_transaction<T>(
    client: &Client,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let wrap = |error: tokio_postgres::Error| unavailable(&error);
    client.batch_execute("BEGIN").await.map_err(wrap)?;
    match work.await {
        Ok(done) => {
            crash::pass(Point::OrderCommit);
            client.batch_execute("COMMIT").await.map_err(wrap)?;
            crash::pass(Point::OrderCommitted);
            Ok(done)
        }
        Err(error) => {
            let _ = client.batch_execute("ROLLBACK").await;
            Err(error)
        }
    }
}

async fn now(client: &Client) -> Result<Timestamp, Error> {
    let row = client.query_one(concat!("SELECT ", clock!()), &[]).await;
    Ok(Timestamp::from_millis(row.map_err(|error| unavailable(&error))?.get(0)))
}

async fn record(
    client: &Client,
    id: Uuid,
    by: &Operator,
    kind: OrderKind,
    target: &str,
    count: usize,
    now: Timestamp,
) -> Result<(), Error> {
    let sql = "INSERT INTO orders (id, at, by, kind, target, count) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (id) DO UPDATE SET count = orders.count + excluded.count";
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let (id, at) = (id.to_string(), now.as_millis());
    let run = client.execute(sql, &[&id, &at, &by.as_str(), &kind.as_str(), &target, &count]).await;
    run.map(drop).map_err(|error| unavailable(&error))
}
