//! The embedded store: one SQLite file, one writer thread, one process.
//!
//! All writes go through one thread that commits whatever has queued up as one transaction, so that one fsync
//! serves many events and nobody waits when there is nothing to wait for. Reads use a second connection.

mod file;
mod inspect;
mod reader;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use self::reader::Reader;
use self::writer::Writer;
use super::oldest::{self, Oldest};
use super::{
    Arrival, DeadCause, Due, Error, Filter, GateDecision, Operator, OrderRecord, Receipt, Redrive, Redriven,
    Reissued, Selection, Store, Story, Taken, Tally, Tidied, Work,
};
use crate::invite::{AccountName, FingerprintKey, Gate, Input, Invite, Rules, TruckerKey};
use crate::lifecycle::Lifecycle;

pub use self::inspect::{Inspection, SCHEMA, inspect};
pub use self::writer::Observer;

/// How the file is opened and what the store decides by itself.
#[derive(Clone)]
pub struct Settings {
    /// The database file; its directory is made if it is missing.
    pub path: PathBuf,
    /// The rules of the state machine, which runs inside the transactions.
    pub rules: Rules,
    /// `store.erase_codes_after`.
    pub erase_codes_after: Duration,
    /// `store.retention`.
    pub retention: Duration,
    /// `store.fingerprint_key_file`, if set; otherwise a key is made once and kept in the file.
    pub fingerprint_key: Option<FingerprintKey>,
    /// Told about each commit.
    pub observer: Observer,
}

/// A store in one SQLite file. Closing waits until the last commit is done.
pub struct SqliteStore {
    writer: Writer,
    reader: Arc<Reader>,
    fingerprint_key: FingerprintKey,
    oldest: Oldest,
}

impl SqliteStore {
    /// Opens the file for writing and takes it for this process alone. What a former process had in hand is due
    /// at once: the lock proves that it is gone.
    pub fn open(settings: Settings, life: &Lifecycle) -> Result<Self, Error> {
        let opened = file::open(&settings.path, settings.fingerprint_key.clone())?;
        let reader = Arc::new(Reader::open(&settings.path)?);
        let fingerprint_key = opened.fingerprint_key.clone();
        let writer = Writer::start(opened, settings, life)?;
        Ok(Self { writer, reader, fingerprint_key, oldest: Oldest::default() })
    }

    async fn tallied(&self) -> Result<Vec<Tally>, Error> {
        let mut tally = self.writer.counts();
        let found = if let Some(known) = self.oldest.known() {
            known
        } else {
            let began = Instant::now();
            let found = self.reading(reader::oldest).await?;
            self.oldest.keep(began, &found);
            found
        };
        oldest::add_to(&mut tally, &found);
        Ok(tally)
    }

    async fn reading<T, F>(&self, query: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&rusqlite::Connection) -> Result<T, Error> + Send + 'static,
    {
        let reader = Arc::clone(&self.reader);
        let blocking = tokio::task::spawn_blocking(move || reader.run(query));
        blocking.await.map_err(|_| Error::Unavailable("a read of the store was cut off".to_owned()))?
    }
}

impl Store for SqliteStore {
    fn accept(&self, arrivals: Vec<Arrival>) -> BoxFuture<'_, Result<Vec<Receipt>, Error>> {
        self.writer.accept(arrivals).boxed()
    }

    fn take(&self, what: Due) -> BoxFuture<'_, Result<Taken, Error>> {
        self.writer.take(what).boxed()
    }

    fn advance(&self, invite: Invite, input: Input) -> BoxFuture<'_, Result<Work, Error>> {
        self.writer.advance(invite, input).boxed()
    }

    fn gates(&self) -> BoxFuture<'_, Result<Vec<(AccountName, Gate)>, Error>> {
        self.reading(reader::gates).boxed()
    }

    fn move_gate(&self, account: AccountName, decide: GateDecision) -> BoxFuture<'_, Result<Gate, Error>> {
        self.writer.move_gate(account, decide).boxed()
    }

    fn redrive(&self, order: Redrive) -> BoxFuture<'_, Result<Redriven, Error>> {
        self.writer.redrive(order).boxed()
    }

    fn reissue(&self, key: TruckerKey, by: Operator) -> BoxFuture<'_, Result<Reissued, Error>> {
        self.writer.reissue(key, by).boxed()
    }

    fn causes(&self, which: Selection) -> BoxFuture<'_, Result<Vec<DeadCause>, Error>> {
        self.reading(move |db| reader::causes(db, &which)).boxed()
    }

    fn orders(&self, limit: usize) -> BoxFuture<'_, Result<Vec<OrderRecord>, Error>> {
        self.reading(move |db| reader::orders(db, limit)).boxed()
    }

    fn unfinished(&self) -> u64 {
        self.writer.unfinished()
    }

    fn tidy(&self) -> BoxFuture<'_, Result<Tidied, Error>> {
        self.writer.tidy().boxed()
    }

    fn tally(&self) -> BoxFuture<'_, Result<Vec<Tally>, Error>> {
        self.tallied().boxed()
    }

    fn show(&self, key: TruckerKey) -> BoxFuture<'_, Result<Option<Story>, Error>> {
        self.reading(move |db| reader::show(db, &key)).boxed()
    }

    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Invite>, Error>> {
        self.reading(move |db| reader::list(db, &filter)).boxed()
    }

    fn fingerprint_key(&self) -> FingerprintKey {
        self.fingerprint_key.clone()
    }
}

/// Looks into a store file without taking it, also while a service runs on it: `invites list` and `show`.
pub struct Peek(Reader);

impl Peek {
    /// Opens the file for reading.
    pub fn open(path: &std::path::Path) -> Result<Self, Error> {
        Reader::open(path).map(Self)
    }

    /// See [`Store::list`].
    pub fn list(&self, filter: &Filter) -> Result<Vec<Invite>, Error> {
        self.0.run(|db| reader::list(db, filter))
    }

    /// See [`Store::causes`].
    pub fn causes(&self, which: &Selection) -> Result<Vec<DeadCause>, Error> {
        self.0.run(|db| reader::causes(db, which))
    }

    /// See [`Store::orders`].
    pub fn orders(&self, limit: usize) -> Result<Vec<OrderRecord>, Error> {
        self.0.run(|db| reader::orders(db, limit))
    }

    /// See [`Store::show`].
    pub fn show(&self, key: &TruckerKey) -> Result<Option<Story>, Error> {
        self.0.run(|db| reader::show(db, key))
    }
}

/// A failing statement means that the store can't work now; the text is SQLite's own and holds no values.
fn unavailable(error: &rusqlite::Error) -> Error {
    Error::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::store::conformance::{self, Bench};

    /// One file, opened and re-opened by the suite.
    struct SqliteBench {
        dir: tempfile::TempDir,
        rules: Mutex<Rules>,
    }

    impl Bench for SqliteBench {
        async fn open(&self) -> super::super::Shared {
            self.open_now()
        }

        fn set_rules(&self, rules: Rules) {
            *self.rules.lock().unwrap() = rules;
        }

        fn ended_lease(&self) -> Duration {
            Duration::from_secs(60)
        }

        fn kept_bytes(&self) -> Vec<u8> {
            let files = std::fs::read_dir(self.dir.path()).unwrap();
            files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
        }
    }

    impl SqliteBench {
        fn open_now(&self) -> super::super::Shared {
            let settings = Settings {
                path: self.dir.path().join("store.db"),
                rules: self.rules.lock().unwrap().clone(),
                erase_codes_after: Duration::ZERO,
                retention: Duration::ZERO,
                fingerprint_key: None,
                observer: Arc::new(|_, _| {}),
            };
            Arc::new(SqliteStore::open(settings, &Lifecycle::new()).unwrap())
        }
    }

    fn bench() -> SqliteBench {
        SqliteBench { dir: tempfile::tempdir().unwrap(), rules: Mutex::new(conformance::rules()) }
    }

    macro_rules! conforms {
        ($($promise:ident),+ $(,)?) => {
            $(#[tokio::test]
            async fn $promise() {
                conformance::$promise(&bench()).await;
            })+

            #[test]
            fn the_whole_suite_is_run() {
                assert_eq!([$(stringify!($promise)),+], conformance::ALL);
            }
        };
    }

    crate::store::conformance::for_each_promise!(conforms);

    #[test]
    fn a_second_process_on_the_same_file_is_refused_and_told_why() {
        let bench = bench();
        let _first = bench.open_now();
        let settings = Settings {
            path: bench.dir.path().join("store.db"),
            rules: conformance::rules(),
            erase_codes_after: Duration::ZERO,
            retention: Duration::ZERO,
            fingerprint_key: None,
            observer: Arc::new(|_, _| {}),
        };
        let error = SqliteStore::open(settings, &Lifecycle::new()).err().unwrap().to_string();
        assert!(error.contains("in use by another process"), "{error}");
    }

    #[test]
    fn a_look_from_outside_tells_whether_a_process_has_the_store_and_of_which_schema_it_is() {
        let bench = bench();
        let path = bench.dir.path().join("store.db");
        assert_eq!(inspect(&path).unwrap(), None);
        let store = bench.open_now();
        assert_eq!(inspect(&path).unwrap(), Some(Inspection { in_use: true, schema: SCHEMA }));
        drop(store);
        assert_eq!(inspect(&path).unwrap(), Some(Inspection { in_use: false, schema: SCHEMA }));
    }

    /// Another process's look at the store that lasts.
    fn long_reader(bench: &SqliteBench) -> rusqlite::Connection {
        let reader = rusqlite::Connection::open(bench.dir.path().join("store.db")).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM invites;").unwrap();
        reader
    }

    fn holds(bench: &SqliteBench, code: &str) -> bool {
        bench.kept_bytes().windows(code.len()).any(|window| window == code.as_bytes())
    }

    #[tokio::test]
    async fn an_erased_code_leaves_the_log_as_soon_as_a_long_reader_has_ended() {
        const CODE: &str = "CANARYK7Q2ZD";
        let bench = bench();
        let store = bench.open_now();
        conformance::publish(&store, "default/1", CODE).await;
        let reader = long_reader(&bench);
        // Before the reader's snapshot nothing can be taken out of the log.
        store.tidy().await.unwrap();
        store.tidy().await.unwrap();
        assert!(holds(&bench, CODE), "the reader's snapshot needs it: the test shows nothing otherwise");
        drop(reader);
        // Nothing is left to erase; the truncation that is owed is tried again.
        assert_eq!(store.tidy().await.unwrap().codes, 0);
        assert!(!holds(&bench, CODE), "the code is still in the log");
    }

    #[tokio::test]
    async fn an_erased_code_leaves_the_log_of_a_process_that_died_before_it_could_truncate_it() {
        const CODE: &str = "CANARYK7Q2ZD";
        let bench = bench();
        let store = bench.open_now();
        conformance::publish(&store, "default/1", CODE).await;
        let reader = long_reader(&bench);
        store.tidy().await.unwrap();
        // The files as a kill leaves them: without the checkpoint of a last connection that closes.
        let killed = SqliteBench { dir: tempfile::tempdir().unwrap(), ..self::bench() };
        for file in ["store.db", "store.db-wal"] {
            std::fs::copy(bench.dir.path().join(file), killed.dir.path().join(file)).unwrap();
        }
        drop((store, reader));
        assert!(holds(&killed, CODE));
        let store = killed.open_now();
        assert_eq!(store.tidy().await.unwrap().codes, 0);
        assert!(!holds(&killed, CODE), "the code is still in the log");
    }

    #[tokio::test]
    async fn the_first_event_is_recognised_and_shown_once_also_where_an_earlier_version_kept_it_twice() {
        let bench = bench();
        let store = bench.open_now();
        conformance::start(&store, "default/1").await;
        let file = rusqlite::Connection::open(bench.dir.path().join("store.db")).unwrap();
        let twice = "INSERT INTO events (invite, id, source, accepted_at) \
             SELECT seq, event_id, event_source, accepted_at FROM invites";
        assert_eq!(file.execute(twice, []).unwrap(), 1);
        conformance::each_event_is_recognised_and_shown_once(&store).await;
    }

    #[test]
    fn the_store_file_is_readable_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let bench = bench();
        let _store = bench.open_now();
        let mode = std::fs::metadata(bench.dir.path().join("store.db")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
