use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::invite::{TruckerKey, event_id};

/// Owns what an event borrows.
pub(in crate::event) struct Parts {
    key: TruckerKey,
    trucker: Map<String, Value>,
    code: InviteCode,
    failure: Failure,
    trace: TraceContext,
}

pub(in crate::event) fn parts() -> Parts {
    let Value::Object(trucker) = json!({"remote_id": "DRV-0042"}) else { unreachable!("an object is one") };
    Parts {
        key: "default/23498".parse().unwrap(),
        trucker,
        code: InviteCode::new("K7Q2ZD").unwrap(),
        failure: Failure::new(FailureClass::Rejected, "http_400.phone_number.invalid"),
        trace: TraceContext::from_texts(
            Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            Some("congo=t61rcWkgMzE"),
        ),
    }
}

impl Parts {
    pub(in crate::event) fn ready(&self) -> InviteReady<'_> {
        InviteReady {
            id: event_id(&self.key, Generation::FIRST, Announcement::Ready),
            source: "/invite-relay",
            account: &self.key.account,
            pk: self.key.pk,
            trucker: &self.trucker,
            code: &self.code,
            generation: Generation::FIRST,
            origin: Origin::Generated,
            time: Timestamp::from_millis(1_752_260_108_628),
            causation_id: Some("evt-20250711-0001"),
            trace: &self.trace,
        }
    }

    pub(in crate::event) fn failed(&self) -> InviteFailed<'_> {
        InviteFailed {
            id: event_id(&self.key, Generation::FIRST, Announcement::Failed),
            source: "/invite-relay",
            account: &self.key.account,
            pk: self.key.pk,
            trucker: &self.trucker,
            generation: Generation::FIRST,
            failure: &self.failure,
            attempts: 3,
            time: Timestamp::from_millis(1_752_260_108_628),
            causation_id: None,
            trace: &self.trace,
        }
    }
}

fn text(event: &Outgoing) -> &str {
    std::str::from_utf8(&event.body).unwrap()
}

#[test]
fn a_ready_event_reads_as_the_contract_says() {
    insta::assert_snapshot!(text(&parts().ready().to_outgoing()), @r#"{"specversion":"1.0","id":"3eef3cf8-9af4-52c3-81a2-c6494f00efdc","source":"/invite-relay","type":"invite.ready","subject":"23498","time":"2025-07-11T18:55:08.628Z","datacontenttype":"application/json","causationid":"evt-20250711-0001","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"congo=t61rcWkgMzE","data":{"account":"default","trucker":{"pk":23498,"remote_id":"DRV-0042"},"invite_code":"K7Q2ZD","generation":1,"origin":"generated"}}"#);
}

#[test]
fn a_failed_event_reads_as_the_contract_says_and_carries_no_code() {
    insta::assert_snapshot!(text(&parts().failed().to_outgoing()), @r#"{"specversion":"1.0","id":"e8eef4e4-62c4-5c9a-9ff8-863043711510","source":"/invite-relay","type":"invite.failed","subject":"23498","time":"2025-07-11T18:55:08.628Z","datacontenttype":"application/json","traceparent":"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01","tracestate":"congo=t61rcWkgMzE","data":{"account":"default","trucker":{"pk":23498,"remote_id":"DRV-0042"},"generation":1,"failure":{"class":"rejected","code":"http_400.phone_number.invalid"},"attempts":3}}"#);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let parts = parts();
    assert_eq!(parts.ready().to_outgoing(), parts.ready().to_outgoing());
    assert_eq!(parts.failed().to_outgoing(), parts.failed().to_outgoing());
}

#[test]
fn what_is_not_there_is_left_out_instead_of_null() {
    let parts = parts();
    let none = TraceContext::default();
    let bare = InviteReady { trace: &none, causation_id: None, ..parts.ready() }.to_outgoing();
    assert!(!text(&bare).contains("null") && !text(&bare).contains("trace"), "{}", text(&bare));
    assert_eq!(bare.attributes().count(), 7);
}

#[test]
fn an_included_field_never_overrides_the_pk() {
    let mut parts = parts();
    parts.trucker.insert("pk".to_owned(), json!(1));
    let event: Value = serde_json::from_slice(&parts.ready().to_outgoing().body).unwrap();
    assert_eq!(event["data"]["trucker"], json!({"pk": 23498, "remote_id": "DRV-0042"}));
}

#[test]
fn the_attributes_to_mirror_are_those_of_the_body() {
    for event in [parts().ready().to_outgoing(), parts().failed().to_outgoing()] {
        let mut body: Map<String, Value> = serde_json::from_slice(&event.body).unwrap();
        body.remove("data");
        let mirrored: Map<_, _> =
            event.attributes().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        assert_eq!(mirrored, body);
    }
}

#[test]
fn debug_output_shows_neither_the_code_nor_the_truckers_fields() {
    let parts = parts();
    let shown = format!(
        "{:?} {:?} {:?} {:?}",
        parts.ready(),
        parts.failed(),
        parts.ready().to_outgoing(),
        parts.failed().to_outgoing()
    );
    assert!(!shown.contains("K7Q2ZD") && !shown.contains("DRV-0042"), "{shown}");
}

proptest! {
    #[test]
    fn any_code_and_any_text_arrive_unchanged(
        code in "[!-~]{1,64}",
        remote_id in ".*",
        source in ".{1,40}",
        causation_id in ".{1,40}",
    ) {
        let mut parts = parts();
        parts.code = InviteCode::new(&code).unwrap();
        parts.trucker.insert("remote_id".to_owned(), Value::from(remote_id.as_str()));
        let ready =
            InviteReady { source: &source, causation_id: Some(&causation_id), ..parts.ready() }.to_outgoing();
        let event: Value = serde_json::from_slice(&ready.body).unwrap();
        prop_assert_eq!(&event["data"]["invite_code"], &Value::from(code));
        prop_assert_eq!(&event["data"]["trucker"]["remote_id"], &Value::from(remote_id));
        prop_assert_eq!(&event["source"], &Value::from(source));
        prop_assert_eq!(&event["causationid"], &Value::from(causation_id));
    }
}
