//! The invite code itself: the one secret this service hands out, and what may be kept of it.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::TruckerKey;

/// Length of the codes Dashdoc is known to make; others are taken, and counted.
const USUAL_LENGTH: usize = 6;

/// Longest text that is taken as a code; anything longer is not one.
const MAX_LENGTH: usize = 64;

/// A one-time invite code. `Debug` masks it; [`InviteCode::reveal`] is the only way to the text.
#[derive(Clone, PartialEq, Eq)]
pub struct InviteCode(String);

impl InviteCode {
    /// Takes `text` as a code if it could be one: 1–64 printable ASCII characters without blanks.
    pub fn new(text: &str) -> Option<Self> {
        let possible =
            !text.is_empty() && text.len() <= MAX_LENGTH && text.bytes().all(|b| b.is_ascii_graphic());
        possible.then(|| Self(text.to_owned()))
    }

    /// The code in clear. Call it only where the code is stored or sent.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether the code has the length that Dashdoc documents.
    pub fn has_usual_length(&self) -> bool {
        self.0.len() == USUAL_LENGTH
    }
}

impl fmt::Debug for InviteCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteCode(…)")
    }
}

/// A keyed fingerprint of a code: tells later whether a code is the same, without keeping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

/// The key of the fingerprints. A plain hash of six characters is found by trying them all; a keyed one
/// is not, for whoever lacks the key.
#[derive(Clone)]
pub struct FingerprintKey([u8; 32]);

impl FingerprintKey {
    /// A key from 32 random bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The fingerprint of `code` for `trucker`: HMAC-SHA256, cut to 128 bits.
    pub fn fingerprint(&self, trucker: &TruckerKey, code: &InviteCode) -> Fingerprint {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes a key of any length");
        mac.update(trucker.to_string().as_bytes());
        mac.update(b"\0");
        mac.update(code.reveal().as_bytes());
        let mut short = [0; 16];
        short.copy_from_slice(&mac.finalize().into_bytes()[..16]);
        Fingerprint(short)
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(…)")
    }
}

/// How the service came by a code.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The answer to our own POST.
    Generated,
    /// Found by reading the trucker before any call (`invite.policy = "reuse"`).
    Reused,
    /// Found by reading the trucker back after an unknown outcome.
    Recovered,
}

impl Origin {
    /// Every origin, for metrics that exist from the start.
    pub const ALL: [Self; 3] = [Self::Generated, Self::Reused, Self::Recovered];

    /// The word used in events, metrics and the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Reused => "reused",
            Self::Recovered => "recovered",
        }
    }

    /// The origin that [`Origin::as_str`] wrote.
    pub fn from_stored(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|origin| origin.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_never_shows_in_debug_output() {
        let code = InviteCode::new("K7Q2ZD").unwrap();
        assert!(!format!("{code:?}").contains("K7Q2ZD"));
    }

    #[test]
    fn blank_control_and_overlong_texts_are_no_codes() {
        for bad in ["", " ", "AB CD", "ABC\n", "é12345", &"A".repeat(65)] {
            assert!(InviteCode::new(bad).is_none(), "{bad:?} was taken");
        }
    }

    #[test]
    fn a_fingerprint_tells_codes_and_truckers_apart() {
        let key = FingerprintKey::new([7; 32]);
        let trucker = |text: &str| text.parse::<TruckerKey>().unwrap();
        let code = |text| InviteCode::new(text).unwrap();
        let print = key.fingerprint(&trucker("a/1"), &code("K7Q2ZD"));
        assert_eq!(print, key.fingerprint(&trucker("a/1"), &code("K7Q2ZD")));
        assert_ne!(print, key.fingerprint(&trucker("a/1"), &code("K7Q2ZE")));
        assert_ne!(print, key.fingerprint(&trucker("a/2"), &code("K7Q2ZD")));
        assert_ne!(print, FingerprintKey::new([8; 32]).fingerprint(&trucker("a/1"), &code("K7Q2ZD")));
    }
}
