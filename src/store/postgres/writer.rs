//! The writers: a few connections that each commit whatever has queued up as one group, then answer everybody.
//!
//! A group that the server refuses is run again command by command, so that one bad command doesn't fail its
//! neighbours. A connection that is lost fails the group; its commands are offered again by whoever sent them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres::ClientWrapper;
use tokio::sync::{Mutex as Turn, mpsc, oneshot};

use super::clock::Clock;
use super::connect::{AddressSource, connect, unavailable};
use super::group::{self, Bench, Failed, Outcome};
use super::hints::Hints;
use super::limits;
use super::optimistic;
use super::statements::{PLANS, Statements};
use crate::crash::Point;
use crate::invite::{Input, Invite, Rules, StateName, TruckerKey};
use crate::store::{Admission, Arrival, Due, Error, Receipt, Taken, Work};

/// Told after each commit: how many commands it held and how long it took.
pub type Observer = Arc<dyn Fn(usize, Duration) + Send + Sync>;

/// Most commands in one transaction: bounds how long the first of them waits. A command of intake holds many events.
const GROUP_MAX: usize = 256;
/// New events and other commands that a connection serves before its statements are planned anew. A plan that was made
/// while a table was small may go through all of it, and the server itself looks at what has grown once a minute at best.
const PLANS_LAST: usize = 4096;
/// Outcomes in doubt that are remembered: those of an outage, until their workers have asked again.
const DOUBTS_MAX: usize = 10_000;

/// What writers do.
pub(super) enum Command {
    Accept { arrivals: Vec<Arrival>, to: oneshot::Sender<Result<Vec<Receipt>, Error>> },
    Take { what: Due, to: oneshot::Sender<Result<Taken, Error>> },
    Advance { invite: Box<Invite>, input: Input, to: oneshot::Sender<Result<Work, Error>> },
}

impl Command {
    pub(super) fn arrivals(&self) -> Option<&Vec<Arrival>> {
        match self {
            Self::Accept { arrivals, .. } => Some(arrivals),
            Self::Take { .. } | Self::Advance { .. } => None,
        }
    }

    pub(super) fn due(&self) -> Option<&Due> {
        match self {
            Self::Take { what, .. } => Some(what),
            Self::Accept { .. } | Self::Advance { .. } => None,
        }
    }

    /// Passed before and after the commit of the group that holds this command; sorted by the number.
    pub(super) fn points(&self) -> (u8, (Point, Point)) {
        match self {
            Self::Accept { .. } => (0, (Point::AcceptCommit, Point::Accepted)),
            Self::Take { .. } => (1, (Point::TakeCommit, Point::Taken)),
            Self::Advance { .. } => (2, (Point::AdvanceCommit, Point::Advanced)),
        }
    }

    /// Whoever asked may be gone: then the next worker finds the row as it is.
    fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (Self::Accept { to, .. }, Outcome::Accepted(receipts)) => drop(to.send(Ok(receipts))),
            (Self::Take { to, .. }, Outcome::Taken(taken)) => drop(to.send(Ok(taken))),
            (Self::Advance { to, .. }, Outcome::Advanced(result)) => drop(to.send(*result)),
            (command, _) => command.fail(Error::Unavailable("the answer to another command".to_owned())),
        }
    }

    fn fail(self, error: Error) {
        match self {
            Self::Accept { to, .. } => drop(to.send(Err(error))),
            Self::Take { to, .. } => drop(to.send(Err(error))),
            Self::Advance { to, .. } => drop(to.send(Err(error))),
        }
    }
}

/// Results of advances whose commit nobody heard of. The worker tries again, under the same fence; if the row then
/// holds exactly what one of the tries was to write, that one was committed, and its result is the answer.
#[derive(Default)]
pub(super) struct Doubts(Mutex<HashMap<(TruckerKey, u64), Vec<Work>>>);

impl Doubts {
    pub(super) fn of(&self, before: &Invite) -> Vec<Work> {
        let doubts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        doubts.get(&(before.key.clone(), before.fence)).cloned().unwrap_or_default()
    }

    fn add(&self, results: Vec<((TruckerKey, u64), Work)>) {
        let mut doubts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if doubts.len() + results.len() > DOUBTS_MAX {
            // Then their leases have to run out: slower, and as safe.
            doubts.clear();
        }
        for (version, work) in results {
            doubts.entry(version).or_default().push(work);
        }
    }

    fn settle(&self, command: &Command) {
        if let Command::Advance { invite, .. } = command {
            let mut doubts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            doubts.remove(&(invite.key.clone(), invite.fence));
        }
    }
}

/// What all writers of a store share.
pub(super) struct Shared {
    pub source: AddressSource,
    pub rules: Rules,
    pub clock: Clock,
    pub doubts: Doubts,
    pub owner: i64,
    pub observer: Observer,
    pub hints: Arc<Hints>,
    /// Unfinished invites: as they were counted last, and what was committed here since.
    pub unfinished: AtomicI64,
    /// Writers take turns in collecting what has queued up; the other end is in the store.
    pub inbox: Turn<mpsc::UnboundedReceiver<Command>>,
}

/// A connection of a writer with what was prepared on it.
pub(super) struct Line {
    pub client: ClientWrapper,
    statements: Statements,
    /// What has been served with the plans as they are.
    n_served: usize,
}

/// Commits groups until the store is closed and everything that was submitted is done.
pub(super) async fn write(shared: Arc<Shared>) {
    let mut line = None;
    loop {
        let mut group = Vec::new();
        if shared.inbox.lock().await.recv_many(&mut group, GROUP_MAX).await == 0 {
            return;
        }
        let started = clock();
        let size = group.len();
        plan_anew(&mut line, &group).await;
        commit(&shared, &mut line, group).await;
        (shared.observer)(size, started.elapsed());
    }
}

/// Has the server forget its plans now and then.
pub(super) async fn plan_anew(line: &mut Option<Line>, group: &[Command]) {
    let Some(Line { client, n_served, .. }) = line else { return };
    *n_served += group.iter().map(|command| command.arrivals().map_or(1, Vec::len)).sum::<usize>();
    if *n_served < PLANS_LAST {
        return;
    }
    *n_served = 0;
    let forget = tokio::time::timeout(limits::ROUND, client.batch_execute("DISCARD PLANS"));
    if !matches!(forget.await, Ok(Ok(()))) {
        *line = None;
    }
}

async fn commit(shared: &Shared, line: &mut Option<Line>, group: Vec<Command>) {
    let group = commit_unseen(shared, line, group).await;
    if group.is_empty() {
        return;
    }
    let failed = match attempt(shared, line, async |bench| group::run(bench, &group).await).await {
        Ok(outcomes) => {
            for (command, outcome) in group.into_iter().zip(outcomes) {
                finish(shared, command, outcome);
            }
            return;
        }
        Err(failed) => failed,
    };
    if matches!(failed, Failed::Refused(_)) && group.len() > 1 {
        for command in group {
            let alone = std::slice::from_ref(&command);
            match attempt(shared, line, async |bench| group::run(bench, alone).await).await {
                Ok(mut outcomes) => match outcomes.pop() {
                    Some(outcome) => finish(shared, command, outcome),
                    None => command.fail(Error::Unavailable("no answer to the command".to_owned())),
                },
                Err(failed) => command.fail(reason(shared, failed)),
            }
        }
        return;
    }
    fail(shared, group, failed);
}

/// Commits without a look at what is stored, where that will do. Returns the commands for which it didn't.
async fn commit_unseen(shared: &Shared, line: &mut Option<Line>, group: Vec<Command>) -> Vec<Command> {
    if !optimistic::suits(&group) {
        return group;
    }
    let outcomes = match attempt(shared, line, async |bench| optimistic::run(bench, &group).await).await {
        Ok(outcomes) => outcomes,
        Err(Failed::Refused(_)) => return group,
        Err(failed) => {
            fail(shared, group, failed);
            return Vec::new();
        }
    };
    let mut rest = Vec::new();
    for (command, outcome) in group.into_iter().zip(outcomes) {
        match outcome {
            Some(outcome) => finish(shared, command, outcome),
            None => rest.push(command),
        }
    }
    rest
}

fn fail(shared: &Shared, group: Vec<Command>, failed: Failed) {
    let error = reason(shared, failed);
    tracing::error!(%error, commands = group.len(), "the store could not commit");
    for command in group {
        command.fail(error.clone());
    }
}

async fn attempt<T>(
    shared: &Shared,
    line: &mut Option<Line>,
    work: impl AsyncFnOnce(&Bench<'_>) -> Result<T, Failed>,
) -> Result<T, Failed> {
    // A connection that has ended while nobody used it is no reason to fail.
    if line.as_ref().is_none_or(|line| line.client.is_closed()) {
        *line = Some(open(shared).await.map_err(Failed::Lost)?);
    }
    let Some(Line { client, statements, .. }) = &line else {
        return Err(Failed::Lost(Error::Unavailable("no connection".to_owned())));
    };
    let bench = Bench {
        client,
        statements,
        rules: &shared.rules,
        clock: &shared.clock,
        doubts: &shared.doubts,
        owner: shared.owner,
    };
    let result = work(&bench).await;
    if matches!(result, Err(Failed::Lost(_) | Failed::Doubtful(..))) {
        *line = None;
    }
    result
}

fn reason(shared: &Shared, failed: Failed) -> Error {
    match failed {
        Failed::Refused(error) | Failed::Lost(error) => error,
        Failed::Doubtful(error, results) => {
            shared.doubts.add(results);
            error
        }
    }
}

/// Whether an invite in this state still has work to do, as a number.
pub(super) fn unfinished(state: StateName) -> i64 {
    i64::from(!matches!(state, StateName::Published | StateName::Dead))
}

fn finish(shared: &Shared, command: Command, outcome: Outcome) {
    let more = match (&command, &outcome) {
        (_, Outcome::Accepted(receipts)) => {
            let new = receipts.iter().filter_map(|receipt| match receipt {
                Receipt::New(work) => Some(unfinished(work.invite.state.name())),
                Receipt::Joined(_) | Receipt::Duplicate(_) => None,
            });
            new.sum()
        }
        (Command::Advance { invite, .. }, Outcome::Advanced(result)) => result
            .as_ref()
            .as_ref()
            .map_or(0, |work| unfinished(work.invite.state.name()) - unfinished(invite.state.name())),
        // Taking up leads from one unfinished state to another, or leaves the state as it is.
        (_, Outcome::Taken(_) | Outcome::Advanced(_)) => 0,
    };
    shared.unfinished.fetch_add(more, Ordering::Relaxed);
    shared.doubts.settle(&command);
    if let (Command::Accept { arrivals, .. }, Outcome::Accepted(receipts)) = (&command, &outcome) {
        // Nobody here has a place for them; perhaps another replica has.
        for (arrival, receipt) in arrivals.iter().zip(receipts) {
            if arrival.admission == Admission::Queue && matches!(receipt, Receipt::New(_)) {
                shared.hints.tell(&arrival.key.account);
            }
        }
    }
    command.answer(outcome);
}

/// A new connection, set up.
pub(super) async fn open(shared: &Shared) -> Result<Line, Error> {
    let (client, driver) = connect(&shared.source).await?;
    let client = ClientWrapper::new(client, driver);
    let wrap = |error: tokio_postgres::Error| unavailable(&error);
    client.batch_execute(PLANS).await.map_err(wrap)?;
    let prepared = Statements::prepare(&client).await.map_err(wrap)?;
    Ok(Line { client, statements: prepared, n_served: 0 })
}

/// For the duration of a commit; no decision depends on it.
fn clock() -> Instant {
    Instant::now()
}
