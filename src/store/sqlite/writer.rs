//! The writer thread: takes what has queued up, commits it as one transaction, then answers everybody.
//!
//! One bad command doesn't fail its neighbours: a command of several statements runs in a savepoint, one of a single
//! statement is undone by SQLite itself. A failing commit fails them all, and nothing was changed.

mod commands;
mod orders;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use super::file::{BUSY_TIMEOUT, Opened};
use super::{Settings, unavailable};
use crate::crash::{self, Point};
use crate::invite::{AccountName, Gate, Input, Invite, StateName, TruckerKey};
use crate::lifecycle::{DeathNotice, Lifecycle};
use crate::store::{
    Arrival, Due, Error, GateDecision, Operator, Receipt, Redrive, Redriven, Reissued, Taken, Tally, Tidied,
    Work,
};

/// Told after each commit: how many commands it held and how long it took.
pub type Observer = Arc<dyn Fn(usize, Duration) + Send + Sync>;

/// Most commands in one transaction: bounds how long the first of them waits.
const GROUP_MAX: usize = 512;

/// How long a truncation of the log waits for readers; every commit waits with it.
const READERS_HAVE: Duration = Duration::from_millis(100);

type Counts = Arc<Mutex<BTreeMap<(AccountName, StateName), u64>>>;

/// Whether an invite in this state still has work to do.
fn is_unfinished(state: StateName) -> bool {
    !matches!(state, StateName::Published | StateName::Dead)
}

/// The handle to the thread.
pub(super) struct Writer {
    /// `None` once closed. The thread holds the other end.
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
    counts: Counts,
    /// The sum of the counts of unfinished invites: asked for with every event.
    unfinished: Arc<AtomicU64>,
}

type Run = Box<dyn FnOnce(&Connection, &mut Context) -> Box<dyn Answer> + Send>;

/// How much a command writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// A single statement that changes anything, which has its full effect or none.
    Statement,
    /// Several: in a savepoint.
    Several,
}

/// A command: what to do inside the transaction, and whom to tell after it.
struct Command {
    extent: Extent,
    /// Passed before and after the commit of the group that holds this command.
    points: (Point, Point),
    /// Runs inside the transaction; the answer leaves only after the commit.
    run: Run,
}

/// The answer to a command, held back until its fate is known.
trait Answer {
    fn is_err(&self) -> bool;
    fn send(self: Box<Self>, commit: Result<(), Error>);
}

struct Reply<T> {
    result: Result<T, Error>,
    to: oneshot::Sender<Result<T, Error>>,
}

impl<T> Answer for Reply<T> {
    fn is_err(&self) -> bool {
        self.result.is_err()
    }

    fn send(self: Box<Self>, commit: Result<(), Error>) {
        // Whoever asked may be gone: then the next worker finds the row as it is.
        let _ = self.to.send(commit.and(self.result));
    }
}

/// What commands share.
struct Context {
    settings: Settings,
    /// Changes of the counts by the current group; applied when it is committed.
    moves: Vec<Move>,
    /// Whether any trucker has an earlier life in `retired`; spares a look-up per event where none has.
    any_retired: bool,
    /// Where the sweep for old rows goes on: after this `ended_at` and `seq`.
    tidy_cursor: (i64, i64),
    /// Set by a command that overwrote codes: the log has to go as well.
    truncate_log: bool,
    /// A truncation is owed, by this process or by one before it: the next tidying tries it, until it works.
    log_holds_codes: bool,
}

/// One invite's way from a state to another; `None` for "not there".
struct Move {
    account: AccountName,
    from: Option<StateName>,
    to: Option<StateName>,
}

impl Writer {
    pub(super) fn start(opened: Opened, settings: Settings, life: &Lifecycle) -> Result<Self, Error> {
        let Opened { connection, lock, .. } = opened;
        let (commands, inbox) = mpsc::unbounded_channel();
        commands::release_all(&connection).map_err(|error| unavailable(&error))?;
        let counted = commands::count(&connection).map_err(|error| unavailable(&error))?;
        let unfinished =
            counted.iter().filter(|((_, state), _)| is_unfinished(*state)).map(|(_, count)| count);
        let unfinished = Arc::new(AtomicU64::new(unfinished.sum()));
        let counts: Counts = Arc::new(Mutex::new(counted));
        let any_retired = commands::any_retired(&connection).map_err(|error| unavailable(&error))?;
        let thread = Thread {
            connection,
            inbox,
            context: Context {
                settings,
                moves: Vec::new(),
                any_retired,
                tidy_cursor: (i64::MIN, i64::MIN),
                truncate_log: false,
                // A former process may have died between the erasure and the truncation.
                log_holds_codes: true,
            },
            counts: Arc::clone(&counts),
            unfinished: Arc::clone(&unfinished),
            _lock: lock,
        };
        let notice = life.death_notice("store");
        let spawned = std::thread::Builder::new().name("store".to_owned()).spawn(move || thread.run(notice));
        let thread =
            spawned.map_err(|error| Error::Open(format!("can't start the store's thread: {error}")))?;
        Ok(Self { commands: Some(commands), thread: Some(thread), counts, unfinished })
    }

    pub(super) async fn accept(&self, arrivals: Vec<Arrival>) -> Result<Vec<Receipt>, Error> {
        let points = (Point::AcceptCommit, Point::Accepted);
        let extent = if arrivals.len() == 1 { Extent::Statement } else { Extent::Several };
        self.submit_as(extent, points, move |db, context| commands::accept(db, context, arrivals)).await
    }

    pub(super) async fn take(&self, what: Due) -> Result<Taken, Error> {
        let points = (Point::TakeCommit, Point::Taken);
        self.submit(points, move |db, context| commands::take(db, context, &what)).await
    }

    pub(super) async fn advance(&self, invite: Invite, input: Input) -> Result<Work, Error> {
        let points = (Point::AdvanceCommit, Point::Advanced);
        let run = move |db: &Connection, context: &mut Context| commands::advance(db, context, invite, input);
        self.submit_as(Extent::Statement, points, run).await
    }

    pub(super) async fn move_gate(&self, account: AccountName, decide: GateDecision) -> Result<Gate, Error> {
        let points = (Point::GateCommit, Point::GateCommit);
        self.submit(points, move |db, _| commands::move_gate(db, &account, &decide)).await
    }

    pub(super) async fn redrive(&self, order: Redrive) -> Result<Redriven, Error> {
        let points = (Point::OrderCommit, Point::OrderCommitted);
        self.submit(points, move |db, context| orders::redrive(db, context, &order)).await
    }

    pub(super) async fn reissue(&self, key: TruckerKey, by: Operator) -> Result<Reissued, Error> {
        let points = (Point::OrderCommit, Point::OrderCommitted);
        self.submit(points, move |db, context| orders::reissue(db, context, &key, &by)).await
    }

    pub(super) async fn tidy(&self) -> Result<Tidied, Error> {
        let points = (Point::TidyCommit, Point::TidyCommit);
        self.submit(points, commands::tidy).await
    }

    pub(super) fn unfinished(&self) -> u64 {
        self.unfinished.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> Vec<Tally> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = |((account, state), count): (&(AccountName, StateName), &u64)| Tally {
            account: account.clone(),
            state: *state,
            count: *count,
            oldest: None,
        };
        counts.iter().map(tally).collect()
    }

    async fn submit<T, F>(&self, points: (Point, Point), run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut Context) -> Result<T, Error> + Send + 'static,
    {
        self.submit_as(Extent::Several, points, run).await
    }

    async fn submit_as<T, F>(&self, extent: Extent, points: (Point, Point), run: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection, &mut Context) -> Result<T, Error> + Send + 'static,
    {
        let (to, answer) = oneshot::channel();
        let run = Box::new(move |db: &Connection, context: &mut Context| {
            let reply: Box<dyn Answer> = Box::new(Reply { result: run(db, context), to });
            reply
        });
        let gone = || Error::Unavailable("the store takes no writes".to_owned());
        let commands = self.commands.as_ref().ok_or_else(gone)?;
        commands.send(Command { extent, points, run }).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    /// Closes the store: returns when everything that was submitted is committed.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    connection: Connection,
    /// The handle holds the other end; its closing ends the thread.
    inbox: mpsc::UnboundedReceiver<Command>,
    context: Context,
    counts: Counts,
    unfinished: Arc<AtomicU64>,
    _lock: File,
}

impl Thread {
    fn run(mut self, notice: DeathNotice) {
        let mut group = Vec::with_capacity(GROUP_MAX);
        while let Some(first) = self.inbox.blocking_recv() {
            group.push(first);
            while group.len() < GROUP_MAX {
                let Ok(next) = self.inbox.try_recv() else { break };
                group.push(next);
            }
            self.commit(group.drain(..));
        }
        notice.disarm();
    }

    fn commit(&mut self, group: impl ExactSizeIterator<Item = Command>) {
        let started = clock();
        let size = group.len();
        let mut answers = Vec::with_capacity(size);
        let mut points: Vec<(Point, Point)> = Vec::new();
        if let Err(error) = self.execute("BEGIN IMMEDIATE") {
            tracing::error!(%error, commands = size, "the store could not begin, nothing was changed");
            // Nothing may run outside a transaction: it would be committed while its caller hears that it was not.
            // Dropping a command answers its caller with an error.
            group.for_each(drop);
            return;
        }
        for command in group {
            if !points.contains(&command.points) {
                points.push(command.points);
            }
            // A full disk can end the transaction under a statement. What runs after that would be committed by itself:
            // dropping a command answers its caller with an error.
            if !self.connection.is_autocommit() {
                answers.push(self.carry_out(command));
            }
        }
        for (before, _) in &points {
            crash::pass(*before);
        }
        let committed = if self.connection.is_autocommit() {
            Err(Error::Unavailable("the transaction has ended early".to_owned()))
        } else {
            self.write_counts().and_then(|()| self.execute("COMMIT"))
        };
        match &committed {
            Ok(()) => {
                for (_, after) in &points {
                    crash::pass(*after);
                }
                self.apply_moves();
            }
            Err(error) => {
                tracing::error!(%error, commands = size, "the store could not commit, nothing was changed");
                self.context.moves.clear();
                let _ = self.execute("ROLLBACK");
            }
        }
        if std::mem::take(&mut self.context.truncate_log) {
            self.context.log_holds_codes = !self.truncated_log();
        }
        (self.context.settings.observer)(size, started.elapsed());
        for answer in answers {
            answer.send(committed.clone());
        }
    }

    /// The log still holds the pages with the erased codes. A reader that is at work can hold it back for a moment.
    fn truncated_log(&self) -> bool {
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        // All commits wait meanwhile, and the next tidying tries it again.
        let _ = self.connection.busy_timeout(READERS_HAVE);
        let busy: rusqlite::Result<bool> = self.connection.query_row(checkpoint, [], |row| row.get(0));
        let _ = self.connection.busy_timeout(BUSY_TIMEOUT);
        matches!(busy, Ok(false))
    }

    fn carry_out(&mut self, command: Command) -> Box<dyn Answer> {
        let moves_before = self.context.moves.len();
        let several = command.extent == Extent::Several;
        let opened = several && self.execute("SAVEPOINT command").is_ok();
        let answer = (command.run)(&self.connection, &mut self.context);
        if opened {
            if answer.is_err() {
                let _ = self.execute("ROLLBACK TO command");
            }
            let _ = self.execute("RELEASE command");
        }
        if answer.is_err() {
            self.context.moves.truncate(moves_before);
        }
        answer
    }

    fn execute(&self, sql: &str) -> Result<(), Error> {
        let run = self.connection.prepare_cached(sql).and_then(|mut statement| statement.execute([]));
        run.map(drop).map_err(|error| unavailable(&error))
    }

    /// The books go into the same commit, so that a start need not count the rows.
    fn write_counts(&self) -> Result<(), Error> {
        let mut changes: BTreeMap<(&AccountName, StateName), i64> = BTreeMap::new();
        for Move { account, from, to } in &self.context.moves {
            for (state, change) in [(from, -1), (to, 1)] {
                if let Some(state) = state {
                    *changes.entry((account, *state)).or_default() += change;
                }
            }
        }
        changes.retain(|_, change| *change != 0);
        commands::add_to_counts(&self.connection, &changes).map_err(|error| unavailable(&error))
    }

    fn apply_moves(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for Move { account, from, to } in self.context.moves.drain(..) {
            match (from.is_some_and(is_unfinished), to.is_some_and(is_unfinished)) {
                (false, true) => drop(self.unfinished.fetch_add(1, Ordering::Relaxed)),
                (true, false) => drop(self.unfinished.fetch_sub(1, Ordering::Relaxed)),
                (true, true) | (false, false) => {}
            }
            if let Some(count) = from.and_then(|from| counts.get_mut(&(account.clone(), from))) {
                *count = count.saturating_sub(1);
            }
            if let Some(to) = to {
                *counts.entry((account, to)).or_default() += 1;
            }
        }
    }
}

/// For the duration of a commit; no decision depends on it.
fn clock() -> Instant {
    Instant::now()
}

/// The account and the key of a row, as parameters.
fn row_of(key: &TruckerKey) -> (&str, u64) {
    (key.account.as_str(), key.pk.get())
}
