//! The platform: tells of truckers, and hears of invites.

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, stream};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use secrecy::SecretString;
use serde_json::json;

use crate::support::operator::Operator;
use crate::support::soon;

/// Events on their way to the broker at one time.
const PUBLISHING: usize = 512;

/// One subject's exchange and queues, named for it.
pub(crate) struct Bus {
    pub(crate) name: String,
    operator: Operator,
}

/// An invite as it was heard of.
pub(crate) struct Heard {
    pub(crate) pk: u64,
    pub(crate) at: Instant,
}

impl Bus {
    /// Declares everything as the relay would, so that a bare loop finds the same.
    pub(crate) async fn make(url: SecretString, name: String) -> Self {
        let operator = Operator::at(url).await;
        let exchange = format!("{name}.events");
        operator.declare_topic(&exchange).await;
        let queue = format!("{name}.trucker-created");
        let dead = format!("{queue}.dead");
        let long = |text: &str| AMQPValue::LongString(text.into());
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), long("quorum"));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let declare = |queue: String, arguments: FieldTable| {
            operator.channel.queue_declare(queue.as_str().into(), durable, arguments)
        };
        declare(dead.clone(), arguments.clone()).await.unwrap();
        arguments.insert("x-dead-letter-exchange".into(), long(""));
        arguments.insert("x-dead-letter-routing-key".into(), long(&dead));
        declare(queue.clone(), arguments).await.unwrap();
        operator.bind(&queue, &exchange, "trucker.created").await;
        let announced = format!("{name}.announced");
        operator.declare(&announced).await;
        operator.bind(&announced, &exchange, "invite.*").await;
        Self { name, operator }
    }

    /// Tells of truckers as fast as the broker takes it.
    pub(crate) async fn tell(&self, pks: std::ops::Range<u64>) {
        stream::iter(pks).for_each_concurrent(PUBLISHING, |pk| self.tell_of(pk)).await;
    }

    /// Tells of one trucker.
    pub(crate) async fn tell_of(&self, pk: u64) {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/cloudevents+json".into());
        let (exchange, event) = (format!("{}.events", self.name), event(pk));
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publishing = self.operator.channel.basic_publish(
            exchange.as_str().into(),
            "trucker.created".into(),
            options,
            event.as_bytes(),
            properties,
        );
        let confirm = publishing.await.unwrap().await.unwrap();
        assert!(matches!(confirm, Confirmation::Ack(None)), "an event was not routed");
    }

    /// Listens to what is announced.
    pub(crate) async fn listen(&self) -> Ear {
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let queue = format!("{}.announced", self.name);
        let consumer = self.operator.channel.basic_consume(
            queue.as_str().into(),
            "platform".into(),
            options,
            FieldTable::default(),
        );
        Ear(consumer.await.unwrap())
    }
}

/// Hears what is announced.
pub(crate) struct Ear(lapin::Consumer);

impl Ear {
    /// The next invite.
    pub(crate) async fn hear(&mut self) -> Heard {
        let delivery = soon("the next invite", self.0.next()).await.unwrap().unwrap();
        Heard { pk: pk_of(&delivery.data), at: Instant::now() }
    }
}

/// The event that tells of a trucker.
pub(crate) fn event(pk: u64) -> String {
    let trucker = json!({
        "pk": pk, "remote_id": format!("driver-{pk}"), "user": { "first_name": "Ada", "last_name": "L" },
    });
    json!({
        "specversion": "1.0", "id": format!("event-{pk}"), "source": "/platform", "type": "trucker.created",
        "datacontenttype": "application/json", "data": { "trucker": trucker },
    })
    .to_string()
}

fn pk_of(body: &[u8]) -> u64 {
    let text = std::str::from_utf8(body).unwrap();
    let subject = text.split_once(r#""subject":""#).unwrap().1;
    subject.split('"').next().unwrap().parse().unwrap()
}

/// Waits for the next look at something.
pub(crate) async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}
