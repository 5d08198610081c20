//! The path of a file that holds a secret. People write the secret itself there by mistake.

use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};

use super::secret::MASK;

/// A path that shows as a mask where it does not look like one: a token written into `token_file` is still a token.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretPath(PathBuf);

impl SecretPath {
    /// Takes `path` as that of a file; whether there is one, reading it tells.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    fn shown(&self) -> &str {
        self.0.to_str().filter(|text| is_path(text)).unwrap_or(MASK)
    }
}

/// Whether a text is the path of a file rather than a secret that was written in its place: base64 has slashes too.
pub(super) fn is_path(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | ' ');
    text.contains('/') && text.chars().all(plain) && !text.contains("whsec_")
}

impl Deref for SecretPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl fmt::Debug for SecretPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.shown(), f)
    }
}

impl Serialize for SecretPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl JsonSchema for SecretPath {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretPath".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        PathBuf::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_in_the_place_of_its_file_shows_as_a_mask_and_a_path_as_itself() {
        for (text, shown) in [
            ("/run/secrets/dashdoc/token", "/run/secrets/dashdoc/token"),
            ("secrets/my token.txt", "secrets/my token.txt"),
            ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw/abc", MASK),
            ("3f9a0c1d7e", MASK),
            ("ab/cd+ef==", MASK),
            ("amqp://relay:secret@broker/orders", MASK),
        ] {
            let path = SecretPath::new(text);
            assert_eq!(format!("{path:?}"), format!("{shown:?}"));
            assert_eq!(serde_json::to_value(&path).unwrap(), shown);
        }
    }
}
