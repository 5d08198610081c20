//! `trucker.created`: from an envelope to what the service needs to know, or to a refusal.

use std::fmt;

use serde_json::{Map, Value};

use super::envelope::{Document, Envelope, REQUIRED_ATTRIBUTES};
use super::refusal::{Refusal, RefusalReason};
use super::rules::{Pointer, Rules};
use super::trace::TraceContext;
use crate::invite::{AccountName, TruckerPk};

/// The source of plain JSON messages, whichever way they came, so that one message that is sent twice by
/// different ways is one event.
pub const PLAIN_SOURCE: &str = "plain";

/// The version of CloudEvents that is read.
const SPECVERSION: &str = "1.0";

/// Longest event id, in characters: it is a key in the store and travels in headers.
const ID_MAX: usize = 256;

/// Longest event source, in characters.
const SOURCE_MAX: usize = 512;

/// Most that the included fields may take, in bytes of JSON: they are stored with each invite.
const INCLUDED_MAX: usize = 16 * 1024;

/// A trucker was created. Source and id together identify the event.
#[derive(Clone, PartialEq)]
pub struct TruckerCreated {
    /// The id that the sender gave, see [`parse`].
    pub event_id: String,
    /// The CloudEvents source, or [`PLAIN_SOURCE`].
    pub event_source: String,
    /// The account that the event belongs to; `None` means the default account.
    pub account: Option<AccountName>,
    /// The trucker.
    pub pk: TruckerPk,
    /// The included fields, and nothing else of the trucker.
    pub trucker: Map<String, Value>,
    /// Where the trace began.
    pub trace: TraceContext,
}

/// Shows the names of the included fields without their values, which may be personal.
impl fmt::Debug for TruckerCreated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TruckerCreated")
            .field("event_id", &self.event_id)
            .field("event_source", &self.event_source)
            .field("account", &self.account)
            .field("pk", &self.pk)
            .field("trucker", &FieldNames(&self.trucker))
            .field("trace", &self.trace)
            .finish()
    }
}

/// The keys of a map, for `Debug`.
pub(super) struct FieldNames<'a>(pub(super) &'a Map<String, Value>);

impl fmt::Debug for FieldNames<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Judges a message. A refusal is final: the same bytes are refused again.
///
/// * **Identity.** A CloudEvent's `source` and `id`. A plain message: [`PLAIN_SOURCE`], and the first of its own
///   `id`, the envelope's `message_id`, and an id derived from the trucker.
/// * **Type.** A CloudEvent's `type` has to be listed in the rules, and so has the `type` of a plain message if
///   it has one that is text.
/// * **Trace.** The headers `traceparent` and `tracestate` speak of the hop just made and are the parent; the
///   CloudEvents extensions of the same names speak of the start of the transmission and are used when the
///   headers are absent or malformed. The two pairs are never mixed.
pub fn parse(rules: &Rules, envelope: &Envelope<'_>) -> Result<TruckerCreated, Refusal> {
    let document = envelope.open()?;
    if document.is_cloud_event {
        check_attributes(&document.json)?;
    }
    check_type(rules, &document.json)?;
    let (pk, trucker) = trucker(rules, &document.json)?;
    let account = account(rules, &document.json)?;
    let (event_id, event_source) = identity(envelope, &document, account.as_ref(), pk)?;
    let trace = trace(envelope, &document);
    Ok(TruckerCreated { event_id, event_source, account, pk, trucker, trace })
}

fn check_attributes(event: &Value) -> Result<(), Refusal> {
    for name in REQUIRED_ATTRIBUTES {
        let problem = match event.get(name) {
            None | Some(Value::Null) => "is missing",
            Some(Value::String(text)) if text.is_empty() => "is empty",
            Some(Value::String(text)) if name == "specversion" && text != SPECVERSION => "is not 1.0",
            Some(Value::String(_)) => continue,
            Some(_) => "is not text",
        };
        return Err(Refusal::new(
            RefusalReason::InvalidCloudEvent,
            name,
            problem,
            "send specversion 1.0 with id, source and type, each a text",
        ));
    }
    Ok(())
}

fn check_type(rules: &Rules, document: &Value) -> Result<(), Refusal> {
    match document.get("type").and_then(Value::as_str) {
        Some(given) if !rules.types.iter().any(|listed| listed == given) => Err(Refusal::new(
            RefusalReason::WrongType,
            "type",
            "is none of the event types that are taken",
            format!("send only {} here, or add the type to event.types", rules.types.join(", ")),
        )),
        _ => Ok(()),
    }
}

/// The trucker's key and the fields to carry along.
fn trucker(rules: &Rules, document: &Value) -> Result<(TruckerPk, Map<String, Value>), Refusal> {
    let found = rules.trucker_pk.iter().find_map(|pointer| Some((pointer, pointer.find(document)?)));
    let Some((pointer, value)) = found else {
        let places: Vec<_> = rules.trucker_pk.iter().map(super::Pointer::as_str).collect();
        return Err(Refusal::new(
            RefusalReason::MissingPk,
            places.first().copied().unwrap_or_default(),
            "there is no trucker pk",
            format!("send it at one of {}, or set event.trucker_pk", places.join(", ")),
        ));
    };
    let pk = read_pk(value).map_err(|found| {
        Refusal::new(
            RefusalReason::InvalidPk,
            pointer.as_str(),
            format!("must be a whole number from 1 to {}, found {found}", i64::MAX),
            "send the pk that Dashdoc gave the trucker, as a number or as text of digits",
        )
    })?;
    let mut included = Map::new();
    let mut size = 0;
    let holder = pointer.find_holder(document);
    for name in &rules.include {
        let Some(value) = holder.and_then(|holder| holder.get(name.as_str())).filter(|v| !v.is_null()) else {
            continue;
        };
        size += name.as_str().len() + value.to_string().len();
        if size > INCLUDED_MAX {
            return Err(Refusal::new(
                RefusalReason::TooLarge,
                name.as_str(),
                format!("the included fields take more than {INCLUDED_MAX} bytes"),
                "send less, or take the field out of event.include",
            ));
        }
        included.insert(name.as_str().to_owned(), value.clone());
    }
    Ok((pk, included))
}

/// The key, or what was found instead of one.
fn read_pk(value: &Value) -> Result<TruckerPk, &'static str> {
    match value {
        Value::Number(number) => match number.as_u64() {
            Some(0) => Err("zero"),
            Some(pk) => TruckerPk::try_from(pk).map_err(|_| "a larger number"),
            None if number.is_i64() => Err("a negative number"),
            None => Err("a fraction or a number out of range"),
        },
        Value::String(text) => text.parse().map_err(|_| "text that is no such number"),
        Value::Bool(_) => Err("true or false"),
        Value::Array(_) => Err("a list"),
        Value::Object(_) => Err("an object"),
        Value::Null => Err("null"),
    }
}

/// The account that the event belongs to, by its way in or by its own word. The two must not differ.
fn account(rules: &Rules, document: &Value) -> Result<Option<AccountName>, Refusal> {
    let named = named_account(rules, document)?;
    match (&rules.owner, named) {
        (Some(owner), Some((pointer, named))) if *owner != named => Err(Refusal::new(
            RefusalReason::ForeignAccount,
            pointer.as_str(),
            "names another account than the one that this queue or webhook path belongs to",
            "send the event on a way in of its own account",
        )),
        (Some(owner), _) => Ok(Some(owner.clone())),
        (None, named) => Ok(named.map(|(_, named)| named)),
    }
}

/// The account that the event names, and where; a number is taken by its digits.
fn named_account<'r>(
    rules: &'r Rules,
    document: &Value,
) -> Result<Option<(&'r Pointer, AccountName)>, Refusal> {
    let Some(pointer) = &rules.account else { return Ok(None) };
    let Some(value) = pointer.find(document) else { return Ok(None) };
    let name = match value {
        Value::String(text) => text.parse().ok(),
        Value::Number(number) if number.is_u64() => number.to_string().parse().ok(),
        Value::Number(_) | Value::Bool(_) | Value::Array(_) | Value::Object(_) | Value::Null => None,
    };
    name.map(|name| Some((pointer, name))).ok_or_else(|| {
        Refusal::new(
            RefusalReason::InvalidAccount,
            pointer.as_str(),
            "is no account name: 1 to 63 characters out of a-z, 0-9, - and _",
            "send the name of one of the accounts in dashdoc.accounts",
        )
    })
}

/// Id and source. An event without an id is the event of its trucker: a second one changes nothing.
fn identity(
    envelope: &Envelope<'_>,
    document: &Document,
    account: Option<&AccountName>,
    pk: TruckerPk,
) -> Result<(String, String), Refusal> {
    let text = |name| document.json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (id, source) = if document.is_cloud_event {
        (text("id").unwrap_or_default().to_owned(), text("source").unwrap_or_default())
    } else {
        let number = || document.json.get("id").filter(|id| id.is_number()).map(ToString::to_string);
        let message_id = || envelope.message_id.filter(|id| !id.is_empty()).map(str::to_owned);
        let derived = || match account {
            Some(account) => format!("trucker-created/{account}/{pk}"),
            None => format!("trucker-created/{pk}"),
        };
        let id = text("id").map(str::to_owned).or_else(number).or_else(message_id).unwrap_or_else(derived);
        (id, PLAIN_SOURCE)
    };
    check_identity("id", &id, ID_MAX)?;
    check_identity("source", source, SOURCE_MAX)?;
    Ok((id, source.to_owned()))
}

fn check_identity(field: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    let problem = if text.chars().nth(max).is_some() {
        format!("is longer than {max} characters")
    } else if text.chars().any(char::is_control) {
        "has control characters in it".to_owned()
    } else {
        return Ok(());
    };
    let mend = "send a short printable text that stays the same when the event is sent again";
    Err(Refusal::new(RefusalReason::InvalidIdentity, field, problem, mend))
}

fn trace(envelope: &Envelope<'_>, document: &Document) -> TraceContext {
    let hop = TraceContext::from_texts(envelope.header("traceparent"), envelope.header("tracestate"));
    if !hop.is_empty() || !document.is_cloud_event {
        return hop;
    }
    let extension = |name| document.json.get(name).and_then(Value::as_str);
    TraceContext::from_texts(extension("traceparent"), extension("tracestate"))
}

#[cfg(test)]
mod tests;
