//! What can be learned of a broker without leaving a trace there.

use futures_util::FutureExt as _;
use lapin::Confirmation;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::connection::{Change, Connection, REQUEST_TIMEOUT, within};
use super::message::short;
use super::{Error, Topology};

/// More arguments than any queue has: ends the questions in any case.
const QUESTIONS_MAX: usize = 12;

/// An argument of a queue that differs from what we would declare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// For example `x-delivery-limit`.
    pub name: String,
    /// What it is on the broker; `None` where the queue does not have it.
    pub value: Option<String>,
}

/// Whether a broker takes messages now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taking {
    /// It does.
    Yes,
    /// It does not, for this reason, for example "low on memory".
    Blocked(String),
}

impl Topology {
    /// The arguments of the source queue that differ from ours; policies are not among them.
    ///
    /// The queue must be there. AMQP shows no arguments, but refuses a declaration that differs and names the first
    /// argument that does; so it is declared again and again, each time more like what the broker has. That changes
    /// nothing, and needs the permission to configure: [`Error::Refused`] with 403 without it.
    pub async fn differing_arguments(&self, connection: &Connection) -> Result<Vec<Argument>, Error> {
        let queue = short(&self.queue, "the queue's name")?;
        let mut arguments = self.source_arguments();
        let mut differing: Vec<Argument> = Vec::new();
        for _ in 0..QUESTIONS_MAX {
            let channel = connection.channel().await?;
            // Never makes it, should it have gone meanwhile.
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let looking = channel.queue_declare(queue.clone(), passive, FieldTable::default());
            within(REQUEST_TIMEOUT, "looking at the queue", looking).await?;
            let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let declaring = channel.queue_declare(queue.clone(), durable, arguments.clone());
            let refusal = match within(REQUEST_TIMEOUT, "comparing the queue", declaring).await {
                Ok(_) => return Ok(differing),
                Err(Error::Refused { code: 406, text }) => text,
                Err(error) => return Err(error),
            };
            let Some((argument, value)) = read(&refusal) else {
                return Err(Error::Refused { code: 406, text: refusal });
            };
            arguments = with(&arguments, &argument.name, value);
            differing.push(argument);
        }
        Ok(differing)
    }
}

impl Connection {
    /// Whether the broker takes messages now. An empty one is sent to no queue, and comes back.
    ///
    /// [`Error::Refused`] with 403 if the user may not write to the default exchange, as dead letters have to be.
    pub async fn takes_messages(&mut self) -> Result<Taking, Error> {
        let channel = self.channel().await?;
        let selecting = channel.confirm_select(ConfirmSelectOptions::default());
        within(REQUEST_TIMEOUT, "turning confirms on", selecting).await?;
        let nowhere = format!("invite-relay.nowhere.{}", uuid::Uuid::now_v7());
        let nowhere = short(&nowhere, "the name of no queue")?;
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let asking = async {
            channel
                .basic_publish("".into(), nowhere, options, b"", lapin::BasicProperties::default())
                .await?
                .await
        };
        let mut asking = within(REQUEST_TIMEOUT, "asking whether messages are taken", asking).boxed();
        loop {
            tokio::select! {
                biased;
                change = self.next_change() => match change {
                    Change::Blocked(reason) => return Ok(Taking::Blocked(reason)),
                    Change::Unblocked => {}
                    Change::Died(error) => return Err(error),
                },
                answer = &mut asking => return match answer? {
                    Confirmation::Ack(_) => Ok(Taking::Yes),
                    Confirmation::Nack(_) => Err(Error::NotTaken("it was refused")),
                    Confirmation::NotRequested => Err(Error::NotTaken("confirms are off")),
                },
            }
        }
    }
}

/// The argument's name and what the broker has, out of `… inequivalent arg 'x-delivery-limit' for queue 'q' in vhost
/// '/': received none but current is the value '5' of type 'signedint'`.
fn read(refusal: &str) -> Option<(Argument, Option<AMQPValue>)> {
    let (_, after) = refusal.split_once("inequivalent arg '")?;
    let (name, after) = after.split_once('\'')?;
    let (_, current) = after.rsplit_once("but current is ")?;
    let argument = |value| Argument { name: name.to_owned(), value };
    if current.starts_with("none") {
        return Some((argument(None), None));
    }
    let current = current.strip_prefix("the value ")?;
    let (text, kind) = current.split_once(" of type ")?;
    let text = text.trim_matches('\'');
    let value = match kind.trim_matches('\'') {
        "longstr" => AMQPValue::LongString(text.into()),
        "bool" => AMQPValue::Boolean(text == "true"),
        _ => AMQPValue::LongLongInt(text.parse().ok()?),
    };
    Some((argument(Some(text.to_owned())), Some(value)))
}

fn with(arguments: &FieldTable, name: &str, value: Option<AMQPValue>) -> FieldTable {
    let mut changed = FieldTable::default();
    for (other, kept) in arguments.inner().iter().filter(|(other, _)| other.as_str() != name) {
        changed.insert(other.clone(), kept.clone());
    }
    if let Some(value) = value {
        changed.insert(name.into(), value);
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_on_the_broker_is_read_from_its_refusal() {
        let refusal = |rest: &str| {
            format!("PRECONDITION_FAILED - inequivalent arg 'x-a' for queue 'q' in vhost '/': {rest}")
        };
        for (rest, expected) in [
            ("received none but current is the value '5' of type 'signedint'", Some(Some("5"))),
            (
                "received the value 'a' of type 'longstr' but current is the value 'b' of type 'longstr'",
                Some(Some("b")),
            ),
            ("received the value 'a' of type 'longstr' but current is none", Some(None)),
            ("something else", None),
        ] {
            let found = read(&refusal(rest)).map(|(argument, _)| argument.value);
            assert_eq!(found, expected.map(|value| value.map(str::to_owned)), "{rest}");
        }
    }
}
