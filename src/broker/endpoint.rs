//! Where the broker is, and the credentials to enter, which never leave this type in readable form.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use lapin::uri::AMQPUri;
use secrecy::{ExposeSecret, SecretString};

use super::Error;

/// Heartbeat asked for when the URL has no `heartbeat` parameter, in seconds. The client gives a silent
/// connection up after two of them, the broker likewise; its own default of 60 would leave us deaf for two minutes.
const HEARTBEAT_S: u16 = 20;

/// Largest frame when the URL has no `frame_max` parameter, in bytes. The client reserves 32 frames each way
/// per connection; at the broker's default of 128 KiB that is 8 MiB for messages of a few hundred bytes.
const FRAME_MAX: u32 = 16 * 1024;

/// A broker's address, virtual host and credentials. `Display` and `Debug` show `host:port/vhost` only.
#[derive(Clone)]
pub struct Endpoint {
    uri: Arc<AMQPUri>,
    ca_file: Option<Arc<Path>>,
}

impl Endpoint {
    /// Reads an `amqp://` or `amqps://` URL.
    ///
    /// Without a path, and with the path `/` alone, the virtual host is `/`; the client library would read the
    /// latter as a virtual host without a name. Errors name the problem and never quote the URL.
    pub fn parse(url: &SecretString) -> Result<Self, Error> {
        let url = url.expose_secret().trim();
        let parts = url::Url::parse(url).map_err(|_| Error::Url("it is not a URL"))?;
        if !matches!(parts.scheme(), "amqp" | "amqps") {
            return Err(Error::Url("it does not begin with amqp:// or amqps://"));
        }
        let host = parts.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or(Error::Url("it names no host"))?;
        let mut uri: AMQPUri = url
            .parse()
            .map_err(|_| Error::Url("its user, password, virtual host or parameters are malformed"))?;
        // The library takes "localhost" for an IPv6 literal.
        host.trim_start_matches('[').trim_end_matches(']').clone_into(&mut uri.authority.host);
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        uri.query.frame_max.get_or_insert(FRAME_MAX);
        Ok(Self { uri: Arc::new(uri), ca_file: None })
    }

    /// The same, with a file of further certificate authorities (PEM) to trust if it is `amqps`; read for each
    /// connection.
    #[must_use]
    pub fn with_ca_file(self, ca_file: Option<PathBuf>) -> Self {
        Self { ca_file: ca_file.map(Arc::from), ..self }
    }

    /// Host name or address of the broker.
    pub fn host(&self) -> &str {
        &self.uri.authority.host
    }

    /// TCP port of the broker.
    pub fn port(&self) -> u16 {
        self.uri.authority.port
    }

    /// Authorities to trust besides the system's.
    pub(super) fn ca_file(&self) -> Option<&Path> {
        self.ca_file.as_deref()
    }

    /// Everything the client library needs, password included.
    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.as_ref().clone()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let vhost = self.uri.vhost.strip_prefix('/').unwrap_or(&self.uri.vhost);
        if self.host().contains(':') {
            write!(f, "[{}]:{}/{vhost}", self.host(), self.port())
        } else {
            write!(f, "{}:{}/{vhost}", self.host(), self.port())
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

/// Where the broker is, asked anew for each connection: a mounted secret may have changed since the last one.
#[derive(Clone)]
pub struct Address(Arc<dyn Fn() -> Endpoint + Send + Sync>);

impl Address {
    /// An address that `current` tells; called once for each attempt to connect.
    pub fn new(current: impl Fn() -> Endpoint + Send + Sync + 'static) -> Self {
        Self(Arc::new(current))
    }

    /// The address that is valid now.
    pub fn current(&self) -> Endpoint {
        (self.0)()
    }
}

/// An address that stays.
impl From<Endpoint> for Address {
    fn from(endpoint: Endpoint) -> Self {
        Self::new(move || endpoint.clone())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.current(), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, Error> {
        Endpoint::parse(&SecretString::from(url))
    }

    #[test]
    fn an_endpoint_shows_host_port_and_vhost_and_nothing_else() {
        for (url, shown) in [
            ("amqp://user:canary@mq.example", "mq.example:5672/"),
            ("amqp://user:canary@mq.example/", "mq.example:5672/"),
            ("amqp://user:canary@mq.example/%2f", "mq.example:5672/"),
            ("amqps://user:canary@mq.example/trucks", "mq.example:5671/trucks"),
            ("amqp://user:canary@10.1.2.3:5673/trucks?heartbeat=5", "10.1.2.3:5673/trucks"),
            ("amqp://user:canary@[::1]:5673", "[::1]:5673/"),
        ] {
            let endpoint = parse(url).unwrap();
            assert_eq!(endpoint.to_string(), shown, "{url}");
            assert_eq!(format!("{endpoint:?}"), format!("Endpoint({shown})"), "{url}");
        }
    }

    #[test]
    fn an_unusable_url_is_refused_without_being_quoted() {
        for url in [
            "",
            "canary",
            "http://user:canary@mq",
            "amqp://",
            "amqp:canary",
            "amqp://user:canary@mq:99999",
            "amqp://user:canary@mq?heartbeat=canary",
            "amqp://user:canary%ff@mq",
        ] {
            let error = parse(url).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"), "{url} gave {error}");
        }
    }
}
