//! The listener and its connections.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tracing::{info, warn};

use super::handle::Handle;
use super::settings::Settings;
use super::state::Shared;
use super::wire::{Cut, Outcome, Payload, Wire};
use super::{api, control};
use crate::lifecycle::Lifecycle;

/// What a connection with a request in hand gets after the drain began; held requests are let go at once.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// The wait after a failed accept, which is mostly a lack of file descriptors that takes time to pass.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A simulator that listens; connections wait in the backlog until [`Simulator::run`].
pub struct Simulator {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What every request needs.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) shared: Arc<Shared>,
    pub(super) life: Lifecycle,
}

impl Context {
    /// Waits for `event`; false if the drain came first.
    pub(super) async fn unless_draining(&self, event: impl Future<Output = ()>) -> bool {
        tokio::select! {
            biased;
            () = event => true,
            () = self.life.draining() => false,
        }
    }
}

impl Simulator {
    /// Listens where the settings say.
    pub async fn bind(settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(settings, &base_url(address)));
        Ok(Self { listener, address, shared })
    }

    /// Where it listens, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What an API client is given as its base URL.
    pub fn base_url(&self) -> String {
        base_url(self.address)
    }

    /// The remote control.
    pub fn handle(&self) -> Handle {
        Handle { shared: self.shared.clone() }
    }

    /// Serves until the drain begins, and then ends its connections.
    pub async fn run(self, life: Lifecycle) {
        info!(address = %self.address, "the Dashdoc API simulator listens");
        let context = Context { shared: self.shared, life: life.clone() };
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = life.draining() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    life.spawn_work(serve(stream, context.clone()));
                }
                Err(error) => {
                    warn!(%error, "the simulator could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn base_url(address: SocketAddr) -> String {
    format!("http://{address}{}", api::BASE_PATH)
}

async fn serve(stream: TcpStream, context: Context) {
    // Otherwise a dripping body waits for acknowledgements; an error shows at the first read anyway.
    let _ = stream.set_nodelay(true);
    let life = context.life.clone();
    let (wire, switch) = Wire::new(stream);
    let service = service_fn(move |request| {
        let (context, switch) = (context.clone(), switch.clone());
        async move {
            match answer(&context, request).await {
                Outcome::Answer(response) => Ok::<Response<Payload>, Cut>(response),
                Outcome::Close => Err(Cut),
                Outcome::Reset => {
                    switch.pull();
                    Err(Cut)
                }
            }
        }
    });
    let mut connection =
        pin!(http1::Builder::new().header_read_timeout(None).serve_connection(TokioIo::new(wire), service));
    // An error is a fault that was asked for, or a client that left.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = life.draining() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(DRAIN_LIMIT, connection).await;
}

async fn answer(context: &Context, request: Request<Incoming>) -> Outcome {
    if request.uri().path().starts_with(control::BASE_PATH) {
        control::answer(context, request).await
    } else {
        api::answer(context, request).await
    }
}
