//! How a message is framed: CloudEvents 1.0 structured or binary, or plain JSON, over HTTP or AMQP.
//!
//! Whatever the frame, [`Envelope::open`] gives one JSON document to look into. The HTTP side follows the
//! CloudEvents HTTP binding 1.0.2. AMQP 0-9-1 has no official binding: attributes are read from headers with
//! any of the prefixes that senders use.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::refusal::{Refusal, RefusalReason};

/// Prefixes of attribute headers over AMQP: of AMQP 1.0 (both its forms) and of the RabbitMQ binding of Knative.
const AMQP_PREFIXES: [&str; 3] = ["cloudEvents_", "cloudEvents:", "ce-"];

/// Prefix of attribute headers over HTTP.
const HTTP_PREFIXES: [&str; 1] = ["ce-"];

/// Attributes that every CloudEvent has.
pub(super) const REQUIRED_ATTRIBUTES: [&str; 4] = ["specversion", "id", "source", "type"];

/// Attributes that a refusal may name. An extension's name is the sender's own word, which may be anything.
const ATTRIBUTES: [&str; 10] = [
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
];

/// Longest attribute name that is read; the specification asks senders to stay below 21.
const ATTRIBUTE_NAME_MAX: usize = 64;

/// What senders in a hurry write in front of UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The way a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A webhook request.
    Http,
    /// A RabbitMQ delivery.
    Amqp,
}

/// A message as it came. The size of the body is the caller's to limit.
#[derive(Clone, Copy)]
pub struct Envelope<'a> {
    /// The way it came.
    pub transport: Transport,
    /// HTTP `Content-Type`, or the AMQP property `content_type`.
    pub content_type: Option<&'a str>,
    /// Headers that are text, in the order received; names in any case. Over AMQP, numbers as text.
    pub headers: &'a [(&'a str, &'a str)],
    /// AMQP `message_id` or HTTP `webhook-id`; identifies a plain JSON message that has no id of its own.
    pub message_id: Option<&'a str>,
    /// The raw body.
    pub body: &'a [u8],
}

/// An opened envelope.
pub(super) struct Document {
    /// The CloudEvent in JSON form with its data in `/data`, or the plain message.
    pub(super) json: Value,
    /// Whether it claims to be a CloudEvent. Its attributes are not checked yet.
    pub(super) is_cloud_event: bool,
}

/// How the content type says that the body is to be read.
enum Media {
    /// `application/cloudevents+json`.
    CloudEvents,
    /// JSON, or unknown to the sender's library, which comes to the same.
    Json,
}

impl<'a> Envelope<'a> {
    /// The first header of that name; names match in any case.
    pub(super) fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
    }

    /// Reads the frame.
    ///
    /// Structured by content type; binary when the headers hold a required attribute; else plain JSON. Plain
    /// JSON with a `specversion` in it is a structured event whose sender forgot the content type, as many do
    /// over AMQP. Of keys that occur twice in one JSON object the last one counts.
    pub(super) fn open(&self) -> Result<Document, Refusal> {
        if let Media::CloudEvents = self.media()? {
            return structured(read_json(self.body, "body")?);
        }
        let attributes = self.attributes()?;
        if REQUIRED_ATTRIBUTES.iter().any(|name| attributes.contains_key(*name)) {
            return self.binary(attributes);
        }
        let json = read_json(self.body, "body")?;
        if json.get("specversion").is_some_and(|version| !version.is_null()) {
            return structured(json);
        }
        Ok(Document { json, is_cloud_event: false })
    }

    fn media(&self) -> Result<Media, Refusal> {
        let content_type = self.content_type.unwrap_or_default();
        // Parameters such as the charset are left aside: JSON is UTF-8 (RFC 8259).
        let media_type = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if media_type.starts_with("application/cloudevents-batch") {
            return Err(Refusal::new(
                RefusalReason::Batch,
                "content-type",
                "batches of CloudEvents are not taken",
                "send one event per message, as application/cloudevents+json",
            ));
        }
        if matches!(media_type.as_str(), "application/cloudevents" | "application/cloudevents+json") {
            return Ok(Media::CloudEvents);
        }
        let is_cloud_events = media_type.starts_with("application/cloudevents");
        let is_json = matches!(media_type.as_str(), "" | "application/json" | "text/json")
            || media_type.ends_with("+json") && !is_cloud_events;
        // What AMQP clients set when nobody told them. Over HTTP a sender can be asked to say what it sends.
        let is_unset = self.transport == Transport::Amqp
            && matches!(media_type.as_str(), "application/octet-stream" | "text/plain");
        if is_json || is_unset {
            return Ok(Media::Json);
        }
        Err(Refusal::new(
            RefusalReason::UnsupportedMediaType,
            "content-type",
            "is neither JSON nor CloudEvents in JSON",
            "send application/json or application/cloudevents+json",
        ))
    }

    /// The CloudEvents attributes among the headers; of one attribute given twice the first counts.
    fn attributes(&self) -> Result<Map<String, Value>, Refusal> {
        let mut attributes = Map::new();
        for (header, value) in self.headers {
            let Some(name) = attribute_name(self.transport, header) else { continue };
            let value = match self.transport {
                Transport::Http => decode_header(&name, value)?,
                Transport::Amqp => (*value).to_owned(),
            };
            attributes.entry(name).or_insert(Value::String(value));
        }
        Ok(attributes)
    }

    fn binary(&self, mut attributes: Map<String, Value>) -> Result<Document, Refusal> {
        if let Some(content_type) = self.content_type {
            attributes.insert("datacontenttype".to_owned(), Value::from(content_type));
        }
        if !self.body.is_empty() {
            attributes.insert("data".to_owned(), read_json(self.body, "body")?);
        }
        Ok(Document { json: Value::Object(attributes), is_cloud_event: true })
    }
}

/// A structured event, with `data_base64` unfolded into `data`.
fn structured(mut json: Value) -> Result<Document, Refusal> {
    let Some(event) = json.as_object_mut() else {
        return Err(Refusal::new(
            RefusalReason::InvalidCloudEvent,
            "body",
            "a CloudEvent is a JSON object",
            "send one event per message",
        ));
    };
    if let Some(encoded) = event.remove("data_base64").filter(|value| !value.is_null()) {
        if event.get("data").is_some_and(|data| !data.is_null()) {
            return Err(Refusal::new(
                RefusalReason::InvalidCloudEvent,
                "data_base64",
                "there is data as well",
                "send data or data_base64, not both",
            ));
        }
        let bytes = encoded.as_str().and_then(|text| STANDARD.decode(text).ok()).ok_or_else(|| {
            Refusal::new(
                RefusalReason::InvalidCloudEvent,
                "data_base64",
                "is not base64 text",
                "send JSON data in data",
            )
        })?;
        event.insert("data".to_owned(), read_json(&bytes, "data_base64")?);
    }
    Ok(Document { json, is_cloud_event: true })
}

fn read_json(bytes: &[u8], field: &'static str) -> Result<Value, Refusal> {
    let text = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    // Only the position goes into the refusal: the parser's own words may quote the message.
    serde_json::from_slice(text).map_err(|error| {
        let problem = format!("is not JSON (line {}, column {})", error.line(), error.column());
        Refusal::new(RefusalReason::InvalidJson, field, problem, "send one JSON document in UTF-8")
    })
}

/// The attribute that a header stands for. `data` is no attribute: it would shadow the body.
fn attribute_name(transport: Transport, header: &str) -> Option<String> {
    let prefixes: &[&str] = match transport {
        Transport::Http => &HTTP_PREFIXES,
        Transport::Amqp => &AMQP_PREFIXES,
    };
    let name = prefixes.iter().find_map(|prefix| {
        let given = header.get(..prefix.len())?;
        given.eq_ignore_ascii_case(prefix).then(|| &header[prefix.len()..])
    })?;
    let well_formed = !name.is_empty()
        && name.len() <= ATTRIBUTE_NAME_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric())
        && !name.eq_ignore_ascii_case("data");
    well_formed.then(|| name.to_ascii_lowercase())
}

/// An attribute's value out of an HTTP header: unquoted first, then percent-decoded once (binding §3.1.3.2).
fn decode_header(name: &str, value: &str) -> Result<String, Refusal> {
    let value = value.trim();
    let unquoted = match value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(quoted) => unescape(quoted),
        None => value.to_owned(),
    };
    percent_decode_str(&unquoted).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| {
        Refusal::new(
            RefusalReason::InvalidCloudEvent,
            if ATTRIBUTES.contains(&name) { format!("ce-{name}") } else { "ce-*".to_owned() },
            "is not UTF-8 after percent-decoding",
            "percent-encode the UTF-8 bytes of the value",
        )
    })
}

/// Takes the backslashes out of a quoted string.
fn unescape(quoted: &str) -> String {
    let mut text = String::with_capacity(quoted.len());
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        text.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_value_is_unquoted_then_percent_decoded_once() {
        for (given, expected) in [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC%20%f0%9f%98%80", "Euro € 😀"),
            (r#""say \"hi\" %25""#, r#"say "hi" %"#),
            ("%2520", "%20"),
            ("100%", "100%"),
            ("\"", "\""),
            ("  blank  ", "blank"),
        ] {
            assert_eq!(decode_header("id", given).as_deref(), Ok(expected), "{given}");
        }
    }

    #[test]
    fn overlong_utf_8_in_a_header_is_refused_by_name() {
        let refusal = decode_header("source", "%C0%A0").unwrap_err();
        assert_eq!(refusal.field, "ce-source");
        assert_eq!(refusal.reason_code(), "invalid_cloudevent");
        assert_eq!(
            decode_header("adele0601020304", "%C0%A0").unwrap_err().field,
            "ce-*",
            "the sender's word"
        );
    }

    #[test]
    fn attribute_headers_match_in_any_case_and_only_with_a_known_prefix() {
        let name = |transport, header| attribute_name(transport, header);
        for header in ["cloudEvents_type", "CLOUDEVENTS:type", "ce-type", "CE-Type"] {
            assert_eq!(name(Transport::Amqp, header).as_deref(), Some("type"), "{header}");
        }
        assert_eq!(name(Transport::Http, "Ce-Type").as_deref(), Some("type"));
        for header in ["type", "cloudEvents_type", "ce_type", "ce-", "ce-da-ta", "ce-data", "cé-id", "é"] {
            assert_eq!(name(Transport::Http, header), None, "{header}");
        }
    }
}
