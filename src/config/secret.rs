//! Secrets as values: whatever prints one prints a mask.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use url::Url;

/// What is shown instead of a secret; its length says nothing about the secret's.
pub(super) const MASK: &str = "********";

/// A text nobody may see. `Debug`, `Display` and `Serialize` write a mask; [`Secret::reveal`] is the only way to
/// the text. The memory is wiped on drop.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes `text` as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The secret in clear. Call it only where the secret is used.
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }
}

/// Tells whether a file's content changed. Not constant time: never compare what a caller presented with it.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.reveal() == other.reveal()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

/// Where a login begins with the name of a user, which is no secret.
const WITH_A_USER: [&str; 4] = ["amqp", "amqps", "postgres", "postgresql"];

/// A URL that may carry a password. It shows as `amqp://user:********@host:5672/vhost`.
#[derive(Clone, PartialEq)]
pub struct SecretUrl(Secret);

impl SecretUrl {
    /// Takes `text` as a URL; whether it is one, [`SecretUrl::parse`] tells.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Secret::new(text))
    }

    /// The URL with its password. Call it only where the connection is made.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }

    /// The URL as a plain secret.
    pub fn as_secret(&self) -> &Secret {
        &self.0
    }

    /// The parsed URL, password included.
    pub fn parse(&self) -> Result<Url, url::ParseError> {
        Url::parse(self.reveal())
    }

    /// Where the connection goes, for logs: `host:5672/vhost` for AMQP, `host:443` for HTTP. Never user,
    /// password, query, or the path of an HTTP address, which may be a secret of its own.
    pub fn endpoint(&self) -> String {
        let Ok(url) = self.parse() else {
            return "(not a URL)".to_owned();
        };
        let host = url.host_str().unwrap_or_default();
        let port = |standard| url.port_or_known_default().unwrap_or(standard);
        match url.scheme() {
            // RabbitMQ's standard ports; an absent path is the vhost "/", written percent-encoded.
            scheme @ ("amqp" | "amqps") => {
                let vhost = if url.path().len() > 1 { url.path() } else { "/%2f" };
                format!("{host}:{}{vhost}", port(if scheme == "amqps" { 5671 } else { 5672 }))
            }
            "http" | "https" => format!("{host}:{}", port(443)),
            _ => self.to_string(),
        }
    }

    /// Whether the URL holds something that must not be seen in a process list.
    pub(super) fn carries_credentials(text: &str) -> bool {
        text.contains('@') || text.contains('?')
    }
}

impl From<Secret> for SecretUrl {
    fn from(secret: Secret) -> Self {
        Self(secret)
    }
}

impl fmt::Display for SecretUrl {
    /// Works on the text, not on a parsed URL: a URL with a mistake in it must not show its password either.
    /// Everything up to the *last* `@` counts as user and password, as an unescaped password may hold any character.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.reveal().split_once("://") else {
            return f.write_str(MASK);
        };
        write!(f, "{scheme}://")?;
        let rest = match rest.rsplit_once('@') {
            Some((login, rest)) => {
                match login.split_once(':') {
                    // Elsewhere, as in web addresses, the token often is the user, and the password any word.
                    Some((user, _)) if WITH_A_USER.contains(&scheme) => write!(f, "{user}:{MASK}@")?,
                    _ => write!(f, "{MASK}@")?,
                }
                rest
            }
            None => rest,
        };
        match rest.split_once('?') {
            Some((place, _)) => write!(f, "{place}?{MASK}"),
            None => f.write_str(rest),
        }
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SecretUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Secret::deserialize(deserializer).map(Self)
    }
}

impl JsonSchema for SecretUrl {
    fn schema_name() -> Cow<'static, str> {
        "SecretUrl".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "uri", "writeOnly": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_as_a_mask_wherever_it_is_printed() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret} {secret:?} {}", serde_json::to_string(&secret).unwrap()), {
            "******** ******** \"********\""
        });
    }

    #[test]
    fn a_url_shows_its_host_and_never_its_password() {
        for (text, shown) in [
            ("amqp://user:canary@host:5672/vhost", "amqp://user:********@host:5672/vhost"),
            ("amqp://user:can@ry/#?x@host/vhost", "amqp://user:********@host/vhost"),
            ("amqp://canary@host", "amqp://********@host"),
            ("https://host/hook?key=canary", "https://host/hook?********"),
            ("https://canary:x-oauth-basic@host/hook", "https://********@host/hook"),
            ("['https://canary:canary@host/hook']", "['https://********@host/hook']"),
            ("sqlite://data/invite-relay.db", "sqlite://data/invite-relay.db"),
            ("canary", "********"),
        ] {
            assert_eq!(SecretUrl::new(text).to_string(), shown);
            assert_eq!(format!("{:?}", SecretUrl::new(text)), shown);
        }
    }

    #[test]
    fn the_endpoint_of_a_url_names_host_port_and_vhost_only() {
        for (text, endpoint) in [
            ("amqp://user:canary@host:5673/orders", "host:5673/orders"),
            ("amqp://user:canary@host/%2f", "host:5672/%2f"),
            ("amqps://host", "host:5671/%2f"),
            ("https://host/canary?canary", "host:443"),
            ("http://user:canary@host:81/", "host:81"),
            ("amqp://user:canary", "(not a URL)"),
        ] {
            assert_eq!(SecretUrl::new(text).endpoint(), endpoint);
        }
    }
}
