//! The file itself: the lock, the settings of the connection, the migrations.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::unavailable;
use crate::crash::{self, Point};
use crate::invite::FingerprintKey;
use crate::store::Error;

/// Migrations in order; `PRAGMA user_version` counts those that were applied. Never edit one that was released.
pub(super) const MIGRATIONS: [&str; 3] = [
    include_str!("../migrations/sqlite/0001_initial.sql"),
    include_str!("../migrations/sqlite/0002_work_list.sql"),
    include_str!("../migrations/sqlite/0003_counts.sql"),
];

/// How long a write waits for another process, an operator's command, that is at it.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// SQLite before 3.51.3 can lose a commit when a WAL reset races a checkpoint (<https://sqlite.org/wal.html>).
const OLDEST_SQLITE: i32 = 3_051_003;

/// An open file that belongs to this process.
pub(super) struct Opened {
    pub connection: Connection,
    pub fingerprint_key: FingerprintKey,
    /// Holding it is owning the store.
    pub lock: File,
}

pub(super) fn open(path: &Path, configured_key: Option<FingerprintKey>) -> Result<Opened, Error> {
    if rusqlite::version_number() < OLDEST_SQLITE {
        return Err(Error::Open(format!("SQLite {} is too old; 3.51.3 is needed", rusqlite::version())));
    }
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        Error::Open(format!("{what} {}: {error}", path.display()))
    };
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| fail("can't make the directory of the store", &error))?;
    }
    let lock = lock(path)?;
    // Created here and not by SQLite, because it holds codes and is nobody else's business.
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    file.map_err(|error| fail("can't open the store", &error))?;
    let mut connection = Connection::open(path).map_err(|error| fail("can't open the store", &error))?;
    let prepared = settle_in(&mut connection).and_then(|()| migrate(&mut connection, path));
    prepared.map_err(|error| match error {
        Error::Unavailable(why) => fail("can't prepare the store", &why),
        other => other,
    })?;
    let fingerprint_key = match configured_key {
        Some(key) => key,
        None => kept_key(&connection).map_err(|error| fail("can't read the store", &error))?,
    };
    Ok(Opened { connection, fingerprint_key, lock })
}

/// The file that is locked instead of the database, whose own locks are SQLite's business.
pub(super) fn lock_path(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".lock");
    beside.into()
}

fn lock(path: &Path) -> Result<File, Error> {
    let beside = lock_path(path);
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&beside);
    let file = file.map_err(|error| Error::Open(format!("can't open {}: {error}", beside.display())))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        Error::Open(match error {
            rustix::io::Errno::WOULDBLOCK => format!(
                "the store {} is in use by another process; an SQLite store serves one process only. Stop the \
                 other one, or give this one a store.url of its own",
                path.display()
            ),
            other => format!("can't lock {}: {other}", beside.display()),
        })
    })?;
    Ok(file)
}

fn settle_in(connection: &mut Connection) -> Result<(), Error> {
    let pragmas = [
        ("journal_mode", "WAL"),
        // A commit is on the disk when it returns: acks depend on it.
        ("synchronous", "FULL"),
        // Erased codes are overwritten, not only unlinked.
        ("secure_delete", "ON"),
        ("cache_size", "-8192"),
        ("temp_store", "MEMORY"),
    ];
    for (name, value) in pragmas {
        connection.pragma_update(None, name, value).map_err(|error| unavailable(&error))?;
    }
    let mode: String = connection
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .map_err(|error| unavailable(&error))?;
    if mode != "wal" {
        return Err(Error::Open(format!(
            "the store can't use a write-ahead log (journal mode {mode}); put it on a local disk, not on a network \
             file system"
        )));
    }
    connection.busy_timeout(BUSY_TIMEOUT).map_err(|error| unavailable(&error))?;
    connection.set_prepared_statement_cache_capacity(64);
    // No plan depends on bound values. Without this a statement that might is planned anew each time it is run.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)
        .map_err(|error| unavailable(&error))?;
    Ok(())
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), Error> {
    let wrap = |error: rusqlite::Error| unavailable(&error);
    let applied: usize =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(wrap)?;
    if applied > MIGRATIONS.len() {
        return Err(Error::Open(format!(
            "the store {} was written by a newer version (schema {applied}, this version knows {}); run that version \
             or restore a backup",
            path.display(),
            MIGRATIONS.len()
        )));
    }
    for (index, migration) in MIGRATIONS.iter().enumerate().skip(applied) {
        let transaction = connection.transaction().map_err(wrap)?;
        transaction.execute_batch(migration).map_err(wrap)?;
        transaction.pragma_update(None, "user_version", index + 1).map_err(wrap)?;
        crash::pass(Point::PrepareCommit);
        transaction.commit().map_err(wrap)?;
    }
    Ok(())
}

fn kept_key(connection: &Connection) -> rusqlite::Result<FingerprintKey> {
    let select = "SELECT value FROM secrets WHERE name = 'fingerprint_key'";
    let kept: Option<[u8; 32]> = connection.query_row(select, [], |row| row.get(0)).optional()?;
    if let Some(key) = kept {
        return Ok(FingerprintKey::new(key));
    }
    let key: [u8; 32] = rand::random();
    crash::pass(Point::PrepareCommit);
    connection.execute("INSERT INTO secrets (name, value) VALUES ('fingerprint_key', ?1)", params![key])?;
    Ok(FingerprintKey::new(key))
}
