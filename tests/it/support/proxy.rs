//! A TCP proxy that cuts, stalls and refuses on demand.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
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
    /// Closes what comes at once.
    Refuse,
}

/// The tag of a completed command (message `CommandComplete`).
const COMMIT: &[u8] = b"C\0\0\0\x0bCOMMIT\0";

/// Forwards a free local port to a target. Connections end with the proxy.
pub(crate) struct Proxy {
    address: SocketAddr,
    mood: watch::Sender<Mood>,
    /// Bumped to end all connections that exist.
    generation: watch::Sender<u64>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    /// Listens on a free port of the loopback interface.
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mood = watch::Sender::new(Mood::Forward);
        let generation = watch::Sender::new(0);
        let (moods, generations) = (mood.subscribe(), Arc::new(generation.subscribe()));
        let accepting = spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
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
                        () = pump(&mut from_client, &mut to_server, mood.clone()) => {}
                        () = pump(&mut from_server, &mut to_client, mood) => {}
                        _ = generation.changed() => {}
                    }
                    for (read, write) in [(from_client, to_client), (from_server, to_server)] {
                        reset(read.reunite(write).expect("the halves of one stream"));
                    }
                });
            }
        });
        Self { address, mood, generation, _accepting: accepting }
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

    /// Resets every connection and refuses new ones.
    pub(crate) fn refuse(&self) {
        self.mood.send_replace(Mood::Refuse);
        self.cut();
    }

    /// From now on, the news that something is committed (PostgreSQL's `COMMIT` tag) never arrives: the connection is
    /// reset in its place.
    pub(crate) fn lose_commits(&self) {
        self.mood.send_replace(Mood::LoseCommits);
    }

    /// Forwards again.
    pub(crate) fn resume(&self) {
        self.mood.send_replace(Mood::Forward);
    }
}

/// Moves bytes one way while the mood allows it.
async fn pump(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut mood: watch::Receiver<Mood>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n_bytes = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n_bytes) => n_bytes,
        };
        let Ok(mood) = mood.wait_for(|mood| *mood != Mood::Stall).await.map(|mood| *mood) else { return };
        if mood == Mood::LoseCommits && buffer[..n_bytes].windows(COMMIT.len()).any(|window| window == COMMIT) {
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
