//! Which keys exist, what each wants and which are secret: read off the JSON Schema, so that there is one list.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use toml::Value;

use super::schema;

/// A place in the configuration.
#[derive(Debug)]
pub(super) enum Shape {
    /// A section with fixed keys.
    Section(BTreeMap<String, Shape>),
    /// Sections under names of the operator's choice.
    Named(Box<Shape>),
    /// A key.
    Key(Key),
}

/// A key that takes a value.
#[derive(Debug)]
pub(super) struct Key {
    /// What the value must be.
    pub(super) kind: Kind,
    /// Who may see it.
    pub(super) secrecy: Secrecy,
}

/// Who may see a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Secrecy {
    /// Everyone.
    Open,
    /// A URL, which is secret if it carries a password.
    Url,
    /// Nobody.
    Secret,
}

/// What a value must be.
#[derive(Debug)]
pub(super) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Integer { min: f64, max: f64 },
    /// A number within bounds.
    Number { min: f64, max: f64 },
    /// A text such as `30s`.
    Duration,
    /// A number of bytes or a text such as `64KiB`.
    Size,
    /// IP address and port.
    Listen,
    /// One of these words.
    Choice(Vec<String>),
    /// Any text.
    Text,
    /// A list of texts.
    Texts,
}

impl Shape {
    /// The shape of the whole configuration.
    pub(super) fn of_config() -> Self {
        Self::of(&schema::without_defaults())
    }

    fn of(schema: &Json) -> Self {
        if let Some(properties) = schema["properties"].as_object() {
            return Self::Section(
                properties.iter().map(|(name, inner)| (name.clone(), Self::of(inner))).collect(),
            );
        }
        if schema["additionalProperties"].is_object() {
            return Self::Named(Box::new(Self::of(&schema["additionalProperties"])));
        }
        let secret = schema["writeOnly"] == true || schema["items"]["writeOnly"] == true;
        let secrecy = match (secret, schema["format"].as_str()) {
            (false, _) => Secrecy::Open,
            (true, Some("uri")) => Secrecy::Url,
            (true, _) => Secrecy::Secret,
        };
        Self::Key(Key { kind: Kind::of(schema), secrecy })
    }

    /// What `name` leads to from here.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Section(children) => children.get(name),
            Self::Named(each) => Some(each),
            Self::Key(_) => None,
        }
    }

    /// The key at `path`, if there is one.
    pub(super) fn key_at(&self, path: &[String]) -> Option<&Key> {
        let place = path.iter().try_fold(self, |place, name| place.child(name))?;
        if let Self::Key(key) = place { Some(key) } else { None }
    }

    /// Calls `visit` with the dotted path of every key; named sections are called `NAME`.
    pub(super) fn each_key(&self, visit: &mut impl FnMut(&str, &Key)) {
        self.walk("", visit);
    }

    fn walk(&self, path: &str, visit: &mut impl FnMut(&str, &Key)) {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match self {
            Self::Section(children) => {
                for (name, child) in children {
                    child.walk(&below(name), visit);
                }
            }
            Self::Named(each) => each.walk(&below("NAME"), visit),
            Self::Key(key) => visit(path, key),
        }
    }
}

impl Kind {
    fn of(schema: &Json) -> Self {
        let bound = |name: &str, otherwise| schema[name].as_f64().unwrap_or(otherwise);
        let (min, max) = (bound("minimum", f64::MIN), bound("maximum", f64::MAX));
        match (schema["type"].as_str(), schema["format"].as_str()) {
            (Some("boolean"), _) => Self::Bool,
            (Some("integer"), _) => Self::Integer { min, max },
            (Some("number"), _) => Self::Number { min, max },
            (Some("array"), _) => Self::Texts,
            (_, Some("human-duration")) => Self::Duration,
            (_, Some("byte-size")) => Self::Size,
            (_, Some("socket-address")) => Self::Listen,
            _ => choices(schema).map_or(Self::Text, Self::Choice),
        }
    }

    /// Whether a text is taken literally, even where it could be read as a number.
    pub(super) fn wants_text(&self) -> bool {
        matches!(self, Self::Text | Self::Choice(_) | Self::Duration | Self::Listen)
    }

    /// Whether a number is within bounds; anything else is not this rule's business.
    pub(super) fn has_in_range(&self, value: &Value) -> bool {
        let (Self::Integer { min, max } | Self::Number { min, max }) = self else { return true };
        #[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53")]
        let number = value.as_float().or_else(|| value.as_integer().map(|n| n as f64));
        number.is_none_or(|number| (*min..=*max).contains(&number))
    }

    /// What is wrong with a value that is not of this kind, and how one of this kind is written.
    pub(super) fn complaint(&self) -> (String, String) {
        let bounds = |min: f64, max: f64| match (min > f64::MIN, max < f64::MAX) {
            (true, true) => format!("write a number from {min} to {max}"),
            (true, false) => format!("write a number from {min}"),
            _ => "write a number".to_owned(),
        };
        let (message, mend) = match self {
            Self::Bool => ("not a yes or no", "write true or false".to_owned()),
            Self::Integer { min, max } => ("not a whole number in range", bounds(*min, *max)),
            Self::Number { min, max } => ("not a number in range", bounds(*min, *max)),
            Self::Duration => ("not a duration", "write for example 250ms, 30s, 5m or 72h".to_owned()),
            Self::Size => ("not a size", "write for example 65536, 64KiB or 1MiB".to_owned()),
            Self::Listen => {
                ("not an IP address and port", "write for example 127.0.0.1:8080 or 0.0.0.0:8080".to_owned())
            }
            Self::Choice(words) => {
                ("not a known choice", format!("write one of \"{}\"", words.join("\", \"")))
            }
            Self::Text => ("not a text", "write a text in quotes".to_owned()),
            Self::Texts => ("not a list of texts", "write for example [\"a\", \"b\"]".to_owned()),
        };
        (message.to_owned(), mend)
    }
}

/// The words of an enum, which schemars writes as `enum`, or as `oneOf` of `const` where each word is documented.
fn choices(schema: &Json) -> Option<Vec<String>> {
    let words = |list: &Json, of: fn(&Json) -> &Json| -> Option<Vec<String>> {
        list.as_array()?.iter().map(|word| of(word).as_str().map(str::to_owned)).collect()
    };
    words(&schema["enum"], |word| word).or_else(|| words(&schema["oneOf"], |choice| &choice["const"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_that_hold_a_secret_are_known_to_be_secret() {
        let mut secret = Vec::new();
        Shape::of_config().each_key(&mut |path, key| {
            if key.secrecy != Secrecy::Open {
                secret.push(path.to_owned());
            }
        });
        assert_eq!(
            secret,
            [
                "admin.token",
                "dashdoc.accounts.NAME.token",
                "dashdoc.token",
                "sink.rabbitmq.url",
                "sink.webhook.secret",
                "sink.webhook.url",
                "source.rabbitmq.url",
                "source.webhook.secrets",
                "source.webhook.tokens",
                "store.url",
            ]
        );
    }

    #[test]
    fn every_kind_of_key_is_recognised() {
        let shape = Shape::of_config();
        let key = |path: &str| {
            let path: Vec<_> = path.split('.').map(str::to_owned).collect();
            &shape.key_at(&path).unwrap().kind
        };
        assert!(matches!(key("source.rabbitmq.enabled"), Kind::Bool));
        assert!(matches!(key("source.rabbitmq.prefetch"), Kind::Integer { min: 1.0, max: 10_000.0 }));
        assert!(matches!(key("dashdoc.accounts.acme.rate_per_second"), Kind::Number { max: 100_000.0, .. }));
        assert!(matches!(key("dashdoc.accounts.acme.timeout"), Kind::Duration));
        assert!(matches!(key("dashdoc.timeout"), Kind::Duration));
        assert!(matches!(key("source.webhook.max_body"), Kind::Size));
        assert!(matches!(key("admin.listen"), Kind::Listen));
        assert!(matches!(key("invite.policy"), Kind::Choice(words) if words.len() == 2));
        assert!(matches!(key("dashdoc.token_file"), Kind::Text));
        assert!(matches!(key("source.webhook.tokens"), Kind::Texts));
    }
}
