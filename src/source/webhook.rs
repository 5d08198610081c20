//! Events from a webhook: verified over the raw bytes, judged, committed, then answered with 202.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Serialize;
use tracing::{Instrument as _, Span, warn};

use crate::config::SecretListWatch;
use crate::crash::{self, Point};
use crate::event::{self, Envelope, Refusal, RefusalKind, Transport};
use crate::http::problem::{self, Problem};
use crate::lifecycle::Lifecycle;
use crate::relay::{self, Intake};
use crate::signature::{self, Secret, SignedHeaders, Token};
use crate::telemetry::metrics::{EventOutcome, Metrics, Route, Source};
use crate::telemetry::propagation;
use crate::telemetry::spans;
use crate::time;

/// Who may send events.
pub struct Verifiers {
    /// `source.webhook.secrets`: Standard Webhooks signatures. Read anew for each request, so rotation needs no restart.
    pub secrets: Option<SecretListWatch>,
    /// `source.webhook.tokens`.
    pub tokens: Option<SecretListWatch>,
    /// `source.webhook.token_header`: `Authorization` means a bearer token, any other header holds the token itself.
    pub token_header: header::HeaderName,
    /// `source.webhook.insecure_accept_unsigned`.
    pub accept_unsigned: bool,
}

/// A webhook endpoint.
pub struct WebhookSource {
    intake: Intake,
    rules: Arc<event::Rules>,
    verifiers: Verifiers,
    /// `source.webhook.path`, or the path of one account.
    path: String,
    /// `source.webhook.max_body`, in bytes.
    max_body: usize,
    metrics: Arc<Metrics>,
    life: Lifecycle,
    secrets: LastGood<Secret>,
    tokens: LastGood<Token>,
}

/// What a watched list held when all of it could last be used. A rotation that goes wrong changes nothing.
struct LastGood<T>(Mutex<(Option<u64>, Vec<T>)>);

impl<T: Clone> LastGood<T> {
    fn read(&self, list: &SecretListWatch, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let version = list.version();
        if known.0 != Some(version) {
            known.0 = Some(version);
            let parsed: Option<Vec<T>> = list.current().iter().map(|text| parse(text.reveal())).collect();
            if let Some(parsed) = parsed {
                known.1 = parsed;
            } else {
                warn!(
                    "webhook: the changed secrets file holds something that can't be used; the last good content stays"
                );
            }
        }
        known.1.clone()
    }
}

impl<T> Default for LastGood<T> {
    fn default() -> Self {
        Self(Mutex::new((None, Vec::new())))
    }
}

#[derive(Serialize)]
struct Accepted {
    status: &'static str,
    /// The invite's public id, `account/pk`.
    invite: String,
}

impl WebhookSource {
    /// An endpoint that feeds `intake`.
    pub fn new(
        intake: Intake,
        rules: Arc<event::Rules>,
        verifiers: Verifiers,
        path: String,
        max_body: usize,
        metrics: Arc<Metrics>,
        life: &Lifecycle,
    ) -> Self {
        Self {
            intake,
            rules,
            verifiers,
            path,
            max_body,
            metrics,
            life: life.clone(),
            secrets: LastGood::default(),
            tokens: LastGood::default(),
        }
    }

    /// The routes of the public port: the endpoints, each on a path of its own, and problems for everything else.
    pub fn router(endpoints: impl IntoIterator<Item = Self>, metrics: &Arc<Metrics>) -> Router {
        let router = endpoints.into_iter().fold(Router::new(), |router, endpoint| {
            let path = endpoint.path.clone();
            router.route(&path, post(receive).with_state(Arc::new(endpoint)))
        });
        let counting = middleware::from_fn_with_state(Arc::clone(metrics), count_others);
        problem::with_fallbacks(router).layer(counting)
    }

    async fn take(&self, request: Request<Body>, span: &Span) -> Result<Response, Problem> {
        if self.life.is_draining() {
            return Err(unavailable("the service is shutting down"));
        }
        let (head, body) = request.into_parts();
        let body = to_bytes(body, self.max_body).await.map_err(|_| self.unreadable(&head.headers))?;
        self.verify(&head.headers, &body)?;
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let pairs: Vec<(&str, &str)> = head
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)))
            .collect();
        let envelope = Envelope {
            transport: Transport::Http,
            content_type: text(header::CONTENT_TYPE.as_str()),
            headers: &pairs,
            message_id: text(signature::ID_HEADER),
            body: &body,
        };
        let mut event = event::parse(&self.rules, &envelope).map_err(|refusal| {
            self.metrics.events_received.of(Source::Webhook, EventOutcome::Poison).inc();
            Problem::from(refusal)
        })?;
        event.trace = relay::trace_intake(span, &event.trace);
        spans::identify_event(span, &event.event_id, Some(&event.event_source), None);
        let taken = self.intake.accept(Source::Webhook, vec![event]).instrument(span.clone()).await;
        let taken = taken.map_err(|_| unavailable("the event can't be stored now"))?;
        crash::pass(Point::WebhookAnswer);
        let answer = taken.first().map(|taken| {
            spans::identify_invite(span, &taken.key);
            let status = if taken.news { "accepted" } else { "duplicate" };
            Accepted { status, invite: taken.key.to_string() }
        });
        Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
    }

    /// The body could not be read within the limit, or not at all.
    fn unreadable(&self, headers: &HeaderMap) -> Problem {
        let length =
            headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        let chunked = headers.contains_key(header::TRANSFER_ENCODING);
        self.metrics.events_received.of(Source::Webhook, EventOutcome::Refused).inc();
        if chunked || length.is_some_and(|length| length > self.max_body) {
            let detail = format!(
                "the body is larger than {} bytes; send the event without attachments",
                self.max_body
            );
            let problem =
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large");
            problem.detail(detail).field("body")
        } else {
            let problem = Problem::new(StatusCode::BAD_REQUEST, "body-unreadable", "The body can't be read");
            problem.detail("the body ended early; send it again").field("body")
        }
    }

    /// Lets a request pass that carries a signature or a token of the configured ones.
    fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
        let verifiers = &self.verifiers;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let refuse = |field: &str, detail: String| {
            self.metrics.events_received.of(Source::Webhook, EventOutcome::Refused).inc();
            let problem =
                Problem::new(StatusCode::UNAUTHORIZED, "not-verified", "The sender can't be verified");
            problem.detail(detail).field(field)
        };
        let presented = text(verifiers.token_header.as_str());
        if let Some(tokens) = &verifiers.tokens
            && let Some(presented) = presented
        {
            let bearer = verifiers.token_header == header::AUTHORIZATION;
            let presented = if bearer { signature::bearer(presented) } else { Some(presented) };
            let tokens = self.tokens.read(tokens, |token| Token::try_new(token).ok());
            if presented.is_some_and(|presented| Token::is_any_of(&tokens, presented)) {
                return Ok(());
            }
            if verifiers.secrets.is_none() || text(signature::SIGNATURE_HEADER).is_none() {
                let name = verifiers.token_header.as_str();
                return Err(refuse(
                    name,
                    format!("the token in the header {name} is none of the configured ones"),
                ));
            }
        }
        if let Some(secrets) = &verifiers.secrets {
            let secrets = self.secrets.read(secrets, |secret| secret.parse().ok());
            let signed = SignedHeaders {
                id: text(signature::ID_HEADER),
                timestamp: text(signature::TIMESTAMP_HEADER),
                signature: text(signature::SIGNATURE_HEADER),
            };
            return signature::verify(&secrets, signed, body, time::now())
                .map_err(|error| refuse(error.header(), error.to_string()));
        }
        if verifiers.tokens.is_some() {
            let name = verifiers.token_header.as_str();
            return Err(refuse(name, format!("the header {name} with the token is missing")));
        }
        if verifiers.accept_unsigned {
            return Ok(());
        }
        // The configuration refuses to start like this; a request is refused all the same.
        Err(refuse("source.webhook", "no secret and no token is configured".to_owned()))
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, title) = match refusal.kind() {
            RefusalKind::Malformed => (StatusCode::BAD_REQUEST, "The event can't be read"),
            RefusalKind::UnsupportedMedia => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "This media type is not taken")
            }
            RefusalKind::Unprocessable => (StatusCode::UNPROCESSABLE_ENTITY, "The event can't be used"),
        };
        Self::new(status, refusal.reason_code(), title).detail(refusal.to_string()).field(refusal.field)
    }
}

async fn receive(State(source): State<Arc<WebhookSource>>, request: Request<Body>) -> Response {
    let started = tokio::time::Instant::now();
    let span = spans::serve_webhook(&source.path);
    let mut response = source.take(request, &span).await.unwrap_or_else(IntoResponse::into_response);
    spans::gave_answer(&span, response.status().as_u16());
    let trace = propagation::sampled_trace(&span);
    source.metrics.answered(Route::Webhook, response.status().as_u16(), started.elapsed(), trace);
    response.extensions_mut().insert(Counted);
    response
}

/// Marks the answers of the endpoint.
#[derive(Clone)]
struct Counted;

/// Counts what is not for the endpoint: scanners, and senders with a wrong path or method. The path is no label.
async fn count_others(State(metrics): State<Arc<Metrics>>, request: Request<Body>, next: Next) -> Response {
    let started = tokio::time::Instant::now();
    let response = next.run(request).await;
    if response.extensions().get::<Counted>().is_none() {
        metrics.answered(Route::Other, response.status().as_u16(), started.elapsed(), None);
    }
    response
}

fn unavailable(detail: &str) -> Problem {
    let problem =
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-accepting", "Events can't be accepted now");
    problem.detail(detail).retry_after(problem::TRY_AGAIN_AFTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{SecretFiles, SecretListSource, SecretPath};

    #[test]
    fn a_rotation_that_goes_wrong_leaves_the_last_good_secrets_in_use() {
        const GOOD: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secrets");
        let files = SecretFiles::new();
        let last_good = LastGood::<Secret>::default();
        let count = |list: &SecretListWatch| last_good.read(list, |text| text.parse().ok()).len();
        std::fs::write(&path, GOOD).unwrap();
        let list = files.watch(SecretListSource::File(SecretPath::new(&path))).unwrap();
        assert_eq!(count(&list), 1);
        std::fs::write(&path, format!("{GOOD}\nno secret at all\n")).unwrap();
        files.poll_once();
        assert_eq!(count(&list), 1, "the good ones before stay, whole");
        std::fs::write(&path, format!("{GOOD}\nwhsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")).unwrap();
        files.poll_once();
        assert_eq!(count(&list), 2);
    }
}
