//! The `CloudEvents` project's own SDK reads what the service writes, and the service reads what the SDK writes.

#![expect(clippy::unwrap_used, reason = "a panic in a helper fails the test just as well")]

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use invite_relay::event::{
    CONTENT_TYPE, Envelope, InviteFailed, InviteReady, Outgoing, Rules, TraceContext, Transport, parse,
};
use invite_relay::invite::{
    Announcement, Failure, FailureClass, Generation, InviteCode, Origin, TruckerKey, event_id,
};
use invite_relay::time::Timestamp;
use serde_json::{Map, Value, json};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The interpreter that has the SDK.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = env::var_os("INVITE_RELAY_TEST_PYTHON")
        .map_or_else(|| root.join("target/test-venv/bin/python"), PathBuf::from);
    assert!(
        python.exists(),
        "there is no {}: run scripts/test, which installs tests/cloudevents_sdk/requirements.txt, or set \
         INVITE_RELAY_TEST_PYTHON to an interpreter that has it",
        python.display()
    );
    python
}

/// Has the SDK read `events`, and returns what it found and what it wrote.
fn ask_the_sdk(events: &[Outgoing]) -> Value {
    let messages: Vec<_> = events
        .iter()
        .map(|event| {
            let headers: Map<String, Value> = event
                .attributes()
                .map(|(name, value)| (format!("cloudEvents_{name}"), Value::from(value)))
                .collect();
            let body = String::from_utf8(event.body.clone()).unwrap();
            json!({"content_type": CONTENT_TYPE, "headers": headers, "body": body})
        })
        .collect();
    let mut sdk = Command::new(python())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloudevents_sdk/check.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    sdk.stdin.take().unwrap().write_all(json!(messages).to_string().as_bytes()).unwrap();
    let output = sdk.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "check.py failed, see above; if a module is missing, run scripts/test, which installs \
         tests/cloudevents_sdk/requirements.txt"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One event of each kind, with text in it that needs care.
fn events() -> Vec<Outgoing> {
    let key: TruckerKey = "default/23498".parse().unwrap();
    let Value::Object(trucker) = json!({"remote_id": "DRV \"42\" €"}) else {
        unreachable!("an object is one")
    };
    let code = InviteCode::new("K7Q2ZD").unwrap();
    let failure = Failure::new(FailureClass::Rejected, "http_400");
    let trace = TraceContext::from_texts(Some(TRACEPARENT), Some("congo=t61rcWkgMzE"));
    let ready = InviteReady {
        id: event_id(&key, Generation::FIRST, Announcement::Ready),
        source: "/invite-relay",
        account: &key.account,
        pk: key.pk,
        trucker: &trucker,
        code: &code,
        generation: Generation::FIRST,
        origin: Origin::Generated,
        time: Timestamp::from_millis(1_752_260_108_628),
        causation_id: Some("évt 1"),
        trace: &trace,
    };
    let failed = InviteFailed {
        id: event_id(&key, Generation::FIRST, Announcement::Failed),
        source: "/invite-relay",
        account: &key.account,
        pk: key.pk,
        trucker: &trucker,
        generation: Generation::FIRST,
        failure: &failure,
        attempts: 3,
        time: Timestamp::from_millis(1_752_260_108_628),
        causation_id: None,
        trace: &TraceContext::default(),
    };
    vec![ready.to_outgoing(), failed.to_outgoing()]
}

#[test]
fn the_official_sdk_reads_our_events_over_every_binding() {
    let events = events();
    let answer = ask_the_sdk(&events);
    for (event, read) in events.iter().zip(answer["read"].as_array().unwrap()) {
        let attributes: Map<String, Value> =
            event.attributes().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        let body: Value = serde_json::from_slice(&event.body).unwrap();
        let expected = json!({"attributes": attributes, "data": body["data"]});
        for binding in ["http", "rabbitmq", "amqp"] {
            assert_eq!(read[binding], expected, "{binding}");
        }
    }
}

#[test]
fn we_read_the_events_of_the_official_sdk_in_every_mode() {
    let answer = ask_the_sdk(&[]);
    let written = answer["written"].as_object().unwrap();
    assert_eq!(written.len(), 6, "two modes of three bindings");
    for (how, message) in written {
        let headers: Vec<(&str, &str)> = message["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap()))
            .collect();
        let body = STANDARD.decode(message["body"].as_str().unwrap()).unwrap();
        let envelope = Envelope {
            transport: if message["transport"] == "http" { Transport::Http } else { Transport::Amqp },
            content_type: message["content_type"].as_str(),
            headers: &headers,
            message_id: None,
            body: &body,
        };
        let event = parse(&Rules::default(), &envelope).unwrap_or_else(|refusal| panic!("{how}: {refusal}"));
        assert_eq!(event.event_id, "évt \"1\" 100% €", "{how}");
        assert_eq!(event.event_source, "/platform?région=sud", "{how}");
        assert_eq!(event.pk.get(), 23498, "{how}");
        assert_eq!(event.trucker["remote_id"], "DRV-0042", "{how}");
        assert_eq!(event.trace.traceparent.as_deref(), Some(TRACEPARENT), "{how}");
        assert_eq!(headers.is_empty(), how.ends_with("structured"), "{how}");
    }
}
