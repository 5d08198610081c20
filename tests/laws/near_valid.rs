//! Inputs that are nearly right, which is where parsers go wrong.

use std::time::{Duration, SystemTime};

use invite_relay::dashdoc::answer::Operation;
use invite_relay::event::{Envelope, Transport};
use invite_relay::invite::TruckerPk;
use invite_relay::signature::SignedHeaders;
use invite_relay::time::Timestamp;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{answer, event, overlay, retry_after, signature};

/// A moment between 1970 and 2106.
fn any_moment() -> impl Strategy<Value = SystemTime> {
    any::<u32>().prop_map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into()))
}

/// A header as servers write it, in each of its forms, and with one character off.
fn any_retry_after() -> impl Strategy<Value = String> {
    let date = any_moment().prop_map(httpdate::fmt_http_date);
    let odd =
        "(Sunday, 06-Nov-94 08:49:37 GMT|Sun Nov  6 08:49:37 1994|[+-]?[0-9]{1,25}(\\.[0-9]{0,3})?|.{0,12})";
    let form = prop_oneof!["[0-9]{1,6}", date, odd];
    (form, option::weighted(0.2, (any::<prop::sample::Index>(), any::<char>()))).prop_map(
        |(text, changed)| {
            let Some((place, c)) = changed else { return text };
            let mut chars: Vec<char> = text.chars().collect();
            if !chars.is_empty() {
                let place = place.index(chars.len());
                chars[place] = c;
            }
            chars.into_iter().collect()
        },
    )
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let key = "code|detail|error|phone_number|non_field_errors|invite_code|pk|[a-z_]{1,6}|\\PC{0,3}";
    leaf.prop_recursive(4, 24, 5, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(key, inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// An answer with a code in it, or with something else where it should be.
fn any_body() -> impl Strategy<Value = Vec<u8>> {
    let code = prop_oneof![
        "[A-Z0-9]{6}".prop_map(Value::from),
        " ?[!-~]{0,70}\n?".prop_map(Value::from),
        any_json()
    ];
    let pk = prop_oneof![Just(json!(7)), Just(Value::Null), any_json()];
    let trucker = (pk, code, any_json()).prop_map(|(pk, code, more)| {
        json!({ "pk": pk, "invite_code": code, "user": more }).to_string().into_bytes()
    });
    let twice =
        "[A-Z]{6}".prop_map(|code| format!(r#"{{"invite_code":"{code}","invite_code":null}}"#).into_bytes());
    prop_oneof![4 => trucker, 4 => any_json().prop_map(|json| json.to_string().into_bytes()), 1 => twice,
        1 => vec(any::<u8>(), 0..60)]
}

/// A trucker.created, each part of it right most of the time.
fn any_event() -> impl Strategy<Value = Value> {
    let often = |right: Value, wrong: BoxedStrategy<Value>| prop_oneof![8 => Just(right), 1 => wrong].boxed();
    let pk = prop_oneof![6 => any::<u64>().prop_map(Value::from), 3 => "[0-9]{1,20}".prop_map(Value::from),
        1 => any_json()];
    let id = prop_oneof![6 => "\\PC{1,260}".prop_map(Value::from), 1 => any_json()];
    let source = prop_oneof![6 => "/\\PC{0,20}".prop_map(Value::from), 1 => any_json()];
    let account = option::of(prop_oneof!["[a-z0-9_-]{1,8}".prop_map(Value::from), any_json()]);
    let fields = option::of((any_json(), "\\PC{0,12}"));
    let trace = option::of("00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]");
    let head = (
        often(json!("1.0"), any_json().boxed()),
        id,
        source,
        often(json!("trucker.created"), any_json().boxed()),
        trace,
    );
    (head, pk, account, fields).prop_map(|((specversion, id, source, type_, trace), pk, account, fields)| {
        let mut trucker = json!({ "pk": pk });
        if let Some((remote_id, name)) = fields {
            trucker["remote_id"] = remote_id;
            trucker["first_name"] = json!(name);
        }
        let mut event = json!({ "specversion": specversion, "id": id, "source": source, "type": type_,
            "traceparent": trace, "data": { "trucker": trucker } });
        if let Some(account) = account {
            event["data"]["account"] = account;
        }
        event
    })
}

/// How the event travels.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Frame {
    Structured,
    Forgotten,
    Base64,
    Binary,
    Plain,
}

/// The event in its frame: headers and body.
fn framed(event: &Value, frame: Frame, transport: Transport) -> (Vec<(String, String)>, Vec<u8>) {
    use base64::Engine as _;
    let data = &event["data"];
    match frame {
        Frame::Structured | Frame::Forgotten => (Vec::new(), event.to_string().into_bytes()),
        Frame::Base64 => {
            let mut event = event.clone();
            let encoded = base64::engine::general_purpose::STANDARD.encode(data.to_string());
            event["data"] = Value::Null;
            event["data_base64"] = json!(encoded);
            (Vec::new(), event.to_string().into_bytes())
        }
        Frame::Binary => {
            let prefix = if transport == Transport::Http { "ce-" } else { "cloudEvents_" };
            let attributes = event.as_object().unwrap().iter().filter(|(name, _)| *name != "data");
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let headers = attributes.map(|(name, value)| (format!("{prefix}{name}"), text(value)));
            (headers.collect(), data.to_string().into_bytes())
        }
        Frame::Plain => (Vec::new(), json!({ "id": event["id"], "data": data }).to_string().into_bytes()),
    }
}

fn any_frame() -> impl Strategy<Value = Frame> {
    prop::sample::select(vec![
        Frame::Structured,
        Frame::Forgotten,
        Frame::Base64,
        Frame::Binary,
        Frame::Plain,
    ])
}

/// Lines of a configuration file: known keys with values of every kind.
fn any_file() -> impl Strategy<Value = String> {
    let line = prop::sample::select(vec![
        "source.webhook.listen = '0.0.0.0:8080'",
        "source.webhook.max_body = '64KiB'",
        "source.rabbitmq.prefetch = 10",
        "source.rabbitmq.prefetch = 0",
        "source.rabbitmq.prefech = 10",
        "dashdoc.timeout = 'soon'",
        "dashdoc.rate_per_second = 9.5",
        "dashdoc.accounts.other.token = 'x'",
        "dashdoc.accounts.other.timeout = '1s'",
        "event.account = '/data/account'",
        "event.include = []",
        "event.include = 5",
        "telemetry.log = 'inof'",
        "store.retention = '2d'",
        "colour = 'red'",
        "a = 'not closed",
    ]);
    (any::<bool>(), vec(line, 0..4)).prop_map(|(usable, lines)| {
        let minimal = "source.rabbitmq.enabled = true\nsource.rabbitmq.url = 'amqp://relay:secret@broker/orders'\n\
                       sink.stdout.enabled = true\ndashdoc.token = 'secret'\n";
        format!("{}{}\n", if usable { minimal } else { "" }, lines.join("\n"))
    })
}

fn any_planted() -> impl Strategy<Value = overlay::Planted> {
    any::<(u8, u8, u8, u8)>().prop_map(|(key, layer, form, place)| overlay::Planted {
        key,
        layer,
        form,
        place,
    })
}

proptest! {
    #[test]
    fn retry_after_asks_for_what_it_says_within_bounds(
        value in any_retry_after(),
        date in option::of(any_retry_after()),
        now in any_moment(),
    ) {
        retry_after::holds(&value, date.as_deref(), now);
    }

    #[test]
    fn a_clock_that_is_off_changes_no_retry_after(wait in any::<u32>(), theirs in any_moment(), ours in any_moment()) {
        retry_after::skew_cancels_out(Duration::from_secs(wait.into()), theirs, ours);
    }

    #[test]
    fn an_answer_means_what_its_status_and_its_whole_body_say(
        read in any::<bool>(),
        status in prop_oneof![Just(200), Just(503), 100u16..1000],
        retry_after_s in option::of(0u64..7200),
        body in any_body(),
    ) {
        let operation = if read { Operation::Read } else { Operation::Generate };
        let pk = TruckerPk::try_from(7).unwrap();
        answer::holds(operation, pk, status, retry_after_s.map(Duration::from_secs), &body);
    }

    #[test]
    fn half_an_answer_or_another_status_gives_no_code(
        pk in 1u64..1 << 40, code in "[!-~]{1,64}", status in 100u16..1000, cut in any::<usize>(),
    ) {
        let pk = TruckerPk::try_from(pk).unwrap();
        answer::only_the_whole_of_a_success_gives_a_code(pk, &code, status, cut);
    }

    #[test]
    fn headers_that_nearly_fit_pass_only_with_a_signature(
        keys in vec(vec(any::<u8>(), 24..=64), 0..3),
        id in option::of("\\PC{0,20}"),
        seconds in option::of(0i64..1 << 33),
        signature in option::of("(v1,[A-Za-z0-9+/=]{43}= ?|v1a,x |\\PC{0,9} ){0,4}"),
        body in vec(any::<u8>(), 0..64),
        off_ms in -400_000i64..400_000,
    ) {
        let timestamp = seconds.map(|seconds| seconds.to_string());
        let headers = SignedHeaders { id: id.as_deref(), timestamp: timestamp.as_deref(), signature: signature.as_deref() };
        let now = Timestamp::from_millis(seconds.unwrap_or(0) * 1000 + off_ms);
        signature::only_what_was_signed_is_taken(&keys, headers, &body, now);
    }

    #[test]
    fn every_part_of_a_signed_message_counts(
        keys in [vec(any::<u8>(), 24..=64), vec(any::<u8>(), 24..=64)],
        ids in ["\\PC{1,20}", "\\PC{1,20}"],
        seconds in 0i64..1 << 33,
        off_seconds in -400i64..400,
        bodies in [vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40)],
        others in vec("v1,[A-Za-z0-9+/]{43}=|v1a,[a-z]{1,5}|\\PC{0,9}", 0..4),
    ) {
        let ([key, other_key], [id, other_id], [body, other_body]) = (keys, ids, bodies);
        signature::every_part_counts(&signature::Signed {
            key, other_key, id, other_id, seconds, off_seconds, body, other_body, others,
        });
    }

    #[test]
    fn secrets_and_tokens_are_read_whole_and_never_shown(
        text in "(whsec_)?[A-Za-z0-9+/]{20,90}={0,2}|[!-~]{10,40}|[Bb]earer .{0,20}|.{0,30}",
        other in "[!-~]{10,40}",
    ) {
        signature::texts_are_read_whole_and_never_shown(&text, &other);
    }

    #[test]
    fn an_event_is_the_same_event_in_every_frame_and_a_refusal_repeats_nothing(
        event in any_event(),
        frame in any_frame(),
        amqp in any::<bool>(),
        more in vec(("(ce-)?\\PC{0,12}|ce-[a-z0-9]{1,20}", "[%\"\\\\0-9A-F]{0,12}|\\PC{0,12}"), 0..3),
        message_id in option::of("\\PC{0,20}"),
        cut in option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let transport = if amqp { Transport::Amqp } else { Transport::Http };
        let (mut headers, mut body) = framed(&event, frame, transport);
        headers.extend(more);
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        let structured = matches!(frame, Frame::Structured | Frame::Base64);
        let content_type = if structured { "application/cloudevents+json" } else { "application/json" };
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        event::holds(&event::rules(), &Envelope {
            transport,
            content_type: Some(content_type),
            headers: &headers,
            message_id: message_id.as_deref(),
            body: &body,
        });
    }
}

proptest! {
    // Each case builds the whole configuration.
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_layer_brings_in_an_unknown_key_and_no_secret_shows_wherever_it_was_written(
        file in any_file(),
        env in vec(("SOURCE__RABBITMQ__(PREFETCH|QUEUE|URL)|DASHDOC__(TIMEOUT|TOKEN|TOKN)|EVENT__TYPES|[A-Z_]{1,9}",
            "[0-9]{1,5}s?|\\[\"a\"\\]|\\PC{0,9}"), 0..3),
        sets in vec("(shutdown\\.grace|retry\\.factor|dashdoc\\.accounts\\.b\\.timeout|[a-z.]{1,9})=([0-9]{1,3}s?|\\{ ?[a-z]{1,6} = 1\\})|[a-z]{1,5}", 0..3),
        planted in vec(any_planted(), 0..3),
    ) {
        let env: Vec<_> = env.into_iter().map(|(name, value)| (format!("INVITE_RELAY__{name}"), value)).collect();
        overlay::holds(&file, &env, &sets, &planted);
    }
}
