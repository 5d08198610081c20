//! What may be read out of a message, and what may be said about one that is refused.

use std::collections::BTreeSet;

use invite_relay::event::{
    Envelope, IncludedField, PLAIN_SOURCE, Pointer, Refusal, RefusalReason, Rules, TraceContext, Transport,
    TruckerCreated, parse,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

/// Attributes whose name may be told, as the specification and not the sender chose it.
const ATTRIBUTES: [&str; 12] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "traceparent",
    "tracestate",
    "correlationid",
    "causationid",
];

/// The default rules, with an account and a second field to carry along.
pub(crate) fn rules() -> Rules {
    let mut rules = Rules { account: Some(Pointer::try_new("/data/account").unwrap()), ..Rules::default() };
    rules.include.push("first_name".parse().unwrap());
    rules
}

/// For any message.
pub(crate) fn holds(rules: &Rules, envelope: &Envelope<'_>) {
    let verdict = parse(rules, envelope);
    assert_eq!(verdict, parse(rules, envelope), "the same bytes, the same verdict");
    match verdict {
        Ok(event) => {
            is_well_formed(rules, &event);
            debug_output_shows_no_values(&event);
            reads_the_same_in_any_other_frame(rules, &event);
        }
        Err(refusal) => nothing_of_the_message_is_repeated(rules, &refusal),
    }
}

fn is_well_formed(rules: &Rules, event: &TruckerCreated) {
    assert!((1..=i64::MAX.unsigned_abs()).contains(&event.pk.get()));
    for (text, max) in [(&event.event_id, 256), (&event.event_source, 512)] {
        assert!((1..=max).contains(&text.chars().count()) && !text.chars().any(char::is_control), "{text:?}");
    }
    let included: BTreeSet<&str> = rules.include.iter().map(IncludedField::as_str).collect();
    assert!(event.trucker.keys().all(|name| included.contains(name.as_str())), "more than was asked for");
    assert!(Value::from(event.trucker.clone()).to_string().len() <= 17 * 1024, "{}", event.trucker.len());
    let TraceContext { traceparent, tracestate } = &event.trace;
    let again = TraceContext::from_texts(traceparent.as_deref(), tracestate.as_deref());
    assert_eq!(again, event.trace, "a trace that is kept is well-formed");
}

fn debug_output_shows_no_values(event: &TruckerCreated) {
    let mut blank = event.clone();
    blank.trucker.values_mut().for_each(|value| *value = Value::Null);
    assert_eq!(format!("{event:?}"), format!("{blank:?}"), "values show in debug output");
}

/// Structured over both transports, binary over both: it is the same event.
fn reads_the_same_in_any_other_frame(rules: &Rules, event: &TruckerCreated) {
    let mut trucker = event.trucker.clone();
    trucker.insert("pk".to_owned(), json!(event.pk.get()));
    let mut data = json!({ "trucker": trucker });
    if let Some(account) = &event.account {
        data["account"] = json!(account.as_str());
    }
    let mut attributes = vec![
        ("specversion", "1.0"),
        ("id", &event.event_id),
        ("source", &event.event_source),
        ("type", &rules.types[0]),
    ];
    let trace = [("traceparent", &event.trace.traceparent), ("tracestate", &event.trace.tracestate)];
    attributes.extend(trace.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));

    let mut structured = json!({ "data": data });
    for (name, value) in &attributes {
        structured[*name] = json!(value);
    }
    let body = structured.to_string();
    for transport in [Transport::Http, Transport::Amqp] {
        let content_type = Some("application/cloudevents+json; charset=utf-8");
        let envelope = Envelope {
            transport,
            content_type,
            headers: &[],
            message_id: Some("another"),
            body: body.as_bytes(),
        };
        assert_eq!(parse(rules, &envelope).as_ref(), Ok(event), "structured over {transport:?}");
    }

    let body = data.to_string();
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let http: Vec<(String, String)> =
        attributes.iter().map(|(name, value)| (format!("Ce-{name}"), encoded(value))).collect();
    let amqp: Vec<(String, String)> =
        attributes.iter().map(|(name, value)| (format!("cloudEvents_{name}"), (*value).to_owned())).collect();
    for (transport, headers) in [(Transport::Http, http), (Transport::Amqp, amqp)] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let content_type = Some("application/json");
        let envelope =
            Envelope { transport, content_type, headers: &headers, message_id: None, body: body.as_bytes() };
        assert_eq!(parse(rules, &envelope).as_ref(), Ok(event), "binary over {transport:?}");
    }
    if event.event_source == PLAIN_SOURCE && event.trace.is_empty() {
        let mut plain = data;
        plain["id"] = json!(event.event_id);
        // The account is looked for below /data, which a plain message has only if it has that.
        let wrapped = json!({ "id": event.event_id, "data": { "trucker": plain["trucker"], "account": plain["account"] } });
        let body = wrapped.to_string();
        let envelope = Envelope {
            transport: Transport::Amqp,
            content_type: None,
            headers: &[],
            message_id: None,
            body: body.as_bytes(),
        };
        assert_eq!(parse(rules, &envelope).as_ref(), Ok(event), "plain");
    }
}

/// A refusal is made of the program's words, the rules' names and numbers that count something.
fn nothing_of_the_message_is_repeated(rules: &Rules, refusal: &Refusal) {
    let field = refusal.field.as_str();
    let known = ATTRIBUTES.contains(&field)
        || matches!(field, "" | "body" | "content-type" | "data_base64" | "ce-*")
        || field.strip_prefix("ce-").is_some_and(|name| ATTRIBUTES.contains(&name))
        || rules.trucker_pk.iter().chain(&rules.account).any(|pointer| pointer.as_str() == field)
        || rules.include.iter().any(|name| name.as_str() == field);
    assert!(known, "{field:?} is the sender's word");
    let words: String = refusal.problem.chars().filter(|c| !c.is_ascii_digit()).collect();
    assert!(PROBLEMS.contains(&words.as_str()), "{words:?} is none of the program's sentences");
    let places: Vec<_> = rules.trucker_pk.iter().map(Pointer::as_str).collect();
    let mends = [
        format!("send it at one of {}, or set event.trucker_pk", places.join(", ")),
        format!("send only {} here, or add the type to event.types", rules.types.join(", ")),
    ];
    assert!(
        MENDS.contains(&refusal.mend.as_ref()) || mends.iter().any(|mend| *mend == refusal.mend),
        "{:?} is none of the program's sentences",
        refusal.mend
    );
    assert!(RefusalReason::ALL.contains(&refusal.reason) && (400..500).contains(&refusal.kind().status()));
}

/// Every sentence about a problem, without its numbers.
const PROBLEMS: [&str; 25] = [
    "batches of CloudEvents are not taken",
    "is neither JSON nor CloudEvents in JSON",
    "a CloudEvent is a JSON object",
    "there is data as well",
    "is not base text",
    "is not JSON (line , column )",
    "is not UTF- after percent-decoding",
    "is missing",
    "is empty",
    "is not .",
    "is not text",
    "is none of the event types that are taken",
    "there is no trucker pk",
    "must be a whole number from  to , found zero",
    "must be a whole number from  to , found a larger number",
    "must be a whole number from  to , found a negative number",
    "must be a whole number from  to , found a fraction or a number out of range",
    "must be a whole number from  to , found text that is no such number",
    "must be a whole number from  to , found true or false",
    "must be a whole number from  to , found a list",
    "must be a whole number from  to , found an object",
    "is no account name:  to  characters out of a-z, -, - and _",
    "is longer than  characters",
    "has control characters in it",
    "the included fields take more than  bytes",
];

/// Every mend that does not depend on the rules.
const MENDS: [&str; 12] = [
    "send one event per message, as application/cloudevents+json",
    "send application/json or application/cloudevents+json",
    "send one event per message",
    "send data or data_base64, not both",
    "send JSON data in data",
    "send one JSON document in UTF-8",
    "percent-encode the UTF-8 bytes of the value",
    "send specversion 1.0 with id, source and type, each a text",
    "send the pk that Dashdoc gave the trucker, as a number or as text of digits",
    "send the name of one of the accounts in dashdoc.accounts",
    "send a short printable text that stays the same when the event is sent again",
    "send less, or take the field out of event.include",
];
