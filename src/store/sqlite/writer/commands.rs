//! The commands: SQL around [`step`].

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::{Context, Move, row_of};
use crate::invite::{
    AccountName, Effect, Gate, Generation, Input, Invite, Moment, Sinks, StateName, Step, TruckerKey, step,
};
use crate::store::record::{Record, StoredInvite, trucker_text};
use crate::store::sqlite::reader::{COLUMNS, gates, invite_of};
use crate::store::sqlite::unavailable;
use crate::store::{
    Admission, Arrival, Corrupt, Due, Error, GateDecision, Receipt, Taken, Tidied, Work, stays_in_hand,
};
use crate::time::{self, Timestamp};

/// Rows that one portion of tidying looks at: bounds how long it holds up the commits behind it.
const TIDY_PORTION: usize = 500;

/// How long a row that can't be read is left alone.
const ASIDE: Duration = Duration::from_secs(300);

/// Due work of an account, and when the next will be: both over the partial index of its lane.
const API_DUE: &str = "lane = 8 AND account = ?1 AND due <= ?2 ORDER BY due LIMIT ?3";
const API_NEXT: &str = "SELECT min(due) FROM invites WHERE lane = 8 AND account = ?1";
/// The same for announcements that the sinks of a lane wait for.
const PUBLISH_DUE: &str = "lane = ?1 AND lane BETWEEN 1 AND 7 AND due <= ?2 ORDER BY due LIMIT ?3";
const PUBLISH_NEXT: &str = "SELECT min(due) FROM invites WHERE lane = ?1 AND lane BETWEEN 1 AND 7";

pub(super) fn accept(
    db: &Connection,
    context: &mut Context,
    arrivals: Vec<Arrival>,
) -> Result<Vec<Receipt>, Error> {
    arrivals.into_iter().map(|arrival| accept_one(db, context, arrival)).collect()
}

fn accept_one(db: &Connection, context: &mut Context, arrival: Arrival) -> Result<Receipt, Error> {
    let moment = moment();
    let Arrival { key, cause, admission } = arrival;
    let event = (cause.event_id.clone(), cause.event_source.clone());
    let generation = first_generation(db, context, &key)?;
    let invite = Invite::received(key, generation, cause, moment.now);
    let Step { next, effect } = match admission {
        Admission::Start => step(invite, Input::Take, &context.settings.rules, moment),
        Admission::Queue => Step { next: invite, effect: None },
        Admission::Refuse(failure) => step(invite, Input::Refused(failure), &context.settings.rules, moment),
    };
    // Most events are about a new trucker: the insert itself finds out which are not.
    if !insert(db, &next, effect)? {
        let Known { seq, state, first_event } = find(db, &next.key)?;
        let news = first_event != event && remember_event(db, seq, &event, moment.now)?;
        return Ok(if news { Receipt::Joined(state) } else { Receipt::Duplicate(state) });
    }
    context.moves.push(Move { account: next.key.account.clone(), from: None, to: Some(next.state.name()) });
    Ok(Receipt::New(Box::new(Work { invite: next, effect })))
}

/// The invite that a trucker has.
struct Known {
    seq: i64,
    /// One that only a newer version knows is a state all the same: the event joins.
    state: StateName,
    /// Id and source of the event that it was made for.
    first_event: (String, String),
}

fn find(db: &Connection, key: &TruckerKey) -> Result<Known, Error> {
    let query = "SELECT seq, state, event_id, event_source FROM invites WHERE account = ?1 AND pk = ?2";
    let found = db.prepare_cached(query).and_then(|mut statement| {
        statement.query_row(row_of(key), |row| {
            let state: String = row.get(1)?;
            Ok(Known {
                seq: row.get(0)?,
                state: StateName::from_stored(&state).unwrap_or(StateName::Received),
                first_event: (row.get(2)?, row.get(3)?),
            })
        })
    });
    found.map_err(|error| unavailable(&error))
}

/// One after the last generation of an earlier life, so that ids of outgoing events are never used twice.
fn first_generation(db: &Connection, context: &Context, key: &TruckerKey) -> Result<Generation, Error> {
    if !context.any_retired {
        return Ok(Generation::FIRST);
    }
    let query = "SELECT generation FROM retired WHERE account = ?1 AND pk = ?2";
    let last = db
        .prepare_cached(query)
        .and_then(|mut statement| statement.query_row(row_of(key), |row| row.get(0)).optional())
        .map_err(|error| unavailable(&error))?;
    Ok(last.map_or(Generation::FIRST, |last| Generation::from_stored(last).next()))
}

/// Stores a new invite with the event that it is made for; does nothing, and says `false`, if the trucker has an invite.
fn insert(db: &Connection, invite: &Invite, effect: Option<Effect>) -> Result<bool, Error> {
    let sql = "INSERT INTO invites (account, pk, generation, fence, taken, state, lane, due, attempts, tries, \
         ever_unknown, not_found_since, failure_class, failure_code, accepted_at, begun_at, ended_at, event_id, \
         event_source, trucker, traceparent, tracestate) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22) \
         ON CONFLICT (account, pk) DO NOTHING";
    let record = Record::of(invite);
    let (account, pk) = row_of(&invite.key);
    let cause = &invite.cause;
    let run = db.prepare_cached(sql).and_then(|mut statement| {
        let rows = statement.execute(params![
            account,
            pk,
            record.generation,
            invite.fence,
            effect.is_some(),
            record.state,
            record.lane,
            record.due,
            record.attempts,
            record.tries,
            record.ever_unknown,
            record.not_found_since,
            record.failure_class,
            record.failure_code,
            invite.accepted_at.as_millis(),
            record.begun_at,
            record.ended_at,
            cause.event_id,
            cause.event_source,
            trucker_text(cause),
            cause.traceparent,
            cause.tracestate,
        ])?;
        Ok(rows == 1)
    });
    run.map_err(|error| unavailable(&error))
}

/// Remembers an event that joins an invite; whether it is one that the invite had not seen. The first stands in the
/// invite itself.
fn remember_event(
    db: &Connection,
    invite: i64,
    event: &(String, String),
    now: Timestamp,
) -> Result<bool, Error> {
    let sql =
        "INSERT INTO events (invite, id, source, accepted_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    let run = db
        .prepare_cached(sql)
        .and_then(|mut statement| statement.execute(params![invite, event.0, event.1, now.as_millis()]));
    run.map(|rows| rows == 1).map_err(|error| unavailable(&error))
}

pub(super) fn take(db: &Connection, context: &mut Context, what: &Due) -> Result<Taken, Error> {
    let mut taken = Taken::default();
    match what {
        Due::Api { account, limit } => {
            take_matching(db, context, API_DUE, account.as_str(), *limit, &mut taken)?;
            taken.next_due = earliest(db, API_NEXT, account.as_str())?;
        }
        Due::Publish { sinks, limit, narrow } => {
            let wants = |lane: u8| Sinks::from_bits(lane).and(*sinks);
            let mut places = narrow.places;
            for lane in (1..=Sinks::ALL.bits()).filter(|lane| !wants(*lane).is_empty()) {
                let only_narrow = wants(lane).and(narrow.sinks.complement()).is_empty();
                let left = limit.saturating_sub(taken.work.len());
                let left = if only_narrow { left.min(places) } else { left };
                let before = taken.work.len();
                take_matching(db, context, PUBLISH_DUE, lane, left, &mut taken)?;
                if only_narrow {
                    places -= (taken.work.len() - before).min(places);
                    if places == 0 {
                        // Whoever frees a place looks again; until then its due times are no reason to wake.
                        continue;
                    }
                }
                let due = earliest(db, PUBLISH_NEXT, lane)?;
                taken.next_due = [taken.next_due, due].into_iter().flatten().min();
            }
        }
    }
    Ok(taken)
}

fn take_matching(
    db: &Connection,
    context: &mut Context,
    tail: &str,
    whose: impl rusqlite::ToSql,
    limit: usize,
    taken: &mut Taken,
) -> Result<(), Error> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let query = format!("SELECT {COLUMNS} FROM invites WHERE {tail}");
    let rows: rusqlite::Result<Vec<StoredInvite>> = db.prepare_cached(&query).and_then(|mut statement| {
        statement.query_map(params![whose, time::now().as_millis(), limit], invite_of)?.collect()
    });
    for row in rows.map_err(|error| unavailable(&error))? {
        let (key, fence) = (row.key.clone(), row.fence);
        match row.into_invite() {
            Ok(invite) => taken.work.push(advance(db, context, invite, Input::Take)?),
            Err(error) => put_aside(db, &key, fence, &error)?,
        }
    }
    Ok(())
}

/// A row that can't be read must not hold up those behind it. It is tried again later: by then perhaps by the version
/// that wrote it.
fn put_aside(db: &Connection, key: &TruckerKey, fence: u64, error: &Corrupt) -> Result<(), Error> {
    tracing::error!(invite.id = %key, %error, "an invite is put aside: its row can't be read");
    let sql = "UPDATE invites SET due = ?4, fence = fence + 1 WHERE account = ?1 AND pk = ?2 AND fence = ?3";
    let (account, pk) = row_of(key);
    let later = time::now().after(ASIDE).as_millis();
    let run = db.prepare_cached(sql).and_then(|mut run| run.execute(params![account, pk, fence, later]));
    run.map(drop).map_err(|error| unavailable(&error))
}

fn earliest(db: &Connection, query: &str, whose: impl rusqlite::ToSql) -> Result<Option<Timestamp>, Error> {
    let due: rusqlite::Result<Option<i64>> =
        db.prepare_cached(query).and_then(|mut statement| statement.query_row([whose], |row| row.get(0)));
    due.map(|due| due.map(Timestamp::from_millis)).map_err(|error| unavailable(&error))
}

pub(super) fn advance(
    db: &Connection,
    context: &mut Context,
    invite: Invite,
    input: Input,
) -> Result<Work, Error> {
    let from = invite.state.name();
    let confirmed = matches!(input, Input::Confirmed(_));
    let step = step(invite, input, &context.settings.rules, moment());
    let held = stays_in_hand(&step, confirmed);
    let Step { mut next, effect } = step;
    update(db, &next, held)?;
    next.fence += 1;
    context.moves.push(Move {
        account: next.key.account.clone(),
        from: Some(from),
        to: Some(next.state.name()),
    });
    Ok(Work { invite: next, effect })
}

/// Writes the row if nobody else did since it was read.
fn update(db: &Connection, invite: &Invite, held: bool) -> Result<(), Error> {
    let sql = "UPDATE invites SET fence = fence + 1, generation = ?4, taken = ?5, state = ?6, lane = ?7, due = ?8, \
         attempts = ?9, tries = ?10, ever_unknown = ?11, not_found_since = ?12, failure_class = ?13, \
         failure_code = ?14, begun_at = ?15, code = ?16, fingerprint = ?17, origin = ?18, ready_at = ?19, \
         ended_at = ?20, previous = ?21 WHERE account = ?1 AND pk = ?2 AND fence = ?3";
    let record = Record::of(invite);
    let (account, pk) = row_of(&invite.key);
    let run = db.prepare_cached(sql).and_then(|mut statement| {
        statement.execute(params![
            account,
            pk,
            invite.fence,
            record.generation,
            held,
            record.state,
            record.lane,
            record.due,
            record.attempts,
            record.tries,
            record.ever_unknown,
            record.not_found_since,
            record.failure_class,
            record.failure_code,
            record.begun_at,
            record.code.map(|code| code.0),
            record.fingerprint,
            record.origin,
            record.ready_at,
            record.ended_at,
            record.previous,
        ])
    });
    match run.map_err(|error| unavailable(&error))? {
        1 => Ok(()),
        _ => Err(Error::Lost),
    }
}

pub(super) fn move_gate(
    db: &Connection,
    account: &AccountName,
    decide: &GateDecision,
) -> Result<Gate, Error> {
    let kept = gates(db)?.into_iter().find(|(of, _)| of == account).map_or(Gate::Open, |(_, gate)| gate);
    let Some(gate) = decide(kept, time::now()) else { return Ok(kept) };
    let run = match gate {
        Gate::Open => db.execute("DELETE FROM gates WHERE account = ?1", [account.as_str()]),
        Gate::Closed { reason, until, strikes } => db.execute(
            "INSERT INTO gates (account, reason, until, strikes) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (account) DO UPDATE SET reason = ?2, until = ?3, strikes = ?4",
            params![account.as_str(), reason.as_str(), until.as_millis(), strikes],
        ),
    };
    run.map(|_| gate).map_err(|error| unavailable(&error))
}

pub(super) fn tidy(db: &Connection, context: &mut Context) -> Result<Tidied, Error> {
    let now = time::now().as_millis();
    let before = |age: Duration| now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let erase_before = before(context.settings.erase_codes_after);
    let retire_before = before(context.settings.retention);
    let wrap = |error: rusqlite::Error| unavailable(&error);
    db.execute("INSERT INTO pulse VALUES (1, ?1) ON CONFLICT DO UPDATE SET at = excluded.at", [now])
        .map_err(wrap)?;
    let codes = db
        .execute(
            "UPDATE invites SET code = NULL, fence = fence + 1 WHERE seq IN (SELECT seq FROM invites \
             WHERE state = 'published' AND code IS NOT NULL AND ended_at <= ?1 ORDER BY ended_at LIMIT ?2)",
            params![erase_before, TIDY_PORTION],
        )
        .map_err(wrap)?;
    context.truncate_log |= codes > 0 || context.log_holds_codes;
    let (invites, unread) = retire(db, context, retire_before).map_err(wrap)?;
    Ok(Tidied { codes, invites, more: codes == TIDY_PORTION || unread })
}

/// Removes published invites that are past the retention, with all their events, a portion at a time. A younger event
/// keeps its invite: its sender may still repeat it. The cursor passes over those, and begins anew at the end.
/// Returns how many, and whether there are rows left to look at.
fn retire(db: &Connection, context: &mut Context, before: i64) -> rusqlite::Result<(usize, bool)> {
    let (ended, seq) = context.tidy_cursor;
    let portion: Vec<(i64, i64, bool)> = db
        .prepare_cached(
            "SELECT ended_at, seq, NOT EXISTS \
             (SELECT 1 FROM events WHERE invite = invites.seq AND events.accepted_at > ?3) \
             FROM invites WHERE state = 'published' AND lane = 0 AND ended_at <= ?3 \
             AND (ended_at, seq) > (?1, ?2) ORDER BY ended_at, seq LIMIT ?4",
        )?
        .query_map(params![ended, seq, before, TIDY_PORTION], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut removed = 0;
    for (_, seq, _) in portion.iter().filter(|(_, _, old)| *old) {
        db.prepare_cached(
            "INSERT INTO retired (account, pk, generation) SELECT account, pk, generation FROM invites \
             WHERE seq = ?1 ON CONFLICT DO UPDATE SET generation = excluded.generation",
        )?
        .execute([seq])?;
        db.prepare_cached("DELETE FROM events WHERE invite = ?1")?.execute([seq])?;
        let account: String = db
            .prepare_cached("DELETE FROM invites WHERE seq = ?1 RETURNING account")?
            .query_row([seq], |row| row.get(0))?;
        if let Ok(account) = account.parse() {
            context.moves.push(Move { account, from: Some(StateName::Published), to: None });
        }
        context.any_retired = true;
        removed += 1;
    }
    let unread = portion.len() == TIDY_PORTION;
    let last = portion.last().map(|(ended, seq, _)| (*ended, *seq)).filter(|_| unread);
    context.tidy_cursor = last.unwrap_or((i64::MIN, i64::MIN));
    Ok((removed, unread))
}

/// What a former process had in hand is due at once; the file lock proves that it is gone.
pub(super) fn release_all(db: &Connection) -> rusqlite::Result<()> {
    let now = time::now().as_millis();
    // Two statements, so that each can use its partial index: this must stay quick with a million finished rows.
    for lanes in ["lane = 8", "lane BETWEEN 1 AND 7"] {
        let sql = format!(
            "UPDATE invites SET due = min(due, ?1), taken = 0, fence = fence + 1 WHERE {lanes} AND taken = 1"
        );
        db.execute(&sql, [now])?;
    }
    Ok(())
}

pub(super) fn count(db: &Connection) -> rusqlite::Result<BTreeMap<(AccountName, StateName), u64>> {
    let mut statement = db.prepare("SELECT account, state, count FROM counts")?;
    let rows = statement.query_map([], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, u64>(2)?))
    })?;
    let mut counts = BTreeMap::new();
    for row in rows {
        let (account, state, count) = row?;
        if let (Ok(account), Some(state)) = (account.parse(), StateName::from_stored(&state)) {
            counts.insert((account, state), count);
        }
    }
    Ok(counts)
}

/// Adds to the stored counts, in the transaction of the changes that they count.
pub(super) fn add_to_counts(
    db: &Connection,
    changes: &BTreeMap<(&AccountName, StateName), i64>,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO counts (account, state, count) VALUES (?1, ?2, ?3) \
               ON CONFLICT DO UPDATE SET count = count + excluded.count";
    for ((account, state), change) in changes {
        db.prepare_cached(sql)?.execute(params![account.as_str(), state.as_str(), change])?;
    }
    Ok(())
}

pub(super) fn any_retired(db: &Connection) -> rusqlite::Result<bool> {
    db.query_row("SELECT EXISTS (SELECT 1 FROM retired)", [], |row| row.get(0))
}

fn moment() -> Moment {
    Moment { now: time::now(), dice: rand::random() }
}

#[cfg(test)]
mod tests {
    use rusqlite::StatementStatus;

    use super::*;
    use crate::store::sqlite::file;

    #[test]
    fn what_is_asked_again_and_again_is_planned_once_and_over_its_index() {
        let directory = tempfile::tempdir().unwrap();
        let opened = file::open(&directory.path().join("store.db"), None).unwrap();
        let db = opened.connection;
        let plan = |query: &str| {
            let mut explained = db.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
            let all = [1; 3];
            let bound = rusqlite::params_from_iter(&all[..explained.parameter_count()]);
            let rows = explained.query_map(bound, |row| row.get::<_, String>(3)).unwrap();
            rows.map(Result::unwrap).collect::<Vec<_>>().join("; ")
        };
        for (tail, index) in [(API_DUE, "invites_due_api"), (PUBLISH_DUE, "invites_due_publish")] {
            let query = format!("SELECT {COLUMNS} FROM invites WHERE {tail}");
            let plan = plan(&query);
            assert!(plan.contains(index) && !plan.contains("B-TREE"), "{plan}");
            for round in 0..4 {
                let mut statement = db.prepare_cached(&query).unwrap();
                let rows = statement.query_map(params![round, round, round], |_| Ok(())).unwrap();
                assert_eq!(rows.count(), 0);
                assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{query}");
            }
        }
        for (query, index) in [(API_NEXT, "invites_due_api"), (PUBLISH_NEXT, "invites_due_publish")] {
            let plan = plan(query);
            assert!(plan.contains(index), "{plan}");
            for round in 0..4 {
                assert_eq!(earliest(&db, query, round).unwrap(), None);
                let statement = db.prepare_cached(query).unwrap();
                assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{query}");
            }
        }
    }
}
