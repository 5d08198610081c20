//! The webhook, from the sender's side: a signed POST, and the answer in words.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use url::Url;

use super::NotSent;
use super::event::Event;
use crate::config::{SecretUrl, WebhookSource};
use crate::signature::{self, Secret};
use crate::time;

/// How long the service may take to answer. It commits and answers within milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Most characters of a refusal that are shown.
const REFUSAL_MAX: usize = 400;

/// A webhook to post events to. Shows as its host and port.
pub(in crate::cli) struct Webhook {
    url: Url,
    credential: Credential,
    http: reqwest::Client,
}

/// How a request says who sends it.
pub(in crate::cli) enum Credential {
    /// Standard Webhooks signatures.
    Signature(Secret),
    /// A fixed header.
    Token(HeaderName, HeaderValue),
    /// Nothing.
    Nothing,
}

impl Webhook {
    /// A webhook at `url`.
    pub(in crate::cli) fn new(url: Url, credential: Credential) -> Result<Self, NotSent> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(TIMEOUT)
            .user_agent(concat!("invite-relay-send/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| NotSent(format!("no HTTP client can be made: {error}")))?;
        Ok(Self { url, credential, http })
    }

    /// The webhook of the configuration, or the one at `url` with the configured credential.
    pub(super) fn configured(source: &WebhookSource, url: Option<&SecretUrl>) -> Result<Self, NotSent> {
        let url = match url {
            Some(url) => {
                url.parse().ok().filter(|url| matches!(url.scheme(), "http" | "https")).ok_or_else(|| {
                    NotSent("--url: not an address; write for example https://relay.example/path".to_owned())
                })?
            }
            None => own_address(source)?,
        };
        Self::new(url, credential(source)?)
    }

    /// Posts one event. The text is the status that the service gave: `accepted` or `duplicate`.
    #[expect(clippy::disallowed_methods, reason = "plays the platform, which is outside of the service")]
    pub(in crate::cli) async fn post(&self, event: &Event) -> Result<String, NotSent> {
        let mut request = self.http.post(self.url.clone()).header(CONTENT_TYPE, event.content_type);
        match &self.credential {
            Credential::Signature(secret) => {
                let seconds = time::now().as_millis() / 1000;
                request = request
                    .header(signature::ID_HEADER, &event.id)
                    .header(signature::TIMESTAMP_HEADER, seconds.to_string())
                    .header(
                        signature::SIGNATURE_HEADER,
                        signature::sign(secret, &event.id, seconds, &event.body),
                    );
            }
            Credential::Token(name, value) => request = request.header(name, value.clone()),
            Credential::Nothing => {}
        }
        let answered = request.body(event.body.clone()).send().await;
        let answer = answered.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        let text = answer.bytes().await.unwrap_or_default();
        if status.is_success() {
            let taken = serde_json::from_slice::<Taken>(&text).ok();
            return Ok(taken.map_or_else(|| format!("answered {status}"), |taken| clean(&taken.status)));
        }
        Err(self.refusal(status, &text))
    }

    fn unreachable(&self, error: &reqwest::Error) -> NotSent {
        // The client's own text repeats the address, which may hold a secret.
        let why = match (error.is_connect(), error.is_timeout(), error.is_builder()) {
            (_, _, true) => {
                return NotSent("the event's id can't travel in a header; use plain text".to_owned());
            }
            (true, ..) => "nobody listens there",
            (_, true, _) => "it does not answer",
            _ => "the connection broke",
        };
        NotSent(format!(
            "{self} can't be reached, {why}; is `invite-relay serve` running with this configuration?"
        ))
    }

    fn refusal(&self, status: StatusCode, text: &[u8]) -> NotSent {
        let problem: Problem = serde_json::from_slice(text).unwrap_or_default();
        let detail = problem.detail.or(problem.title).map(|text| format!(": {}", clean(&text)));
        NotSent(format!("{self} answered {status}{}", detail.unwrap_or_default()))
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "webhook {}", SecretUrl::new(self.url.as_str()).endpoint())
    }
}

/// The body of a 202.
#[derive(Deserialize)]
struct Taken {
    status: String,
}

/// A problem (RFC 9457), as far as it is shown.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

/// Where a service with this configuration listens, seen from the same machine.
fn own_address(source: &WebhookSource) -> Result<Url, NotSent> {
    if !source.enabled {
        let text = "source.webhook is not enabled; enable it, or name another webhook with --url";
        return Err(NotSent(text.to_owned()));
    }
    let listen = source.listen;
    if listen.port() == 0 {
        let text = "source.webhook.listen has port 0, which means any; name the address with --url";
        return Err(NotSent(text.to_owned()));
    }
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let url = format!("http://{}{}", SocketAddr::new(ip, listen.port()), source.path);
    Ok(url.parse().expect("load() refuses a path that is none"))
}

/// The first secret, else the first token.
fn credential(source: &WebhookSource) -> Result<Credential, NotSent> {
    let unreadable = |key: &str, error: &dyn fmt::Display| NotSent(format!("{key}: {error}"));
    if let Some(secrets) = source.secrets_source() {
        let key = "source.webhook.secrets";
        let secrets = secrets.read().map_err(|error| unreadable(key, &error))?;
        let first = secrets.first().ok_or_else(|| unreadable(key, &"is empty"))?;
        let secret = first.reveal().parse().map_err(|error| unreadable(key, &error))?;
        return Ok(Credential::Signature(secret));
    }
    if let Some(tokens) = source.tokens_source() {
        let key = "source.webhook.tokens";
        let tokens = tokens.read().map_err(|error| unreadable(key, &error))?;
        let first = tokens.first().ok_or_else(|| unreadable(key, &"is empty"))?.reveal().trim();
        let name: HeaderName = source
            .token_header
            .parse()
            .map_err(|_| unreadable("source.webhook.token_header", &"is no header name"))?;
        let text = if name == AUTHORIZATION { format!("Bearer {first}") } else { first.to_owned() };
        let mut value =
            HeaderValue::try_from(text).map_err(|_| unreadable(key, &"can't travel in a header"))?;
        value.set_sensitive(true);
        return Ok(Credential::Token(name, value));
    }
    if source.insecure_accept_unsigned {
        return Ok(Credential::Nothing);
    }
    let text =
        "there is nothing to sign with; set source.webhook.secrets_file to the service's signing secrets";
    Err(NotSent(text.to_owned()))
}

/// Text of the other side, fit for a terminal.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REFUSAL_MAX).collect()
}
