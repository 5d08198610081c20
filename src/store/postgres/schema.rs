//! The schema: migrations that many replicas may begin at once, and the key that is kept beside the data.

use tokio_postgres::{Client, Transaction};

use super::connect::{OLDEST_SERVER, describe, unavailable};
use crate::crash::{self, Point};
use crate::invite::FingerprintKey;
use crate::store::Error;

/// Migrations in order; `schema_version` counts those that were applied. Never edit one that was released. While a
/// deployment rolls, the version before works on, if slower: a migration changes nothing that its statements name. So a
/// type of rows that needs another field gets another name, and the old one stays.
const MIGRATIONS: [&str; 2] = [
    include_str!("../migrations/postgres/0001_initial.sql"),
    include_str!("../migrations/postgres/0002_leaner_writes.sql"),
];

/// The schema that this version writes.
pub const SCHEMA: usize = MIGRATIONS.len();

/// The advisory lock under which one replica migrates while the others wait.
const LOCK: i64 = 0x6972_7700;

/// Brings the schema up to date. A schema that a newer version has written is refused.
pub(super) async fn migrate(client: &mut Client) -> Result<(), Error> {
    let wrap =
        |error: tokio_postgres::Error| Error::Open(format!("can't prepare the store: {}", describe(&error)));
    let version = client.query_one("SELECT current_setting('server_version_num')::int4", &[]).await;
    let version = version.map_err(wrap)?.get::<_, i32>(0) / 10_000;
    if version < OLDEST_SERVER {
        return Err(Error::Open(format!("PostgreSQL {version} is too old; {OLDEST_SERVER} is needed")));
    }
    let transaction = client.transaction().await.map_err(wrap)?;
    // Waiting for a replica that migrates may take as long as its migration.
    let settings = "SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0";
    transaction.batch_execute(settings).await.map_err(wrap)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await.map_err(wrap)?;
    let applied = applied(&transaction).await.map_err(wrap)?.unwrap_or_default();
    if applied > SCHEMA {
        return Err(Error::Open(format!(
            "the store was written by a newer version (schema {applied}, this version knows {SCHEMA}); run that version \
             or restore a backup"
        )));
    }
    if applied == 0 {
        let table = "CREATE TABLE schema_version (one int2 PRIMARY KEY CHECK (one = 1), version int4 NOT NULL); \
             INSERT INTO schema_version VALUES (1, 0)";
        transaction.batch_execute(table).await.map_err(wrap)?;
    }
    for migration in MIGRATIONS.iter().skip(applied) {
        transaction.batch_execute(migration).await.map_err(wrap)?;
    }
    if applied < SCHEMA {
        let version = i32::try_from(SCHEMA).unwrap_or(i32::MAX);
        transaction.execute("UPDATE schema_version SET version = $1", &[&version]).await.map_err(wrap)?;
    }
    crash::pass(Point::PrepareCommit);
    transaction.commit().await.map_err(wrap)
}

/// The migrations that were applied; `None` where there is no store.
async fn applied(transaction: &Transaction<'_>) -> Result<Option<usize>, tokio_postgres::Error> {
    version(transaction.client()).await
}

/// See [`applied`].
pub(super) async fn version(client: &Client) -> Result<Option<usize>, tokio_postgres::Error> {
    let there = client.query_one("SELECT to_regclass('schema_version') IS NOT NULL", &[]).await?;
    if !there.get::<_, bool>(0) {
        return Ok(None);
    }
    let row = client.query_one("SELECT version FROM schema_version", &[]).await?;
    Ok(usize::try_from(row.get::<_, i32>(0)).ok())
}

/// The key of the fingerprints: made by whichever replica comes first, and the same for all.
pub(super) async fn kept_key(client: &Client) -> Result<FingerprintKey, Error> {
    let made: [u8; 32] = rand::random();
    let insert = "INSERT INTO secrets (name, value) VALUES ('fingerprint_key', $1) ON CONFLICT DO NOTHING";
    crash::pass(Point::PrepareCommit);
    client.execute(insert, &[&made.as_slice()]).await.map_err(|error| unavailable(&error))?;
    let select = "SELECT value FROM secrets WHERE name = 'fingerprint_key'";
    let row = client.query_one(select, &[]).await.map_err(|error| unavailable(&error))?;
    let key: [u8; 32] = row
        .get::<_, &[u8]>(0)
        .try_into()
        .map_err(|_| Error::Open("the store's fingerprint key can't be read".to_owned()))?;
    Ok(FingerprintKey::new(key))
}
