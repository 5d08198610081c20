//! A TCP proxy that cuts, stalls, mutes, refuses and closes its port on demand.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What the proxy does to its connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Forward,
    /// Accepts and keeps connections, and moves no byte.
    Stall,
    /// Forwards until the target says that it has committed, and resets the connection instead of passing that on.
    LoseCommits,
    /// Half open: the client's bytes arrive, the target's don't.
    Mute,
    /// Closes what comes at once.
    Refuse,
    /// Nobody listens: the kernel refuses.
    Closed,
}

/// `PostgreSQL`'s word that it is ready and in no transaction (message `ReadyForQuery`): the last one has ended.
const IDLE: &[u8] = b"Z\0\0\0\x05I";

/// Forwards a free local port to a target. Connections end with the proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    /// Bumped to end all connections that exist.
    generation: watch::Sender<u64>,
    /// Keeps the port ours while nobody listens on it.
    _port: TcpSocket,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback interface.
    #[expect(clippy::unused_async, reason = "it needs the runtime that only an async caller has")]
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let port = socket_at((Ipv4Addr::LOCALHOST, 0).into());
        let address = port.local_addr().unwrap();
        let mood = watch::Sender::new(Mood::Forward);
        let generation = watch::Sender::new(0);
        let (mut moods, generations) = (mood.subscribe(), Arc::new(generation.subscribe()));
        let mut listener = Some(socket_at(address).listen(1024).unwrap());
        let accepting = spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let now = *moods.borrow_and_update();
                match (now, &listener) {
                    (Mood::Closed, Some(_)) => listener = None,
                    (Mood::Closed, None) | (_, Some(_)) => {}
                    (_, None) => listener = Some(socket_at(address).listen(1024).unwrap()),
                }
                let client = tokio::select! {
                    changed = moods.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                    client = accept(listener.as_ref()) => client,
                };
                if *moods.borrow() == Mood::Refuse {
                    reset(client);
                    continue;
                }
                let (mood, mut generation) = (moods.clone(), generations.as_ref().clone());
                generation.mark_unchanged();
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(target).await else { return reset(client) };
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    tokio::select! {
                        // First, so that a connection that is cut at the end of a stall moves no byte of it.
                        biased;
                        _ = generation.changed() => {}
                        () = pump(&mut from_client, &mut to_server, mood.clone(), &[Mood::Stall]) => {}
                        () = pump(&mut from_server, &mut to_client, mood, &[Mood::Stall, Mood::Mute]) => {}
                    }
                    for (read, write) in [(from_client, to_client), (from_server, to_server)] {
                        reset(read.reunite(write).expect("the halves of one stream"));
                    }
                });
            }
        });
        Self { address, mood, generation, _port: port, _accepting: accepting }
    }

    /// Where to connect instead of the target.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection; new ones are forwarded.
    pub(crate) fn cut(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Keeps the connections but moves no byte any more.
    pub(crate) fn stall(&self) {
        self.mood.send_replace(Mood::Stall);
    }

    /// Keeps the connections half open: what the target says does not arrive any more.
    pub(crate) fn mute(&self) {
        self.mood.send_replace(Mood::Mute);
    }

    /// Resets every connection, and nobody listens any more.
    pub(crate) fn close(&self) {
        self.mood.send_replace(Mood::Closed);
        self.cut();
    }

    /// Resets every connection and refuses new ones.
    pub(crate) fn refuse(&self) {
        self.mood.send_replace(Mood::Refuse);
        self.cut();
    }

    /// From now on, the news that a transaction of `PostgreSQL` has ended never arrives: the connection is reset in its
    /// place. A new one does not get beyond its login.
    pub(crate) fn lose_commits(&self) {
        self.mood.send_replace(Mood::LoseCommits);
    }

    /// Forwards again.
    pub(crate) fn resume(&self) {
        self.mood.send_replace(Mood::Forward);
    }
}

/// The next connection; waits for ever while nobody listens.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        if let Ok((client, _)) = listener.accept().await {
            return client;
        }
    }
}

/// Several sockets can have one port, and only those that listen are given connections.
fn socket_at(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    socket
}

/// Moves bytes one way, except in the moods `but_not`.
async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut mood: watch::Receiver<Mood>,
    but_not: &[Mood],
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n_bytes = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n_bytes) => n_bytes,
        };
        let Ok(mood) = mood.wait_for(|mood| !but_not.contains(mood)).await.map(|mood| *mood) else { return };
        if mood == Mood::LoseCommits && buffer[..n_bytes].windows(IDLE.len()).any(|window| window == IDLE) {
            return;
        }
        if to.write_all(&buffer[..n_bytes]).await.is_err() {
            return;
        }
    }
}

/// Closes with a reset instead of a goodbye.
fn reset(stream: TcpStream) {
    // Fails only if the peer has closed already.
    let _ = stream.set_zero_linger();
    drop(stream);
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    #[expect(clippy::disallowed_methods, reason = "the proxy is no part of the service and has no lifecycle")]
    AbortOnDropHandle::new(tokio::spawn(task))
}
