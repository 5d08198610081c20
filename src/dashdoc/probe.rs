//! One harmless request, to learn whether address, TLS and token are right: the first page of the truckers' list.

use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderMap, HeaderName};
use tokio::time::Instant;
use url::Url;

use super::client::Client;
use crate::time::{self, Timestamp};

/// The truckers' list, below the base URL. Dashdoc wants the trailing slash.
pub const LIST: &str = "/manager-truckers/?page=1";

/// Headers by which APIs tell their limits; Dashdoc documents none of them.
const LIMITS: [&str; 9] = [
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
    "retry-after",
];

/// What an API answered. Nothing of the body is kept but the count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The status code.
    pub status: u16,
    /// Truckers in the list; `None` if the body is no page of one.
    pub n_truckers: Option<u64>,
    /// Where a redirect leads, without user, password, query and fragment. It was not followed.
    pub redirect: Option<Url>,
    /// Our clock against the answer's `Date`.
    pub clock: Option<Clock>,
    /// The rate-limit headers of the answer.
    pub limits: Vec<(&'static str, String)>,
    /// How long the exchange took.
    pub took: Duration,
}

/// Our clock against the API's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// By how many milliseconds ours is ahead; negative if it is behind.
    pub ahead_ms: i64,
    /// By how much that may be wrong: `Date` has whole seconds, and the answer was on its way for a while.
    pub uncertain_ms: i64,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The token can't be sent in a header.
    #[error("the token holds characters that no header can carry")]
    Token,
    /// Name resolution, TCP or TLS.
    #[error("can't connect: {0}")]
    Connect(String),
    /// Nothing within `dashdoc.timeout`.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Lost(String),
}

impl Client {
    /// Asks for the first page of truckers. Needs the token, changes nothing, may be repeated.
    pub async fn probe(&self) -> Result<Probe, Unanswered> {
        let request = self.get(LIST).ok_or(Unanswered::Token)?;
        let (asked_at, started) = (time::now(), Instant::now());
        let sent = tokio::time::timeout(self.timeout(), self.send(request)).await;
        let took = started.elapsed();
        let received = match sent {
            Ok(Ok(received)) => received,
            Ok(Err(error)) if error.is_connect() => return Err(Unanswered::Connect(root_of(&error))),
            Ok(Err(error)) => return Err(Unanswered::Lost(root_of(&error))),
            Err(_) => return Err(Unanswered::Timeout(self.timeout())),
        };
        let status = received.status;
        let redirect = text(&received.headers, &header::LOCATION).filter(|_| (300..400).contains(&status));
        Ok(Probe {
            status,
            n_truckers: received.body.ok().and_then(|body| n_truckers(&body)),
            redirect: redirect.and_then(|to| self.base_url().join(to).ok()).map(bare),
            clock: clock(&received.headers, asked_at, took),
            limits: limits(&received.headers),
            took,
        })
    }
}

/// The innermost error: the outer ones name the URL and no reason.
fn root_of(error: &reqwest::Error) -> String {
    let mut root: &dyn std::error::Error = error;
    while let Some(inner) = root.source() {
        root = inner;
    }
    if std::ptr::eq(root, error as &dyn std::error::Error) {
        "no reason given".to_owned()
    } else {
        root.to_string()
    }
}

fn n_truckers(body: &[u8]) -> Option<u64> {
    #[derive(serde::Deserialize)]
    struct Page {
        count: u64,
        #[expect(dead_code, reason = "only that it is there")]
        results: Vec<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Page>(body).ok().map(|page| page.count)
}

fn bare(mut url: Url) -> Url {
    // Fails for URLs that have none of it.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url
}

fn clock(headers: &HeaderMap, asked_at: Timestamp, took: Duration) -> Option<Clock> {
    let date = httpdate::parse_http_date(text(headers, &header::DATE)?).ok()?;
    let since_epoch = date.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    let took_ms = i64::try_from(took.as_millis()).ok()?;
    // On average half a second of `Date` is cut off, and the answer was made half-way.
    let theirs = i64::try_from(since_epoch.as_millis()).ok()? + 500;
    let ours = asked_at.as_millis() + took_ms / 2;
    Some(Clock { ahead_ms: ours - theirs, uncertain_ms: 500 + took_ms / 2 })
}

fn limits(headers: &HeaderMap) -> Vec<(&'static str, String)> {
    let found = |name: &'static str| {
        let value = text(headers, &HeaderName::from_static(name))?;
        // Numbers and their names; anything longer is no limit.
        (value.len() <= 100).then(|| (name, value.to_owned()))
    };
    LIMITS.into_iter().filter_map(found).collect()
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        pairs.collect()
    }

    #[test]
    fn the_clocks_are_compared_in_the_middle_of_the_exchange() {
        // 2022-04-07T21:39:13Z
        let date = headers(&[("date", "Thu, 07 Apr 2022 21:39:13 GMT")]);
        let at = Timestamp::from_millis(1_649_367_553_000 + 500 + 5_000);
        let found = clock(&date, at, Duration::from_millis(400)).unwrap();
        assert_eq!(found, Clock { ahead_ms: 5_200, uncertain_ms: 700 });
        assert_eq!(clock(&headers(&[("date", "today")]), at, Duration::ZERO), None);
    }

    #[test]
    fn a_page_of_truckers_is_told_from_anything_else() {
        let page = br#"{"count": 41, "next": null, "previous": null, "results": [{"pk": 1}]}"#;
        assert_eq!(n_truckers(page), Some(41));
        for other in ["", "<html>", "[]", "{}", r#"{"count": 3}"#, r#"{"results": []}"#] {
            assert_eq!(n_truckers(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_redirect_is_shown_without_what_may_be_secret() {
        let url = "https://user:canary@host/path?token=canary#canary".parse().unwrap();
        assert_eq!(bare(url).as_str(), "https://host/path");
    }

    #[test]
    fn only_short_limits_are_shown() {
        let long = "9".repeat(101);
        let mut all = headers(&[("x-ratelimit-limit", "10"), ("set-cookie", "canary")]);
        all.insert("retry-after", long.parse().unwrap());
        assert_eq!(limits(&all), [("x-ratelimit-limit", "10".to_owned())]);
    }
}
