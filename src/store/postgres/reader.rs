//! Questions: one invite, lists, counts. None of them waits for a writer.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio_postgres::Client;

use super::clock::since_boot;
use super::connect::unavailable;
use super::rows::{COLUMNS, invite_of, stored_pk};
use crate::invite::{AccountName, Gate, GateReason, Invite, StateName, TruckerKey};
use crate::store::{Error, Filter, SeenEvent, Story, Tally};
use crate::time::Timestamp;

/// Looking for the oldest reads all that is unfinished, so it may take this share of the time at most.
const OLDEST_SHARE: u32 = 20;

pub(super) async fn invite(client: &Client, key: &TruckerKey) -> Result<Option<Invite>, Error> {
    let query = format!("SELECT {COLUMNS} FROM invites WHERE account = $1 AND pk = $2");
    let row = client.query_opt(&query, &[&key.account.as_str(), &stored_pk(key)]).await;
    row.map_err(|error| unavailable(&error))?.as_ref().map(invite_of).transpose()
}

pub(super) async fn show(client: &Client, key: &TruckerKey) -> Result<Option<Story>, Error> {
    let Some(invite) = invite(client, key).await? else { return Ok(None) };
    let query = "SELECT id, source, accepted_at FROM events WHERE account = $1 AND pk = $2 ORDER BY seq";
    let rows = client.query(query, &[&key.account.as_str(), &stored_pk(key)]).await;
    let events = rows.map_err(|error| unavailable(&error))?;
    let event = |row: &tokio_postgres::Row| SeenEvent {
        id: row.get(0),
        source: row.get(1),
        accepted_at: Timestamp::from_millis(row.get(2)),
    };
    Ok(Some(Story { invite, events: events.iter().map(event).collect() }))
}

pub(super) async fn list(client: &Client, filter: &Filter) -> Result<Vec<Invite>, Error> {
    let query = format!(
        "SELECT {COLUMNS} FROM invites WHERE ($1::text IS NULL OR state = $1) AND ($2::text IS NULL OR account = $2) \
         ORDER BY seq DESC LIMIT $3"
    );
    let state = filter.state.map(StateName::as_str);
    let account = filter.account.as_ref().map(AccountName::as_str);
    let limit = i64::try_from(filter.limit).unwrap_or(i64::MAX);
    let rows = client.query(&query, &[&state, &account, &limit]).await;
    rows.map_err(|error| unavailable(&error))?.iter().map(invite_of).collect()
}

pub(super) async fn gates(client: &Client) -> Result<Vec<(AccountName, Gate)>, Error> {
    let rows = client.query("SELECT account, reason, until, strikes FROM gates", &[]).await;
    let known = |row: &tokio_postgres::Row| {
        let reason = GateReason::from_stored(row.get(1))?;
        let until = Timestamp::from_millis(row.get(2));
        let strikes = u32::try_from(row.get::<_, i64>(3)).unwrap_or(u32::MAX);
        Some((row.get::<_, &str>(0).parse().ok()?, Gate::Closed { reason, until, strikes }))
    };
    Ok(rows.map_err(|error| unavailable(&error))?.iter().filter_map(known).collect())
}

/// When the oldest of each kind was accepted, as of the last look.
#[derive(Default)]
pub(super) struct Oldest(Mutex<Option<Look>>);

#[derive(Clone)]
struct Look {
    found: Vec<(String, String, Timestamp)>,
    again_at: Duration,
}

/// The counts are kept by the writers; what takes time is looking for the oldest, so that answer is kept for a while.
pub(super) async fn tally(client: &Client, oldest: &Oldest) -> Result<Vec<Tally>, Error> {
    let counts = "SELECT account, state, sum(n)::int8 FROM counts GROUP BY account, state HAVING sum(n) > 0";
    let counts = client.query(counts, &[]).await.map_err(|error| unavailable(&error))?;
    let oldest = oldest.look(client).await?;
    let tally = counts.iter().filter_map(|row| {
        let (account, state): (&str, &str) = (row.get(0), row.get(1));
        let same = |(of, is, _): &&(String, String, Timestamp)| of == account && is == state;
        Some(Tally {
            account: account.parse().ok()?,
            state: StateName::from_stored(state)?,
            count: u64::try_from(row.get::<_, i64>(2)).unwrap_or_default(),
            oldest: oldest.iter().find(same).map(|(_, _, at)| *at),
        })
    });
    Ok(tally.collect())
}

impl Oldest {
    async fn look(&self, client: &Client) -> Result<Vec<(String, String, Timestamp)>, Error> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let started = since_boot();
        if let Some(look) = known.filter(|look| started < look.again_at) {
            return Ok(look.found);
        }
        // Over the partial indexes: over what is unfinished, not over what is stored.
        let query = "SELECT account, state, min(accepted_at) FROM invites WHERE lane = 8 \
               AND state NOT IN ('published', 'dead') GROUP BY account, state \
             UNION ALL \
             SELECT account, state, min(accepted_at) FROM invites WHERE lane BETWEEN 1 AND 7 \
               AND state NOT IN ('published', 'dead') GROUP BY account, state";
        let rows = client.query(query, &[]).await.map_err(|error| unavailable(&error))?;
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.get(0), row.get(1), Timestamp::from_millis(row.get(2))))
            .collect();
        let now = since_boot();
        let again_at = now + now.saturating_sub(started) * OLDEST_SHARE;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Look { found: found.clone(), again_at });
        Ok(found)
    }
}
