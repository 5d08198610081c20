//! `invite.ready` and `invite.failed`: what the service announces, written as structured CloudEvents.
//!
//! The bytes depend on the fields below and on nothing else. Whoever publishes again after a crash has to give
//! the same stored values (the time above all), and the consumer sees the same event.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::incoming::FieldNames;
use super::trace::TraceContext;
use crate::invite::{
    AccountName, Announcement, Failure, FailureClass, Generation, InviteCode, Origin, TruckerPk,
};
use crate::time::Timestamp;

/// Content type of an outgoing body.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

const SPECVERSION: &str = "1.0";

/// Content type of `data` inside the event.
const DATA_CONTENT_TYPE: &str = "application/json";

/// The code of a trucker is there.
#[derive(Clone, Copy)]
pub struct InviteReady<'a> {
    /// The derived id, see [`crate::invite::event_id`].
    pub id: Uuid,
    /// The CloudEvents source of this service (`event.source`).
    pub source: &'a str,
    /// The company.
    pub account: &'a AccountName,
    /// The trucker.
    pub pk: TruckerPk,
    /// Fields of the trucker carried along from the incoming event.
    pub trucker: &'a Map<String, Value>,
    /// The code itself. This event is the one place where it leaves the service.
    pub code: &'a InviteCode,
    /// Which of the trucker's codes it is; consumers keep the highest.
    pub generation: Generation,
    /// How the service came by the code.
    pub origin: Origin,
    /// When the code was stored, not when it is published.
    pub time: Timestamp,
    /// Id of the event that caused this one; none if a person did.
    pub causation_id: Option<&'a str>,
    /// Where the trace began. The publishing span goes into the message's headers, never in here.
    pub trace: &'a TraceContext,
}

/// No code could be had; a person is needed.
#[derive(Clone, Copy)]
pub struct InviteFailed<'a> {
    /// The derived id, see [`crate::invite::event_id`].
    pub id: Uuid,
    /// The CloudEvents source of this service (`event.source`).
    pub source: &'a str,
    /// The company.
    pub account: &'a AccountName,
    /// The trucker.
    pub pk: TruckerPk,
    /// Fields of the trucker carried along from the incoming event.
    pub trucker: &'a Map<String, Value>,
    /// Which of the trucker's codes could not be had.
    pub generation: Generation,
    /// What went wrong last.
    pub failure: &'a Failure,
    /// Attempts that were spent.
    pub attempts: u32,
    /// When the invite was given up.
    pub time: Timestamp,
    /// Id of the event that caused this one; none if a person did.
    pub causation_id: Option<&'a str>,
    /// Where the trace began.
    pub trace: &'a TraceContext,
}

/// An event ready to be sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The event's id; also the AMQP `message_id` and the `webhook-id`.
    pub id: Uuid,
    /// What is announced, which decides the routing key.
    pub kind: Announcement,
    /// The trucker's primary key as text.
    pub subject: String,
    /// The event's time; also the AMQP `timestamp`.
    pub time: Timestamp,
    /// The CloudEvents source.
    pub source: String,
    /// The CloudEvents type.
    pub type_: &'static str,
    /// Id of the event that caused this one.
    pub causation_id: Option<String>,
    /// Where the trace began.
    pub trace: TraceContext,
    /// The structured CloudEvent, of type [`CONTENT_TYPE`].
    pub body: Vec<u8>,
}

impl InviteReady<'_> {
    /// Writes the event.
    pub fn to_outgoing(&self) -> Outgoing {
        let data = ReadyData {
            account: self.account,
            trucker: Trucker { pk: self.pk, fields: self.trucker },
            invite_code: self.code.reveal(),
            generation: self.generation,
            origin: self.origin,
        };
        let head = Head {
            id: self.id,
            kind: Announcement::Ready,
            source: self.source,
            pk: self.pk,
            time: self.time,
            causation_id: self.causation_id,
            trace: self.trace,
        };
        head.write(&data)
    }
}

impl InviteFailed<'_> {
    /// Writes the event.
    pub fn to_outgoing(&self) -> Outgoing {
        let data = FailedData {
            account: self.account,
            trucker: Trucker { pk: self.pk, fields: self.trucker },
            generation: self.generation,
            failure: FailureData { class: self.failure.class, code: &self.failure.code },
            attempts: self.attempts,
        };
        let head = Head {
            id: self.id,
            kind: Announcement::Failed,
            source: self.source,
            pk: self.pk,
            time: self.time,
            causation_id: self.causation_id,
            trace: self.trace,
        };
        head.write(&data)
    }
}

impl Outgoing {
    /// The CloudEvents attributes without a prefix, to be mirrored in AMQP headers as `cloudEvents_*`.
    ///
    /// Over HTTP don't mirror them: receivers such as the Python SDK take any `ce-*` header as the sign of a
    /// binary event, and would read the whole body as its data.
    pub fn attributes(&self) -> impl Iterator<Item = (&'static str, Cow<'_, str>)> {
        let always = [
            ("specversion", Cow::Borrowed(SPECVERSION)),
            ("id", Cow::Owned(self.id.to_string())),
            ("source", Cow::Borrowed(self.source.as_str())),
            ("type", Cow::Borrowed(self.type_)),
            ("subject", Cow::Borrowed(self.subject.as_str())),
            ("time", Cow::Owned(self.time.to_string())),
            ("datacontenttype", Cow::Borrowed(DATA_CONTENT_TYPE)),
        ];
        let extensions = [
            ("causationid", self.causation_id.as_deref()),
            ("traceparent", self.trace.traceparent.as_deref()),
            ("tracestate", self.trace.tracestate.as_deref()),
        ];
        let present = extensions.into_iter().filter_map(|(name, value)| Some((name, Cow::Borrowed(value?))));
        always.into_iter().chain(present)
    }
}

/// Shows the size of the body only: the code is in it.
impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("id", &self.id)
            .field("type", &self.type_)
            .field("subject", &self.subject)
            .field("time", &self.time)
            .field("source", &self.source)
            .field("causation_id", &self.causation_id)
            .field("trace", &self.trace)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .finish_non_exhaustive()
    }
}

/// Shows neither the code nor the values of the included fields.
impl fmt::Debug for InviteReady<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InviteReady")
            .field("id", &self.id)
            .field("account", &self.account)
            .field("pk", &self.pk)
            .field("trucker", &FieldNames(self.trucker))
            .field("generation", &self.generation)
            .field("origin", &self.origin)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// Shows no values of the included fields.
impl fmt::Debug for InviteFailed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InviteFailed")
            .field("id", &self.id)
            .field("account", &self.account)
            .field("pk", &self.pk)
            .field("trucker", &FieldNames(self.trucker))
            .field("generation", &self.generation)
            .field("failure", &self.failure)
            .field("attempts", &self.attempts)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// What both events have in common.
struct Head<'a> {
    id: Uuid,
    kind: Announcement,
    source: &'a str,
    pk: TruckerPk,
    time: Timestamp,
    causation_id: Option<&'a str>,
    trace: &'a TraceContext,
}

impl Head<'_> {
    fn write(&self, data: &impl Serialize) -> Outgoing {
        let type_ = match self.kind {
            Announcement::Ready => "invite.ready",
            Announcement::Failed => "invite.failed",
        };
        let subject = self.pk.to_string();
        let event = CloudEvent {
            specversion: SPECVERSION,
            id: self.id,
            source: self.source,
            type_,
            subject: &subject,
            time: self.time.to_string(),
            datacontenttype: DATA_CONTENT_TYPE,
            causationid: self.causation_id,
            traceparent: self.trace.traceparent.as_deref(),
            tracestate: self.trace.tracestate.as_deref(),
            data,
        };
        let body = serde_json::to_vec(&event).expect("text, numbers and JSON values always serialize");
        Outgoing {
            id: self.id,
            kind: self.kind,
            subject,
            time: self.time,
            source: self.source.to_owned(),
            type_,
            causation_id: self.causation_id.map(str::to_owned),
            trace: self.trace.clone(),
            body,
        }
    }
}

/// The event on the wire; the order of the fields is the order in the JSON.
#[derive(Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'a str,
    id: Uuid,
    source: &'a str,
    #[serde(rename = "type")]
    type_: &'a str,
    subject: &'a str,
    time: String,
    datacontenttype: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
    data: D,
}

#[derive(Serialize)]
struct ReadyData<'a> {
    account: &'a AccountName,
    trucker: Trucker<'a>,
    invite_code: &'a str,
    generation: Generation,
    origin: Origin,
}

#[derive(Serialize)]
struct FailedData<'a> {
    account: &'a AccountName,
    trucker: Trucker<'a>,
    generation: Generation,
    failure: FailureData<'a>,
    attempts: u32,
}

#[derive(Serialize)]
struct FailureData<'a> {
    class: FailureClass,
    code: &'a str,
}

/// `pk` first, then the included fields; a field named `pk` never overrides the key.
struct Trucker<'a> {
    pk: TruckerPk,
    fields: &'a Map<String, Value>,
}

impl Serialize for Trucker<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("pk", &self.pk)?;
        for (name, value) in self.fields.iter().filter(|(name, _)| name.as_str() != "pk") {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
pub(super) mod tests;
