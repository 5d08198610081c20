//! The store that several replicas share: a PostgreSQL database.
//!
//! Due times, leases and every other decision are on the database's clock. What a process has in hand carries its
//! `owner`; a process that goes gives it back ([`Store::close`]), and after a crash the leases run out. Commands are
//! committed in groups, by a few connections side by side.

mod address;
mod clock;
mod connect;
mod group;
mod hints;
mod inspect;
mod limits;
mod optimistic;
mod orders;
mod peek;
mod reader;
mod rows;
mod schema;
mod statements;
mod upkeep;
mod writer;
mod writes;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::managed::Object;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex as Turn, broadcast, mpsc, oneshot};
use tokio::time::MissedTickBehavior;
use tokio_util::task::TaskTracker;

use self::clock::{Clock, since_boot};
use self::connect::{Pool, connect, from_pool, pool, unavailable};
use self::hints::Hints;
use self::rows::clock as clock_sql;
use self::upkeep::{Ages, Cursor};
use self::writer::{Command, Doubts, Shared};
use super::oldest::Oldest;
use super::{
    Arrival, DeadCause, Due, Error, Filter, GateDecision, Hint, Operator, OrderRecord, Receipt, Redrive,
    Redriven, Reissued, Selection, Store, Story, Taken, Tally, Tidied, Work,
};
use crate::invite::{AccountName, FingerprintKey, Gate, Input, Invite, Rules, TruckerKey};
use crate::lifecycle::Lifecycle;
use crate::time::Timestamp;

pub use self::address::{Address, AddressError, Tls};
pub use self::connect::{AddressSource, OLDEST_SERVER};
pub use self::inspect::{Inspection, inspect};
pub use self::peek::Peek;
pub use self::schema::SCHEMA;
pub use self::writer::Observer;

/// Connections that commit. While one waits for the disk at the end of its group, the other fills its own; with a third
/// the groups are smaller, and the server has more of them to commit.
const WRITERS: usize = 2;
/// Connections for questions and for writes that are rare.
const READERS: usize = 3;
/// Connections that a process holds: writers, readers, and one for hints.
pub const CONNECTIONS: usize = WRITERS + READERS + 1;

/// How often the writers' notes are summed up. A busy second's are done within milliseconds; of more at once, the events
/// of that moment would hear.
const SUM_UP_EVERY: Duration = Duration::from_secs(1);

/// How the database is reached and what the store decides by itself.
#[derive(Clone)]
pub struct Settings {
    /// Where it is: asked again for each new connection.
    pub address: AddressSource,
    /// The rules of the state machine, which runs inside the transactions.
    pub rules: Rules,
    /// `store.erase_codes_after`.
    pub erase_codes_after: Duration,
    /// `store.retention`.
    pub retention: Duration,
    /// `store.fingerprint_key_file`, if set; otherwise a key is made once and kept in the database.
    pub fingerprint_key: Option<FingerprintKey>,
    /// Told about each commit.
    pub observer: Observer,
}

/// A store in a PostgreSQL database. Dropping it without [`Store::close`] leaves what is in hand to its leases.
pub struct PostgresStore {
    /// `None` once closed. The writers hold the other end.
    commands: Mutex<Option<mpsc::UnboundedSender<Command>>>,
    shared: Arc<Shared>,
    writers: TaskTracker,
    pool: Pool,
    ages: Ages,
    cursor: Cursor,
    oldest: Oldest,
    fingerprint_key: FingerprintKey,
}

/// Does something on a connection of its own, within the time that anything may take.
macro_rules! alone {
    ($pool:expr, |$client:ident| $work:expr) => {{
        let mut connection = from_pool(&$pool).await?;
        let $client = &mut connection;
        let done = tokio::time::timeout(limits::ROUND, $work).await;
        done.unwrap_or_else(|_| {
            // Its answer may still come, and nobody must take it for another's.
            drop(Object::take(connection));
            Err(Error::Unavailable("the database does not answer".to_owned()))
        })
    }};
}

impl PostgresStore {
    /// Connects, brings the schema up to date and starts the writers.
    pub async fn open(settings: Settings, life: &Lifecycle) -> Result<Self, Error> {
        let Settings { address, rules, erase_codes_after, retention, fingerprint_key, observer } = settings;
        let opened = |error: Error| match error {
            Error::Unavailable(why) => Error::Open(format!("can't open the store: {why}")),
            other => other,
        };
        let (mut client, _driver) = connect(&address).await.map_err(opened)?;
        schema::migrate(&mut client).await?;
        let fingerprint_key = match fingerprint_key {
            Some(key) => key,
            None => schema::kept_key(&client).await.map_err(opened)?,
        };
        let clock = look_at_clock(&client).await.map_err(opened)?;
        let unfinished = AtomicI64::new(reader::unfinished(&client).await.map_err(opened)?);
        let owner = rand::random();
        let hints = Arc::new(Hints::new(owner));
        let (commands, inbox) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            source: Arc::clone(&address),
            rules,
            clock,
            doubts: Doubts::default(),
            owner,
            observer,
            hints: Arc::clone(&hints),
            unfinished,
            inbox: Turn::new(inbox),
        });
        let writers = TaskTracker::new();
        for _ in 0..WRITERS {
            let (shared, notice) = (Arc::clone(&shared), life.death_notice("store"));
            // They work on during the drain, and end when the store is closed or dropped.
            writers.spawn(async move {
                writer::write(shared).await;
                notice.disarm();
            });
        }
        let (drain, listened) = (life.clone(), Arc::clone(&address));
        life.spawn_long("store hints", async move {
            tokio::select! {
                () = drain.draining() => {}
                () = hints.exchange(&listened) => {}
            }
        });
        let pool = pool(address, READERS);
        let (drain, summing) = (life.clone(), pool.clone());
        life.spawn_long("store counts", async move {
            tokio::select! {
                () = drain.draining() => {}
                () = keep_counts(&summing) => {}
            }
        });
        Ok(Self {
            commands: Mutex::new(Some(commands)),
            shared,
            writers,
            pool,
            ages: Ages { erase_codes_after, retention },
            cursor: Cursor::default(),
            oldest: Oldest::default(),
            fingerprint_key,
        })
    }

    async fn submit<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> Command,
    ) -> Result<T, Error> {
        let gone = || Error::Unavailable("the store takes no writes".to_owned());
        let (to, answer) = oneshot::channel();
        let sent = match &*self.commands.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(commands) => commands.send(command(to)).is_ok(),
            None => false,
        };
        if !sent {
            return Err(gone());
        }
        answer.await.map_err(|_| gone())?
    }

    async fn tallied(&self) -> Result<Vec<Tally>, Error> {
        let tally = alone!(self.pool, |client| reader::tally(client, &self.oldest))?;
        let unfinished: i64 = tally
            .iter()
            .map(|tally| writer::unfinished(tally.state) * i64::try_from(tally.count).unwrap_or(i64::MAX))
            .sum();
        self.shared.unfinished.store(unfinished, Ordering::Relaxed);
        Ok(tally)
    }

    async fn redriven(&self, order: Redrive) -> Result<Redriven, Error> {
        let rules = &self.shared.rules;
        let redriven = alone!(self.pool, |client| orders::redrive(client, rules, &order))?;
        self.woken().await;
        let more = i64::try_from(redriven.count).unwrap_or_default();
        self.shared.unfinished.fetch_add(more, Ordering::Relaxed);
        Ok(redriven)
    }

    async fn reissued(&self, key: TruckerKey, by: Operator) -> Result<Reissued, Error> {
        let rules = &self.shared.rules;
        let reissued = alone!(self.pool, |client| orders::reissue(client, rules, &key, &by))?;
        if let Reissued::Begun(_) = reissued {
            self.woken().await;
            self.shared.unfinished.fetch_add(1, Ordering::Relaxed);
        }
        Ok(reissued)
    }

    /// Tells the other processes, at once: whoever gives an order may end right after it.
    async fn woken(&self) {
        let told = async { alone!(self.pool, |client| self.shared.hints.tell_all(client)) };
        if let Err(error) = told.await {
            tracing::debug!(%error, "the other replicas find the work at their next look");
        }
    }

    async fn closed(&self) -> Result<(), Error> {
        drop(self.commands.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.writers.close();
        self.writers.wait().await;
        let given =
            alone!(self.pool, |client| upkeep::give_back(client, &self.shared.hints, self.shared.owner))?;
        if given > 0 {
            tracing::info!(given, "work in hand was given back");
        }
        alone!(self.pool, |client| upkeep::sign_off(client, self.shared.owner))?;
        self.pool.close();
        Ok(())
    }

    async fn reported(&self) -> Result<u32, Error> {
        alone!(self.pool, |client| upkeep::report_for_duty(client, self.shared.owner))
    }
}

/// Has the notes of the writers summed up, again and again.
async fn keep_counts(pool: &Pool) {
    let mut timer = tokio::time::interval(SUM_UP_EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut fails = false;
    loop {
        timer.tick().await;
        let summed = async { alone!(pool, |client| upkeep::sum_up(client)) };
        let failed = summed.await.err();
        if let Some(error) = failed.as_ref().filter(|_| !fails) {
            tracing::warn!(%error, "the counts could not be summed up; they stay right, and cost more with every change");
        }
        fails = failed.is_some();
    }
}

async fn look_at_clock(client: &tokio_postgres::Client) -> Result<Clock, Error> {
    let asked = since_boot();
    let row = client.query_one(concat!("SELECT ", clock_sql!()), &[]).await;
    let shown = Timestamp::from_millis(row.map_err(|error| unavailable(&error))?.get(0));
    Ok(Clock::new(shown, asked, since_boot()))
}

impl Store for PostgresStore {
    fn accept(&self, arrivals: Vec<Arrival>) -> BoxFuture<'_, Result<Vec<Receipt>, Error>> {
        self.submit(|to| Command::Accept { arrivals, to }).boxed()
    }

    fn take(&self, what: Due) -> BoxFuture<'_, Result<Taken, Error>> {
        self.submit(|to| Command::Take { what, to }).boxed()
    }

    fn advance(&self, invite: Invite, input: Input) -> BoxFuture<'_, Result<Work, Error>> {
        self.submit(|to| Command::Advance { invite: Box::new(invite), input, to }).boxed()
    }

    fn gates(&self) -> BoxFuture<'_, Result<Vec<(AccountName, Gate)>, Error>> {
        async { alone!(self.pool, |client| reader::gates(client)) }.boxed()
    }

    fn move_gate(&self, account: AccountName, decide: GateDecision) -> BoxFuture<'_, Result<Gate, Error>> {
        async move {
            let gate = alone!(self.pool, |client| upkeep::move_gate(client, &account, &decide))?;
            self.shared.hints.tell(&account);
            Ok(gate)
        }
        .boxed()
    }

    fn redrive(&self, order: Redrive) -> BoxFuture<'_, Result<Redriven, Error>> {
        self.redriven(order).boxed()
    }

    fn reissue(&self, key: TruckerKey, by: Operator) -> BoxFuture<'_, Result<Reissued, Error>> {
        self.reissued(key, by).boxed()
    }

    fn causes(&self, which: Selection) -> BoxFuture<'_, Result<Vec<DeadCause>, Error>> {
        async move { alone!(self.pool, |client| reader::causes(client, &which)) }.boxed()
    }

    fn orders(&self, limit: usize) -> BoxFuture<'_, Result<Vec<OrderRecord>, Error>> {
        async move { alone!(self.pool, |client| reader::orders(client, limit)) }.boxed()
    }

    fn unfinished(&self) -> u64 {
        u64::try_from(self.shared.unfinished.load(Ordering::Relaxed)).unwrap_or_default()
    }

    fn tidy(&self) -> BoxFuture<'_, Result<Tidied, Error>> {
        async { alone!(self.pool, |client| upkeep::tidy(client, self.ages, &self.cursor)) }.boxed()
    }

    fn tally(&self) -> BoxFuture<'_, Result<Vec<Tally>, Error>> {
        self.tallied().boxed()
    }

    fn show(&self, key: TruckerKey) -> BoxFuture<'_, Result<Option<Story>, Error>> {
        async move { alone!(self.pool, |client| reader::show(client, &key)) }.boxed()
    }

    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Invite>, Error>> {
        async move { alone!(self.pool, |client| reader::list(client, &filter)) }.boxed()
    }

    fn fingerprint_key(&self) -> FingerprintKey {
        self.fingerprint_key.clone()
    }

    fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    fn hints(&self) -> Option<broadcast::Receiver<Hint>> {
        Some(self.shared.hints.listen())
    }

    fn report_for_duty(&self) -> BoxFuture<'_, Result<u32, Error>> {
        self.reported().boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.closed().boxed()
    }
}

#[cfg(test)]
mod tests;
