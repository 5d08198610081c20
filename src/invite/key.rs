//! Who an invite is for, and the ids that follow from it.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Namespace of the ids that [`event_id`] derives; changing it changes every outgoing id.
const EVENT_NAMESPACE: Uuid = Uuid::from_u128(0x6f2a_7c1e_93d4_5b0a_8e17_2d4c_b5f0_9a36);

/// Longest account name: it is a metric label, a path segment and part of a header.
const ACCOUNT_NAME_MAX: usize = 63;

/// The name of one Dashdoc company in the configuration: `a-z`, `0-9`, `-` and `_`, 1–63 characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(Arc<str>);

impl AccountName {
    /// The account that always exists.
    pub fn default_account() -> Self {
        Self(Arc::from("default"))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AccountName {
    type Err = KeyError;

    fn from_str(name: &str) -> Result<Self, KeyError> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if name.is_empty() || name.len() > ACCOUNT_NAME_MAX || !name.chars().all(allowed) {
            return Err(KeyError::Account);
        }
        Ok(Self(Arc::from(name)))
    }
}

impl TryFrom<String> for AccountName {
    type Error = KeyError;

    fn try_from(name: String) -> Result<Self, KeyError> {
        name.parse()
    }
}

impl From<AccountName> for String {
    fn from(name: AccountName) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Dashdoc's primary key of a trucker: a positive integer that fits the store's signed 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct TruckerPk(NonZeroU64);

impl TruckerPk {
    /// The key as a number.
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

impl TryFrom<u64> for TruckerPk {
    type Error = KeyError;

    fn try_from(pk: u64) -> Result<Self, KeyError> {
        if pk > i64::MAX.unsigned_abs() {
            return Err(KeyError::Pk);
        }
        NonZeroU64::new(pk).map(Self).ok_or(KeyError::Pk)
    }
}

impl From<TruckerPk> for u64 {
    fn from(pk: TruckerPk) -> Self {
        pk.get()
    }
}

impl FromStr for TruckerPk {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        // `u64::from_str` takes a leading `+`; a key is digits only.
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(KeyError::Pk);
        }
        text.parse::<u64>().map_err(|_| KeyError::Pk)?.try_into()
    }
}

impl fmt::Display for TruckerPk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One trucker of one account. Reads as `default/23498`, which is also the public id of its invite.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TruckerKey {
    /// The company.
    pub account: AccountName,
    /// The trucker within it.
    pub pk: TruckerPk,
}

impl fmt::Display for TruckerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.pk)
    }
}

impl FromStr for TruckerKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (account, pk) = text.split_once('/').ok_or(KeyError::Shape)?;
        Ok(Self { account: account.parse()?, pk: pk.parse()? })
    }
}

/// 1 for the first code of a trucker, one more for each code that replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(u32);

impl Generation {
    /// The first code of a trucker.
    pub const FIRST: Self = Self(1);

    /// A generation as the store kept it.
    pub const fn from_stored(number: u32) -> Self {
        Self(number)
    }

    /// The generation after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The number, counted from 1.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What an outgoing event announces; part of its id, so that a ready and a failed event never share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Announcement {
    /// `invite.ready`: the code is there.
    Ready,
    /// `invite.failed`: a person is needed.
    Failed,
}

impl Announcement {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Ready, Self::Failed];

    /// The word used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }
}

/// The id of the outgoing event: UUID v5 (RFC 9562 §5.5) of account, pk, generation and kind.
///
/// Being derived, it is the same after any crash, so a consumer that remembers ids sees one event.
pub fn event_id(key: &TruckerKey, generation: Generation, what: Announcement) -> Uuid {
    let name = match what {
        Announcement::Ready => format!("{key}/{generation}"),
        Announcement::Failed => format!("{key}/{generation}/failed"),
    };
    Uuid::new_v5(&EVENT_NAMESPACE, name.as_bytes())
}

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not an account name.
    #[error("an account name is 1 to 63 characters out of a-z, 0-9, - and _")]
    Account,
    /// Not a primary key.
    #[error("a trucker pk is a whole number from 1 to 9223372036854775807")]
    Pk,
    /// Not `account/pk`.
    #[error("an invite id reads ACCOUNT/PK, for example default/23498")]
    Shape,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> TruckerKey {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_reads_back_as_it_was_written() {
        assert_eq!(key("default/23498").to_string(), "default/23498");
    }

    #[test]
    fn a_key_refuses_what_could_change_a_path_or_a_label() {
        for bad in [
            "default",
            "default/",
            "/1",
            "Default/1",
            "a b/1",
            "a/0",
            "a/-1",
            "a/+1",
            "a/1/2",
            "a/../1",
            "a/9223372036854775808",
        ] {
            assert!(bad.parse::<TruckerKey>().is_err(), "{bad} was taken");
        }
    }

    #[test]
    fn the_event_id_is_the_same_for_the_same_code_and_differs_for_any_other() {
        let id = |text, generation, what| event_id(&key(text), Generation::from_stored(generation), what);
        let first = id("default/1", 1, Announcement::Ready);
        assert_eq!(first, id("default/1", 1, Announcement::Ready));
        assert_eq!(first.to_string(), "a74792ac-3fd8-5f8d-a45a-4ba8db800d45");
        for other in [
            id("default/1", 2, Announcement::Ready),
            id("default/11", 1, Announcement::Ready),
            id("other/1", 1, Announcement::Ready),
            id("default/1", 1, Announcement::Failed),
        ] {
            assert_ne!(first, other);
        }
    }
}
