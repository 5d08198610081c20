//! Kept apart from the code they test, so that a reader finds that code in one piece.

use proptest::prelude::*;

use super::*;

/// The vector that the specification's own libraries are tested with.
const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const ID: &str = "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk";
const SENT_S: i64 = 1_649_367_553;
const BODY: &[u8] = br#"{"email":"test@example.com","username":"test_user"}"#;
const SIGNATURE: &str = "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=";

fn secret() -> Secret {
    SECRET.parse().unwrap()
}

/// A moment some seconds after the vector was sent.
fn later(seconds: i64) -> Timestamp {
    Timestamp::from_millis((SENT_S + seconds) * 1000)
}

fn check(signature: &str) -> Result<(), SignatureError> {
    check_all(Some(ID), Some("1649367553"), Some(signature), BODY, later(0))
}

fn check_all(
    id: Option<&str>,
    timestamp: Option<&str>,
    signature: Option<&str>,
    body: &[u8],
    now: Timestamp,
) -> Result<(), SignatureError> {
    verify(&[secret()], SignedHeaders { id, timestamp, signature }, body, now)
}

#[test]
fn the_published_vector_verifies_and_is_what_we_sign() {
    assert_eq!(check(SIGNATURE), Ok(()));
    assert_eq!(sign(&secret(), ID, SENT_S, BODY), SIGNATURE);
}

#[test]
fn any_listed_signature_may_match_and_other_versions_are_skipped() {
    for listed in [
        format!("v1,AAAA {SIGNATURE}"),
        format!(
            "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg== {SIGNATURE}"
        ),
        format!("{SIGNATURE} v1,not*base64"),
        format!("  , v1, nonsense  {SIGNATURE}"),
    ] {
        assert_eq!(check(&listed), Ok(()), "{listed}");
    }
}

#[test]
fn any_configured_secret_may_match_so_that_secrets_can_be_changed() {
    let headers = SignedHeaders { id: Some(ID), timestamp: Some("1649367553"), signature: Some(SIGNATURE) };
    assert_eq!(verify(&[Secret::generate(), secret()], headers, BODY, later(0)), Ok(()));
    assert_eq!(verify(&[Secret::generate()], headers, BODY, later(0)), Err(SignatureError::NoMatch));
    assert_eq!(verify(&[], headers, BODY, later(0)), Err(SignatureError::NoMatch));
}

#[test]
fn a_wrong_signature_a_changed_body_or_another_id_is_refused() {
    for wrong in [
        "v1,AAAAI4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        "v1,",
        "v2,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
        "tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    ] {
        assert_eq!(check(wrong), Err(SignatureError::NoMatch), "{wrong}");
    }
    let no_match = Err(SignatureError::NoMatch);
    assert_eq!(check_all(Some(ID), Some("1649367553"), Some(SIGNATURE), b"{}", later(0)), no_match);
    assert_eq!(check_all(Some("msg_1"), Some("1649367553"), Some(SIGNATURE), BODY, later(0)), no_match);
    assert_eq!(check_all(Some(ID), Some("1649367554"), Some(SIGNATURE), BODY, later(0)), no_match);
}

#[test]
fn a_missing_or_empty_header_is_named() {
    let (id, timestamp, signature) = (Some(ID), Some("1649367553"), Some(SIGNATURE));
    let missing = |name| Err(SignatureError::MissingHeader(name));
    for nothing in [None, Some("")] {
        assert_eq!(check_all(nothing, timestamp, signature, BODY, later(0)), missing(ID_HEADER));
        assert_eq!(check_all(id, nothing, signature, BODY, later(0)), missing(TIMESTAMP_HEADER));
        assert_eq!(check_all(id, timestamp, nothing, BODY, later(0)), missing(SIGNATURE_HEADER));
    }
}

#[test]
fn a_timestamp_may_be_five_minutes_off_both_ways_and_not_more() {
    let at = |now| check_all(Some(ID), Some("1649367553"), Some(SIGNATURE), BODY, now);
    assert_eq!(at(later(300)), Ok(()));
    assert_eq!(at(later(-300)), Ok(()));
    assert_eq!(at(later(301)), Err(SignatureError::TooOld));
    assert_eq!(at(later(-301)), Err(SignatureError::TooNew));
}

#[test]
fn a_timestamp_is_digits_only() {
    for bad in ["now", "-1", "+1649367553", " 1649367553", "1649367553.0", "99999999999999999999", "٣"] {
        let verdict = check_all(Some(ID), Some(bad), Some(SIGNATURE), BODY, later(0));
        assert_eq!(verdict, Err(SignatureError::BadTimestamp), "{bad}");
    }
    let far = check_all(Some(ID), Some("9223372036854775807"), Some(SIGNATURE), BODY, later(0));
    assert_eq!(far, Err(SignatureError::TooNew));
}

#[test]
fn only_the_first_sixteen_signatures_are_looked_at() {
    let fillers = |n| vec!["v1,AAAA"; n].join(" ");
    assert_eq!(check(&format!("{} {SIGNATURE}", fillers(15))), Ok(()));
    assert_eq!(check(&format!("{} {SIGNATURE}", fillers(16))), Err(SignatureError::NoMatch));
}

#[test]
fn a_secret_reads_with_or_without_prefix_padding_and_line_end() {
    for text in [SECRET, "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "  whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD\n"] {
        assert_eq!(text.parse::<Secret>().unwrap().reveal(), SECRET);
    }
    let padded = Secret::generate().reveal();
    assert_eq!(padded.trim_end_matches('=').parse::<Secret>().unwrap().reveal(), padded);
}

#[test]
fn an_empty_short_long_or_unreadable_secret_is_refused_with_a_mend() {
    let of_bytes = |n| format!("whsec_{}", STANDARD.encode(vec![7; n]));
    for (text, expected) in [
        (String::new(), SecretError::Size(0)),
        ("whsec_".to_owned(), SecretError::Size(0)),
        (of_bytes(23), SecretError::Size(23)),
        (of_bytes(65), SecretError::Size(65)),
        ("whsec_***".to_owned(), SecretError::NotBase64),
    ] {
        let error = text.parse::<Secret>().unwrap_err();
        assert_eq!(error, expected);
        assert!(error.to_string().contains("openssl rand -base64 32"));
    }
    assert!(of_bytes(24).parse::<Secret>().is_ok());
    assert!(of_bytes(64).parse::<Secret>().is_ok());
}

#[test]
fn secrets_and_tokens_never_show_in_debug_output_or_errors() {
    let token = Token::try_new("canary-token-0123456789").unwrap();
    let shown = format!("{:?} {token:?} {:?}", secret(), "canary canary".parse::<Token>());
    assert!(!shown.contains("C2FV") && !shown.contains("canary"), "{shown}");
    for error in [SignatureError::NoMatch, SignatureError::TooOld, SignatureError::BadTimestamp] {
        assert!(!error.to_string().contains("tZ1I"));
        assert!(error.to_string().starts_with("webhook-"));
    }
}

#[test]
fn a_presented_token_has_to_equal_one_of_the_configured_ones() {
    let tokens = ["first-token-0123456789", "second-token-0123456789\n"].map(|t| Token::try_new(t).unwrap());
    assert!(Token::is_any_of(&tokens, "first-token-0123456789"));
    assert!(Token::is_any_of(&tokens, "second-token-0123456789"));
    for wrong in ["", "first-token-012345678", "first-token-01234567890", "FIRST-TOKEN-0123456789"] {
        assert!(!Token::is_any_of(&tokens, wrong), "{wrong}");
    }
    assert!(!Token::is_any_of(&[], ""));
}

#[test]
fn a_token_that_is_short_or_unfit_for_a_header_is_refused() {
    assert_eq!(Token::try_new("").unwrap_err(), TokenError::TooShort(0));
    assert_eq!(Token::try_new("fifteen-letters").unwrap_err(), TokenError::TooShort(15));
    assert!(Token::try_new("sixteen-letters!").is_ok());
    for bad in ["two words of many letters", "line\nbreak-line-break", "pässword-pässword"] {
        assert_eq!(Token::try_new(bad).unwrap_err(), TokenError::Characters, "{bad}");
    }
}

#[test]
fn a_bearer_token_is_found_in_any_case_of_the_scheme() {
    assert_eq!(bearer("Bearer abc"), Some("abc"));
    assert_eq!(bearer("bearer  abc "), Some("abc"));
    for other in ["", "abc", "Basic abc", "Bearer"] {
        assert_eq!(bearer(other), None, "{other}");
    }
}

proptest! {
    #[test]
    fn no_header_makes_verification_panic_or_pass(
        id in proptest::option::of(".*"),
        timestamp in proptest::option::of("[0-9]{0,22}|.*"),
        signature in proptest::option::of("(v1,[A-Za-z0-9+/=]{0,50} ?){0,20}|.*"),
        body in proptest::collection::vec(any::<u8>(), 0..64),
        now in any::<i64>(),
    ) {
        let now = Timestamp::from_millis(now);
        let verdict = check_all(id.as_deref(), timestamp.as_deref(), signature.as_deref(), &body, now);
        prop_assert!(verdict.is_err());
    }

    #[test]
    fn what_was_signed_verifies(
        id in ".{1,40}",
        seconds in 0..100_000_000_000_i64,
        off in -300..=300_i64,
        body in proptest::collection::vec(any::<u8>(), 0..256),
    ) {
        let secret = Secret::generate();
        let signature = sign(&secret, &id, seconds, &body);
        let timestamp = seconds.to_string();
        let headers =
            SignedHeaders { id: Some(&id), timestamp: Some(&timestamp), signature: Some(&signature) };
        let now = Timestamp::from_millis((seconds + off) * 1000);
        prop_assert_eq!(verify(&[secret], headers, &body, now), Ok(()));
    }

    #[test]
    fn flipping_any_bit_of_body_or_signature_fails(
        mut body in proptest::collection::vec(any::<u8>(), 1..256),
        place in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let secret = secret();
        let sent = later(0);
        let signature = sign(&secret, ID, SENT_S, &body);
        let mut raw = STANDARD.decode(&signature["v1,".len()..]).unwrap();
        let at = place.index(raw.len());
        raw[at] ^= 1 << bit;
        let flipped = format!("v1,{}", STANDARD.encode(&raw));
        let no_match = Err(SignatureError::NoMatch);
        prop_assert_eq!(check_all(Some(ID), Some("1649367553"), Some(&flipped), &body, sent), no_match);

        let at = place.index(body.len());
        body[at] ^= 1 << bit;
        prop_assert_eq!(check_all(Some(ID), Some("1649367553"), Some(&signature), &body, sent), no_match);
    }
}
