//! What is wrong with a configuration: all of it, each with its key, where it came from and the mend.

use std::fmt;

use super::origin::Origin;

/// One problem. Its texts never hold the value of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path of the key, or what else is wrong: a flag, a place in a file.
    pub key: String,
    /// The value as TOML, where it may be shown.
    pub value: Option<String>,
    /// Where the value came from; `None` where there is no value.
    pub origin: Option<Origin>,
    /// What is wrong, as a fragment: `not a duration`.
    pub message: String,
    /// What to do about it.
    pub mend: String,
}

impl fmt::Display for Problem {
    /// Two lines: what, then why and the mend, indented.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, origin, message, mend } = self;
        f.write_str(key)?;
        if let Some(value) = value {
            write!(f, " = {value}")?;
        }
        match origin {
            Some(origin) => write!(f, " ({origin})\n      {message}; {mend}"),
            None => write!(f, " {message}\n      {mend}"),
        }
    }
}

/// Everything that is wrong with a configuration, sorted by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0 => return Ok(()),
            1 => f.write_str("1 problem in the configuration")?,
            n => write!(f, "{n} problems in the configuration")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}
