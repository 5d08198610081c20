//! Who may send: signatures by the Standard Webhooks specification (1.0.0), and plain tokens.
//!
//! Both sides of a signature are here, so that what the service signs it would also accept. Comparisons take
//! the same time whatever is compared; errors name a header and a mend, never a secret, nor the signature
//! that would have been right. The signed content is `id.timestamp.body`, over the raw bytes as received.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::time::Timestamp;

/// Header with the message's id, which stays the same when the sender tries again.
pub const ID_HEADER: &str = "webhook-id";

/// Header with the Unix seconds of this try.
pub const TIMESTAMP_HEADER: &str = "webhook-timestamp";

/// Header with the signatures.
pub const SIGNATURE_HEADER: &str = "webhook-signature";

/// How far the sender's clock may be off, both ways; the specification's number.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Prefix of a symmetric secret in text.
const SECRET_PREFIX: &str = "whsec_";

/// Key sizes that the specification allows, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Signatures of one request that are looked at. Rotation needs two; a request must not buy more work.
const SIGNATURES_MAX: usize = 16;

/// Shortest token, in characters: 16 random hex digits are 64 bits, too many to try over a network.
const TOKEN_MIN: usize = 16;

/// Base64 with or without padding: secrets get copied by hand.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A signing secret. Reads `whsec_` and base64; the prefix may be missing, as in other implementations.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// A new random secret.
    pub fn generate() -> Self {
        Self(rand::random::<[u8; 32]>().to_vec())
    }

    /// The secret in clear, with prefix, as the other side needs it.
    pub fn reveal(&self) -> String {
        format!("{SECRET_PREFIX}{}", STANDARD.encode(&self.0))
    }

    fn mac(&self, id: &str, timestamp: &str, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            mac.update(part);
        }
        mac
    }
}

impl FromStr for Secret {
    type Err = SecretError;

    fn from_str(text: &str) -> Result<Self, SecretError> {
        let text = text.trim();
        let encoded = text.strip_prefix(SECRET_PREFIX).unwrap_or(text);
        let key = LENIENT.decode(encoded).map_err(|_| SecretError::NotBase64)?;
        if !SECRET_BYTES.contains(&key.len()) {
            return Err(SecretError::Size(key.len()));
        }
        Ok(Self(key))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a text is no signing secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not base64 after the prefix.
    #[error("a secret is whsec_ and base64; make one with: echo whsec_$(openssl rand -base64 32)")]
    NotBase64,
    /// Too short to be safe, or too long to be a key.
    #[error(
        "a secret holds 24 to 64 bytes, this one holds {0}; make one with: echo whsec_$(openssl rand -base64 32)"
    )]
    Size(usize),
}

/// The value of [`SIGNATURE_HEADER`] for a message that is sent at `unix_seconds`.
///
/// An id is meant to hold no `.`; one that does is signed and verified like any other. Moving the border
/// between id, timestamp and body of such a message leaves a body that begins with digits and a `.`, which is
/// no JSON object.
pub fn sign(secret: &Secret, id: &str, unix_seconds: i64, body: &[u8]) -> String {
    let signature = secret.mac(id, &unix_seconds.to_string(), body).finalize().into_bytes();
    format!("v1,{}", STANDARD.encode(signature))
}

/// The three headers of a signed request, as far as they are there.
#[derive(Clone, Copy, Debug, Default)]
pub struct SignedHeaders<'a> {
    /// [`ID_HEADER`].
    pub id: Option<&'a str>,
    /// [`TIMESTAMP_HEADER`].
    pub timestamp: Option<&'a str>,
    /// [`SIGNATURE_HEADER`].
    pub signature: Option<&'a str>,
}

/// Takes a request if any listed `v1` signature was made with any of `secrets`, lately enough.
///
/// Several secrets are how a secret is changed without a gap. Versions other than `v1` are skipped, and only
/// the first 16 signatures are looked at. With no secrets nothing is taken.
pub fn verify(
    secrets: &[Secret],
    headers: SignedHeaders<'_>,
    body: &[u8],
    now: Timestamp,
) -> Result<(), SignatureError> {
    let id = required(ID_HEADER, headers.id)?;
    let timestamp = required(TIMESTAMP_HEADER, headers.timestamp)?;
    let listed = required(SIGNATURE_HEADER, headers.signature)?;
    check_age(timestamp, now)?;

    let signatures: Vec<Vec<u8>> = listed
        .split_ascii_whitespace()
        .take(SIGNATURES_MAX)
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .filter_map(|encoded| STANDARD.decode(encoded).ok())
        .collect();
    let mut matched = false;
    for secret in secrets {
        let mac = secret.mac(id, timestamp, body);
        for signature in &signatures {
            matched |= mac.clone().verify_slice(signature).is_ok();
        }
    }
    if matched { Ok(()) } else { Err(SignatureError::NoMatch) }
}

fn required<'a>(name: &'static str, value: Option<&'a str>) -> Result<&'a str, SignatureError> {
    value.filter(|text| !text.is_empty()).ok_or(SignatureError::MissingHeader(name))
}

fn check_age(timestamp: &str, now: Timestamp) -> Result<(), SignatureError> {
    // `i64::from_str` takes a sign, which no sender writes.
    if !timestamp.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SignatureError::BadTimestamp);
    }
    let seconds: i64 = timestamp.parse().map_err(|_| SignatureError::BadTimestamp)?;
    let sent = Timestamp::from_millis(seconds.saturating_mul(1000));
    if now.since(sent) > TOLERANCE {
        return Err(SignatureError::TooOld);
    }
    if sent.since(now) > TOLERANCE {
        return Err(SignatureError::TooNew);
    }
    Ok(())
}

/// Why a signed request is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// A header is missing or empty.
    #[error("{0}: missing or empty; sign requests as Standard Webhooks describes")]
    MissingHeader(&'static str),
    /// Not a number.
    #[error("webhook-timestamp: not a whole number; send the Unix time in seconds")]
    BadTimestamp,
    /// A replay, or a clock that is behind.
    #[error(
        "webhook-timestamp: more than 5 minutes ago; sign each try anew and check the clocks of both sides"
    )]
    TooOld,
    /// A clock that is ahead.
    #[error("webhook-timestamp: more than 5 minutes ahead; check the clocks of both sides")]
    TooNew,
    /// The wrong secret, or a body that was changed on the way.
    #[error(
        "webhook-signature: no v1 signature matches; check that both sides use the same secret and that nothing between them rewrites the body"
    )]
    NoMatch,
}

impl SignatureError {
    /// The header that is to blame.
    pub const fn header(self) -> &'static str {
        match self {
            Self::MissingHeader(name) => name,
            Self::BadTimestamp | Self::TooOld | Self::TooNew => TIMESTAMP_HEADER,
            Self::NoMatch => SIGNATURE_HEADER,
        }
    }

    /// The reason as a word out of a closed set, for metrics.
    pub const fn reason_code(self) -> &'static str {
        match self {
            Self::MissingHeader(_) => "missing_header",
            Self::BadTimestamp => "bad_timestamp",
            Self::TooOld => "too_old",
            Self::TooNew => "too_new",
            Self::NoMatch => "no_match",
        }
    }
}

/// A fixed token that a sender presents, as a bearer token or in a header of its own. Only a digest is kept.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Takes `text`, without blanks around it, if it is long enough and can travel in a header.
    pub fn try_new(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TokenError::Characters);
        }
        if text.len() < TOKEN_MIN {
            return Err(TokenError::TooShort(text.len()));
        }
        Ok(Self(token_mac(text).finalize().into_bytes().into()))
    }

    /// Whether `presented` is one of `tokens`. All are compared, each in constant time.
    pub fn is_any_of(tokens: &[Self], presented: &str) -> bool {
        let mac = token_mac(presented);
        tokens.iter().fold(false, |found, token| found | mac.clone().verify_slice(&token.0).is_ok())
    }
}

/// A digest of fixed size, so that comparing tells nothing about a token's length either.
fn token_mac(text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"invite-relay token").expect("HMAC takes any key");
    mac.update(text.as_bytes());
    mac
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        Self::try_new(text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// The token in an `Authorization` header of the scheme `Bearer` (RFC 6750), if it is one.
pub fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start())
}

/// Why a text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Easy to guess.
    #[error("a token has at least 16 characters, this one has {0}; make one with: openssl rand -hex 32")]
    TooShort(usize),
    /// Would not survive in a header.
    #[error(
        "a token holds printable ASCII characters without blanks in between; make one with: openssl rand -hex 32"
    )]
    Characters,
}

#[cfg(test)]
mod tests;
