//! Answers that say what went wrong, as RFC 9457 `application/problem+json`.
//!
//! A problem is made of our own words only. Texts of libraries, of the store or of the API stay inside.

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// Stands before the slug in a problem's `type`.
const TYPE_PREFIX: &str = "urn:invite-relay:problem:";

/// What a caller is asked to wait while something that heals by itself is away.
pub const TRY_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// One problem, told to the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// Which kind of problem, for programs: the end of its `type`.
    pub slug: &'static str,
    /// The kind of problem, for people; the same for every occurrence.
    pub title: &'static str,
    /// What is wrong this time, and what mends it.
    pub detail: Option<String>,
    /// Where in the request it is wrong: a JSON pointer, or the name of a header or parameter.
    pub field: Option<String>,
    /// How long to wait before another try. Sent as whole seconds, rounded up.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A problem of the given kind.
    pub const fn new(status: StatusCode, slug: &'static str, title: &'static str) -> Self {
        Self { status, slug, title, detail: None, field: None, retry_after: None }
    }

    /// With what is wrong this time.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// With where it is wrong.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// With how long to wait.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// 404, for a path that leads nowhere.
    pub const fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here")
    }

    /// 405. The router adds the `Allow` header.
    pub const fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "This method is not allowed here")
    }

    /// 408, for a request that does not come to its end.
    pub const fn request_timeout() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "request-timeout", "The request took too long")
    }

    /// 401, for a missing or wrong bearer token.
    pub const fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A valid bearer token is needed")
    }
}

/// The body, in the member names of RFC 9457 §3.1; `field` is our extension (§3.2).
#[derive(Serialize)]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<&'a str>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: format!("{TYPE_PREFIX}{}", self.slug),
            title: self.title,
            status: self.status.as_u16(),
            detail: self.detail.as_deref(),
            field: self.field.as_deref(),
        };
        let body = serde_json::to_vec(&body).expect("strings and a number always serialize");
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// `wait` in seconds, rounded up: a caller that is back too early is turned away again.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Adds our 404 and 405 to a router. Call it last, after all routes are in.
pub fn with_fallbacks<S>(router: axum::Router<S>) -> axum::Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    router
        .fallback(async || Problem::not_found())
        .method_not_allowed_fallback(async || Problem::method_not_allowed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::serve::tests::{Answer, ask};
    use axum::Router;
    use axum::routing::{get, post};

    async fn answer(problem: Problem) -> Answer {
        let router = Router::new().route("/", get(move || async move { problem }));
        ask(router, "GET / HTTP/1.1\r\n").await
    }

    #[tokio::test]
    async fn a_problem_is_problem_json_with_all_that_was_said() {
        let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "no-trucker-pk", "No trucker pk")
            .detail("none of the configured pointers leads to a whole number")
            .field("/data/trucker/pk");
        let answer = answer(problem).await;
        assert_eq!(answer.status, 422);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("retry-after"), None);
        insta::assert_snapshot!(answer.body, @r#"{"type":"urn:invite-relay:problem:no-trucker-pk","title":"No trucker pk","status":422,"detail":"none of the configured pointers leads to a whole number","field":"/data/trucker/pk"}"#);
    }

    #[tokio::test]
    async fn retry_after_is_whole_seconds_and_never_too_early() {
        for (wait, seconds) in [(0, "1"), (1, "1"), (1_000, "1"), (1_001, "2"), (30_000, "30")] {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store-down", "Not now");
            let answer = answer(problem.retry_after(Duration::from_millis(wait))).await;
            assert_eq!(answer.header("retry-after"), Some(seconds), "{wait} ms");
        }
    }

    #[tokio::test]
    async fn unknown_paths_and_methods_are_problems_too() {
        let router = || with_fallbacks(Router::new().route("/in", post(async || "")));
        let missing = ask(router(), "GET /nowhere HTTP/1.1\r\n").await;
        assert_eq!((missing.status, missing.header("content-type")), (404, Some("application/problem+json")));
        let wrong = ask(router(), "GET /in HTTP/1.1\r\n").await;
        assert_eq!((wrong.status, wrong.header("content-type")), (405, Some("application/problem+json")));
        assert_eq!(wrong.header("allow"), Some("POST"));
    }
}
