//! The platform around the service: it tells of truckers and collects what is announced.

use lapin::BasicProperties;
use lapin::types::AMQPValue;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use super::settings::Settings;
use crate::support::operator::Operator;

/// What the platform's queue is bound to.
const ANNOUNCEMENTS: &str = "invite.*";

/// What the service's queue is bound to.
const ROUTING_KEY: &str = "trucker.created";

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

/// A header as a person would read it: its own debug output lists bytes.
fn in_words(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::FieldTable(table) => {
            let lines = table.inner().iter().map(|(name, value)| format!("{name}: {}", in_words(value)));
            lines.collect::<Vec<_>>().join("\n")
        }
        AMQPValue::FieldArray(list) => list.as_slice().iter().map(|value| in_words(value) + ", ").collect(),
        other => format!("{other:?}"),
    }
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
        let (exchange, source_queue) = (format!("{name}.events"), format!("{name}.trucker-created"));
        Self::named(url, exchange, source_queue, format!("{name}.announced")).await
    }

    /// The names of the built-in configuration.
    pub(crate) async fn by_default(url: SecretString) -> Self {
        let (exchange, source_queue) =
            ("trucker.events".to_owned(), "invite-relay.trucker-created".to_owned());
        Self::named(url, exchange, source_queue, "platform.invites".to_owned()).await
    }

    async fn named(url: SecretString, exchange: String, source_queue: String, announced: String) -> Self {
        let bus = Self { url, exchange, source_queue, announced };
        let operator = bus.operator().await;
        operator.declare_topic(&bus.exchange).await;
        operator.declare(&bus.announced).await;
        bus.listen().await;
        bus
    }

    /// Binds the queue for what is announced.
    pub(crate) async fn listen(&self) {
        self.operator().await.bind(&self.announced, &self.exchange, ANNOUNCEMENTS).await;
    }

    /// Unbinds it: no queue wants what is announced.
    pub(crate) async fn stop_listening(&self) {
        self.operator().await.unbind(&self.announced, &self.exchange, ANNOUNCEMENTS).await;
    }

    /// Makes it the service's source.
    pub(crate) fn as_source(&self, settings: Settings) -> Settings {
        settings
            .with("source.rabbitmq.enabled", true)
            .with("source.rabbitmq.url", self.url.expose_secret())
            .with("source.rabbitmq.exchange", self.exchange.as_str())
            .with("source.rabbitmq.queue", self.source_queue.as_str())
    }

    /// Gives an account a queue of its own.
    pub(crate) fn as_source_of(&self, account: &str, settings: Settings) -> Settings {
        settings
            .with(&format!("dashdoc.accounts.{account}.queue"), self.queue_of(account))
            .with(&format!("dashdoc.accounts.{account}.routing_key"), format!("{ROUTING_KEY}.{account}"))
    }

    /// Makes it the service's sink.
    pub(crate) fn as_sink(&self, settings: Settings) -> Settings {
        settings
            .with("sink.rabbitmq.enabled", true)
            .with("sink.rabbitmq.url", self.url.expose_secret())
            .with("sink.rabbitmq.exchange", self.exchange.as_str())
    }

    /// The same, without an exchange of its own: the routing keys are the queue's name.
    pub(crate) fn as_sink_by_name(&self, settings: Settings) -> Settings {
        let queue = self.announced.as_str();
        self.as_sink(settings)
            .with("sink.rabbitmq.exchange", "")
            .with("sink.rabbitmq.routing_key", queue)
            .with("sink.rabbitmq.failed_routing_key", queue)
    }

    /// Tells of truckers, each in one event. The service must have made its queue.
    pub(crate) async fn tell(&self, pks: impl IntoIterator<Item = u64>) {
        self.send(pks.into_iter().map(|pk| trucker_created(pk, &format!("event-{pk}")))).await;
    }

    /// Publishes events and waits for the broker's confirms.
    pub(crate) async fn send(&self, events: impl IntoIterator<Item = String>) {
        self.publish(ROUTING_KEY, events).await;
    }

    /// The same, on the queue of one account.
    pub(crate) async fn send_to(&self, account: &str, events: impl IntoIterator<Item = String>) {
        self.publish(&format!("{ROUTING_KEY}.{account}"), events).await;
    }

    async fn publish(&self, routing_key: &str, events: impl IntoIterator<Item = String>) {
        let operator = self.operator().await;
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/cloudevents+json".into());
        let publishing = events.into_iter().map(async |event: String| {
            operator.publish(&self.exchange, routing_key, &event, properties.clone()).await;
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

    /// Everything announced since the last look: the `traceparent` header, and the event.
    pub(crate) async fn take_announced_with_trace(&self) -> Vec<(String, Value)> {
        let operator = self.operator().await;
        let mut deliveries = Vec::new();
        while let Some(message) = operator.take(&self.announced).await {
            let headers = message.properties.headers().clone().unwrap_or_default();
            let Some(AMQPValue::LongString(trace)) = headers.inner().get("traceparent") else {
                panic!("no traceparent in {headers:?}")
            };
            deliveries.push((trace.to_string(), serde_json::from_slice(&message.data).unwrap()));
        }
        deliveries
    }

    /// The headers of everything in the service's dead-letter queue, as text.
    pub(crate) async fn take_dead_headers(&self) -> Vec<String> {
        self.take_dead().await.into_iter().map(|(_, headers)| headers).collect()
    }

    /// Bodies and headers of everything in the service's dead-letter queue.
    pub(crate) async fn take_dead(&self) -> Vec<(Vec<u8>, String)> {
        let (operator, queue) = (self.operator().await, self.dead_queue());
        let mut dead = Vec::new();
        while let Some(message) = operator.take(&queue).await {
            let headers = message.properties.headers().clone().unwrap_or_default();
            dead.push((message.data, in_words(&AMQPValue::FieldTable(headers))));
        }
        dead
    }

    /// How many wait in the service's dead-letter queue.
    pub(crate) async fn n_dead(&self) -> usize {
        self.operator().await.n_ready(&self.dead_queue()).await.unwrap_or(0)
    }

    /// How many wait in the dead-letter queue of an account.
    pub(crate) async fn n_dead_of(&self, account: &str) -> usize {
        let queue = format!("{}.dead", self.queue_of(account));
        self.operator().await.n_ready(&queue).await.unwrap_or(0)
    }

    fn queue_of(&self, account: &str) -> String {
        format!("{}.{account}", self.source_queue)
    }

    fn dead_queue(&self) -> String {
        format!("{}.dead", self.source_queue)
    }

    /// Whether no delivery waits for the service.
    pub(crate) async fn source_is_empty(&self) -> bool {
        self.operator().await.n_ready(&self.source_queue).await == Some(0)
    }

    async fn operator(&self) -> Operator {
        Operator::at(self.url.clone()).await
    }
}
