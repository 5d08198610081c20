//! The dead-letter queue as a person works with it: looked at, and moved back to the source queue after a mend.
//!
//! AMQP has no way to look at a message without taking it. What is only looked at is taken unacknowledged and goes
//! back when the channel closes. On a quorum queue each time counts towards its delivery limit (20 since `RabbitMQ`
//! 4.0, <https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>), beyond which the broker drops it. So a
//! message that was taken often is put anew at the end of the queue, where its count begins again.

use lapin::options::{BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation};

use super::connection::{Connection, REQUEST_TIMEOUT, connect, within};
use super::message::short;
use super::topology::look_at_queue;
use super::{Endpoint, Error, Topology};
use crate::time::Timestamp;

/// Takes of one message after which it is put anew at the end.
const TAKES_MAX: i64 = 5;

/// Prefix of the headers that the dead letter got from us.
const OURS: &str = "x-invite-relay-";

/// Set by a quorum queue on what it has delivered before.
const DELIVERY_COUNT: &str = "x-delivery-count";

/// A dead letter without its body, which may hold personal data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The publisher's message id.
    pub message_id: Option<String>,
    /// Why it died, for machines; for example `no-trucker-pk`. Absent where the broker itself moved it there.
    pub reason_code: Option<String>,
    /// Why it died, for people.
    pub reason: Option<String>,
    /// When it was moved there.
    pub died_at: Option<String>,
    /// Length of the body in bytes.
    pub n_bytes: usize,
}

/// Which dead letters.
#[derive(Clone, Debug, Default)]
pub struct Which {
    /// Only those that died of this reason code.
    pub reason_code: Option<String>,
    /// Only those with this message id.
    pub message_id: Option<String>,
}

impl Which {
    fn fits(&self, letter: &DeadLetter) -> bool {
        let fits = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        fits(&self.reason_code, &letter.reason_code) && fits(&self.message_id, &letter.message_id)
    }
}

/// An open way to the dead-letter queue and to the source queue.
pub struct DeadQueue {
    connection: Connection,
    channel: Channel,
    dead: ShortString,
    source: ShortString,
    name: String,
}

impl DeadQueue {
    /// Connects. Makes nothing: [`Error::Refused`] with 404 comes later, if there is no such queue.
    pub async fn open(endpoint: &Endpoint, topology: &Topology) -> Result<Self, Error> {
        let name = topology.dead_queue();
        let (dead, source) =
            (short(&name, "the dead-letter queue's name")?, short(&topology.queue, "the queue's name")?);
        let connection = connect(endpoint, "dead-letters").await?;
        let channel = connection.channel().await?;
        let selecting = channel.confirm_select(ConfirmSelectOptions::default());
        within(REQUEST_TIMEOUT, "turning confirms on", selecting).await?;
        Ok(Self { connection, channel, dead, source, name })
    }

    /// Looks at the oldest `limit` messages, and tells those that fit. Changes no message.
    pub async fn list(&self, which: &Which, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        let mut letters = Vec::new();
        for _ in 0..self.n_ready().await?.min(limit) {
            let Some(message) = self.take().await? else { break };
            letters.push(letter_of(&message));
            if n_takes(&message) >= TAKES_MAX {
                let anew =
                    message.properties.clone().with_headers(headers_but(&message.properties, is_a_count));
                self.publish(&self.dead, &message.data, anew).await?;
                self.acknowledge(&message).await?;
            }
        }
        letters.retain(|letter| which.fits(letter));
        Ok(letters)
    }

    /// Moves what fits among the oldest `limit` messages back to the source queue, marked with who did it and when.
    ///
    /// Each one is confirmed there before it is acknowledged here: after a crash it may be in both queues, never in
    /// none. What dies again is not looked at again by this call. Returns what was moved.
    pub async fn give_back(
        &self,
        which: &Which,
        limit: usize,
        by: &str,
        now: Timestamp,
    ) -> Result<Vec<DeadLetter>, Error> {
        let mut moved = Vec::new();
        for _ in 0..self.n_ready().await?.min(limit) {
            let Some(message) = self.take().await? else { break };
            let letter = letter_of(&message);
            if which.fits(&letter) {
                self.publish(&self.source, &message.data, revived(&message.properties, by, now)).await?;
                self.acknowledge(&message).await?;
                moved.push(letter);
            }
        }
        Ok(moved)
    }

    /// Puts what was only looked at back into the queue, and says goodbye.
    pub async fn close(self) {
        // The broker takes back what is unacknowledged in any case.
        let closing = self.channel.close(200, "OK".into());
        let _ = within(REQUEST_TIMEOUT, "closing the channel", closing).await;
        self.connection.close().await;
    }

    async fn n_ready(&self) -> Result<usize, Error> {
        let look = look_at_queue(&self.connection.handle(), &self.name).await?;
        Ok(usize::try_from(look.n_ready).unwrap_or(usize::MAX))
    }

    async fn take(&self) -> Result<Option<lapin::message::Delivery>, Error> {
        let taking = self.channel.basic_get(self.dead.clone(), BasicGetOptions { no_ack: false });
        let taken = within(REQUEST_TIMEOUT, "taking a dead letter", taking).await?;
        Ok(taken.map(|message| message.delivery))
    }

    async fn publish(
        &self,
        queue: &ShortString,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<(), Error> {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let publishing = async {
            self.channel.basic_publish("".into(), queue.clone(), options, body, properties).await?.await
        };
        match within(REQUEST_TIMEOUT, "moving a dead letter", publishing).await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(Error::NotTaken("the queue to move it to is not there")),
            Confirmation::Nack(_) => Err(Error::NotTaken("it was refused")),
            Confirmation::NotRequested => Err(Error::NotTaken("confirms are off")),
        }
    }

    async fn acknowledge(&self, message: &lapin::message::Delivery) -> Result<(), Error> {
        let acknowledging = self.channel.basic_ack(message.delivery_tag, BasicAckOptions::default());
        within(REQUEST_TIMEOUT, "acknowledging a dead letter", acknowledging).await
    }
}

fn letter_of(message: &lapin::message::Delivery) -> DeadLetter {
    let ours = |name: &str| match header(&message.properties, &format!("{OURS}{name}"))? {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        _ => None,
    };
    DeadLetter {
        message_id: message.properties.message_id().as_ref().map(ToString::to_string),
        reason_code: ours("reason"),
        reason: ours("reason-detail"),
        died_at: ours("time"),
        n_bytes: message.data.len(),
    }
}

fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a AMQPValue> {
    properties.headers().as_ref()?.inner().get(name)
}

/// How often the broker has given the message to somebody, as a quorum queue counts it.
fn n_takes(message: &lapin::message::Delivery) -> i64 {
    match header(&message.properties, DELIVERY_COUNT) {
        Some(AMQPValue::LongLongInt(n)) => *n,
        Some(AMQPValue::LongInt(n)) => i64::from(*n),
        Some(AMQPValue::LongUInt(n)) => i64::from(*n),
        Some(_) | None => 0,
    }
}

/// The properties as they came to the source, with who gave it back instead of why it died.
fn revived(properties: &BasicProperties, by: &str, now: Timestamp) -> BasicProperties {
    let of_the_death = |name: &str| name.starts_with(OURS) || name.starts_with("x-death") || is_a_count(name);
    let mut headers = headers_but(properties, of_the_death);
    for (name, value) in [("returned-by", by), ("returned-at", &now.to_string())] {
        headers.insert(format!("{OURS}{name}").as_str().into(), AMQPValue::LongString(value.into()));
    }
    properties.clone().with_headers(headers)
}

fn is_a_count(name: &str) -> bool {
    name == DELIVERY_COUNT
}

fn headers_but(properties: &BasicProperties, left_out: impl Fn(&str) -> bool) -> FieldTable {
    let mut kept = FieldTable::default();
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        if !left_out(name.as_str()) {
            kept.insert(name.clone(), value.clone());
        }
    }
    kept
}
