//! The platform around the service: it tells of truckers and collects what is announced, over both transports.

use std::collections::BTreeSet;
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
use lapin::BasicProperties;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::harness::Service;
use super::http;
use super::settings::Settings;
use crate::support::operator::Operator;
use crate::support::until;

/// Events that are on their way to the service at the same time.
const SENDERS: usize = 16;

/// A delivery as the platform got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) body: Vec<u8>,
}

impl Delivery {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// An event that tells of a trucker.
pub(crate) fn trucker_created(pk: u64, event_id: &str) -> String {
    let data = json!({ "trucker": { "pk": pk, "remote_id": format!("driver-{pk}") } });
    json!({
        "specversion": "1.0", "id": event_id, "source": "/platform", "type": "trucker.created",
        "datacontenttype": "application/json", "data": data,
    })
    .to_string()
}

/// The platform's side of a broker: an exchange, and a durable queue that keeps everything announced on it.
pub(crate) struct Bus {
    url: SecretString,
    exchange: String,
    source_queue: String,
    announced: String,
}

impl Bus {
    /// Names of its own on the broker at `url`; `invite.*` is bound from the start.
    pub(crate) async fn at(url: SecretString, name: &str) -> Self {
        let bus = Self {
            url,
            exchange: format!("{name}.events"),
            source_queue: format!("{name}.trucker-created"),
            announced: format!("{name}.announced"),
        };
        let operator = bus.operator().await;
        operator.declare_topic(&bus.exchange).await;
        operator.declare(&bus.announced).await;
        operator.bind(&bus.announced, &bus.exchange, "invite.*").await;
        bus
    }

    /// Makes it the service's source.
    pub(crate) fn as_source(&self, settings: Settings) -> Settings {
        settings
            .with("source.rabbitmq.enabled", true)
            .with("source.rabbitmq.url", self.url.expose_secret())
            .with("source.rabbitmq.exchange", self.exchange.as_str())
            .with("source.rabbitmq.queue", self.source_queue.as_str())
    }

    /// Makes it the service's sink.
    pub(crate) fn as_sink(&self, settings: Settings) -> Settings {
        settings
            .with("sink.rabbitmq.enabled", true)
            .with("sink.rabbitmq.url", self.url.expose_secret())
            .with("sink.rabbitmq.exchange", self.exchange.as_str())
    }

    /// Tells of truckers, each in one event. The service must have made its queue.
    pub(crate) async fn tell(&self, pks: impl IntoIterator<Item = u64>) {
        self.send(pks.into_iter().map(|pk| trucker_created(pk, &format!("event-{pk}")))).await;
    }

    /// Publishes events and waits for the broker's confirms.
    pub(crate) async fn send(&self, events: impl IntoIterator<Item = String>) {
        let operator = self.operator().await;
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/cloudevents+json".into());
        let publishing = events.into_iter().map(async |event: String| {
            operator.publish(&self.exchange, "trucker.created", &event, properties.clone()).await;
        });
        futures_util::future::join_all(publishing).await;
    }

    /// Everything announced since the last look, in order, repetitions included.
    pub(crate) async fn take_announced(&self) -> Vec<Delivery> {
        let operator = self.operator().await;
        let mut deliveries = Vec::new();
        while let Some(message) = operator.take(&self.announced).await {
            let id = message.properties.message_id().as_ref().map(ToString::to_string);
            deliveries.push(Delivery { id: id.expect("a message id"), body: message.data });
        }
        deliveries
    }

    /// The headers of everything in the service's dead-letter queue, as text.
    pub(crate) async fn take_dead_headers(&self) -> Vec<String> {
        let (operator, queue) = (self.operator().await, format!("{}.dead", self.source_queue));
        let mut headers = Vec::new();
        while let Some(message) = operator.take(&queue).await {
            headers.push(format!("{:?}", message.properties.headers()));
        }
        headers
    }

    /// Whether no delivery waits for the service.
    pub(crate) async fn source_is_empty(&self) -> bool {
        self.operator().await.n_ready(&self.source_queue).await == Some(0)
    }

    async fn operator(&self) -> Operator {
        Operator::at(self.url.clone()).await
    }
}

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
        let seconds = time::now().as_millis() / 1000;
        let signature = signature::sign(&self.secret, "message", seconds, event.as_bytes());
        let headers = [
            ("content-type", "application/cloudevents+json"),
            (signature::ID_HEADER, "message"),
            (signature::TIMESTAMP_HEADER, &seconds.to_string()),
            (signature::SIGNATURE_HEADER, &signature),
        ];
        http::post(service.webhook_url(), &headers, event).await
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
    /// Ids that were refused at least once.
    refused: Mutex<BTreeSet<String>>,
    is_failing: Mutex<bool>,
}

impl Receiver {
    pub(crate) async fn start(life: &Lifecycle) -> Self {
        let shared = Arc::new(ReceiverState {
            secret: Secret::generate(),
            taken: Mutex::default(),
            refused: Mutex::default(),
            is_failing: Mutex::new(false),
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

    /// The secret that signs for it.
    pub(crate) fn secret(&self) -> String {
        self.shared.secret.reveal()
    }

    /// Answers 500 from now on, or no longer.
    pub(crate) fn fail(&self, failing: bool) {
        *self.shared.is_failing.lock().unwrap() = failing;
    }

    /// Everything taken so far, in order, repetitions included.
    pub(crate) fn taken(&self) -> Vec<Delivery> {
        self.shared.taken.lock().unwrap().clone()
    }

    /// How many different events were refused at least once.
    pub(crate) fn n_refused(&self) -> usize {
        self.shared.refused.lock().unwrap().len()
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
    let id = signed.id.unwrap_or_default().to_owned();
    if *receiver.is_failing.lock().unwrap() {
        receiver.refused.lock().unwrap().insert(id);
        return StatusCode::INTERNAL_SERVER_ERROR;
    }
    receiver.taken.lock().unwrap().push(Delivery { id, body: body.to_vec() });
    StatusCode::NO_CONTENT
}
