//! Serves a router on a listener until the drain, and answers what is in hand before it ends.
//!
//! Not `axum::serve`: that spawns its connections where [`Lifecycle`] cannot see them, and it knows neither
//! a limit of connections nor a time limit for headers. hyper does, and the loop around it is short.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::{debug, info, warn};

use super::problem::Problem;
use crate::lifecycle::Lifecycle;

/// Bounds on what callers can hold of us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's backlog.
    pub max_connections: usize,
    /// Time for a request's headers to arrive, and for an idle connection to bring its next request.
    pub header_timeout: Duration,
    /// Time from the headers to the beginning of the answer, the request's body included.
    pub request_timeout: Duration,
}

/// Far above what a platform's webhook sender opens, far below the usual limit of 1024 open files; slower
/// than any honest sender.
const DEFAULT_LIMITS: Limits = Limits {
    max_connections: 512,
    header_timeout: Duration::from_secs(10),
    request_timeout: Duration::from_secs(30),
};

/// How long to wait when the kernel refuses a connection, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` until the drain begins. Spawn it as a long task; its connections are work of `life`, so
/// the process ends only after the last request in hand is answered. `name` is for the log.
pub async fn serve(listener: TcpListener, router: Router, life: Lifecycle, name: &'static str) {
    serve_within(DEFAULT_LIMITS, listener, router, life, name).await;
}

/// The same with other limits.
pub async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    router: Router,
    life: Lifecycle,
    name: &'static str,
) {
    if let Ok(address) = listener.local_addr() {
        info!(port = name, %address, "listening");
    }
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        let (stream, slot) = tokio::select! {
            biased;
            () = life.draining() => break,
            next = accept(&listener, &slots, name) => next,
        };
        life.spawn_work(connection(stream, slot, router.clone(), life.clone(), limits));
    }
    debug!(port = name, "no longer listening");
}

/// The next connection, and its place among the permitted ones. The place comes first: a connection that
/// has none stays in the kernel's backlog and costs nothing.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    name: &'static str,
) -> (TcpStream, OwnedSemaphorePermit) {
    let slot = slots.clone().acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(error) => {
                warn!(port = name, %error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection to its end; at the drain, to the end of the request in hand.
async fn connection(
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    router: Router,
    life: Lifecycle,
    limits: Limits,
) {
    // Answers are small and written at once; waiting to fill a packet only delays them.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| answer(service.call(request), limits));
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .serve_connection(TokioIo::new(stream), service)
    );
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = life.draining() => {
            serving.as_mut().graceful_shutdown();
            tokio::select! {
                ended = serving.as_mut() => ended,
                () = life.aborted() => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        // The caller's doing: gone early, or not HTTP. Nobody here can mend it.
        debug!(%error, "a connection ended early");
    }
    drop(slot);
}

async fn answer(
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
    limits: Limits,
) -> Result<Response<Body>, Infallible> {
    match tokio::time::timeout(limits.request_timeout, answer).await {
        Ok(answer) => answer,
        Err(_) => Ok(Problem::request_timeout().into_response()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;

    /// An answer, taken apart.
    pub(crate) struct Answer {
        pub(crate) status: u16,
        pub(crate) head: String,
        pub(crate) body: String,
    }

    impl Answer {
        pub(crate) fn header(&self, name: &str) -> Option<&str> {
            let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        }
    }

    /// Serves `router`, sends one request (its first line and headers) and returns the answer.
    pub(crate) async fn ask(router: Router, request: &str) -> Answer {
        let life = Lifecycle::new();
        let mut stream = TcpStream::connect(start(DEFAULT_LIMITS, router, &life).await).await.unwrap();
        stream.write_all(format!("{request}host: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let answer = read(&mut stream).await;
        life.begin_drain();
        life.finish(Duration::from_secs(5)).await.unwrap();
        answer
    }

    async fn start(limits: Limits, router: Router, life: &Lifecycle) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        life.spawn_long("http", serve_within(limits, listener, router, life.clone(), "test"));
        address
    }

    /// Reads to the end of the connection.
    async fn read(stream: &mut TcpStream) -> Answer {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    #[tokio::test]
    async fn a_request_in_hand_is_answered_before_the_process_ends() {
        let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (inside, go) = (entered.clone(), leave.clone());
        let handler = move || async move {
            inside.notify_one();
            go.notified().await;
            "done"
        };
        let life = Lifecycle::new();
        let address = start(DEFAULT_LIMITS, Router::new().route("/", get(handler)), &life).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(GET).await.unwrap();
        entered.notified().await;
        life.begin_drain();
        leave.notify_one();
        let answer = read(&mut stream).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "done"));
        assert_eq!(life.finish(Duration::from_secs(5)).await, Ok(()));
    }

    #[tokio::test]
    async fn an_idle_connection_does_not_hold_up_the_end() {
        let life = Lifecycle::new();
        let address = start(DEFAULT_LIMITS, Router::new().route("/", get(async || "")), &life).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(GET).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        life.begin_drain();
        assert_eq!(life.finish(Duration::from_secs(5)).await, Ok(()));
    }

    #[tokio::test]
    async fn headers_and_bodies_that_never_end_are_cut() {
        let short = Duration::from_millis(50);
        let limits = Limits { max_connections: 4, header_timeout: short, request_timeout: short };
        let life = Lifecycle::new();
        let router = Router::new().route("/", post(|body: String| async move { body }));
        let address = start(limits, router, &life).await;
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"POST / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
        assert_ne!(read(&mut slow).await.status, 200);
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc").await.unwrap();
        assert_eq!(read(&mut slow).await.status, 408);
    }

    #[tokio::test]
    async fn a_connection_beyond_the_limit_waits_for_its_turn() {
        let limits = Limits { max_connections: 1, ..DEFAULT_LIMITS };
        let life = Lifecycle::new();
        let address = start(limits, Router::new().route("/", get(async || "")), &life).await;
        let mut first = TcpStream::connect(address).await.unwrap();
        first.write_all(GET).await.unwrap();
        let mut begin = [0; 12];
        first.read_exact(&mut begin).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut byte = [0];
        let early = tokio::time::timeout(Duration::from_millis(50), second.peek(&mut byte)).await;
        assert!(early.is_err(), "the second connection was served beside the first");
        drop(first);
        assert_eq!(read(&mut second).await.status, 200);
    }
}
