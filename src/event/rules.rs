//! What the configuration says about incoming events (section `event`).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::invite::AccountName;

/// Where to find what in an incoming event.
///
/// Pointers apply to the whole CloudEvent in JSON form, whatever way it came, so that `/data/trucker/pk` and
/// `/subject` work for structured and binary events alike; a plain JSON message is looked at as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The event types that are taken. An empty list takes no CloudEvent at all.
    pub types: Vec<String>,
    /// Where the trucker's primary key may be; the first that finds anything but `null` decides.
    pub trucker_pk: Vec<Pointer>,
    /// Where the account's name is; finding nothing there means the default account.
    pub account: Option<Pointer>,
    /// The account that every event of this way in belongs to; one that names another account is refused.
    pub owner: Option<AccountName>,
    /// Fields to carry along, taken from the object that holds the primary key.
    pub include: Vec<IncludedField>,
}

impl Default for Rules {
    /// The rules of the embedded default configuration.
    fn default() -> Self {
        let pointer = |text: &str| Pointer(text.to_owned());
        Self {
            types: vec!["trucker.created".to_owned()],
            trucker_pk: ["/data/trucker/pk", "/data/pk", "/trucker/pk", "/pk"].map(pointer).to_vec(),
            account: None,
            owner: None,
            include: vec![IncludedField("remote_id".to_owned())],
        }
    }
}

/// A JSON pointer (RFC 6901), such as `/data/trucker/pk`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Pointer(String);

impl Pointer {
    /// Takes `text` if it is a JSON pointer: empty, or `/` before each step, with `~` only in `~0` and `~1`.
    pub fn try_new(text: &str) -> Result<Self, RulesError> {
        let rooted = text.is_empty() || text.starts_with('/');
        let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        if rooted && escaped { Ok(Self(text.to_owned())) } else { Err(RulesError::Pointer) }
    }

    /// The pointer as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the pointer finds; `null` counts as nothing.
    pub(super) fn find<'d>(&self, document: &'d Value) -> Option<&'d Value> {
        document.pointer(&self.0).filter(|value| !value.is_null())
    }

    /// The object around the place that is pointed to; nothing around the whole document.
    pub(super) fn find_holder<'d>(&self, document: &'d Value) -> Option<&'d serde_json::Map<String, Value>> {
        let (holder, _) = self.0.rsplit_once('/')?;
        document.pointer(holder)?.as_object()
    }
}

/// The name of a trucker's field that outgoing events carry along.
///
/// Not `pk`, which they carry anyway, and not `invite_code`: a trucker's old code would outlive its erasure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct IncludedField(String);

impl IncludedField {
    /// Takes `name` if it may be carried along.
    pub fn try_new(name: &str) -> Result<Self, RulesError> {
        match name {
            "" => Err(RulesError::EmptyField),
            "pk" => Err(RulesError::PkField),
            "invite_code" => Err(RulesError::CodeField),
            _ => Ok(Self(name.to_owned())),
        }
    }

    /// The field's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a rule can't be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Not a JSON pointer.
    #[error(
        "a JSON pointer starts with / and writes ~ as ~0 and / inside a name as ~1, for example /data/trucker/pk"
    )]
    Pointer,
    /// A field without a name.
    #[error("a field to include needs a name")]
    EmptyField,
    /// The key is always included.
    #[error("pk is always part of the outgoing event; leave it out of the list")]
    PkField,
    /// A code would be kept beyond its time.
    #[error("invite_code can't be copied from incoming events; the outgoing event carries the new code")]
    CodeField,
}

/// Text forms, the same for both types.
macro_rules! text_form {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = RulesError;

            fn from_str(text: &str) -> Result<Self, RulesError> {
                Self::try_new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = RulesError;

            fn try_from(text: String) -> Result<Self, RulesError> {
                Self::try_new(&text)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_form!(Pointer);
text_form!(IncludedField);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_is_checked_when_it_is_made() {
        for good in ["", "/", "/pk", "/data/trucker/pk", "/a~1b/~0", "/0/pk"] {
            assert!(Pointer::try_new(good).is_ok(), "{good} was refused");
        }
        for bad in ["pk", "data/pk", "$.pk", "#/pk", "/a~", "/a~2", "/~~0"] {
            assert_eq!(Pointer::try_new(bad), Err(RulesError::Pointer), "{bad} was taken");
        }
    }

    #[test]
    fn the_default_rules_hold_only_what_the_constructors_would_take() {
        let rules = Rules::default();
        for pointer in &rules.trucker_pk {
            assert_eq!(Pointer::try_new(pointer.as_str()).as_ref(), Ok(pointer));
        }
        for field in &rules.include {
            assert_eq!(IncludedField::try_new(field.as_str()).as_ref(), Ok(field));
        }
    }

    #[test]
    fn an_old_code_can_not_be_carried_along() {
        assert_eq!("invite_code".parse::<IncludedField>(), Err(RulesError::CodeField));
        assert_eq!("pk".parse::<IncludedField>(), Err(RulesError::PkField));
        assert_eq!("".parse::<IncludedField>(), Err(RulesError::EmptyField));
    }

    #[test]
    fn the_configuration_reads_and_writes_rules_as_plain_text() {
        let pointer: Pointer = serde_json::from_str("\"/pk\"").unwrap();
        assert_eq!(serde_json::to_string(&pointer).unwrap(), "\"/pk\"");
        assert!(serde_json::from_str::<Pointer>("\"pk\"").unwrap_err().to_string().contains("JSON pointer"));
    }
}
