//! The HTTP client for one account.
//!
//! It sends a request once. Redirects and retries are off: a repeated POST replaces a code that may already be in
//! somebody's hands, and a redirect would carry the token elsewhere. Deciding what to do next is not its business.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::answer::{Operation, Response, Verdict, classify};
use super::retry_after;
use crate::crash::{self, Point};
use crate::invite::{Answer, Failure, FailureClass, FingerprintKey, IssuedCode, TruckerKey, TruckerPk};
use crate::telemetry::propagation;

/// Largest answer that is read: a trucker is a few KiB, with all its tags and absences perhaps a hundred.
const BODY_MAX: usize = 1024 * 1024;
/// Idle connections are closed before a usual server (60 s) closes them under a request.
const IDLE_MAX: Duration = Duration::from_secs(30);

/// How an account is reached.
#[derive(Clone)]
pub struct Settings {
    /// `dashdoc.base_url`, for example `https://api.dashdoc.eu/api/v4`.
    pub base_url: Url,
    /// `dashdoc.auth_header`.
    pub auth_header: HeaderName,
    /// `dashdoc.auth_scheme`; empty for the bare token.
    pub auth_scheme: String,
    /// `dashdoc.timeout`: for the whole exchange.
    pub timeout: Duration,
    /// Certificate authorities of `dashdoc.ca_file`, trusted besides the system's.
    pub authorities: Vec<reqwest::Certificate>,
}

/// Gives the token that is valid now; it may change while the service runs.
pub type TokenSource = Arc<dyn Fn() -> secrecy::SecretString + Send + Sync>;

/// The client. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    settings: Arc<Settings>,
    token: TokenSource,
    fingerprints: FingerprintKey,
}

/// A client can't be made: the TLS set-up failed, for example because the image has no CA certificates.
#[derive(Debug, thiserror::Error)]
#[error("can't set up the HTTP client; are CA certificates installed?")]
pub struct ClientError(#[source] reqwest::Error);

/// A finished exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// What it means for the invite.
    pub answer: Answer,
    /// The status, if a response came.
    pub status: Option<u16>,
    /// Whether `Retry-After` asked for more than is granted ([`retry_after::LONGEST`]).
    pub retry_after_cut: bool,
}

impl Client {
    /// A client for one account.
    pub fn new(
        settings: Settings,
        token: TokenSource,
        fingerprints: FingerprintKey,
    ) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .http1_only()
            // A failing connect is a different outcome than a failing exchange, so it must be told apart in time.
            .connect_timeout(settings.timeout.mul_f64(0.8))
            .pool_idle_timeout(IDLE_MAX)
            .tls_certs_merge(settings.authorities.clone())
            .user_agent(concat!("invite-relay/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(ClientError)?;
        Ok(Self { http, settings: Arc::new(settings), token, fingerprints })
    }

    /// Asks the API to make a new code. The one request of this service that must not be repeated blindly.
    pub async fn generate(&self, key: &TruckerKey) -> Exchange {
        crash::pass(Point::CallSend);
        let exchange = self.exchange(Operation::Generate, key).await;
        crash::pass(Point::CallAnswered);
        exchange
    }

    /// Reads the trucker: which code is valid now.
    pub async fn read(&self, key: &TruckerKey) -> Exchange {
        crash::pass(Point::ReadSend);
        let exchange = self.exchange(Operation::Read, key).await;
        crash::pass(Point::ReadAnswered);
        exchange
    }

    /// How long one exchange may take.
    pub fn timeout(&self) -> Duration {
        self.settings.timeout
    }

    /// The host and port that requests go to, for spans and `doctor`.
    pub fn base_url(&self) -> &Url {
        &self.settings.base_url
    }

    /// A GET of something that is no trucker, with the token. `None` if the token is no header value.
    pub(super) fn get(&self, path: &str) -> Option<reqwest::RequestBuilder> {
        let request = self.http.get(self.url(path)).header(header::ACCEPT, "application/json");
        Some(request.header(self.settings.auth_header.clone(), self.authorization()?))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.settings.base_url.as_str().trim_end_matches('/'))
    }

    async fn exchange(&self, operation: Operation, key: &TruckerKey) -> Exchange {
        let request = match self.request(operation, key.pk) {
            Ok(request) => request,
            // The token is no header value: nothing was sent, and nothing will be until it changes.
            Err(failure) => return Exchange::failed(failure),
        };
        let sent = tokio::time::timeout(self.settings.timeout, self.send(request));
        let received = match sent.await {
            Ok(Ok(received)) => received,
            Ok(Err(error)) => return Exchange::failed(failure_of(&error)),
            Err(_) => return Exchange::failed(Failure::new(FailureClass::Unknown, "timeout")),
        };
        let asked = received.retry_after();
        let retry_after = asked.map(|asked| asked.wait);
        let body = received.body.as_deref().map_err(|why| *why);
        let verdict = classify(operation, key.pk, Response { status: received.status, retry_after, body });
        let answer = match verdict {
            Verdict::Code(code) => {
                Answer::Code(IssuedCode { fingerprint: self.fingerprints.fingerprint(key, &code), code })
            }
            Verdict::NoCode => Answer::NoCode,
            Verdict::Failed(failure) => Answer::Failed { failure, retry_after, outage: false },
        };
        Exchange {
            answer,
            status: Some(received.status),
            retry_after_cut: asked.is_some_and(|asked| asked.cut),
        }
    }

    fn request(&self, operation: Operation, pk: TruckerPk) -> Result<reqwest::RequestBuilder, Failure> {
        let url = self.url(&operation.template().replace("{pk}", &pk.to_string()));
        let request = match operation {
            Operation::Generate => {
                self.http.post(url).header(header::CONTENT_TYPE, "application/json").body("{}")
            }
            Operation::Read => self.http.get(url),
        };
        let value =
            self.authorization().ok_or_else(|| Failure::new(FailureClass::Credentials, "unusable_token"))?;
        Ok(request
            .header(header::ACCEPT, "application/json")
            .header(self.settings.auth_header.clone(), value))
    }

    fn authorization(&self) -> Option<HeaderValue> {
        use secrecy::ExposeSecret as _;
        let token = (self.token)();
        let text = format!("{} {}", self.settings.auth_scheme, token.expose_secret());
        let mut value = HeaderValue::from_str(text.trim()).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that sends requests to Dashdoc")]
    pub(super) async fn send(&self, request: reqwest::RequestBuilder) -> reqwest::Result<Received> {
        let mut response = request.headers(propagation::outgoing_headers()).send().await?;
        let status = response.status().as_u16();
        let headers = std::mem::take(response.headers_mut());
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() > BODY_MAX => {
                    return Ok(Received { status, headers, body: Err("body_too_large") });
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(Received { status, headers, body: Ok(body) }),
                Err(_) => return Ok(Received { status, headers, body: Err("body_cut") }),
            }
        }
    }
}

pub(super) struct Received {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Result<Vec<u8>, &'static str>,
}

impl Received {
    fn retry_after(&self) -> Option<retry_after::Asked> {
        let text = |name| self.headers.get(name).and_then(|value| value.to_str().ok());
        let now = SystemTime::UNIX_EPOCH
            + Duration::from_millis(u64::try_from(crate::time::now().as_millis()).unwrap_or_default());
        retry_after::parse(text(header::RETRY_AFTER)?, text(header::DATE), now)
    }
}

impl Exchange {
    fn failed(failure: Failure) -> Self {
        Self {
            answer: Answer::Failed { failure, retry_after: None, outage: false },
            status: None,
            retry_after_cut: false,
        }
    }
}

/// Only a failing connect proves that nothing was sent; anything later leaves the outcome open.
fn failure_of(error: &reqwest::Error) -> Failure {
    if error.is_connect() {
        Failure::new(FailureClass::Transient, if error.is_timeout() { "connect_timeout" } else { "connect" })
    } else if error.is_builder() {
        Failure::new(FailureClass::Misconfigured, "request")
    } else if error.is_timeout() {
        Failure::new(FailureClass::Unknown, "timeout")
    } else {
        Failure::new(FailureClass::Unknown, "connection_lost")
    }
}
