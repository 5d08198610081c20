use jsonschema::Validator;
use serde_json::{Value, json};

use super::*;
use crate::event::outgoing::tests::parts;
use crate::event::{Outgoing, Rules, Transport, parse};
use crate::invite::{FailureClass, Origin};

const ACCEPTED: [&str; 4] = [
    include_str!("../../../tests/data/events/accepted/structured.json"),
    include_str!("../../../tests/data/events/accepted/structured-base64-nulls.json"),
    include_str!("../../../tests/data/events/accepted/plain-nested.json"),
    include_str!("../../../tests/data/events/accepted/plain-trucker.json"),
];

const REFUSED: [&str; 5] = [
    include_str!("../../../tests/data/events/refused/no-pk.json"),
    include_str!("../../../tests/data/events/refused/other-type.json"),
    include_str!("../../../tests/data/events/refused/no-id.json"),
    include_str!("../../../tests/data/events/refused/pk-is-a-name.json"),
    include_str!("../../../tests/data/events/refused/old-specversion.json"),
];

fn schema(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn validator(text: &str) -> Validator {
    jsonschema::validator_for(&schema(text)).unwrap()
}

fn json(event: &Outgoing) -> Value {
    serde_json::from_slice(&event.body).unwrap()
}

/// A copy with the value at `pointer` replaced, or, with `None`, taken away.
fn mutated(event: &Value, pointer: &str, value: Option<Value>) -> Value {
    let mut event = event.clone();
    let (holder, name) = pointer.rsplit_once('/').unwrap();
    let holder = event.pointer_mut(holder).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => holder.insert(name.to_owned(), value),
        None => holder.remove(name),
    };
    event
}

#[test]
fn the_schemas_are_schemas() {
    for text in [TRUCKER_CREATED, INVITE_READY, INVITE_FAILED] {
        assert!(jsonschema::meta::is_valid(&schema(text)));
        assert_eq!(schema(text)["$schema"], "https://json-schema.org/draft/2020-12/schema");
    }
}

#[test]
fn a_ready_event_satisfies_its_schema_and_a_mutated_one_does_not() {
    let validator = validator(INVITE_READY);
    let event = json(&parts().ready().to_outgoing());
    assert!(validator.is_valid(&event), "{:?}", validator.iter_errors(&event).collect::<Vec<_>>());
    let no_longer = |pointer: &str, value| {
        assert!(!validator.is_valid(&mutated(&event, pointer, value)), "{pointer} does not matter");
    };
    for pointer in
        ["/specversion", "/id", "/source", "/type", "/subject", "/time", "/datacontenttype", "/data"]
    {
        no_longer(pointer, None);
        no_longer(pointer, Some(json!("")));
    }
    for name in ["account", "trucker", "invite_code", "generation", "origin"] {
        no_longer(&format!("/data/{name}"), None);
        no_longer(&format!("/data/{name}"), Some(json!("")));
    }
    no_longer("/type", Some(json!("invite.failed")));
    no_longer("/data/trucker/pk", Some(json!("23498")));
    no_longer("/data/generation", Some(json!(0)));
    no_longer("/data/invite_code", Some(json!("AB CD")));
    no_longer("/data/extra", Some(json!(1)));
}

#[test]
fn a_failed_event_satisfies_its_schema_and_a_mutated_one_does_not() {
    let validator = validator(INVITE_FAILED);
    let event = json(&parts().failed().to_outgoing());
    assert!(validator.is_valid(&event), "{:?}", validator.iter_errors(&event).collect::<Vec<_>>());
    let no_longer = |pointer: &str, value| {
        assert!(!validator.is_valid(&mutated(&event, pointer, value)), "{pointer} does not matter");
    };
    for name in ["account", "trucker", "generation", "failure", "attempts"] {
        no_longer(&format!("/data/{name}"), None);
    }
    no_longer("/data/invite_code", Some(json!("K7Q2ZD")));
    no_longer("/data/failure/class", Some(json!("bad luck")));
    no_longer("/data/failure/code", Some(json!("Phone 0601")));
    no_longer("/data/failure/message", Some(json!("text")));
    no_longer("/data/attempts", Some(json!(-1)));
}

#[test]
fn the_schemas_list_every_origin_and_every_class() {
    let origins: Vec<_> = Origin::ALL.iter().map(|origin| json!(origin)).collect();
    assert_eq!(schema(INVITE_READY)["properties"]["data"]["properties"]["origin"]["enum"], json!(origins));
    let classes: Vec<_> = FailureClass::ALL.iter().map(|class| json!(class)).collect();
    let failure = &schema(INVITE_FAILED)["properties"]["data"]["properties"]["failure"];
    assert_eq!(failure["properties"]["class"]["enum"], json!(classes));
}

#[test]
fn the_incoming_schema_and_the_parser_agree_on_the_examples() {
    let validator = validator(TRUCKER_CREATED);
    let verdicts = |body: &str| {
        let envelope = crate::event::Envelope {
            transport: Transport::Http,
            content_type: Some("application/json"),
            headers: &[],
            message_id: None,
            body: body.as_bytes(),
        };
        let document: Value = serde_json::from_str(body).unwrap();
        (validator.is_valid(&document), parse(&Rules::default(), &envelope).is_ok())
    };
    for body in ACCEPTED {
        assert_eq!(verdicts(body), (true, true), "{body}");
    }
    for body in REFUSED {
        assert_eq!(verdicts(body), (false, false), "{body}");
    }
}
