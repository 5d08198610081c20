//! The statements of the hot path. Each handles a whole batch: an array goes in, keys come out. An array
//! of rows costs the server a tenth less than one array for each column, because it is taken apart once.

use deadpool_postgres::ClientWrapper;
use tokio_postgres::Statement;

use super::rows::{clock, statement_clock};

macro_rules! statements {
    ($($name:ident: $sql:ident),+ $(,)?) => {
        /// The statements of a connection. Prepared beforehand: only then are they sent in the order in which their
        /// futures are polled, each before the COMMIT.
        pub(super) struct Statements { $(pub $name: Statement),+ }

        impl Statements {
            pub(super) async fn prepare(client: &ClientWrapper) -> Result<Self, tokio_postgres::Error> {
                Ok(Self { $($name: client.prepare($sql).await?),+ })
            }
        }
    };
}

statements! {
    clock: CLOCK,
    find: FIND,
    find_retired: FIND_RETIRED,
    due_api: DUE_API,
    due_publish: DUE_PUBLISH,
    update: UPDATE,
    insert: INSERT,
    insert_unseen: INSERT_UNSEEN,
    remember: REMEMBER,
    next_api: NEXT_API,
    next_publish: NEXT_PUBLISH,
    states: STATES,
    put_aside: PUT_ASIDE,
}

/// The columns that a new invite brings along.
macro_rules! new_columns {
    () => {
        "account, pk, owner, generation, state, lane, due, attempts, tries, ever_unknown, not_found_since, \
         failure_class, failure_code, accepted_at, begun_at, ended_at, event_id, event_source, trucker, traceparent, \
         tracestate"
    };
}
/// Notes that the invites `new` were made.
macro_rules! new_noted {
    () => {
        "INSERT INTO moves (account, to_state, n) SELECT account, state, count(*) FROM new GROUP BY account, state"
    };
}

/// Held while the statement's transaction lasts: an invite that an event joins must not be retired meanwhile.
pub(super) const FIND: &str = "SELECT i.account, i.pk, i.state FROM invites i \
     JOIN unnest($1::text[], $2::int8[]) AS k(account, pk) ON i.account = k.account AND i.pk = k.pk \
     ORDER BY i.account, i.pk FOR KEY SHARE OF i";

pub(super) const FIND_RETIRED: &str = "SELECT r.account, r.pk, r.generation FROM retired r \
     JOIN unnest($1::text[], $2::int8[]) AS k(account, pk) ON r.account = k.account AND r.pk = k.pk";

pub(super) const CLOCK: &str = concat!("SELECT ", clock!());

/// New invites. Which of them another replica was quicker with, is what does not come back. In the order of the keys, so
/// that replicas which are given the same truckers wait for each other instead of locking each other out.
pub(super) const INSERT: &str = concat!(
    "WITH new AS (INSERT INTO invites (",
    new_columns!(),
    ") SELECT ",
    new_columns!(),
    " FROM unnest($1::new_invite[]) ORDER BY account, pk ON CONFLICT (account, pk) DO NOTHING \
     RETURNING account, pk, state), noted AS (",
    new_noted!(),
    ") SELECT account, pk FROM new"
);

/// New invites, all or none, without a look beforehand: none if one of the truckers is known or was
/// retired, or if the clock is not as expected ($2, and how far it may be off, $3). A replica that is quicker by a
/// hair makes it fail. Who was retired is looked for by key, whatever the planner believes of a table that was empty: with a
/// LIMIT there is nothing to join.
pub(super) const INSERT_UNSEEN: &str = concat!(
    "WITH new AS (INSERT INTO invites (",
    new_columns!(),
    ") SELECT ",
    new_columns!(),
    " FROM unnest($1::new_invite[]) WHERE abs(",
    statement_clock!(),
    " - $2::int8) <= $3::int8 AND NOT EXISTS ( \
       SELECT 1 FROM unnest($1::new_invite[]) AS k JOIN invites i ON i.account = k.account AND i.pk = k.pk \
     ) AND NOT EXISTS ( \
       SELECT 1 FROM unnest($1::new_invite[]) AS k, \
         LATERAL (SELECT 1 FROM retired r WHERE r.account = k.account AND r.pk = k.pk LIMIT 1) AS known \
     ) ORDER BY account, pk RETURNING account, pk, state), noted AS (",
    new_noted!(),
    ") SELECT account, pk, (SELECT ",
    clock!(),
    ") FROM new"
);

/// Events that join invites; which of them were news comes back. The first of each stands in the invite itself, and a
/// second row for it would be a quarter of what accepting costs. To be run after the invites are there.
pub(super) const REMEMBER: &str = "INSERT INTO events (account, pk, id, source, accepted_at) \
     SELECT account, pk, id, source, $5::int8 \
     FROM unnest($1::text[], $2::int8[], $3::text[], $4::text[]) AS e(account, pk, id, source) \
     WHERE NOT EXISTS (SELECT 1 FROM invites i WHERE i.account = e.account AND i.pk = e.pk \
       AND i.event_id = e.id AND i.event_source = e.source) \
     ON CONFLICT DO NOTHING RETURNING account, pk, id, source";

/// Writes rows that nobody else wrote since they were read; the others do not come back. None of them is written if
/// the clock is not as expected ($2, and how far it may be off, $3), if anything is expected.
pub(super) const UPDATE: &str = concat!(
    "WITH moved AS ( \
       UPDATE invites i SET fence = i.fence + 1, owner = u.owner, generation = u.generation, state = u.state, \
         lane = u.lane, due = u.due, attempts = u.attempts, tries = u.tries, ever_unknown = u.ever_unknown, \
         not_found_since = u.not_found_since, failure_class = u.failure_class, \
         failure_code = u.failure_code, begun_at = u.begun_at, code = u.code, fingerprint = u.fingerprint, \
         origin = u.origin, ready_at = u.ready_at, ended_at = u.ended_at, previous = u.previous \
       FROM unnest($1::moved_invite[]) AS u \
       WHERE i.account = u.account AND i.pk = u.pk AND i.fence = u.fence AND ($2::int8 IS NULL OR abs(",
    statement_clock!(),
    " - $2::int8) <= $3::int8) RETURNING i.account, i.pk, i.state, u.from_state \
     ), noted AS ( \
       INSERT INTO moves (account, from_state, to_state, n) SELECT account, from_state, state, count(*) FROM moved \
       WHERE from_state <> state GROUP BY account, from_state, state \
     ) SELECT account, pk, (SELECT ",
    clock!(),
    ") FROM moved"
);

/// Rows that another transaction has in hand are left out, not waited for.
pub(super) const DUE_API: &str = concat!(
    "SELECT account, pk, generation, fence, state, lane, due, attempts, tries, ever_unknown, not_found_since, \
     failure_class, failure_code, accepted_at, begun_at, code, fingerprint, origin, ready_at, ended_at, event_id, \
     event_source, trucker, traceparent, tracestate, previous FROM invites WHERE lane = 8 AND account = $1 AND due <= ",
    statement_clock!(),
    " ORDER BY due LIMIT $2 FOR UPDATE SKIP LOCKED"
);

/// Each lane has its own stretch of the index, so that what waits for a sink that is down costs nothing.
pub(super) const DUE_PUBLISH: &str = concat!(
    "SELECT d.* FROM unnest($1::int2[]) AS l(lane) CROSS JOIN LATERAL ( \
     SELECT account, pk, generation, fence, state, lane, due, attempts, tries, ever_unknown, not_found_since, \
     failure_class, failure_code, accepted_at, begun_at, code, fingerprint, origin, ready_at, ended_at, event_id, \
     event_source, trucker, traceparent, tracestate, previous FROM invites \
     WHERE lane = l.lane AND lane BETWEEN 1 AND 7 AND due <= ",
    statement_clock!(),
    " ORDER BY due LIMIT $2 FOR UPDATE SKIP LOCKED) AS d ORDER BY d.due LIMIT $2"
);

pub(super) const NEXT_API: &str = "SELECT min(due) FROM invites WHERE lane = 8 AND account = $1";

pub(super) const NEXT_PUBLISH: &str = "SELECT min(d.due) FROM unnest($1::int2[]) AS l(lane) CROSS JOIN LATERAL ( \
     SELECT min(due) AS due FROM invites WHERE lane = l.lane AND lane BETWEEN 1 AND 7) AS d";

/// A row that can't be read must not hold up those behind it. It is tried again later: by then perhaps by the version
/// that wrote it.
pub(super) const PUT_ASIDE: &str = concat!(
    "UPDATE invites SET due = ",
    statement_clock!(),
    " + 300000, fence = fence + 1 WHERE account = $1 AND pk = $2 AND fence = $3"
);

/// What stands there now.
pub(super) const STATES: &str = "SELECT i.account, i.pk, i.state FROM invites i \
     JOIN unnest($1::text[], $2::int8[]) AS k(account, pk) ON i.account = k.account AND i.pk = k.pk";

/// These statements find rows by their keys. A plan that was made while a table was small must not survive its growth;
/// then it serves arrays of every length, so that a small batch is not planned anew each time.
pub(super) const PLANS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; \
     SET enable_mergejoin = off";

#[cfg(test)]
mod tests {
    use super::super::rows::COLUMNS;
    use super::*;

    #[test]
    fn due_work_is_read_with_all_columns_in_their_order() {
        for statement in [DUE_API, DUE_PUBLISH] {
            assert!(statement.contains(&format!("SELECT {COLUMNS} FROM invites")), "{statement}");
        }
    }
}
