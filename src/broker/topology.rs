//! Exchanges and queues: declared or verified, always on channels that may die of it.
//!
//! A declaration with other arguments than those that exist (`406`) closes its channel. That must not stop the
//! service after an upgrade or an operator's change: what exists is used, and the difference is reported.

use std::fmt;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};
use tracing::warn;

use super::connection::{Connection, REQUEST_TIMEOUT, within};
use super::message::short;
use super::{BrokerEvent, Error, Observer};

/// What a consumer needs on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Durable topic exchange the platform publishes to. Empty: the default exchange, nothing is bound.
    pub exchange: String,
    /// Durable queue to consume. Its dead-letter queue is this name plus `.dead`.
    pub queue: String,
    /// Binds the queue to the exchange.
    pub routing_key: String,
    /// Type of both queues.
    pub queue_type: QueueType,
    /// Whether to create what is missing.
    pub mode: Mode,
}

/// What a publisher needs on the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkTopology {
    /// Durable topic exchange to publish to. Empty: the default exchange, which always exists.
    pub exchange: String,
    /// Whether to create it.
    pub mode: Mode,
}

/// `x-queue-type` of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated; survives the loss of a broker node.
    Quorum,
    /// On one node.
    Classic,
}

/// How much we may change on the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Create what is missing.
    Declare,
    /// Create nothing; fail with a list of what is missing.
    Verify,
}

/// Something that exists but could not be declared the way we wanted it. It is used as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// For example `queue "invite-relay.trucker-created"`.
    pub object: String,
    /// The argument that differs, as far as the broker says; for example `x-queue-type`.
    pub argument: Option<String>,
    /// The broker's own words.
    pub text: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.argument {
            Some(argument) => write!(f, "{} with another {argument}", self.object),
            None => write!(f, "{}, which we may not declare", self.object),
        }
    }
}

impl Topology {
    /// Name of the dead-letter queue.
    pub fn dead_queue(&self) -> String {
        format!("{}.dead", self.queue)
    }

    /// Declares or verifies everything, and tells `observer` about each difference.
    ///
    /// A binding cannot be looked at over AMQP, so [`Mode::Verify`] does not check it.
    pub async fn apply(
        &self,
        connection: &Connection,
        observer: &Observer,
    ) -> Result<Vec<Difference>, Error> {
        let mut scratch = Scratch::new(connection, self.mode);
        scratch.exchange(&self.exchange).await?;
        scratch.queue(&self.dead_queue(), self.queue_type.arguments()).await?;
        // What the broker itself drops (delivery limit, consumer timeout policies) ends in the same place.
        let mut arguments = self.queue_type.arguments();
        arguments.insert("x-dead-letter-exchange".into(), ShortLong("").into());
        arguments.insert("x-dead-letter-routing-key".into(), ShortLong(&self.dead_queue()).into());
        scratch.queue(&self.queue, arguments).await?;
        if self.mode == Mode::Declare && !self.exchange.is_empty() && scratch.missing.is_empty() {
            scratch.bind(&self.queue, &self.exchange, &self.routing_key).await?;
        }
        scratch.finish(observer)
    }

    /// Declares the dead-letter queue alone, in [`Mode::Declare`].
    pub(super) async fn apply_dead_queue(&self, connection: &Connection) -> Result<(), Error> {
        let mut scratch = Scratch::new(connection, self.mode);
        scratch.queue(&self.dead_queue(), self.queue_type.arguments()).await?;
        scratch.finish(&Observer::default()).map(drop)
    }
}

impl SinkTopology {
    /// Declares or verifies the exchange, and tells `observer` about each difference.
    pub async fn apply(
        &self,
        connection: &Connection,
        observer: &Observer,
    ) -> Result<Vec<Difference>, Error> {
        let mut scratch = Scratch::new(connection, self.mode);
        scratch.exchange(&self.exchange).await?;
        scratch.finish(observer)
    }
}

impl QueueType {
    fn arguments(self) -> FieldTable {
        let name = match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
        };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), ShortLong(name).into());
        arguments
    }
}

/// A text argument; the broker wants AMQP long strings.
struct ShortLong<'a>(&'a str);

impl From<ShortLong<'_>> for lapin::types::AMQPValue {
    fn from(text: ShortLong<'_>) -> Self {
        Self::LongString(text.0.into())
    }
}

/// What a passive declaration tells about a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLook {
    /// Messages that wait for a consumer.
    pub n_ready: u32,
    /// Its consumers, on any connection.
    pub n_consumers: u32,
}

/// Looks at a queue on a channel of its own, which dies if there is no such queue.
pub(super) async fn look_at_queue(connection: &lapin::Connection, queue: &str) -> Result<QueueLook, Error> {
    let queue = short(queue, "the queue's name")?;
    let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asking = async {
        let channel = connection.create_channel().await?;
        let answer = channel.queue_declare(queue, passive, FieldTable::default()).await?;
        // The channel dies with its handle in any case; the polite way keeps the broker's log clean.
        let _ = channel.close(200, "OK".into()).await;
        Ok(QueueLook { n_ready: answer.message_count(), n_consumers: answer.consumer_count() })
    };
    within(REQUEST_TIMEOUT, "looking at the queue", asking).await
}

/// Logs the differences that are not known yet, once each.
pub(super) fn report(differences: &[Difference], known: &[Difference]) {
    for difference in differences.iter().filter(|difference| !known.contains(difference)) {
        let Difference { object, argument, text } = difference;
        warn!(
            object,
            argument, text, "the broker has this with other arguments than ours; using it as it is"
        );
    }
}

/// What can be declared.
#[derive(Clone)]
enum Object {
    Exchange(ShortString),
    Queue(ShortString, FieldTable),
}

/// Does one request after the other, on a new channel after each one that was refused.
struct Scratch<'a> {
    connection: &'a Connection,
    mode: Mode,
    channel: Option<Channel>,
    differences: Vec<Difference>,
    missing: Vec<String>,
}

impl<'a> Scratch<'a> {
    fn new(connection: &'a Connection, mode: Mode) -> Self {
        Self { connection, mode, channel: None, differences: Vec::new(), missing: Vec::new() }
    }

    async fn exchange(&mut self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Ok(());
        }
        // Names with this prefix are the broker's own and cannot be declared.
        let may_declare = self.mode == Mode::Declare && !name.starts_with("amq.");
        let object = Object::Exchange(short(name, "the exchange's name")?);
        self.ensure(format!("exchange \"{name}\""), &object, may_declare).await
    }

    async fn queue(&mut self, name: &str, arguments: FieldTable) -> Result<(), Error> {
        let object = Object::Queue(short(name, "the queue's name")?, arguments);
        self.ensure(format!("queue \"{name}\""), &object, self.mode == Mode::Declare).await
    }

    async fn bind(&mut self, queue: &str, exchange: &str, routing_key: &str) -> Result<(), Error> {
        let (queue_name, exchange_name): (ShortString, ShortString) =
            (short(queue, "the queue's name")?, short(exchange, "the exchange's name")?);
        let routing_key = short(routing_key, "the routing key")?;
        let channel = self.channel().await?;
        let options = QueueBindOptions::default();
        let binding =
            channel.queue_bind(queue_name, exchange_name, routing_key, options, FieldTable::default());
        match within(REQUEST_TIMEOUT, "binding the queue", binding).await {
            Ok(()) => Ok(()),
            // Not allowed to bind: the operator has done it, or will see an empty queue.
            Err(Error::Refused { code: 403, text }) => {
                self.channel = None;
                self.differences.push(Difference {
                    object: format!("binding of \"{queue}\" to \"{exchange}\""),
                    argument: None,
                    text,
                });
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Declares, and where that is refused or not wanted, checks that the object exists.
    async fn ensure(&mut self, named: String, object: &Object, may_declare: bool) -> Result<(), Error> {
        if may_declare {
            match self.declare(object, false).await {
                Ok(()) => return Ok(()),
                // 403: no permission to configure; 406: exists with other arguments.
                Err(Error::Refused { code: 403 | 406, text }) => {
                    let argument = differing_argument(&text).map(str::to_owned);
                    self.differences.push(Difference { object: named.clone(), argument, text });
                }
                Err(error) => return Err(error),
            }
        }
        match self.declare(object, true).await {
            Ok(()) => Ok(()),
            Err(Error::Refused { code: 404, .. }) => {
                self.missing.push(named);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Declares, or with `passive` only looks whether it is there. A refusal costs the channel.
    async fn declare(&mut self, object: &Object, passive: bool) -> Result<(), Error> {
        let channel = self.channel().await?;
        let declared = match object.clone() {
            Object::Exchange(name) => {
                let options =
                    ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
                let declaring =
                    channel.exchange_declare(name, ExchangeKind::Topic, options, FieldTable::default());
                within(REQUEST_TIMEOUT, "declaring the exchange", declaring).await
            }
            Object::Queue(name, arguments) => {
                let options =
                    QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
                let declaring = channel.queue_declare(name, options, arguments);
                within(REQUEST_TIMEOUT, "declaring the queue", declaring).await.map(drop)
            }
        };
        if declared.is_err() {
            self.channel = None;
        }
        declared
    }

    async fn channel(&mut self) -> Result<&Channel, Error> {
        let channel = match self.channel.take() {
            Some(channel) => channel,
            None => self.connection.channel().await?,
        };
        Ok(self.channel.insert(channel))
    }

    fn finish(self, observer: &Observer) -> Result<Vec<Difference>, Error> {
        self.differences.iter().for_each(|_| observer.tell(BrokerEvent::TopologyDiffers));
        if self.missing.is_empty() { Ok(self.differences) } else { Err(Error::Missing(self.missing)) }
    }
}

/// The argument's name in the broker's reply, for example
/// `PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received …`.
fn differing_argument(text: &str) -> Option<&str> {
    let (_, after) = text.split_once("inequivalent arg '")?;
    after.split_once('\'').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_differing_argument_is_read_from_the_brokers_reply() {
        let text = "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received \
                    'quorum' but current is 'classic'";
        assert_eq!(differing_argument(text), Some("x-queue-type"));
        assert_eq!(differing_argument("ACCESS_REFUSED - no"), None);
    }
}
