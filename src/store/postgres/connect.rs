//! One connection: made anew from the address as it is then, encrypted, and set up for what the service relies on.

use std::path::Path;
use std::sync::Arc;

use deadpool::managed;
use deadpool_postgres::ClientWrapper;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Connection, NoTls, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Address, Tls};
use super::limits;
use crate::store::Error;

/// The address as it is now: its files may have changed since the last connection.
pub type AddressSource = Arc<dyn Fn() -> Result<Address, String> + Send + Sync>;

/// The oldest server that is supported: older ones get no fixes any more.
pub const OLDEST_SERVER: i32 = 14;

/// What every session relies on. An acknowledged event is one that survives the server's crash: whatever the
/// server's default, a commit here waits for the disk; `remote_apply` waits for even more.
const DURABLE: &str = "SELECT set_config('synchronous_commit', 'on', false) \
     WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')";

/// Makes connections for the pool.
pub(super) struct Connector(pub AddressSource);

/// A set of connections.
pub(super) type Pool = managed::Pool<Connector>;

impl managed::Manager for Connector {
    type Type = ClientWrapper;
    type Error = Error;

    async fn create(&self) -> Result<ClientWrapper, Error> {
        let (client, driver) = connect(&self.0).await?;
        Ok(ClientWrapper::new(client, driver))
    }

    async fn recycle(
        &self,
        client: &mut ClientWrapper,
        _: &managed::Metrics,
    ) -> managed::RecycleResult<Error> {
        // After a failover the old server may still answer, and its answers may be old.
        if client.is_closed() || !takes_writes(client).await {
            return Err(managed::RecycleError::message("not to be used any more"));
        }
        Ok(())
    }
}

/// A pool of at most `size` connections, with none made yet.
pub(super) fn pool(source: AddressSource, size: usize) -> Pool {
    let timeouts = managed::Timeouts {
        wait: Some(limits::ROUND),
        // The connection's own limit is in `connect`, and its error says more.
        create: None,
        recycle: None,
    };
    Pool::builder(Connector(source))
        .max_size(size)
        .timeouts(timeouts)
        .runtime(deadpool::Runtime::Tokio1)
        .build()
        .expect("a pool with a runtime can have timeouts")
}

/// A connection of the pool.
pub(super) async fn from_pool(pool: &Pool) -> Result<managed::Object<Connector>, Error> {
    pool.get().await.map_err(|error| match error {
        managed::PoolError::Backend(error) => error,
        managed::PoolError::Timeout(_) => {
            Error::Unavailable("no connection to the database is free".to_owned())
        }
        managed::PoolError::Closed => Error::Unavailable("the store is closed".to_owned()),
        managed::PoolError::NoRuntimeSpecified | managed::PoolError::PostCreateHook(_) => {
            Error::Unavailable("the database can't be reached".to_owned())
        }
    })
}

/// Connects, logs in and sets the session up.
pub(super) async fn connect(source: &AddressSource) -> Result<(Client, JoinHandle<()>), Error> {
    let address = source().map_err(Error::Unavailable)?;
    match address.tls() {
        Tls::Verified => open(&address, tls(address.ca_file.as_deref())?, drive).await,
        Tls::Local | Tls::Disabled => open(&address, NoTls, drive).await,
    }
}

/// Like [`connect`], with somebody else to drive the connection.
pub(super) async fn open<T, D, R>(address: &Address, tls: T, drive: D) -> Result<(Client, R), Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    D: FnOnce(Connection<Socket, T::Stream>) -> R,
{
    let connecting = async {
        let (client, connection) = address.config.connect(tls).await?;
        let driver = drive(connection);
        client.batch_execute(limits::SESSION).await?;
        client.execute(DURABLE, &[]).await?;
        Ok((client, driver))
    };
    let connected = tokio::time::timeout(limits::CONNECT * 2, connecting).await;
    let connected = connected.map_err(|_| Error::Unavailable(format!("{address} does not answer")))?;
    connected.map_err(|error| Error::Unavailable(format!("{address}: {}", describe(&error))))
}

/// Carries the bytes of a connection, until its client is dropped.
fn drive<S>(connection: Connection<Socket, S>) -> JoinHandle<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "ends with its client, and nobody waits for it")]
    tokio::spawn(async move {
        // Whoever waits for an answer hears of the end.
        let _ = connection.await;
    })
}

/// The system's certificate authorities, and those of `ca_file`.
pub(super) fn tls(ca_file: Option<&Path>) -> Result<MakeRustlsConnect, Error> {
    let fail = |what: String| Error::Unavailable(format!("store.ca_file: {what}"));
    let mut extra = Vec::new();
    if let Some(path) = ca_file {
        let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        extra = read.map_err(|error| fail(error.to_string()))?;
        if extra.is_empty() {
            return Err(fail("holds no certificate".to_owned()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, Arc::clone(&provider))
        .map_err(|error| fail(error.to_string()))?;
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(error.to_string()))?
        // Not weaker than the default but the same with further roots.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// Whether there is a server at the other end that takes writes.
pub(super) async fn takes_writes(client: &Client) -> bool {
    let looking = client.simple_query("SHOW transaction_read_only");
    let Ok(Ok(answer)) = tokio::time::timeout(limits::LOOK, looking).await else { return false };
    answer.iter().any(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some("off"),
        _ => false,
    })
}

/// Whether the server takes no writes: after a failover, another one of the address does.
pub(super) fn is_read_only(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::READ_ONLY_SQL_TRANSACTION)
}

/// What went wrong, without any value: the server's messages about data quote it.
pub(super) fn describe(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    if let Some(db) = error.as_db_error() {
        let code = db.code().code();
        // Logins, resources, operators and the server's own state: nothing of what is stored.
        let speaks_of_no_data = ["08", "28", "3D", "42501", "53", "55", "57", "58", "XX", "25006", "40"];
        let safe = speaks_of_no_data.iter().any(|class| code.starts_with(class));
        return if safe { format!("{} ({code})", db.message()) } else { format!("refused with {code}") };
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// The store can't work now.
pub(super) fn unavailable(error: &tokio_postgres::Error) -> Error {
    Error::Unavailable(format!("the database: {}", describe(error)))
}
