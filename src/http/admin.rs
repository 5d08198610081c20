//! The admin port: probes and metrics for machines, open; everything else behind a bearer token.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

use super::health::Health;
use super::problem::{Problem, with_fallbacks};
use crate::telemetry::metrics::{CONTENT_TYPE, Metrics};

/// `/livez`, `/readyz`, `/metrics`, and `api` behind `token` where there is one.
///
/// Whoever calls this has made sure that a port beyond loopback has a token.
pub fn router(health: Health, metrics: Arc<Metrics>, api: Router, token: Option<BearerToken>) -> Router {
    let probes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz).with_state(health))
        .route("/metrics", get(page).with_state(metrics));
    let api = match token {
        // axum refuses to guard a router that has no routes.
        Some(token) if api.has_routes() => api.route_layer(middleware::from_fn_with_state(token, guard)),
        Some(_) | None => api,
    };
    with_fallbacks(probes.merge(api))
}

/// The process turns: that this was answered is all it says.
async fn livez() -> &'static str {
    "ok\n"
}

async fn readyz(State(health): State<Health>) -> Response {
    let report = health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, report.in_lines()).into_response()
}

async fn page(State(metrics): State<Arc<Metrics>>) -> Response {
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], metrics.encode()).into_response()
}

/// A token that callers must bring. It is asked for anew each time, because its file may change.
#[derive(Clone)]
pub struct BearerToken(Arc<dyn Fn() -> SecretString + Send + Sync>);

impl BearerToken {
    /// The token that `current` tells.
    pub fn new(current: impl Fn() -> SecretString + Send + Sync + 'static) -> Self {
        Self(Arc::new(current))
    }

    /// Whether `given` is the token. Takes the same time however much of it is right: compared are two tags
    /// under a random key.
    pub fn is(&self, given: &str) -> bool {
        let key: [u8; 32] = rand::random();
        let expected = tag(&key, (self.0)().expose_secret()).finalize().into_bytes();
        tag(&key, given).verify_slice(&expected).is_ok()
    }
}

fn tag(key: &[u8; 32], token: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(token.as_bytes());
    mac
}

/// Lets a request through that carries the token as RFC 6750 §2.1 has it.
async fn guard(State(token): State<BearerToken>, request: Request, next: Next) -> Response {
    match bearer(request.headers()) {
        Some(given) if token.is(given) => next.run(request).await,
        _ => Problem::unauthorized().into_response(),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::serve::tests::{Answer, ask};
    use crate::lifecycle::Lifecycle;

    async fn get_from(health: Health, request: &str) -> Answer {
        let api = Router::new().route("/api/v1/invites", get(async || "[]"));
        let token = BearerToken::new(|| SecretString::from("s3cret"));
        let router = router(health, Arc::new(Metrics::new(&[])), api, Some(token));
        ask(router, &format!("GET {request}")).await
    }

    fn health() -> Health {
        Health::new(Lifecycle::new())
    }

    #[tokio::test]
    async fn liveness_does_not_depend_on_any_part() {
        let health = health();
        health.required("store").set_not_ready("away");
        let answer = get_from(health, "/livez HTTP/1.1\r\n").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
    }

    #[tokio::test]
    async fn readiness_shows_each_part_and_fails_with_a_required_one() {
        let health = health();
        let store = health.required("store");
        store.set_not_ready("away");
        let answer = get_from(health.clone(), "/readyz HTTP/1.1\r\n").await;
        assert_eq!(answer.status, 503);
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(body["ready"], false);
        assert_eq!(body["draining"], false);
        assert_eq!(body["parts"][0]["name"], "store");
        assert_eq!(body["parts"][0]["required"], true);
        assert_eq!(body["parts"][0]["detail"], "away");
        assert!(body["parts"][0]["since"].as_str().unwrap().ends_with('Z'));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        store.set_ok("sqlite");
        assert_eq!(get_from(health, "/readyz HTTP/1.1\r\n").await.status, 200);
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_text() {
        let answer = get_from(health(), "/metrics HTTP/1.1\r\n").await;
        assert_eq!(answer.header("content-type"), Some(CONTENT_TYPE));
        assert!(answer.body.trim_end().ends_with("# EOF"));
    }

    #[tokio::test]
    async fn the_api_needs_the_token_and_the_probes_do_not() {
        for (header, status) in [
            ("", 401),
            ("authorization: Bearer wrong\r\n", 401),
            ("authorization: Bearer \r\n", 401),
            ("authorization: Bearer s3cret0\r\n", 401),
            ("authorization: Basic s3cret\r\n", 401),
            ("authorization: Bearer s3cret\r\n", 200),
            ("authorization: bearer s3cret\r\n", 200),
        ] {
            let answer = get_from(health(), &format!("/api/v1/invites HTTP/1.1\r\n{header}")).await;
            assert_eq!(answer.status, status, "{header}");
            assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{header}");
        }
        assert_eq!(get_from(health(), "/readyz HTTP/1.1\r\n").await.status, 200);
    }

    #[tokio::test]
    async fn other_paths_are_not_found() {
        assert_eq!(get_from(health(), "/api/v1/nowhere HTTP/1.1\r\n").await.status, 404);
        assert_eq!(get_from(health(), "/ HTTP/1.1\r\n").await.status, 404);
    }
}
