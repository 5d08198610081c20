//! Messages in and out, without the client library's types.
//!
//! None of these types shows bodies or headers in `Debug`: they hold invite codes and personal data.

use std::fmt;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::{Error, PublishError};
use crate::time::Timestamp;

/// Delivery mode of a message that survives a restart of the broker.
const PERSISTENT: u8 = 2;

/// A message to publish: persistent, mandatory, confirmed.
#[derive(Clone)]
pub struct Message {
    /// Exchange; empty for the default exchange, which routes to the queue named by the routing key.
    pub exchange: String,
    /// Routing key.
    pub routing_key: String,
    /// Stable over re-publishing; consumers de-duplicate by it.
    pub message_id: String,
    /// What the message answers.
    pub correlation_id: Option<String>,
    /// Media type of the body.
    pub content_type: String,
    /// Text headers.
    pub headers: Vec<(String, String)>,
    /// When the event happened. AMQP carries whole seconds.
    pub timestamp: Timestamp,
    /// The body.
    pub body: Bytes,
}

/// A message from the queue, to be judged by a [`Verdict`].
#[derive(Clone)]
pub struct Delivery {
    /// The body.
    pub body: Bytes,
    /// Media type of the body.
    pub content_type: Option<String>,
    /// The publisher's message id.
    pub message_id: Option<String>,
    /// Text headers, and binary ones that are UTF-8; names as they came.
    pub headers: Vec<(String, String)>,
    /// Whether the broker may have delivered it before.
    pub redelivered: bool,
    /// Exchange it was published to.
    pub exchange: String,
    /// Routing key it was published with.
    pub routing_key: String,
    /// The broker's number for it, unique within one subscription.
    pub delivery_tag: u64,
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted, or known already: acknowledge.
    Ack,
    /// Will never be accepted: move to the dead-letter queue, then acknowledge.
    DeadLetter {
        /// Short machine-readable reason, for example `not-json`.
        reason_code: String,
        /// For people; must not quote the message.
        reason: String,
    },
    /// Could not be accepted now, for example because the store is down: keep it and ask again.
    Hold,
}

impl Message {
    pub(super) fn properties(&self) -> Result<BasicProperties, PublishError> {
        let text = |text: &str| ShortString::try_new(text).map_err(|_| PublishError::TooLong);
        let mut headers = FieldTable::default();
        for (name, value) in &self.headers {
            headers.insert(text(name)?, AMQPValue::LongString(value.as_str().into()));
        }
        let seconds = u64::try_from(self.timestamp.as_millis() / 1000).unwrap_or(0);
        let mut properties = BasicProperties::default()
            .with_content_type(text(&self.content_type)?)
            .with_headers(headers)
            .with_delivery_mode(PERSISTENT)
            .with_message_id(text(&self.message_id)?)
            .with_timestamp(seconds);
        if let Some(correlation_id) = &self.correlation_id {
            properties = properties.with_correlation_id(text(correlation_id)?);
        }
        Ok(properties)
    }
}

/// What the session keeps of a delivery until it is settled: all that a repetition or a dead letter needs.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) tag: u64,
    body: Bytes,
    properties: BasicProperties,
    exchange: ShortString,
    routing_key: ShortString,
    redelivered: bool,
}

impl Kept {
    pub(super) fn new(delivery: lapin::message::Delivery) -> Self {
        Self {
            tag: delivery.delivery_tag,
            body: delivery.data.into(),
            properties: delivery.properties,
            exchange: delivery.exchange,
            routing_key: delivery.routing_key,
            redelivered: delivery.redelivered,
        }
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    pub(super) fn delivery(&self) -> Delivery {
        let owned = |text: &Option<ShortString>| text.as_ref().map(ToString::to_string);
        let headers = self.properties.headers().as_ref();
        Delivery {
            body: self.body.clone(),
            content_type: owned(self.properties.content_type()),
            message_id: owned(self.properties.message_id()),
            headers: headers.map(texts).unwrap_or_default(),
            redelivered: self.redelivered,
            exchange: self.exchange.to_string(),
            routing_key: self.routing_key.to_string(),
            delivery_tag: self.tag,
        }
    }

    /// The original properties and headers with ours added, persistent.
    ///
    /// Left out is what would harm a dead letter: `expiration` (it would vanish), `user_id` (the broker refuses
    /// another user's) and the headers `CC` and `BCC` (the broker would route copies).
    pub(super) fn dead_letter(
        &self,
        queue: &str,
        reason_code: &str,
        reason: &str,
        now: Timestamp,
    ) -> BasicProperties {
        let mut headers = FieldTable::default();
        for (name, value) in self.properties.headers().iter().flat_map(FieldTable::inner) {
            if !matches!(name.as_str(), "CC" | "BCC") {
                headers.insert(name.clone(), value.clone());
            }
        }
        for (name, value) in [
            ("x-invite-relay-reason", reason_code),
            ("x-invite-relay-reason-detail", reason),
            ("x-invite-relay-time", &now.to_string()),
            ("x-invite-relay-origin-queue", queue),
            ("x-invite-relay-origin-exchange", self.exchange.as_str()),
            ("x-invite-relay-origin-routing-key", self.routing_key.as_str()),
        ] {
            headers.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let from = &self.properties;
        let mut properties = BasicProperties::default().with_headers(headers).with_delivery_mode(PERSISTENT);
        macro_rules! keep {
            ($($field:ident => $with:ident),* $(,)?) => {
                $(if let Some(value) = from.$field() {
                    properties = properties.$with(value.clone());
                })*
            };
        }
        keep!(
            content_type => with_content_type,
            content_encoding => with_content_encoding,
            priority => with_priority,
            correlation_id => with_correlation_id,
            reply_to => with_reply_to,
            message_id => with_message_id,
            timestamp => with_timestamp,
            kind => with_type,
            app_id => with_app_id,
        );
        properties
    }
}

/// A name as AMQP's short string; the library would panic where it is too long.
pub(super) fn short(text: &str, what: &'static str) -> Result<ShortString, Error> {
    ShortString::try_new(text).map_err(|_| Error::TooLong(what))
}

fn texts(headers: &FieldTable) -> Vec<(String, String)> {
    let text = |value: &AMQPValue| match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok().map(str::to_owned),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        AMQPValue::ByteArray(bytes) => std::str::from_utf8(bytes.as_slice()).ok().map(str::to_owned),
        _ => None,
    };
    headers.into_iter().filter_map(|(name, value)| Some((name.to_string(), text(value)?))).collect()
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("message_id", &self.message_id)
            .field("n_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("delivery_tag", &self.delivery_tag)
            .field("redelivered", &self.redelivered)
            .field("n_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(properties: BasicProperties) -> Kept {
        let mut delivery =
            lapin::message::Delivery::mock(7, "events".into(), "key".into(), true, b"canary".to_vec());
        delivery.properties = properties;
        Kept::new(delivery)
    }

    #[test]
    fn text_and_byte_headers_are_handed_over_and_others_are_left_out() {
        let mut headers = FieldTable::default();
        headers.insert("a".into(), AMQPValue::LongString("long".into()));
        headers.insert("B".into(), AMQPValue::ByteArray(b"bytes".as_slice().into()));
        headers.insert("c".into(), AMQPValue::LongInt(1));
        headers.insert("d".into(), AMQPValue::LongString(vec![0xff].into()));
        let delivery = kept(BasicProperties::default().with_headers(headers)).delivery();
        let expected =
            [("B", "bytes"), ("a", "long")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(delivery.headers, expected);
        assert_eq!((delivery.delivery_tag, delivery.redelivered), (7, true));
    }

    #[test]
    fn a_dead_letter_keeps_what_came_but_nothing_that_would_make_it_vanish_or_be_refused() {
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), AMQPValue::LongString("00-1".into()));
        headers.insert("CC".into(), AMQPValue::LongString("elsewhere".into()));
        let original = BasicProperties::default()
            .with_headers(headers)
            .with_message_id("m1".into())
            .with_expiration("1000".into())
            .with_user_id("someone".into());
        let dead = kept(original).dead_letter("q", "not-json", "unreadable", Timestamp::EPOCH);
        let headers = dead.headers().as_ref().map(texts).unwrap_or_default();
        let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert!(names.contains(&"traceparent") && !names.contains(&"CC"));
        assert!(headers.contains(&("x-invite-relay-reason".into(), "not-json".into())));
        assert_eq!(dead.message_id().as_ref().map(ToString::to_string).as_deref(), Some("m1"));
        assert_eq!(dead.delivery_mode(), &Some(PERSISTENT));
        assert!(dead.expiration().is_none() && dead.user_id().is_none());
    }

    #[test]
    fn debug_output_shows_no_body_and_no_headers() {
        let message = Message {
            exchange: "e".into(),
            routing_key: "k".into(),
            message_id: "id".into(),
            correlation_id: None,
            content_type: "text/plain".into(),
            headers: vec![("canary".into(), "canary".into())],
            timestamp: Timestamp::EPOCH,
            body: "canary".into(),
        };
        let shown = format!("{message:?} {:?}", kept(BasicProperties::default()).delivery());
        assert!(!shown.contains("canary"), "{shown}");
    }

    #[test]
    fn a_name_longer_than_amqp_allows_is_an_error_and_no_panic() {
        assert_eq!(short(&"x".repeat(256), "the queue's name"), Err(Error::TooLong("the queue's name")));
    }
}
