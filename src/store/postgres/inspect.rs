//! A look at a database from outside, for `doctor`. Changes nothing that is not undone.

use super::address::{Address, Tls};
use super::connect::{AddressSource, connect, unavailable};
use super::rows::clock;
use super::schema::{self, SCHEMA};
use crate::store::Error;
use crate::time::Timestamp;

/// What a database looks like.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// Where it is.
    pub address: Address,
    /// The server's version, for example `15.4`.
    pub version: String,
    /// The first part of it.
    pub major: i32,
    /// Whether the connection is encrypted and verified.
    pub tls: Tls,
    /// `synchronous_commit` as the server would have it.
    pub synchronous_commit: String,
    /// `fsync` and `full_page_writes` are on: a commit that returned survives a power cut.
    pub crash_safe: bool,
    /// Standbys that follow the server.
    pub standbys: i64,
    /// Whether commits wait for any of them (`synchronous_standby_names`).
    pub waits_for_standbys: bool,
    /// Connections that are left for this role, as far as the server tells.
    pub free_connections: i64,
    /// The server's clock.
    pub now: Timestamp,
    /// Migrations that were applied; `None` where there is no store yet.
    pub schema: Option<usize>,
    /// Why a table can't be made, or its rows can't be written, if so.
    pub rights: Result<(), String>,
}

/// Looks at the database at `source`.
pub async fn inspect(source: &AddressSource) -> Result<Inspection, Error> {
    let address = source().map_err(Error::Unavailable)?;
    let (client, _driver) = connect(source).await?;
    let query = concat!(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int4 / 10000, \
         (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit'), \
         current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on', \
         current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8 \
           - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'), ",
        clock!(),
        ", (SELECT count(*) FROM pg_stat_replication), current_setting('synchronous_standby_names') <> ''"
    );
    let row = client.query_one(query, &[]).await.map_err(|error| unavailable(&error))?;
    let schema = schema::version(&client).await.map_err(|error| unavailable(&error))?;
    // What a migration and a commit do, and then undo.
    let attempt = match schema {
        None => "CREATE TABLE invite_relay_doctor (n int4); INSERT INTO invite_relay_doctor VALUES (1)",
        Some(_) => {
            "CREATE TABLE invite_relay_doctor (n int4); UPDATE schema_version SET version = version; \
             INSERT INTO pulse VALUES (1, 0) ON CONFLICT (one) DO UPDATE SET at = excluded.at"
        }
    };
    // Changing tables is for their owner, and so is this.
    let owned =
        if schema.is_some_and(|schema| schema < SCHEMA) { "; COMMENT ON TABLE invites IS NULL" } else { "" };
    let rights = client.batch_execute(&format!("BEGIN; {attempt}{owned}")).await;
    let _ = client.batch_execute("ROLLBACK").await;
    Ok(Inspection {
        tls: address.tls(),
        address,
        version: row.get(0),
        major: row.get(1),
        synchronous_commit: row.get(2),
        crash_safe: row.get(3),
        free_connections: row.get(4),
        now: Timestamp::from_millis(row.get(5)),
        standbys: row.get(6),
        waits_for_standbys: row.get(7),
        schema,
        rights: rights.map_err(|error| super::connect::describe(&error)),
    })
}
