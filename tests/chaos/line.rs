//! A connection to the broker that may fail, for the platform's side.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::future::join_all;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, ConnectionProperties, ExchangeKind};
use secrecy::{ExposeSecret as _, SecretString};

/// For one request; a broker whose memory alarm is on answers no publisher.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Connected, with one channel in confirm mode.
pub(crate) struct Line {
    _connection: lapin::Connection,
    channel: Channel,
}

/// A message that was taken from a queue.
pub(crate) struct Taken {
    pub(crate) id: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// Why it did not work; text for the timeline.
pub(crate) type Failed = String;

impl Line {
    pub(crate) async fn open(url: &SecretString) -> Result<Self, Failed> {
        let url = url.expose_secret();
        let connecting = lapin::Connection::connect(url, ConnectionProperties::default());
        let connection = within(connecting).await?;
        let channel = within(connection.create_channel()).await?;
        within(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        Ok(Self { _connection: connection, channel })
    }

    /// Publishes all of them persistently. Returns the places of those that certainly are in a queue.
    pub(crate) async fn publish(
        &self,
        exchange: &str,
        key: &str,
        bodies: &[Vec<u8>],
    ) -> Result<Vec<usize>, Failed> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let send = |(place, body): (usize, &Vec<u8>)| {
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_content_type("application/cloudevents+json".into())
                // Recognises what comes back.
                .with_correlation_id(place.to_string().into());
            let body = body.clone();
            async move {
                let sent =
                    self.channel.basic_publish(exchange.into(), key.into(), options, &body, properties);
                within(async { sent.await?.await }).await
            }
        };
        let confirms = join_all(bodies.iter().enumerate().map(send)).await;
        // A return may come with any message's confirm.
        let mut returned = HashSet::new();
        for confirm in confirms.iter().flatten() {
            if let Confirmation::Ack(Some(message)) | Confirmation::Nack(Some(message)) = confirm {
                let place = message.delivery.properties.correlation_id().as_ref().map(ToString::to_string);
                returned.extend(place.and_then(|place| place.parse::<usize>().ok()));
            }
        }
        let is_safe =
            |place: &usize| matches!(confirms[*place], Ok(Confirmation::Ack(_))) && !returned.contains(place);
        let safe: Vec<usize> = (0..bodies.len()).filter(is_safe).collect();
        match confirms.into_iter().find_map(Result::err) {
            Some(error) if safe.is_empty() => Err(error),
            // With confirms missing, a return may be missing too: only what was all confirmed counts.
            Some(_) => Ok(Vec::new()),
            None => Ok(safe),
        }
    }

    pub(crate) async fn declare_topic(&self, exchange: &str) -> Result<(), Failed> {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let (kind, arguments) = (ExchangeKind::Topic, FieldTable::default());
        within(self.channel.exchange_declare(exchange.into(), kind, options, arguments)).await
    }

    pub(crate) async fn declare(&self, queue: &str) -> Result<(), Failed> {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        within(self.channel.queue_declare(queue.into(), options, FieldTable::default())).await.map(drop)
    }

    pub(crate) async fn bind(&self, queue: &str, exchange: &str, pattern: &str) -> Result<(), Failed> {
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        within(self.channel.queue_bind(queue.into(), exchange.into(), pattern.into(), options, arguments))
            .await
    }

    pub(crate) async fn unbind(&self, queue: &str, exchange: &str, pattern: &str) -> Result<(), Failed> {
        let arguments = FieldTable::default();
        within(self.channel.queue_unbind(queue.into(), exchange.into(), pattern.into(), arguments)).await
    }

    pub(crate) async fn delete(&self, queue: &str) -> Result<(), Failed> {
        within(self.channel.queue_delete(queue.into(), QueueDeleteOptions::default())).await.map(drop)
    }

    /// Everything in the queue, in order.
    pub(crate) async fn take_all(&self, queue: &str) -> Result<Vec<Taken>, Failed> {
        let mut taken = Vec::new();
        while let Some(message) =
            within(self.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true })).await?
        {
            let id = message.delivery.properties.message_id().as_ref().map(ToString::to_string);
            taken.push(Taken { id, body: message.delivery.data });
        }
        Ok(taken)
    }
}

async fn within<T>(request: impl Future<Output = lapin::Result<T>>) -> Result<T, Failed> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer from the broker".to_owned()),
    }
}
