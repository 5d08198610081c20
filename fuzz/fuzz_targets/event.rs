//! `H or A ␟ content type ␟ message id ␟ headers, one "name: value" a line ␟ body`
#![no_main]

use invite_relay::event::{Envelope, Transport};

mod fields;
#[path = "../../tests/laws/event.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [transport, content_type, message_id, headers, body] = fields::split(input);
    let headers: Vec<(&str, &str)> =
        fields::text(headers).unwrap_or_default().lines().filter_map(|line| line.split_once(": ")).collect();
    let envelope = Envelope {
        transport: if transport == b"A" { Transport::Amqp } else { Transport::Http },
        content_type: fields::text(content_type),
        headers: &headers,
        message_id: fields::text(message_id),
        body,
    };
    law::holds(&law::rules(), &envelope);
});
