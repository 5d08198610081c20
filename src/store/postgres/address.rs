//! The address of a database: a URL as libpq reads it, with a rule of our own for TLS.
//!
//! libpq's default is to try TLS and to go on without. Here TLS is on and verified unless the server is on this
//! machine, and `sslmode=disable` is the only way out.

use std::path::PathBuf;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs};

use super::limits;

/// Where a database is and how it is reached. `Debug` and `Display` show no secret.
#[derive(Clone)]
pub struct Address {
    pub(super) config: Config,
    tls: Tls,
    /// A file with further certificate authorities to trust (`sslrootcert`, `store.ca_file`).
    pub(super) ca_file: Option<PathBuf>,
}

/// Whether connections are encrypted; where they are, the certificate is verified, with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Encrypted and verified.
    Verified,
    /// In plain text, within this machine.
    Local,
    /// In plain text over the network, because `sslmode=disable` says so.
    Disabled,
}

/// Why a text is no address. Says nothing of its content, which may be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not a URL that libpq would take.
    #[error("not the URL of a Postgres database")]
    Shape,
    /// No host.
    #[error("the URL names no host")]
    Host,
    /// No database.
    #[error("the URL names no database")]
    Database,
    /// `prefer` and `allow` encrypt or don't, as whoever is in between likes.
    #[error("sslmode must be verify-full or disable")]
    SslMode,
}

impl Address {
    /// Reads `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=…&sslrootcert=…`.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut ca_file, mut rest) = (None, None, Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("sslmode", value)) => mode = Some(value),
                Some(("sslrootcert", value)) => {
                    let path = percent_encoding::percent_decode_str(value).decode_utf8();
                    ca_file = Some(PathBuf::from(path.map_err(|_| AddressError::Shape)?.as_ref()));
                }
                _ => rest.push(pair),
            }
        }
        let known = if rest.is_empty() { place.to_owned() } else { format!("{place}?{}", rest.join("&")) };
        let mut config: Config = known.parse().map_err(|_| AddressError::Shape)?;
        if config.get_hosts().is_empty() {
            return Err(AddressError::Host);
        }
        if config.get_dbname().is_none_or(str::is_empty) {
            return Err(AddressError::Database);
        }
        let local = config.get_hosts().iter().all(is_local);
        let tls = match mode {
            Some("disable") | None if local => Tls::Local,
            Some("disable") => Tls::Disabled,
            Some("require" | "verify-ca" | "verify-full") | None => Tls::Verified,
            Some(_) => return Err(AddressError::SslMode),
        };
        config
            .ssl_mode(if tls == Tls::Verified { SslMode::Require } else { SslMode::Disable })
            // Of several hosts, the one that takes writes.
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            // Each try begins with another one: a host that hangs uses up the time of the whole try.
            .load_balance_hosts(LoadBalanceHosts::Random)
            .connect_timeout(limits::CONNECT)
            .keepalives_idle(limits::KEEPALIVE)
            .keepalives_interval(limits::KEEPALIVE)
            .keepalives_retries(3)
            .tcp_user_timeout(limits::ROUND);
        if config.get_application_name().is_none() {
            config.application_name("invite-relay");
        }
        Ok(Self { config, tls, ca_file })
    }

    /// This address with a password that is kept apart from it.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.config.password(password);
        self
    }

    /// This address with further certificate authorities to trust, unless it names its own.
    #[must_use]
    pub fn with_ca_file(mut self, file: Option<PathBuf>) -> Self {
        self.ca_file = self.ca_file.or(file);
        self
    }

    /// Whether connections are encrypted.
    pub const fn tls(&self) -> Tls {
        self.tls
    }
}

/// A socket file, or an address of the loopback interface. A name other than `localhost` may be anywhere.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        }
        Host::Unix(_) => true,
    }
}

/// `host:port/database`: never the user or the password.
impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, host) in self.config.get_hosts().iter().enumerate() {
            let ports = self.config.get_ports();
            let port = ports.get(number).or(ports.first()).copied().unwrap_or(5432);
            let comma = if number == 0 { "" } else { "," };
            match host {
                Host::Tcp(name) => write!(f, "{comma}{name}:{port}")?,
                Host::Unix(path) => write!(f, "{comma}{}:{port}", path.display())?,
            }
        }
        write!(f, "/{}", self.config.get_dbname().unwrap_or_default())
    }
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_the_machine_is_encrypted_and_verified_unless_the_url_says_otherwise() {
        for (url, tls) in [
            ("postgres://u:p@db.example/relay", Tls::Verified),
            ("postgresql://u:p@10.0.0.1:5433/relay", Tls::Verified),
            ("postgres://u:p@db.example/relay?sslmode=verify-full", Tls::Verified),
            ("postgres://u:p@db.example/relay?sslmode=require&connect_timeout=3", Tls::Verified),
            ("postgres://u:p@127.0.0.1,db.example/relay", Tls::Verified),
            ("postgres://u:p@db.example/relay?sslmode=disable", Tls::Disabled),
            ("postgres://u:p@localhost/relay", Tls::Local),
            ("postgres://u:p@[::1]/relay", Tls::Local),
            ("postgres://u@%2Frun%2Fpostgresql/relay", Tls::Local),
            ("postgres://u:p@127.0.0.1/relay?sslmode=verify-full", Tls::Verified),
        ] {
            assert_eq!(Address::parse(url).unwrap().tls(), tls, "{url}");
        }
        for (url, error) in [
            ("postgres://u:p@db.example/relay?sslmode=prefer", AddressError::SslMode),
            ("postgres://u:p@db.example/relay?sslmode=allow", AddressError::SslMode),
            ("postgres://u:p@db.example/relay?canary=1", AddressError::Shape),
            ("postgres://u:p@db.example", AddressError::Database),
            ("postgres:///relay", AddressError::Host),
            ("postgres://u:p@db.example:port/relay", AddressError::Shape),
        ] {
            assert_eq!(Address::parse(url).err(), Some(error), "{url}");
        }
    }

    #[test]
    fn an_address_shows_where_it_leads_and_never_who_goes_there() {
        let address =
            Address::parse("postgres://canary:canary@db.example:5433/relay?sslrootcert=/ca%20x.pem");
        let address = address.unwrap().with_password("canary");
        assert_eq!(format!("{address} {address:?}"), "db.example:5433/relay db.example:5433/relay");
        assert_eq!(address.ca_file, Some("/ca x.pem".into()));
    }
}
