//! `key ␟ other key ␟ id ␟ timestamp ␟ signature ␟ other id ␟ seconds off ␟ other body ␟ secret or token ␟ body`
#![no_main]

use invite_relay::signature::SignedHeaders;
use invite_relay::time::Timestamp;

mod fields;
#[path = "../../tests/laws/signature.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [key, other_key, id, timestamp, signature, other_id, off, other_body, secret, body] = fields::split(input);
    let [key, other_key] = [key, other_key].map(|bytes| {
        let mut key = bytes.to_vec();
        key.resize(key.len().clamp(24, 64), b'Z');
        key
    });
    let off_seconds = i64::from(fields::number::<i16>(off).unwrap_or(0));
    let [id, timestamp, signature, other_id, secret] =
        [id, timestamp, signature, other_id, secret].map(fields::text);
    // Near the header's own time, so that more than the time decides.
    let sent = timestamp.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let now = Timestamp::from_millis(sent.saturating_add(off_seconds).saturating_mul(1000));
    let keys = [key.clone(), other_key.clone()];
    law::only_what_was_signed_is_taken(&keys, SignedHeaders { id, timestamp, signature }, body, now);
    law::texts_are_read_whole_and_never_shown(secret.unwrap_or_default(), id.unwrap_or_default());
    law::every_part_counts(&law::Signed {
        key,
        other_key,
        id: id.unwrap_or("msg_1").to_owned(),
        other_id: other_id.unwrap_or_default().to_owned(),
        seconds: sent.clamp(0, 1 << 40),
        off_seconds,
        body: body.to_vec(),
        other_body: other_body.to_vec(),
        others: signature.into_iter().map(str::to_owned).collect(),
    });
});
