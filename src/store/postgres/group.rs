//! A group of commands as one transaction in two round trips: read clock and rows, decide, write and commit. What needs
//! no look beforehand is tried in one, see [`super::optimistic`].
//!
//! [`step`] runs in between, on the database's clock. Every write is fenced, so a row that moved in the meantime is
//! simply not written, and only the command that wanted it hears of that.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use deadpool_postgres::ClientWrapper;
use futures_util::future::{join, join_all, join3};
use tokio_postgres::Row;
use tokio_postgres::error::Severity;

use super::clock::{Clock, since_boot};
use super::connect::{is_read_only, unavailable};
use super::limits;
use super::rows::{Damaged, Events, Keys, MovedInvite, NewInvite, key_of, readable, stored_pk};
use super::statements::Statements;
use super::writer::{Command, Doubts};
use super::writes::{self, Params};
use crate::crash::{self, Point};
use crate::invite::{Generation, Input, Invite, Moment, Rules, Sinks, StateName, Step, TruckerKey, step};
use crate::store::{Admission, Arrival, Due, Error, Receipt, Taken, Work, stays_in_hand};
use crate::time::Timestamp;

/// Rows that another replica has in hand show an old due time; nobody needs to look again at once.
const IN_OTHER_HANDS: std::time::Duration = std::time::Duration::from_millis(50);

/// What a transaction needs to know.
pub(super) struct Bench<'a> {
    pub client: &'a ClientWrapper,
    pub statements: &'a Statements,
    pub rules: &'a Rules,
    pub clock: &'a Clock,
    pub doubts: &'a Doubts,
    /// This process, in the rows that it holds.
    pub owner: i64,
}

/// The answer to a command, before it is sent.
pub(super) enum Outcome {
    Accepted(Vec<Receipt>),
    Taken(Taken),
    Advanced(Box<Result<Work, Error>>),
}

/// Why a group was not committed.
pub(super) enum Failed {
    /// The server refused a statement; nothing was changed, and the connection is good.
    Refused(Error),
    /// The connection is of no use any more; nothing was changed.
    Lost(Error),
    /// The connection was lost while committing. These would be the results of the advances.
    Doubtful(Error, Vec<((TruckerKey, u64), Work)>),
}

/// What the first round trip brought.
pub(super) struct Found {
    now: Timestamp,
    states: HashMap<TruckerKey, StateName>,
    retired: HashMap<TruckerKey, Generation>,
    /// For each take of the group, in order.
    due: Vec<Vec<Invite>>,
    /// Due rows that can't be read.
    aside: Vec<Damaged>,
}

impl Found {
    /// As if none of the truckers were known and nothing were due.
    pub(super) fn nothing(now: Timestamp) -> Self {
        Self { now, states: HashMap::new(), retired: HashMap::new(), due: Vec::new(), aside: Vec::new() }
    }
}

/// What is to be written, and what each command will hear if it is.
#[derive(Default)]
pub(super) struct Plan {
    pub updates: Vec<MovedInvite>,
    pub inserts: Vec<NewInvite>,
    events: Events,
    /// Keys that this group updates, so that no row is written twice.
    touched: HashSet<TruckerKey>,
    pub expected: Vec<Expected>,
    aside: Vec<Damaged>,
}

pub(super) enum Expected {
    Accepted(Vec<Admitted>),
    Taken {
        work: Vec<Work>,
        cut: bool,
    },
    Advanced(Box<Invite>, Box<Work>),
    /// A row that another command of this group writes.
    Overtaken,
}

pub(super) struct Admitted {
    key: TruckerKey,
    event: (String, String),
    /// The new invite, or where the one that was found stands.
    pub what: Result<Box<Work>, StateName>,
}

/// Runs the commands as one transaction.
pub(super) async fn run(bench: &Bench<'_>, commands: &[Command]) -> Result<Vec<Outcome>, Failed> {
    let found = read(bench, commands).await?;
    let now = found.now;
    let plan = decide(bench, commands, found);
    commit(bench, commands, plan, now).await
}

async fn read(bench: &Bench<'_>, commands: &[Command]) -> Result<Found, Failed> {
    let client = bench.client;
    let arrivals = || commands.iter().filter_map(Command::arrivals).flatten();
    let keys = Keys::of(arrivals().map(|arrival| &arrival.key).collect::<BTreeSet<_>>());
    let asked = since_boot();
    // Futures are first polled in this order, and sent to the server in it.
    let clock = async {
        let row = client.query_one(&bench.statements.clock, &[]).await?;
        Ok::<_, tokio_postgres::Error>((Timestamp::from_millis(row.get(0)), since_boot()))
    };
    let lookups = async {
        if keys.pks.is_empty() {
            return (Ok(Vec::new()), Ok(Vec::new()));
        }
        let params: Params<'_> = vec![&keys.accounts, &keys.pks];
        let (find, retired) = (&bench.statements.find, &bench.statements.find_retired);
        join(client.query(find, &params), client.query(retired, &params)).await
    };
    let takes = commands.iter().filter_map(Command::due).map(|due| take(bench, due));
    let reading = join3(client.batch_execute("BEGIN"), clock, join(lookups, join_all(takes)));
    let (begun, clock, (lookups, due)) =
        tokio::time::timeout(limits::ROUND, reading).await.map_err(|_| Failed::Lost(silent()))?;
    let found = (|| {
        begun?;
        let (now, answered) = clock?;
        bench.clock.look(now, asked, answered);
        Ok((now, lookups.0?, lookups.1?, due.into_iter().collect::<Result<Vec<_>, _>>()?))
    })();
    let (now, states, retired, due) = match found {
        Ok(found) => found,
        Err(error) => return Err(give_up(client, &error).await),
    };
    let states = states.iter().filter_map(|row| Some((key_of(row)?, StateName::from_stored(row.get(2))?)));
    let generation =
        |row: &Row| Generation::from_stored(u32::try_from(row.get::<_, i64>(2)).unwrap_or(u32::MAX));
    let retired = retired.iter().filter_map(|row| Some((key_of(row)?, generation(row))));
    let mut aside = Vec::new();
    let mut sound = |row: &Row| readable(row).map_err(|damaged| aside.push(damaged)).ok();
    let due = due.iter().map(|rows| rows.iter().filter_map(&mut sound).collect()).collect();
    Ok(Found { now, states: states.collect(), retired: retired.collect(), due, aside })
}

async fn put_aside(bench: &Bench<'_>, damaged: &[Damaged]) -> Result<(), tokio_postgres::Error> {
    for Damaged { key, fence, error } in damaged {
        let Some(key) = key else { continue };
        tracing::error!(invite.id = %key, %error, "an invite is put aside: its row can't be read");
        let (account, pk) = (key.account.as_str(), stored_pk(key));
        bench.client.execute(&bench.statements.put_aside, &[&account, &pk, fence]).await?;
    }
    Ok(())
}

/// Nothing was changed: ends the transaction, if there is still somebody to hear of it.
async fn give_up(client: &ClientWrapper, error: &tokio_postgres::Error) -> Failed {
    // Of a server that has become a standby every command is refused; the next connection finds the one that has not.
    if client.is_closed() || is_read_only(error) || client.batch_execute("ROLLBACK").await.is_err() {
        return Failed::Lost(unavailable(error));
    }
    Failed::Refused(unavailable(error))
}

async fn take(bench: &Bench<'_>, due: &Due) -> Result<Vec<Row>, tokio_postgres::Error> {
    let limit = |limit: usize| i64::try_from(limit).unwrap_or(i64::MAX);
    match due {
        Due::Api { account, limit: most } => {
            bench.client.query(&bench.statements.due_api, &[&account.as_str(), &limit(*most)]).await
        }
        Due::Publish { sinks, limit: most, narrow } => {
            let (wide, scarce) = lanes(*sinks, narrow.sinks);
            let query = async |lanes: &Vec<i16>, most: usize| {
                bench.client.query(&bench.statements.due_publish, &[lanes, &limit(most)]).await
            };
            let mut rows = query(&wide, *most).await?;
            let left = most.saturating_sub(rows.len()).min(narrow.places);
            if left > 0 && !scarce.is_empty() {
                rows.extend(query(&scarce, left).await?);
            }
            Ok(rows)
        }
    }
}

/// The lanes in which something waits for one of `sinks`; apart from them, those in which it waits for none but the
/// `narrow` ones.
fn lanes(sinks: Sinks, narrow: Sinks) -> (Vec<i16>, Vec<i16>) {
    let wanted = |lane: u8| Sinks::from_bits(lane).and(sinks);
    let lanes = (1..=Sinks::ALL.bits()).filter(|lane| !wanted(*lane).is_empty());
    let (wide, scarce): (Vec<u8>, Vec<u8>) =
        lanes.partition(|lane| !wanted(*lane).and(narrow.complement()).is_empty());
    (wide.into_iter().map(i16::from).collect(), scarce.into_iter().map(i16::from).collect())
}

/// What the commands lead to, and what each of them will hear.
pub(super) fn decide(bench: &Bench<'_>, commands: &[Command], mut found: Found) -> Plan {
    let mut plan = Plan { aside: std::mem::take(&mut found.aside), ..Plan::default() };
    // Who holds an invite goes before who would take it up.
    for command in commands {
        if let Command::Advance { invite, .. } = command {
            plan.touched.insert(invite.key.clone());
        }
    }
    let mut advanced = HashSet::new();
    let mut due = std::mem::take(&mut found.due).into_iter();
    for command in commands {
        let expected = match command {
            Command::Accept { arrivals, .. } => Expected::Accepted(
                arrivals.iter().map(|arrival| admit(bench, &mut plan, &mut found, arrival)).collect(),
            ),
            Command::Take { what, .. } => {
                let rows = due.next().unwrap_or_default();
                let (Due::Api { limit, .. } | Due::Publish { limit, .. }) = what;
                let cut = rows.len() == *limit;
                let free: Vec<Invite> =
                    rows.into_iter().filter(|invite| plan.touched.insert(invite.key.clone())).collect();
                let work =
                    free.into_iter().map(|invite| update(bench, &mut plan, invite, Input::Take, found.now));
                Expected::Taken { work: work.collect(), cut }
            }
            Command::Advance { invite, input, .. } => {
                if advanced.insert(invite.key.clone()) {
                    let work = update(bench, &mut plan, (**invite).clone(), input.clone(), found.now);
                    Expected::Advanced(invite.clone(), Box::new(work))
                } else {
                    Expected::Overtaken
                }
            }
        };
        plan.expected.push(expected);
    }
    plan
}

fn admit(bench: &Bench<'_>, plan: &mut Plan, found: &mut Found, arrival: &Arrival) -> Admitted {
    let Arrival { key, cause, admission } = arrival.clone();
    let event = (cause.event_id.clone(), cause.event_source.clone());
    plan.events.keys.push(&key);
    plan.events.ids.push(event.0.clone());
    plan.events.sources.push(event.1.clone());
    if let Some(state) = found.states.get(&key) {
        return Admitted { what: Err(*state), key, event };
    }
    let generation = found.retired.get(&key).map_or(Generation::FIRST, |last| last.next());
    let invite = Invite::received(key.clone(), generation, cause, found.now);
    let Step { next, effect } = match admission {
        Admission::Start => step(invite, Input::Take, bench.rules, moment(found.now)),
        Admission::Queue => Step { next: invite, effect: None },
        Admission::Refuse(failure) => step(invite, Input::Refused(failure), bench.rules, moment(found.now)),
    };
    plan.inserts.push(NewInvite::of(&next, effect.is_some().then_some(bench.owner)));
    // Further events of the same group join it.
    found.states.insert(key.clone(), next.state.name());
    Admitted { key, event, what: Ok(Box::new(Work { invite: next, effect })) }
}

fn update(bench: &Bench<'_>, plan: &mut Plan, invite: Invite, input: Input, now: Timestamp) -> Work {
    let (fence, from) = (invite.fence, invite.state.name());
    let confirmed = matches!(input, Input::Confirmed(_));
    let step = step(invite, input, bench.rules, moment(now));
    let held = stays_in_hand(&step, confirmed);
    let Step { mut next, effect } = step;
    plan.updates.push(MovedInvite::of(&next, from, fence, held.then_some(bench.owner)));
    next.fence += 1;
    Work { invite: next, effect }
}

async fn commit(
    bench: &Bench<'_>,
    commands: &[Command],
    plan: Plan,
    now: Timestamp,
) -> Result<Vec<Outcome>, Failed> {
    let (client, statements) = (bench.client, bench.statements);
    let any = !(plan.updates.is_empty() && plan.events.ids.is_empty() && plan.aside.is_empty());
    if !plan.aside.is_empty()
        && let Err(error) = put_aside(bench, &plan.aside).await
    {
        return Err(give_up(client, &error).await);
    }
    if any {
        points(commands).for_each(|(before, _)| crash::pass(before));
    }
    let next_due = commands.iter().filter_map(Command::due).map(|due| next_due(bench, due));
    let writing = join3(
        writes::updates(client, &statements.update, &plan.updates, None),
        join(
            writes::inserts(client, statements, &plan.inserts),
            writes::events(client, statements, &plan.events, now),
        ),
        join(join_all(next_due), client.batch_execute(if any { "COMMIT" } else { "ROLLBACK" })),
    );
    let Ok(written) = tokio::time::timeout(limits::ROUND, writing).await else {
        return Err(doubtful(silent(), plan));
    };
    let (updated, (inserted, remembered), (next_due, ended)) = written;
    let written = (|| {
        let (updated, inserted, remembered) = (updated?, inserted?, remembered?);
        let next_due = next_due.into_iter().collect::<Result<Vec<_>, _>>()?;
        ended?;
        Ok((updated, inserted, remembered, next_due))
    })();
    let (updated, inserted, remembered, next_due) = match written {
        Ok(written) => written,
        Err(error) => return Err(not_committed(client, &error, plan).await),
    };
    if any {
        points(commands).for_each(|(_, after)| crash::pass(after));
    }
    let updated: HashSet<TruckerKey> = updated.iter().filter_map(key_of).collect();
    let inserted: HashSet<TruckerKey> = inserted.iter().filter_map(key_of).collect();
    let news: HashSet<(TruckerKey, (String, String))> =
        remembered.iter().filter_map(|row| Some((key_of(row)?, (row.get(2), row.get(3))))).collect();
    let results = Results { updated, inserted, news, next_due, now };
    Ok(results.tell(bench, plan).await)
}

/// A statement that fails takes the whole transaction with it, also if its COMMIT was sent along. Anything else, and
/// the server's last words before it ends the connection, say nothing about the COMMIT.
pub(super) async fn not_committed(
    client: &ClientWrapper,
    error: &tokio_postgres::Error,
    plan: Plan,
) -> Failed {
    if is_refusal(error) {
        return give_up(client, error).await;
    }
    doubtful(unavailable(error), plan)
}

/// Whether the server has refused a statement, and goes on with the connection.
pub(super) fn is_refusal(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.parsed_severity() == Some(Severity::Error))
}

pub(super) fn doubtful(error: Error, plan: Plan) -> Failed {
    let results = plan.expected.into_iter().filter_map(|expected| match expected {
        Expected::Advanced(before, work) => Some(((before.key, before.fence), *work)),
        Expected::Accepted(_) | Expected::Taken { .. } | Expected::Overtaken => None,
    });
    Failed::Doubtful(error, results.collect())
}

pub(super) fn silent() -> Error {
    Error::Unavailable("the database does not answer".to_owned())
}

pub(super) fn points(commands: &[Command]) -> impl Iterator<Item = (Point, Point)> {
    let kinds: BTreeMap<u8, (Point, Point)> = commands.iter().map(Command::points).collect();
    kinds.into_values()
}

async fn next_due(bench: &Bench<'_>, due: &Due) -> Result<Option<Timestamp>, tokio_postgres::Error> {
    let (client, statements) = (bench.client, bench.statements);
    let row = match due {
        Due::Api { account, .. } => client.query_one(&statements.next_api, &[&account.as_str()]).await?,
        Due::Publish { sinks, narrow, .. } => {
            let (mut lanes, scarce) = lanes(*sinks, narrow.sinks);
            // Without a place, whoever frees one looks again; due times are no reason to wake until then.
            if narrow.places > 0 {
                lanes.extend(scarce);
            }
            client.query_one(&statements.next_publish, &[&lanes]).await?
        }
    };
    Ok(row.get::<_, Option<i64>>(0).map(Timestamp::from_millis))
}

/// What the second round trip brought.
struct Results {
    updated: HashSet<TruckerKey>,
    inserted: HashSet<TruckerKey>,
    /// Events that were not known; each is taken out by the first arrival that brought it.
    news: HashSet<(TruckerKey, (String, String))>,
    next_due: Vec<Option<Timestamp>>,
    now: Timestamp,
}

impl Results {
    async fn tell(mut self, bench: &Bench<'_>, plan: Plan) -> Vec<Outcome> {
        let mut next_due = std::mem::take(&mut self.next_due).into_iter();
        let mut outcomes = Vec::with_capacity(plan.expected.len());
        for expected in plan.expected {
            outcomes.push(match expected {
                Expected::Accepted(admitted) => {
                    let mut receipts = Vec::with_capacity(admitted.len());
                    for one in admitted {
                        receipts.push(self.receipt(bench, one).await);
                    }
                    Outcome::Accepted(receipts)
                }
                Expected::Taken { work, cut } => {
                    let work =
                        work.into_iter().filter(|work| self.updated.contains(&work.invite.key)).collect();
                    let next = next_due.next().flatten();
                    let next_due =
                        if cut { next } else { next.map(|due| due.max(self.now.after(IN_OTHER_HANDS))) };
                    Outcome::Taken(Taken { work, next_due })
                }
                Expected::Advanced(_, work) if self.updated.contains(&work.invite.key) => {
                    Outcome::Advanced(Box::new(Ok(*work)))
                }
                Expected::Advanced(before, _) => Outcome::Advanced(Box::new(own_write(bench, &before).await)),
                Expected::Overtaken => Outcome::Advanced(Box::new(Err(Error::Lost))),
            });
        }
        outcomes
    }

    async fn receipt(&mut self, bench: &Bench<'_>, admitted: Admitted) -> Receipt {
        let Admitted { key, event, what } = admitted;
        let news = self.news.remove(&(key.clone(), event));
        let state = match what {
            Ok(work) if self.inserted.contains(&key) => return Receipt::New(work),
            // Another replica was quicker, between our look and our write.
            Ok(_) => state_of(bench, &key).await.unwrap_or(StateName::Received),
            Err(state) => state,
        };
        if news { Receipt::Joined(state) } else { Receipt::Duplicate(state) }
    }
}

/// An advance found another version of its row. If that version is its own doing, of an earlier try whose commit
/// nobody heard of, then the work goes on; otherwise it is lost.
async fn own_write(bench: &Bench<'_>, before: &Invite) -> Result<Work, Error> {
    let tries = bench.doubts.of(before);
    if tries.is_empty() {
        return Err(Error::Lost);
    }
    let stored = super::reader::invite(bench.client, &before.key).await?.ok_or(Error::Lost)?;
    tries.into_iter().find(|work| work.invite == stored).ok_or(Error::Lost)
}

async fn state_of(bench: &Bench<'_>, key: &TruckerKey) -> Option<StateName> {
    let keys = Keys::of([key]);
    let rows = bench.client.query(&bench.statements.states, &[&keys.accounts, &keys.pks]).await.ok()?;
    StateName::from_stored(rows.first()?.get(2))
}

fn moment(now: Timestamp) -> Moment {
    Moment { now, dice: rand::random() }
}
