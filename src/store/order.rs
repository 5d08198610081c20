//! What a person asks of the store: dead invites back to work, a new code. Every order is recorded with who gave it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::invite::{AccountName, Failure, FailureClass, Invite, StateName, TruckerKey};
use crate::time::Timestamp;

/// Longest name of a person that is recorded.
const NAME_MAX: usize = 80;

/// Who gives an order: 1–80 printable characters, as the person gives them. Kept in the store, shown nowhere else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Operator(String);

impl Operator {
    /// The name as it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Operator {
    type Err = OperatorError;

    fn from_str(name: &str) -> Result<Self, OperatorError> {
        let name = name.trim();
        let printable = !name.chars().any(char::is_control);
        let possible = !name.is_empty() && name.chars().count() <= NAME_MAX && printable;
        possible.then(|| Self(name.to_owned())).ok_or(OperatorError)
    }
}

impl TryFrom<String> for Operator {
    type Error = OperatorError;

    fn try_from(name: String) -> Result<Self, OperatorError> {
        name.parse()
    }
}

impl From<Operator> for String {
    fn from(operator: Operator) -> Self {
        operator.0
    }
}

impl fmt::Debug for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Operator(…)")
    }
}

/// No name of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give a name of 1 to 80 printable characters, so that the order can be traced to a person")]
pub struct OperatorError;

/// Which dead invites.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// This one.
    pub invite: Option<TruckerKey>,
    /// Of this account.
    pub account: Option<AccountName>,
    /// That died of this: a class, a code, or `class/code`.
    pub cause: Option<String>,
}

/// Dead invites back to work, one bounded portion of them.
#[derive(Clone, Debug)]
pub struct Redrive {
    /// The same for every portion of one order, new for every order.
    pub id: Uuid,
    /// Who wants it.
    pub by: Operator,
    /// Which ones; the longest dead first.
    pub which: Selection,
    /// Between one invite and the next, so that new events find a way between.
    pub spacing: Duration,
    /// The due time of the last invite of the portion before.
    pub after: Option<Timestamp>,
    /// At most this many.
    pub limit: usize,
}

/// What a portion of [`Redrive`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Redriven {
    /// Invites that work again.
    pub count: usize,
    /// When the last of them is due.
    pub last_due: Option<Timestamp>,
}

/// What became of an order for a new code.
#[derive(Clone, Debug, PartialEq)]
pub enum Reissued {
    /// The next generation begins.
    Begun(Box<Invite>),
    /// Only a published code can be replaced, and the invite is not published.
    NotPublished(StateName),
    /// There is no such invite.
    Unknown,
}

/// Dead invites that died of the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadCause {
    /// Whose they are.
    pub account: AccountName,
    /// Class and code of the failure.
    pub failure: Failure,
    /// How many.
    pub count: u64,
    /// When the first of them died.
    pub first: Timestamp,
    /// When the last of them died.
    pub last: Timestamp,
}

/// The cause of a death as one word, `class/code`: equal for invites that died of the same.
pub fn cause_of(failure: &Failure) -> String {
    format!("{}/{}", failure.class, failure.code)
}

/// Whether `cause`, as a person wrote it, means `failure`.
pub fn is_cause(cause: &str, failure: &Failure) -> bool {
    cause == failure.code
        || FailureClass::from_stored(cause) == Some(failure.class)
        || cause == cause_of(failure)
}

/// A kind of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderKind {
    /// See [`Redrive`].
    Redrive,
    /// See [`Reissued`].
    Reissue,
}

impl OrderKind {
    /// Both kinds.
    pub const ALL: [Self; 2] = [Self::Redrive, Self::Reissue];

    /// The word in the store and in the output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Reissue => "reissue",
        }
    }

    /// The kind that [`OrderKind::as_str`] wrote.
    pub fn from_stored(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// An order that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRecord {
    /// Its id.
    pub id: Uuid,
    /// When it was given.
    pub at: Timestamp,
    /// Who gave it.
    pub by: Operator,
    /// What was asked.
    pub kind: OrderKind,
    /// Of which invites, in words: `default/23498`, `all`, `account=acme cause=rejected`.
    pub target: String,
    /// Invites that it moved.
    pub count: u64,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        words.extend(self.invite.as_ref().map(ToString::to_string));
        words.extend(self.account.as_ref().map(|account| format!("account={account}")));
        words.extend(self.cause.as_ref().map(|cause| format!("cause={cause}")));
        if words.is_empty() {
            words.push("all".to_owned());
        }
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_is_a_name_and_never_shows_in_debug_output() {
        let operator: Operator = " Ada L. ".parse().unwrap();
        assert_eq!(operator.as_str(), "Ada L.");
        assert!(!format!("{operator:?}").contains("Ada"));
        for none in ["", "  ", "a\nb", &"x".repeat(81)] {
            assert!(none.parse::<Operator>().is_err(), "{none:?} was taken");
        }
    }

    #[test]
    fn a_cause_is_meant_by_its_class_its_code_or_both() {
        let failure = Failure::new(FailureClass::Rejected, "http_400.phone_number");
        for cause in ["rejected", "http_400.phone_number", "rejected/http_400.phone_number"] {
            assert!(is_cause(cause, &failure), "{cause}");
        }
        for other in ["transient", "http_400", "", "rejected/http_400"] {
            assert!(!is_cause(other, &failure), "{other}");
        }
    }

    #[test]
    fn a_selection_reads_as_what_was_asked_for() {
        let account = Some("acme".parse().unwrap());
        let cause = Some("rejected".to_owned());
        assert_eq!(Selection { account, cause, invite: None }.to_string(), "account=acme cause=rejected");
        assert_eq!(Selection::default().to_string(), "all");
    }
}
