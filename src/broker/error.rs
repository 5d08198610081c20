//! What can go wrong between us and the broker.

use std::time::Duration;

use lapin::ErrorKind;

/// Why the broker could not be used. Never holds credentials or message bodies.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The configured URL is unusable. Trying again cannot help.
    #[error("the broker's URL is unusable: {0}")]
    Url(&'static str),
    /// The broker did not answer in time.
    #[error("no answer from the broker within {} ms while {doing}", limit.as_millis())]
    Timeout {
        /// What was being done.
        doing: &'static str,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The broker closed the channel or the connection with an AMQP reply code, for example 403 or 406.
    #[error("the broker refused with {code}: {text}")]
    Refused {
        /// AMQP reply code.
        code: u16,
        /// The broker's own words.
        text: String,
    },
    /// The connection could not be made or broke.
    #[error("connection failed: {0}")]
    Lost(String),
    /// Parts of the topology that must be there and are not.
    #[error("missing on the broker: {}", .0.join(", "))]
    Missing(Vec<String>),
    /// A name or header is longer than the 255 bytes AMQP allows.
    #[error("{0} is longer than 255 bytes")]
    TooLong(&'static str),
    /// The broker handed a message back, or did not take it.
    #[error("the broker did not take the message: {0}")]
    NotTaken(&'static str),
}

impl From<lapin::Error> for Error {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::ProtocolError(refusal) => {
                Self::Refused { code: refusal.get_id(), text: refusal.get_message().to_string() }
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}

/// Why a message does not count as published. Publish it again with the same message id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Confirmed, but no queue is bound for its routing key: the broker has thrown it away.
    #[error("no queue is bound for the message")]
    Unroutable,
    /// The broker says that it could not take responsibility.
    #[error("the broker refused responsibility for the message")]
    Nacked,
    /// No confirm in time. The broker may or may not have the message.
    #[error("no confirm from the broker in time")]
    Unconfirmed,
    /// The broker is, or went, away. If the message was on its way, the broker may or may not have it.
    #[error("the broker is not connected")]
    Disconnected,
    /// The broker blocks publishers (memory or disk alarm). The message was not sent.
    #[error("the broker blocks publishers")]
    Blocked,
    /// The message can never be sent: a field is longer than the 255 bytes AMQP allows.
    #[error("a field of the message is longer than 255 bytes")]
    TooLong,
}

impl PublishError {
    /// Whether the broker is in trouble as a whole, so that other messages will fare no better: wait for
    /// [`super::Publisher::ready`] before trying again.
    pub fn is_outage(self) -> bool {
        match self {
            Self::Nacked | Self::Unconfirmed | Self::Disconnected | Self::Blocked => true,
            Self::Unroutable | Self::TooLong => false,
        }
    }
}
