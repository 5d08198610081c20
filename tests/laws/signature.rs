//! Whose requests are taken.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use invite_relay::signature::{
    Secret, SecretError, SignatureError, SignedHeaders, TOLERANCE, Token, bearer, sign, verify,
};
use invite_relay::time::Timestamp;
use sha2::Sha256;

/// For any headers, any body and any moment: what is taken was signed, lately, with one of the secrets.
pub(crate) fn only_what_was_signed_is_taken(
    keys: &[Vec<u8>],
    headers: SignedHeaders<'_>,
    body: &[u8],
    now: Timestamp,
) {
    let secrets: Vec<Secret> = keys.iter().map(|key| secret(key)).collect();
    let verdict = verify(&secrets, headers, body, now);
    if let Err(error) = verdict {
        assert!(error.to_string().starts_with(error.header()), "{error} names no header");
        return;
    }
    let (id, timestamp, listed) =
        (headers.id.unwrap(), headers.timestamp.unwrap(), headers.signature.unwrap());
    let seconds: i64 = timestamp.parse().unwrap();
    let off = Timestamp::from_millis(seconds * 1000);
    assert!(now.since(off) <= TOLERANCE && off.since(now) <= TOLERANCE, "a replay was taken");
    let right: Vec<String> = keys.iter().map(|key| expected(key, id, timestamp, body)).collect();
    assert!(
        listed.split_ascii_whitespace().any(|given| right.iter().any(|right| right == given)),
        "taken without a signature of any of the secrets"
    );
}

/// The header's value by the specification, made with nothing of the module under test.
fn expected(key: &[u8], id: &str, timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

/// A message that is signed and changed on its way.
#[derive(Clone, Debug)]
pub(crate) struct Signed {
    pub(crate) key: Vec<u8>,
    pub(crate) other_key: Vec<u8>,
    pub(crate) id: String,
    pub(crate) other_id: String,
    pub(crate) seconds: i64,
    pub(crate) off_seconds: i64,
    pub(crate) body: Vec<u8>,
    pub(crate) other_body: Vec<u8>,
    /// What stands before our signature in the header.
    pub(crate) others: Vec<String>,
}

/// What was signed is taken; with anything else in its place it is not.
pub(crate) fn every_part_counts(signed: &Signed) {
    let Signed { key, other_key, id, other_id, seconds, off_seconds, body, other_body, others } = signed;
    let own = secret(key);
    let timestamp = seconds.to_string();
    let signature = sign(&own, id, *seconds, body);
    assert_eq!(signature, expected(key, id, &timestamp, body), "as the specification says");
    let listed = format!("{} {signature}", others.join(" "));
    let headers = SignedHeaders { id: Some(id), timestamp: Some(&timestamp), signature: Some(&listed) };
    let now = Timestamp::from_millis((seconds + off_seconds) * 1000);
    let in_time = off_seconds.unsigned_abs() <= TOLERANCE.as_secs();
    let others_fit = others.iter().flat_map(|text| text.split_ascii_whitespace()).count() < 16;
    let verdict = verify(&[secret(other_key), own.clone()], headers, body, now);
    if in_time && others_fit {
        assert_eq!(verdict, Ok(()), "any of the secrets, at any place in the list");
    } else if !in_time {
        assert!(matches!(verdict, Err(SignatureError::TooOld | SignatureError::TooNew)), "{verdict:?}");
    }

    // HMAC pads keys with zeros, so that keys that differ in nothing else are one key.
    if without_zeros(key) != without_zeros(other_key) {
        assert!(verify(&[secret(other_key)], headers, body, now).is_err(), "another secret");
    }
    assert!(verify(&[], headers, body, now).is_err(), "no secret");
    let own = [own];
    if body != other_body {
        assert!(verify(&own, headers, other_body, now).is_err(), "another body");
    }
    if id != other_id {
        let headers = SignedHeaders { id: Some(other_id), ..headers };
        assert!(verify(&own, headers, body, now).is_err(), "another id");
    }
    let later = (seconds + 1).to_string();
    let headers = SignedHeaders { timestamp: Some(&later), ..headers };
    assert!(verify(&own, headers, body, now).is_err(), "another time");
}

/// For any text that may be a secret, a token or an `Authorization` header.
pub(crate) fn texts_are_read_whole_and_never_shown(text: &str, other: &str) {
    match text.parse::<Secret>() {
        Ok(secret) => {
            let revealed = secret.reveal();
            assert_eq!(revealed.parse::<Secret>().unwrap().reveal(), revealed, "reads what it wrote");
            assert_eq!(format!("{secret:?}"), "Secret(…)");
        }
        // Which of the two it is may be told, and nothing out of the text.
        Err(error) => assert!(matches!(error, SecretError::NotBase64 | SecretError::Size(_))),
    }
    if let Ok(token) = Token::try_new(text) {
        assert_eq!(format!("{token:?}"), "Token(…)");
        let token = [token];
        assert!(Token::is_any_of(&token, text.trim()));
        assert_eq!(Token::is_any_of(&token, other), other == text.trim(), "another token");
        let header = format!("bEaReR {}", text.trim());
        assert_eq!(bearer(&header), Some(text.trim()));
        assert!(!Token::is_any_of(&[], text), "no token");
    }
    if let Some(presented) = bearer(text) {
        assert!(text.contains(presented));
    }
}

fn secret(key: &[u8]) -> Secret {
    STANDARD.encode(key).parse().expect("24 to 64 bytes")
}

fn without_zeros(key: &[u8]) -> &[u8] {
    let end = key.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &key[..end]
}
