//! A second client of the broker, playing the platform and the operator.

use futures_util::future::join_all;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ConnectionProperties, ExchangeKind};
use secrecy::{ExposeSecret, SecretString};

/// Connected, with one channel in confirm mode.
pub(crate) struct Operator {
    connection: lapin::Connection,
    pub(crate) channel: Channel,
}

impl Operator {
    pub(crate) async fn at(url: SecretString) -> Self {
        let properties = ConnectionProperties::default();
        let connection = lapin::Connection::connect(url.expose_secret(), properties).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        Self { connection, channel }
    }

    /// Leaves; what it had in hand goes back.
    pub(crate) async fn close(self) {
        self.connection.close(200, "OK".into()).await.unwrap();
    }

    pub(crate) async fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        body: &str,
        properties: BasicProperties,
    ) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publishing = self.channel.basic_publish(
            exchange.into(),
            routing_key.into(),
            options,
            body.as_bytes(),
            properties,
        );
        let confirm = publishing.await.unwrap().await.unwrap();
        assert_eq!(confirm, lapin::Confirmation::Ack(None), "the test's own message was not routed");
    }

    /// Puts the numbers into the queue as bodies.
    pub(crate) async fn fill(&self, queue: &str, numbers: std::ops::Range<usize>) {
        let persistent = BasicProperties::default().with_delivery_mode(2);
        join_all(
            numbers
                .map(async |number| self.publish("", queue, &number.to_string(), persistent.clone()).await),
        )
        .await;
    }

    /// Messages in the queue that no consumer has in hand; `None` if there is no queue.
    pub(crate) async fn n_ready(&self, queue: &str) -> Option<usize> {
        let channel = self.connection.create_channel().await.unwrap();
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await.ok()?;
        Some(usize::try_from(found.message_count()).unwrap())
    }

    pub(crate) async fn take(&self, queue: &str) -> Option<lapin::message::Delivery> {
        let options = BasicGetOptions { no_ack: true };
        self.channel.basic_get(queue.into(), options).await.unwrap().map(|message| message.delivery)
    }

    pub(crate) async fn take_all(&self, queue: &str) -> Vec<usize> {
        let mut bodies = Vec::new();
        while let Some(delivery) = self.take(queue).await {
            bodies.push(number(&delivery.data));
        }
        bodies
    }

    pub(crate) async fn declare(&self, queue: &str) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
    }

    pub(crate) async fn declare_topic(&self, exchange: &str) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (kind, arguments) = (ExchangeKind::Topic, FieldTable::default());
        self.channel.exchange_declare(exchange.into(), kind, options, arguments).await.unwrap();
    }

    pub(crate) async fn bind(&self, queue: &str, exchange: &str, pattern: &str) {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        let binding =
            self.channel.queue_bind(queue.into(), exchange.into(), pattern.into(), options, arguments);
        binding.await.unwrap();
    }

    pub(crate) async fn unbind(&self, queue: &str, exchange: &str, pattern: &str) {
        let unbinding =
            self.channel.queue_unbind(queue.into(), exchange.into(), pattern.into(), FieldTable::default());
        unbinding.await.unwrap();
    }
}

/// A body as [`Operator::fill`] writes it.
pub(crate) fn number(body: &[u8]) -> usize {
    std::str::from_utf8(body).unwrap().parse().unwrap()
}
