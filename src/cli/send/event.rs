//! A trucker-created event, written so that the configured pointers find what they look for.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::config;
use crate::event::CONTENT_TYPE;
use crate::invite::{AccountName, TruckerKey, TruckerPk};
use crate::time;

/// The CloudEvents source of events made here.
const SOURCE: &str = "/invite-relay/send";

/// Where a CloudEvent has its data.
const DATA: &str = "/data/";

/// An event ready to be sent.
pub(in crate::cli) struct Event {
    /// Its id.
    pub(in crate::cli) id: String,
    /// The trucker.
    pub(in crate::cli) key: TruckerKey,
    /// Media type of the body.
    pub(in crate::cli) content_type: &'static str,
    /// The body.
    pub(in crate::cli) body: Vec<u8>,
}

/// How the service reads events, turned round.
pub(in crate::cli) struct Form {
    /// JSON pointer to the trucker's key.
    pk: String,
    /// JSON pointer to the account's name, and the name.
    account: Option<(String, AccountName)>,
    plain: bool,
}

/// A new event id. Version 7 sorts by time, which makes logs readable.
pub(in crate::cli) fn new_id() -> String {
    Uuid::now_v7().to_string()
}

impl Form {
    /// The form that `rules` read. The error says what to mend.
    pub(in crate::cli) fn new(
        rules: &config::Event,
        plain: bool,
        account: Option<AccountName>,
    ) -> Result<Self, String> {
        let in_data = |pointer: &&String| pointer.starts_with(DATA);
        let fitting = if plain {
            rules.trucker_pk.iter().find(|pointer| !in_data(pointer))
        } else {
            rules.trucker_pk.iter().find(in_data)
        };
        let pk = fitting.or(rules.trucker_pk.first()).ok_or("event.trucker_pk is empty")?.clone();
        let account = match (account, &rules.account) {
            (None, _) => None,
            (Some(account), Some(pointer)) => Some((pointer.clone(), account)),
            (Some(_), None) => {
                return Err("--account: events can't name an account, because event.account is not set; set it to \
                            the JSON pointer of the account's name, for example event.account = \"/data/account\""
                    .to_owned());
            }
        };
        Ok(Self { pk, account, plain })
    }

    /// Writes an event.
    pub(in crate::cli) fn write(
        &self,
        id: String,
        type_: &str,
        pk: TruckerPk,
        remote_id: Option<&str>,
    ) -> Event {
        let mut document = if self.plain {
            json!({ "id": id, "type": type_ })
        } else {
            json!({
                "specversion": "1.0", "id": id, "source": SOURCE, "type": type_, "subject": pk.to_string(),
                "time": time::now().to_string(), "datacontenttype": "application/json",
            })
        };
        put(&mut document, &self.pk, json!(pk));
        if let (Some(remote_id), Some((holder, _))) = (remote_id, self.pk.rsplit_once('/')) {
            put(&mut document, &format!("{holder}/remote_id"), json!(remote_id));
        }
        let account = self.account.as_ref().map(|(pointer, account)| {
            put(&mut document, pointer, json!(account.as_str()));
            account
        });
        let key = super::key_of(account, pk);
        let content_type = if self.plain { "application/json" } else { CONTENT_TYPE };
        Event { id, key, content_type, body: document.to_string().into_bytes() }
    }
}

/// Puts `value` where `pointer` (RFC 6901) finds it again, making objects on the way.
fn put(document: &mut Value, pointer: &str, value: Value) {
    let steps = pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
    let place = steps.fold(document, |place, step| {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place.as_object_mut().expect("made an object above").entry(step).or_insert(Value::Null)
    });
    *place = value;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Envelope, Pointer, Rules, Transport, parse};

    fn rules(trucker_pk: &[&str], account: Option<&str>) -> config::Event {
        let mut rules = config::Event {
            types: vec!["trucker.created".to_owned()],
            trucker_pk: Vec::new(),
            account: account.map(str::to_owned),
            source: "/invite-relay".to_owned(),
            include: vec!["remote_id".to_owned()],
        };
        rules.trucker_pk = trucker_pk.iter().map(|&pointer| pointer.to_owned()).collect();
        rules
    }

    fn check(trucker_pk: &[&str], account: Option<&str>, plain: bool) {
        let config = rules(trucker_pk, account);
        let name = account.map(|_| "acme".parse().unwrap());
        let form = Form::new(&config, plain, name).unwrap();
        let event = form.write("e1".to_owned(), "trucker.created", 23_498.try_into().unwrap(), Some("R-7"));
        let pointer = |text: &str| Pointer::try_new(text).unwrap();
        let rules = Rules {
            trucker_pk: trucker_pk.iter().map(|text| pointer(text)).collect(),
            account: account.map(pointer),
            ..Rules::default()
        };
        let envelope = Envelope {
            transport: Transport::Http,
            content_type: Some(event.content_type),
            headers: &[],
            message_id: None,
            body: &event.body,
        };
        let read = parse(&rules, &envelope).unwrap();
        assert_eq!((read.event_id.as_str(), read.pk.get()), ("e1", 23_498), "{trucker_pk:?} plain: {plain}");
        assert_eq!(read.trucker["remote_id"], "R-7");
        assert_eq!(read.account.as_ref().map(AccountName::as_str), account.map(|_| "acme"));
        assert_eq!(event.key.account.as_str(), account.map_or("default", |_| "acme"));
    }

    #[test]
    fn what_is_written_is_read_back_with_the_same_rules() {
        let default = ["/data/trucker/pk", "/data/pk", "/trucker/pk", "/pk"];
        for plain in [false, true] {
            check(&default, None, plain);
            check(&default, Some("/data/account"), plain);
            check(&["/data/drivers/0/a~1b"], Some("/tenant"), plain);
            check(&["/driver"], None, plain);
        }
    }

    #[test]
    fn a_plain_message_keeps_to_the_pointers_that_are_not_a_cloud_events() {
        let form = Form::new(&rules(&["/data/trucker/pk", "/pk"], None), true, None).unwrap();
        let event = form.write("e1".to_owned(), "trucker.created", 7.try_into().unwrap(), None);
        let body: Value = serde_json::from_slice(&event.body).unwrap();
        assert_eq!(body, json!({ "id": "e1", "type": "trucker.created", "pk": 7 }));
    }

    #[test]
    fn an_account_that_no_pointer_would_find_is_an_error_that_names_the_mend() {
        let error = Form::new(&rules(&["/pk"], None), false, Some("acme".parse().unwrap())).err().unwrap();
        assert!(error.contains("event.account"), "{error}");
    }
}
