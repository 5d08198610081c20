//! Names and connections, each within a deadline.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

/// For a look-up or a connection. Longer than a lost packet's first two repeats, shorter than anybody's patience.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// The addresses of `host`, which may be an address itself, with or without brackets.
pub(super) async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let looked_up = within(tokio::net::lookup_host((host, port))).await?;
    let addresses: Vec<SocketAddr> = looked_up.collect();
    if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
}

/// A connection to the first of `addresses` that takes one.
pub(super) async fn connect(addresses: &[SocketAddr]) -> Result<TcpStream, String> {
    within(TcpStream::connect(addresses)).await
}

/// Whether `host` is an address already.
pub(super) fn is_address(host: &str) -> bool {
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

/// Resolves `host` and connects to it; `Err` says what is wrong.
pub(super) async fn reach(host: &str, port: u16) -> Result<SocketAddr, Unreached> {
    let addresses = resolve(host, port).await.map_err(Unreached::Name)?;
    let stream = connect(&addresses).await.map_err(Unreached::Connect)?;
    Ok(stream.peer_addr().unwrap_or(addresses[0]))
}

/// Why a server was not reached.
pub(super) enum Unreached {
    /// Its name leads nowhere.
    Name(String),
    /// Nobody answers there.
    Connect(String),
}

async fn within<T>(waiting: impl Future<Output = std::io::Result<T>>) -> Result<T, String> {
    match timeout(LIMIT, waiting).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}
