//! The platform's webhooks: a sender of events, and a receiver of what is announced.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use futures_util::{StreamExt as _, stream};
use invite_relay::http::serve;
use invite_relay::lifecycle::Lifecycle;
use invite_relay::signature::{self, Secret, SignedHeaders};
use invite_relay::time;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::harness::Service;
use super::http;
use super::platform::{Delivery, trucker_created};
use super::settings::Settings;
use crate::support::until;

/// Events that are on their way to the service at the same time.
const SENDERS: usize = 16;

/// A sender of signed webhooks that repeats an event until it is accepted, as senders do.
pub(crate) struct Sender {
    pub(crate) secret: Secret,
}

impl Sender {
    pub(crate) fn new() -> Self {
        Self { secret: Secret::generate() }
    }

    /// Makes it the service's source.
    pub(crate) fn as_source(&self, settings: Settings) -> Settings {
        settings
            .with("source.webhook.enabled", true)
            .with("source.webhook.secrets", vec![toml::Value::from(self.secret.reveal())])
    }

    /// Tells of truckers, each in one event, several at the same time.
    pub(crate) async fn tell(&self, service: &Service, pks: impl IntoIterator<Item = u64>) {
        let sending = stream::iter(pks).for_each_concurrent(SENDERS, async |pk| {
            let event = trucker_created(pk, &format!("event-{pk}"));
            until("an event to be accepted", async || {
                self.send(service, &event).await.is_some_and(|answer| answer.status == 202)
            })
            .await;
        });
        sending.await;
    }

    /// Sends one event once.
    pub(crate) async fn send(&self, service: &Service, event: &str) -> Option<http::Answer> {
        self.send_to(service, "/webhooks/trucker-created", event).await
    }

    /// Sends one event once, to this path.
    pub(crate) async fn send_to(&self, service: &Service, path: &str, event: &str) -> Option<http::Answer> {
        let seconds = time::now().as_millis() / 1000;
        let signature = signature::sign(&self.secret, "message", seconds, event.as_bytes());
        let headers = [
            ("content-type", "application/cloudevents+json"),
            (signature::ID_HEADER, "message"),
            (signature::TIMESTAMP_HEADER, &seconds.to_string()),
            (signature::SIGNATURE_HEADER, &signature),
        ];
        service.post(path, &headers, event).await
    }
}

/// A receiver of signed webhooks that keeps every delivery it has taken.
pub(crate) struct Receiver {
    address: SocketAddr,
    shared: Arc<ReceiverState>,
}

struct ReceiverState {
    secret: Secret,
    taken: Mutex<Vec<Delivery>>,
    /// The `traceparent` header of each.
    hops: Mutex<Vec<String>>,
    mood: watch::Sender<Mood>,
}

/// How a receiver answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    /// 204.
    Take,
    /// 500.
    Refuse,
    /// Not before the mood changes.
    Stall,
}

impl Receiver {
    pub(crate) async fn start(life: &Lifecycle) -> Self {
        let shared = Arc::new(ReceiverState {
            secret: Secret::generate(),
            taken: Mutex::default(),
            hops: Mutex::default(),
            mood: watch::Sender::new(Mood::Take),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/invites", post(receive)).with_state(Arc::clone(&shared));
        life.spawn_long("receiver", serve::serve(listener, router, life.clone(), "receiver"));
        Self { address, shared }
    }

    /// Makes it the service's sink.
    pub(crate) fn as_sink(&self, settings: Settings) -> Settings {
        settings
            .with("sink.webhook.enabled", true)
            .with("sink.webhook.url", format!("http://{}/invites", self.address))
            .with("sink.webhook.secret", self.shared.secret.reveal())
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The secret that signs for it.
    pub(crate) fn secret(&self) -> String {
        self.shared.secret.reveal()
    }

    /// Answers like this from now on.
    pub(crate) fn be(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// Everything taken so far, in order, repetitions included.
    pub(crate) fn taken(&self) -> Vec<Delivery> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// The `traceparent` header of everything taken so far; empty where there was none.
    pub(crate) fn hops(&self) -> Vec<String> {
        self.shared.hops.lock().unwrap().clone()
    }
}

async fn receive(State(receiver): State<Arc<ReceiverState>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let signed = SignedHeaders {
        id: text(signature::ID_HEADER),
        timestamp: text(signature::TIMESTAMP_HEADER),
        signature: text(signature::SIGNATURE_HEADER),
    };
    let secrets = std::slice::from_ref(&receiver.secret);
    if signature::verify(secrets, signed, &body, time::now()).is_err() {
        return StatusCode::UNAUTHORIZED;
    }
    // The other end is in the shared state, which is in our hands.
    let mood = receiver.mood.subscribe().wait_for(|mood| *mood != Mood::Stall).await.map(|mood| *mood);
    if mood.expect("the mood outlives this request") == Mood::Refuse {
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    receiver.hops.lock().unwrap().push(text("traceparent").unwrap_or_default().to_owned());
    receiver
        .taken
        .lock()
        .unwrap()
        .push(Delivery { id: signed.id.unwrap_or_default().to_owned(), body: body.to_vec() });
    StatusCode::NO_CONTENT
}
