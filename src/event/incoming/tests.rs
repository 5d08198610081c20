use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::event::{IncludedField, Pointer, RefusalKind, Transport};

const STRUCTURED: &str = include_str!("../../../tests/data/events/accepted/structured.json");
const BASE64: &str = include_str!("../../../tests/data/events/accepted/structured-base64-nulls.json");
const PLAIN_NESTED: &str = include_str!("../../../tests/data/events/accepted/plain-nested.json");
const PLAIN_TRUCKER: &str = include_str!("../../../tests/data/events/accepted/plain-trucker.json");
const NO_PK: &str = include_str!("../../../tests/data/events/refused/no-pk.json");
const OTHER_TYPE: &str = include_str!("../../../tests/data/events/refused/other-type.json");
const NO_ID: &str = include_str!("../../../tests/data/events/refused/no-id.json");
const PK_IS_A_NAME: &str = include_str!("../../../tests/data/events/refused/pk-is-a-name.json");
const OLD_SPECVERSION: &str = include_str!("../../../tests/data/events/refused/old-specversion.json");

const CLOUD_EVENTS: &str = "application/cloudevents+json";
const HOP: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const START: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The attributes of a binary event over HTTP.
const BINARY: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "evt%201"),
    ("Ce-Source", "/platform"),
    ("CE-TYPE", "trucker.created"),
];

fn http<'a>(content_type: &'a str, headers: &'a [(&'a str, &'a str)], body: &'a str) -> Envelope<'a> {
    let content_type = Some(content_type).filter(|text| !text.is_empty());
    Envelope { transport: Transport::Http, content_type, headers, message_id: None, body: body.as_bytes() }
}

fn taken(envelope: &Envelope<'_>) -> TruckerCreated {
    parse(&Rules::default(), envelope).unwrap()
}

fn refused(envelope: &Envelope<'_>) -> Refusal {
    parse(&Rules::default(), envelope).unwrap_err()
}

/// A structured event with one member set to `value`; `null` takes it away.
fn structured_with(name: &str, value: Value) -> String {
    let mut event: Value = serde_json::from_str(STRUCTURED).unwrap();
    event[name] = value;
    event.to_string()
}

#[test]
fn every_form_of_the_event_gives_the_same_trucker() {
    let data = r#"{"trucker":{"pk":23498,"remote_id":"DRV-0042","phone_number":"0601020304"}}"#;
    for envelope in [
        http(CLOUD_EVENTS, &[], STRUCTURED),
        http("Application/CloudEvents+JSON; charset=UTF-8", &[], STRUCTURED),
        http(CLOUD_EVENTS, &[("ce-id", "mirrored")], STRUCTURED),
        http(CLOUD_EVENTS, &[], BASE64),
        http("application/json; charset=utf-8", &BINARY, data),
        http("application/json", &[], STRUCTURED),
        http("application/json", &[], PLAIN_NESTED),
        http("", &[], PLAIN_TRUCKER),
        http("application/vnd.platform+json", &[], PLAIN_TRUCKER),
    ] {
        let event = taken(&envelope);
        assert_eq!(event.pk.get(), 23498);
        assert_eq!(Value::Object(event.trucker), json!({"remote_id": "DRV-0042"}));
        assert_eq!(event.account, None);
    }
}

#[test]
fn an_included_number_stays_as_it_is_however_often_it_is_written_and_read() {
    // Found by fuzzing: it was one number in the event and, after a restart, another one in its repetition.
    for number in ["101995400741469583785", "777799999999999999999777234", "0.1", "1e-300"] {
        let body = format!(r#"{{"pk":93,"remote_id":{number}}}"#);
        let event = taken(&http("", &[], &body));
        assert!(!event.trucker.is_empty());
        let stored = serde_json::to_string(&event.trucker).unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Map<_, _>>(&stored).unwrap(),
            event.trucker,
            "{number}"
        );
    }
}

#[test]
fn attributes_over_amqp_come_with_any_known_prefix() {
    for prefix in ["cloudEvents_", "cloudEvents:", "ce-", "CLOUDEVENTS_"] {
        let names = ["specversion", "id", "source", "type"].map(|name| format!("{prefix}{name}"));
        let values = ["1.0", "100%25", "/platform", "trucker.created"];
        let headers: Vec<_> = names.iter().map(String::as_str).zip(values).collect();
        let envelope = Envelope {
            transport: Transport::Amqp,
            content_type: None,
            headers: &headers,
            message_id: Some("m-1"),
            body: br#"{"pk":1}"#,
        };
        let event = taken(&envelope);
        assert_eq!(event.event_id, "100%25", "AMQP headers are not percent-encoded");
        assert_eq!(event.event_source, "/platform");
    }
}

#[test]
fn what_amqp_clients_set_by_default_is_read_as_json_and_http_has_to_say_it() {
    for content_type in ["application/octet-stream", "text/plain"] {
        let over_http = http(content_type, &[], PLAIN_TRUCKER);
        assert_eq!(refused(&over_http).reason_code(), "unsupported_media_type");
        taken(&Envelope { transport: Transport::Amqp, ..over_http });
    }
}

#[test]
fn batches_and_other_formats_are_unsupported_media() {
    for (content_type, reason) in [
        ("application/cloudevents-batch+json", "batch"),
        ("application/cloudevents-batch", "batch"),
        ("application/cloudevents+avro", "unsupported_media_type"),
        ("application/x-www-form-urlencoded", "unsupported_media_type"),
        ("application/xml", "unsupported_media_type"),
    ] {
        let refusal = refused(&http(content_type, &[], STRUCTURED));
        assert_eq!((refusal.reason_code(), refusal.kind()), (reason, RefusalKind::UnsupportedMedia));
        assert_eq!(refusal.kind().status(), 415);
    }
}

#[test]
fn a_required_attribute_that_is_missing_or_wrong_is_named() {
    for name in REQUIRED_ATTRIBUTES {
        for value in [Value::Null, json!(""), json!(7)] {
            let body = structured_with(name, value);
            let refusal = refused(&http(CLOUD_EVENTS, &[], &body));
            assert_eq!((refusal.field.as_str(), refusal.reason_code()), (name, "invalid_cloudevent"));
        }
        let kept: Vec<_> =
            BINARY.into_iter().filter(|(header, _)| !header.to_lowercase().ends_with(name)).collect();
        let refusal = refused(&http("application/json", &kept, r#"{"pk":1}"#));
        assert_eq!((refusal.field.as_str(), refusal.kind().status()), (name, 400));
    }
    assert_eq!(refused(&http(CLOUD_EVENTS, &[], NO_ID)).field, "id");
    assert_eq!(refused(&http(CLOUD_EVENTS, &[], OLD_SPECVERSION)).field, "specversion");
}

#[test]
fn data_given_twice_is_refused_and_null_counts_as_absent() {
    let body = structured_with("data_base64", json!("e30="));
    let refusal = refused(&http(CLOUD_EVENTS, &[], &body));
    assert_eq!((refusal.field.as_str(), refusal.kind().status()), ("data_base64", 400));
    taken(&http(CLOUD_EVENTS, &[], &structured_with("data_base64", Value::Null)));
}

#[test]
fn base64_data_that_is_no_base64_or_no_json_is_malformed() {
    for (data, reason) in [(json!("*"), "invalid_cloudevent"), (json!("aGVsbG8="), "invalid_json")] {
        let mut event: Value = serde_json::from_str(BASE64).unwrap();
        event["data_base64"] = data;
        let body = event.to_string();
        let refusal = refused(&http(CLOUD_EVENTS, &[], &body));
        assert_eq!((refusal.field.as_str(), refusal.reason_code()), ("data_base64", reason));
    }
}

#[test]
fn a_body_that_is_no_json_is_refused_by_its_position_only() {
    let refusal = refused(&http("application/json", &[], "{\"name\": Adèle}"));
    assert_eq!(refusal.to_string(), "body: is not JSON (line 1, column 10); send one JSON document in UTF-8");
    let deep = "[".repeat(100_000);
    assert_eq!(refused(&http("application/json", &[], &deep)).reason_code(), "invalid_json");
    taken(&http("application/json", &[], "\u{feff}{\"pk\": 1}"));
}

#[test]
fn an_event_of_another_type_is_unprocessable() {
    let refusal = refused(&http(CLOUD_EVENTS, &[], OTHER_TYPE));
    assert_eq!((refusal.field.as_str(), refusal.reason_code()), ("type", "wrong_type"));
    assert_eq!(refusal.kind().status(), 422);
    let plain = |body| parse(&Rules::default(), &http("application/json", &[], body));
    assert_eq!(plain(r#"{"type":"trip.done","pk":1}"#).unwrap_err().reason_code(), "wrong_type");
    assert!(plain(r#"{"type":{"kind":"driver"},"pk":1}"#).is_ok());
}

#[test]
fn the_first_pointer_that_finds_something_decides() {
    let pk = |body| parse(&Rules::default(), &http("application/json", &[], body)).map(|e| e.pk.get());
    assert_eq!(pk(r#"{"data":{"trucker":{"pk":1},"pk":2},"trucker":{"pk":3},"pk":4}"#), Ok(1));
    assert_eq!(pk(r#"{"data":{"trucker":{"pk":null},"pk":2},"pk":4}"#), Ok(2));
    assert_eq!(pk(r#"{"trucker":{"pk":"3"},"pk":4}"#), Ok(3));
    assert_eq!(pk(r#"{"pk":4,"pk":5}"#), Ok(5));
    assert_eq!(pk(r#"{"trucker":{"pk":"x"},"pk":4}"#).unwrap_err().field, "/trucker/pk");
}

#[test]
fn a_pk_that_is_none_is_refused_by_pointer_and_kind() {
    for (pk, found) in [
        ("0", "zero"),
        ("-1", "a negative number"),
        ("1.0", "a fraction or a number out of range"),
        ("1e400", "JSON"),
        ("9223372036854775808", "a larger number"),
        ("99999999999999999999999", "a fraction or a number out of range"),
        ("\"\"", "text that is no such number"),
        ("\"+1\"", "text that is no such number"),
        ("\"9223372036854775808\"", "text that is no such number"),
        ("true", "true or false"),
        ("[1]", "a list"),
        ("{}", "an object"),
    ] {
        let body = format!(r#"{{"data":{{"trucker":{{"pk":{pk}}}}}}}"#);
        let refusal = refused(&http("application/json", &[], &body));
        assert!(refusal.problem.contains(found), "{pk}: {refusal}");
    }
    let missing = refused(&http(CLOUD_EVENTS, &[], NO_PK));
    assert_eq!((missing.field.as_str(), missing.reason_code()), ("/data/trucker/pk", "missing_pk"));
}

#[test]
fn a_refusal_never_repeats_what_the_sender_wrote() {
    let refusal = refused(&http("application/json", &[], PK_IS_A_NAME));
    assert_eq!(
        refusal.to_string(),
        "/data/trucker/pk: must be a whole number from 1 to 9223372036854775807, found text that is no such \
         number; send the pk that Dashdoc gave the trucker, as a number or as text of digits"
    );
    assert!(!format!("{refusal:?}").contains("Bouvet"));
}

#[test]
fn debug_output_shows_no_values_of_the_trucker() {
    let shown = format!("{:?}", taken(&http(CLOUD_EVENTS, &[], STRUCTURED)));
    assert!(shown.contains("remote_id") && !shown.contains("DRV-0042"), "{shown}");
}

#[test]
fn an_event_is_known_by_its_source_and_id() {
    let identity = |envelope: &Envelope<'_>| {
        let event = taken(envelope);
        (event.event_source, event.event_id)
    };
    let known = |source: &str, id: &str| (source.to_owned(), id.to_owned());
    let with_message_id = |body| Envelope { message_id: Some("msg_1"), ..http("", &[], body) };
    let structured = http(CLOUD_EVENTS, &[], STRUCTURED);
    assert_eq!(identity(&structured), known("https://platform.example.com/truckers", "evt-20250711-0001"));
    assert_eq!(identity(&http("", &BINARY, r#"{"pk":1}"#)), known("/platform", "evt 1"));
    assert_eq!(identity(&with_message_id(r#"{"id":"a","pk":1}"#)), known(PLAIN_SOURCE, "a"));
    assert_eq!(identity(&with_message_id(r#"{"id":17,"pk":1}"#)), known(PLAIN_SOURCE, "17"));
    assert_eq!(identity(&with_message_id(r#"{"id":"","pk":1}"#)), known(PLAIN_SOURCE, "msg_1"));
    assert_eq!(identity(&http("", &[], r#"{"pk":1}"#)), known(PLAIN_SOURCE, "trucker-created/1"));
}

#[test]
fn an_identity_that_can_not_be_kept_is_refused() {
    for (field, value, fits) in [
        ("id", "é".repeat(256), true),
        ("id", "é".repeat(257), false),
        ("id", "a\nb".to_owned(), false),
        ("source", "x".repeat(512), true),
        ("source", "x".repeat(513), false),
        ("source", "\u{7f}".to_owned(), false),
    ] {
        let body = structured_with(field, json!(value));
        let verdict = parse(&Rules::default(), &http(CLOUD_EVENTS, &[], &body));
        match verdict {
            Ok(_) => assert!(fits, "{field} was taken"),
            Err(refusal) => {
                assert!(!fits, "{refusal}");
                assert_eq!((refusal.field.as_str(), refusal.reason_code()), (field, "invalid_identity"));
            }
        }
    }
}

#[test]
fn the_account_is_found_by_its_pointer_and_has_to_be_a_name() {
    let rules = Rules { account: Some(Pointer::try_new("/data/company").unwrap()), ..Rules::default() };
    let account = |company: &str| {
        let body = format!(r#"{{"data":{{"pk":1,"company":{company}}}}}"#);
        parse(&rules, &http("application/json", &[], &body))
    };
    assert_eq!(account("\"lyon\"").unwrap().account.unwrap().as_str(), "lyon");
    assert_eq!(account("928").unwrap().account.unwrap().as_str(), "928");
    assert_eq!(account("null").unwrap().account, None);
    assert_eq!(account("928").unwrap().event_id, "trucker-created/928/1");
    for bad in ["\"Lyon 2\"", "\"\"", "-1", "1.5", "{}", "[]", "true"] {
        let refusal = account(bad).unwrap_err();
        assert_eq!((refusal.field.as_str(), refusal.reason_code()), ("/data/company", "invalid_account"));
    }
}

#[test]
fn an_event_belongs_to_the_account_of_its_way_in_and_may_not_name_another() {
    let owner: AccountName = "lyon".parse().unwrap();
    let account = |pointer: Option<&str>, company: &str| {
        let account = pointer.map(|text| Pointer::try_new(text).unwrap());
        let rules = Rules { account, owner: Some(owner.clone()), ..Rules::default() };
        let body = format!(r#"{{"data":{{"pk":1,"company":{company}}}}}"#);
        parse(&rules, &http("application/json", &[], &body))
    };
    for company in ["\"lyon\"", "null"] {
        let event = account(Some("/data/company"), company).unwrap();
        assert_eq!(
            (event.account.as_ref(), event.event_id.as_str()),
            (Some(&owner), "trucker-created/lyon/1")
        );
    }
    assert_eq!(account(None, "\"paris\"").unwrap().account.as_ref(), Some(&owner));
    for other in ["\"paris\"", "\"default\"", "928"] {
        let refusal = account(Some("/data/company"), other).unwrap_err();
        assert_eq!((refusal.field.as_str(), refusal.reason_code()), ("/data/company", "foreign_account"));
        assert!(!refusal.to_string().contains("paris"), "{refusal}");
    }
    assert_eq!(account(Some("/data/company"), "\"\"").unwrap_err().reason_code(), "invalid_account");
}

#[test]
fn included_fields_come_from_beside_the_pk_as_they_are() {
    let include =
        ["remote_id", "tags", "carrier", "gone", "null"].map(|f| IncludedField::try_new(f).unwrap());
    let rules = Rules { include: include.to_vec(), ..Rules::default() };
    let body = r#"{"remote_id":"outside","trucker":{"pk":1,"remote_id":7,"tags":[1],"carrier":{"pk":2},"null":null,"phone":"1"}}"#;
    let event = parse(&rules, &http("application/json", &[], body)).unwrap();
    assert_eq!(Value::Object(event.trucker), json!({"remote_id": 7, "tags": [1], "carrier": {"pk": 2}}));
}

#[test]
fn included_fields_are_bounded_in_size() {
    let body = |n| format!(r#"{{"pk":1,"remote_id":"{}"}}"#, "x".repeat(n));
    let fits = INCLUDED_MAX - "remote_id".len() - 2;
    taken(&http("", &[], &body(fits)));
    let large = body(fits + 1);
    let refusal = refused(&http("", &[], &large));
    assert_eq!((refusal.field.as_str(), refusal.reason_code()), ("remote_id", "too_large"));
}

#[test]
fn a_pointer_may_look_at_the_attributes_of_a_binary_event() {
    let rules = Rules { trucker_pk: vec![Pointer::try_new("/subject").unwrap()], ..Rules::default() };
    let mut headers = BINARY.to_vec();
    headers.push(("ce-subject", "23498"));
    assert_eq!(parse(&rules, &http("", &headers, "")).unwrap().pk.get(), 23498);
}

#[test]
fn the_trace_of_the_hop_wins_over_that_of_the_start_and_is_never_mixed_with_it() {
    let trace = |headers: &[(&str, &str)], body: &str| taken(&http(CLOUD_EVENTS, headers, body)).trace;
    let texts = |parent: &str, state: Option<&str>| TraceContext::from_texts(Some(parent), state);
    assert_eq!(trace(&[], STRUCTURED), texts(START, Some("congo=t61rcWkgMzE")));
    assert_eq!(trace(&[("Traceparent", HOP)], STRUCTURED), texts(HOP, None));
    let both = [("traceparent", HOP), ("tracestate", "rojo=1")];
    assert_eq!(trace(&both, STRUCTURED), texts(HOP, Some("rojo=1")));
    let malformed = [("traceparent", "junk"), ("tracestate", "rojo=1")];
    assert_eq!(trace(&malformed, STRUCTURED), texts(START, Some("congo=t61rcWkgMzE")));
    assert_eq!(trace(&[], BASE64), TraceContext::default());

    let mut headers = BINARY.to_vec();
    headers.push(("ce-traceparent", START));
    assert_eq!(taken(&http("", &headers, r#"{"pk":1}"#)).trace, texts(START, None));
}

fn any_header() -> impl Strategy<Value = (String, String)> {
    let name = prop_oneof![
        "(ce-|CE-|cloudEvents_|cloudEvents:)(id|type|source|specversion|data|subject|x)",
        "traceparent|tracestate",
        ".{0,12}",
    ];
    (
        name,
        prop_oneof![
            Just("1.0".to_owned()),
            Just("trucker.created".to_owned()),
            ".{0,20}",
            "[%\"\\\\0-9A-F]{0,12}"
        ],
    )
}

fn any_content_type() -> impl Strategy<Value = Option<String>> {
    let known =
        "application/(json|cloudevents|cloudevents\\+json|cloudevents-batch\\+json)(; charset=utf-8)?";
    proptest::option::of(prop_oneof![known, ".{0,20}"])
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!("1.0")),
        Just(json!("trucker.created")),
    ];
    let key = "specversion|id|source|type|data|data_base64|trucker|pk|remote_id|.{0,3}";
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..8)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_message_makes_the_parser_panic(
        amqp in any::<bool>(),
        content_type in any_content_type(),
        headers in proptest::collection::vec(any_header(), 0..8),
        message_id in proptest::option::of(".{0,300}"),
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            any_json().prop_map(|json| json.to_string().into_bytes()),
        ],
    ) {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let envelope = Envelope {
            transport: if amqp { Transport::Amqp } else { Transport::Http },
            content_type: content_type.as_deref(),
            headers: &headers,
            message_id: message_id.as_deref(),
            body: &body,
        };
        if let Ok(event) = parse(&Rules::default(), &envelope) {
            prop_assert!(!event.event_id.is_empty() && event.event_id.chars().count() <= ID_MAX);
            prop_assert!(!event.event_source.is_empty());
            prop_assert!(event.pk.get() > 0);
        }
    }

    #[test]
    fn every_pk_comes_out_as_it_went_in(pk in 1..=i64::MAX.unsigned_abs(), as_text in any::<bool>()) {
        let written = if as_text { json!(pk.to_string()) } else { json!(pk) };
        let body = structured_with("data", json!({"trucker": {"pk": written}}));
        prop_assert_eq!(taken(&http(CLOUD_EVENTS, &[], &body)).pk.get(), pk);
    }
}
