//! Questions: one invite, lists, counts. None of them waits for a writer.

use std::time::Instant;

use tokio_postgres::{Client, Row};

use super::connect::unavailable;
use super::rows::{COLUMNS, invite_of, stored_pk};
use crate::invite::{AccountName, Failure, FailureClass, Gate, GateReason, Invite, StateName, TruckerKey};
use crate::store::oldest::{self, Found, Oldest};
use crate::store::order::OrderKind;
use crate::store::{DeadCause, Error, Filter, OrderRecord, SeenEvent, Selection, Story, Tally};
use crate::time::Timestamp;

pub(super) async fn invite(client: &Client, key: &TruckerKey) -> Result<Option<Invite>, Error> {
    let query = format!("SELECT {COLUMNS} FROM invites WHERE account = $1 AND pk = $2");
    let row = client.query_opt(&query, &[&key.account.as_str(), &stored_pk(key)]).await;
    row.map_err(|error| unavailable(&error))?.as_ref().map(invite_of).transpose()
}

pub(super) async fn show(client: &Client, key: &TruckerKey) -> Result<Option<Story>, Error> {
    let Some(invite) = invite(client, key).await? else { return Ok(None) };
    let first = SeenEvent {
        id: invite.cause.event_id.clone(),
        source: invite.cause.event_source.clone(),
        accepted_at: invite.accepted_at,
    };
    // What an earlier version wrote has the first one among those that joined as well.
    let joined = "SELECT id, source, accepted_at FROM events WHERE account = $1 AND pk = $2 \
         AND NOT (id = $3 AND source = $4) ORDER BY seq";
    let joined =
        client.query(joined, &[&key.account.as_str(), &stored_pk(key), &first.id, &first.source]).await;
    let event = |row: &Row| SeenEvent {
        id: row.get(0),
        source: row.get(1),
        accepted_at: Timestamp::from_millis(row.get(2)),
    };
    let joined = joined.map_err(|error| unavailable(&error))?;
    let events = std::iter::once(first).chain(joined.iter().map(event)).collect();
    Ok(Some(Story { invite, events }))
}

/// Whether the last failure is the one that parameter 4 names; see [`order::is_cause`](crate::store::order::is_cause).
pub(super) const IS_CAUSE: &str =
    "(failure_code = $4 OR failure_class = $4 OR failure_class || '/' || failure_code = $4)";

/// Kinds of death that are told apart; beyond, a person needs another tool.
const CAUSES_MAX: i64 = 1000;

pub(super) async fn list(client: &Client, filter: &Filter) -> Result<Vec<Invite>, Error> {
    let query = format!(
        "SELECT {COLUMNS} FROM invites WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR account = $2) \
         AND ($4::text IS NULL OR {IS_CAUSE}) ORDER BY seq DESC LIMIT $3"
    );
    let state = filter.state.map(StateName::as_str);
    let account = filter.account.as_ref().map(AccountName::as_str);
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let rows = client.query(&query, &[&state, &account, &limit, &filter.cause]).await;
    rows.map_err(|error| unavailable(&error))?.iter().map(invite_of).collect()
}

pub(super) async fn causes(client: &Client, which: &Selection) -> Result<Vec<DeadCause>, Error> {
    let query = format!(
        "SELECT account, failure_class, failure_code, count(*), min(ended_at), max(ended_at) FROM invites \
         WHERE state = 'dead' AND ($1::text IS NULL OR account = $1) AND ($2::int8 IS NULL OR pk = $2) AND \
         ($4::text IS NULL OR {IS_CAUSE}) GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT $3"
    );
    let (account, pk) = owner_of(which);
    let rows = client.query(&query, &[&account, &pk, &CAUSES_MAX, &which.cause]).await;
    let cause = |row: &Row| {
        let (account, class, code): (&str, Option<&str>, Option<String>) =
            (row.get(0), row.get(1), row.get(2));
        Some(DeadCause {
            account: account.parse().ok()?,
            failure: Failure { class: FailureClass::from_stored(class?)?, code: code.unwrap_or_default() },
            count: u64::try_from(row.get::<_, i64>(3)).unwrap_or_default(),
            first: Timestamp::from_millis(row.try_get(4).ok()?),
            last: Timestamp::from_millis(row.try_get(5).ok()?),
        })
    };
    Ok(rows.map_err(|error| unavailable(&error))?.iter().filter_map(cause).collect())
}

/// Account and key as parameters.
pub(super) fn owner_of(which: &Selection) -> (Option<&str>, Option<i64>) {
    match &which.invite {
        Some(key) => (Some(key.account.as_str()), Some(stored_pk(key))),
        None => (which.account.as_ref().map(AccountName::as_str), None),
    }
}

pub(super) async fn orders(client: &Client, limit: usize) -> Result<Vec<OrderRecord>, Error> {
    let query = "SELECT id, at, by, kind, target, count FROM orders ORDER BY seq DESC LIMIT $1";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = client.query(query, &[&limit]).await;
    let order = |row: &Row| {
        Some(OrderRecord {
            id: row.get::<_, &str>(0).parse().ok()?,
            at: Timestamp::from_millis(row.get(1)),
            by: row.get::<_, &str>(2).parse().ok()?,
            kind: OrderKind::from_stored(row.get(3))?,
            target: row.get(4),
            count: u64::try_from(row.get::<_, i64>(5)).unwrap_or_default(),
        })
    };
    Ok(rows.map_err(|error| unavailable(&error))?.iter().filter_map(order).collect())
}

pub(super) async fn gates(client: &Client) -> Result<Vec<(AccountName, Gate)>, Error> {
    let rows = client.query("SELECT account, reason, until, strikes FROM gates", &[]).await;
    let known = |row: &Row| match gate_of(row.get(1), row.get(2), row.get(3)) {
        Gate::Open => None,
        closed @ Gate::Closed { .. } => Some((row.get::<_, &str>(0).parse().ok()?, closed)),
    };
    Ok(rows.map_err(|error| unavailable(&error))?.iter().filter_map(known).collect())
}

/// A gate by its columns, which are empty where none is kept.
pub(super) fn gate_of(reason: Option<&str>, until: Option<i64>, strikes: Option<i64>) -> Gate {
    let reason = reason.and_then(GateReason::from_stored);
    let (Some(reason), Some(until), Some(strikes)) = (reason, until, strikes) else { return Gate::Open };
    let strikes = u32::try_from(strikes).unwrap_or(u32::MAX);
    Gate::Closed { reason, until: Timestamp::from_millis(until), strikes }
}

/// Invites that are neither published nor dead.
pub(super) async fn unfinished(client: &Client) -> Result<i64, Error> {
    let query = "SELECT coalesce(sum(n), 0)::int8 FROM tally WHERE state NOT IN ('published', 'dead')";
    let row = client.query_one(query, &[]).await;
    Ok(row.map_err(|error| unavailable(&error))?.get(0))
}

/// The counts are kept by the writers; what takes time is looking for the oldest.
pub(super) async fn tally(client: &Client, oldest: &Oldest) -> Result<Vec<Tally>, Error> {
    let counts = "SELECT account, state, n FROM tally WHERE n > 0";
    let counts = client.query(counts, &[]).await.map_err(|error| unavailable(&error))?;
    let tally = counts.iter().filter_map(|row| {
        let (account, state): (&str, &str) = (row.get(0), row.get(1));
        Some(Tally {
            account: account.parse().ok()?,
            state: StateName::from_stored(state)?,
            count: u64::try_from(row.get::<_, i64>(2)).unwrap_or_default(),
            oldest: None,
        })
    });
    let mut tally: Vec<Tally> = tally.collect();
    let found = match oldest.known() {
        Some(found) => found,
        None => look_for_the_oldest(client, oldest).await?,
    };
    oldest::add_to(&mut tally, &found);
    Ok(tally)
}

async fn look_for_the_oldest(client: &Client, oldest: &Oldest) -> Result<Found, Error> {
    let began = Instant::now();
    // Over the partial indexes: over what is unfinished, not over what is stored.
    let query = "SELECT account, state, min(accepted_at) FROM invites WHERE lane = 8 \
           AND state NOT IN ('published', 'dead') GROUP BY account, state \
         UNION ALL \
         SELECT account, state, min(accepted_at) FROM invites WHERE lane BETWEEN 1 AND 7 \
           AND state NOT IN ('published', 'dead') GROUP BY account, state";
    let rows = client.query(query, &[]).await.map_err(|error| unavailable(&error))?;
    let found = rows.iter().map(|row| (row.get(0), row.get(1), Timestamp::from_millis(row.get(2)))).collect();
    oldest.keep(began, &found);
    Ok(found)
}
