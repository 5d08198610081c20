//! One connection: made within a deadline, watched for death and blocking, and really gone when dropped.

use std::future::Future;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use lapin::tcp::AsyncTcpStream;
use lapin::{Channel, ConnectionProperties, Event};
use tokio::time::{Interval, MissedTickBehavior};

use super::tls::secured;
use super::topology::look_at_queue;
use super::{BrokerEvent, Endpoint, Error, QueueLook};

/// Deadline for name resolution, TCP, TLS and the AMQP handshake together. The client has none of its own.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Deadline for one request to the broker outside the hot path, such as opening a channel.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a polite goodbye may take before the socket is cut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a connection is checked for an end that came without an event (a close with code 200).
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A live connection. Dropping it cuts the socket, so that the broker takes back what is unacknowledged at once
/// and no thread of the client waits on a dead peer.
pub struct Connection {
    inner: Arc<lapin::Connection>,
    /// The mutex is never locked; it makes the stream, of which there is one, shareable by reference.
    events: Mutex<BoxStream<'static, Event>>,
    check: Interval,
    _socket: Socket,
}

/// What can happen to a connection.
#[derive(Debug)]
pub(super) enum Change {
    /// The broker stopped reading from us, for this reason.
    Blocked(String),
    Unblocked,
    Died(Error),
}

/// Connects as `invite-relay <purpose>`, the name operators see in the broker's list of connections.
pub async fn connect(endpoint: &Endpoint, purpose: &str) -> Result<Connection, Error> {
    let name = format!("invite-relay {purpose}");
    let properties = ConnectionProperties::default()
        .with_client_property("product".into(), env!("CARGO_PKG_NAME").into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into())
        .with_connection_name(name.into());
    let socket = Socket::default();
    let (slot, secured_as) = (Arc::clone(&socket.0), endpoint.clone());
    let runtime = lapin::runtime::default_runtime()?;
    // The handshake runs on the client's own thread, which must end too when we give up: until the socket is
    // open it is the inner deadline that ends it, afterwards the cut that comes with dropping `socket`.
    let handshake = lapin::Connection::connector(
        endpoint.uri(),
        runtime,
        async move |uri, runtime| {
            let opening = async {
                let addresses =
                    tokio::net::lookup_host((uri.authority.host.as_str(), uri.authority.port)).await?;
                let stream = AsyncTcpStream::connect(&runtime, addresses.collect::<Vec<_>>()).await?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    keep(&slot, plain.get_ref().as_fd().try_clone_to_owned()?.into())?;
                }
                secured(stream, &secured_as).await
            };
            match tokio::time::timeout(CONNECT_TIMEOUT, opening).await {
                Ok(opened) => opened.map_err(lapin::Error::from),
                Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
            }
        },
        properties,
    );
    let inner = within(CONNECT_TIMEOUT, "connecting", handshake).await?;
    // Exactly one listener: several would share one queue and each miss what another took.
    let events = Mutex::new(inner.events_listener().boxed());
    let mut check = tokio::time::interval(CHECK_EVERY);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Ok(Connection { inner: Arc::new(inner), events, check, _socket: socket })
}

impl Connection {
    /// Opens a channel.
    pub(super) async fn channel(&self) -> Result<Channel, Error> {
        within(REQUEST_TIMEOUT, "opening a channel", self.inner.create_channel()).await
    }

    /// Looks at a queue. [`Error::Refused`] with 404 if there is none.
    pub async fn look_at_queue(&self, queue: &str) -> Result<QueueLook, Error> {
        look_at_queue(&self.inner, queue).await
    }

    /// The client's handle, for futures that outlive a borrow.
    pub(super) fn handle(&self) -> Arc<lapin::Connection> {
        Arc::clone(&self.inner)
    }

    /// How to count that something on this connection broke: is it the connection, or a channel under a living one?
    pub(super) fn event_of_loss(&self) -> BrokerEvent {
        if self.inner.status().connected() { BrokerEvent::ChannelDied } else { BrokerEvent::Disconnected }
    }

    /// Waits for the next change. Cancel safe. After [`Change::Died`] the connection is of no further use.
    pub(super) async fn next_change(&mut self) -> Change {
        let events = self.events.get_mut().unwrap_or_else(PoisonError::into_inner);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => return Change::Blocked(reason),
                    Some(Event::ConnectionUnblocked) => return Change::Unblocked,
                    // Errors of single channels arrive here too, possibly long after their channel.
                    Some(Event::Error(error)) if !self.inner.status().connected() => {
                        return Change::Died(error.into());
                    }
                    Some(_) => {}
                    None => return Change::Died(Error::Lost("the client has stopped".into())),
                },
                _ = self.check.tick() => {
                    if !self.inner.status().connected() {
                        return Change::Died(Error::Lost("the connection was closed".into()));
                    }
                }
            }
        }
    }

    /// Says goodbye, waiting a little for the answer.
    pub async fn close(self) {
        let goodbye = self.inner.close(200, "OK".into());
        // An error means that the connection was gone already, which is what was asked for.
        let _ = within(CLOSE_TIMEOUT, "closing", goodbye).await;
    }
}

/// Waits for a request to the broker, at most `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    doing: &'static str,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer.map_err(Error::from),
        Err(_) => Err(Error::Timeout { doing, limit }),
    }
}

/// A second handle on the socket, to cut it from outside the client.
#[derive(Default)]
struct Socket(Arc<Mutex<Slot>>);

/// Shared between [`Socket`] and the client's connecting thread.
#[derive(Default)]
enum Slot {
    /// TCP is not connected yet.
    #[default]
    Empty,
    Open(TcpStream),
    /// Given up before TCP was connected; what connects now is not wanted.
    Cut,
}

/// Stores the second handle, or refuses when nobody wants the connection any more.
fn keep(slot: &Mutex<Slot>, twin: TcpStream) -> std::io::Result<()> {
    let mut slot = lock(slot);
    match *slot {
        Slot::Cut => Err(std::io::ErrorKind::ConnectionAborted.into()),
        Slot::Empty | Slot::Open(_) => {
            *slot = Slot::Open(twin);
            Ok(())
        }
    }
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Slot::Open(twin) = std::mem::replace(&mut *lock(&self.0), Slot::Cut) {
            // Fails only if the peer was faster.
            let _ = twin.shutdown(Shutdown::Both);
        }
    }
}
