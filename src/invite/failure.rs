//! What went wrong with a call, as far as the work list, the metrics and a person need to know it.

use std::fmt;

use serde::Serialize;

/// Longest failure code that is kept.
const CODE_MAX: usize = 96;

/// The class of a failure decides what happens next (design table "Answers of the API").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// Connect, DNS or TLS failed: nothing was sent, safe to repeat.
    Transient,
    /// 429, or 503 with `Retry-After`: the account has to wait.
    Throttled,
    /// 404: the trucker is not there, or not yet.
    NotFound,
    /// 401 or 403: the token is refused.
    Credentials,
    /// 3xx: the base URL is wrong.
    Misconfigured,
    /// The request was written and the outcome is not known.
    Unknown,
    /// 200, but without a usable code in it.
    Doubtful,
    /// Any other 4xx: the API will say the same again.
    Rejected,
    /// The event names an account that is not configured.
    UnknownAccount,
}

impl FailureClass {
    /// Every class, for metrics that exist from the start.
    pub const ALL: [Self; 9] = [
        Self::Transient,
        Self::Throttled,
        Self::NotFound,
        Self::Credentials,
        Self::Misconfigured,
        Self::Unknown,
        Self::Doubtful,
        Self::Rejected,
        Self::UnknownAccount,
    ];

    /// The word used in events, metrics and the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Throttled => "throttled",
            Self::NotFound => "not_found",
            Self::Credentials => "credentials",
            Self::Misconfigured => "misconfigured",
            Self::Unknown => "unknown",
            Self::Doubtful => "doubtful",
            Self::Rejected => "rejected",
            Self::UnknownAccount => "unknown_account",
        }
    }

    /// The class that [`FailureClass::as_str`] wrote.
    pub fn from_stored(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == word)
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One failure: its class and a short code such as `http_500`, `timeout` or `http_400.phone_number.invalid`.
///
/// The code is made of our own words and of identifiers out of the API's error, never of its prose: prose
/// may hold a name or a phone number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Decides what happens next.
    pub class: FailureClass,
    /// Tells a person which failure of that class it was; `[a-z0-9_.-]`, at most 96 characters.
    pub code: String,
}

impl Failure {
    /// A failure; whatever does not belong into a code is dropped from `code`.
    pub fn new(class: FailureClass, code: &str) -> Self {
        let allowed = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
        let code = code.chars().map(|c| c.to_ascii_lowercase()).filter(allowed).take(CODE_MAX).collect();
        Self { class, code }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.class, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_code_keeps_only_identifier_characters_and_a_bounded_length() {
        assert_eq!(Failure::new(FailureClass::Rejected, "HTTP_400.Adèle <x@y>").code, "http_400.adlexy");
        assert_eq!(Failure::new(FailureClass::Rejected, &"a".repeat(500)).code.len(), CODE_MAX);
    }

    #[test]
    fn every_class_reads_back_from_its_word() {
        for class in FailureClass::ALL {
            assert_eq!(FailureClass::from_stored(class.as_str()), Some(class));
        }
    }
}
