//! Events to a webhook: a Standard Webhooks-signed POST; any 2xx is delivered.
//!
//! The receiver's trouble is its own: a bounded number of requests waits for it, and a receiver that fails is left
//! alone for a growing while, so that it slows down no other sink.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use tokio::sync::{Semaphore, watch};
use tracing::{Instrument as _, Span, info, warn};
use url::Url;

use super::{NotConfirmed, Trail};
use crate::config::SecretWatch;
use crate::dashdoc::retry_after;
use crate::event::{self, Outgoing};
use crate::invite::{Backoff, Setback};
use crate::lifecycle::Lifecycle;
use crate::signature::{self, Secret};
use crate::telemetry::metrics::PublishFailure;
use crate::telemetry::{propagation, spans};
use crate::time;

/// Requests in flight at the receiver.
const PLACES: usize = 32;
/// Failures in a row after which the receiver is left alone.
const STRIKES: u32 = 5;

/// A webhook receiver. Cheap to clone.
#[derive(Clone)]
pub struct WebhookSink {
    shared: Arc<Shared>,
}

/// How the receiver is reached.
pub struct Settings {
    /// `sink.webhook.url`.
    pub url: Url,
    /// `sink.webhook.secret` or its file; read anew for each request.
    pub secret: SecretWatch,
    /// `sink.webhook.timeout`.
    pub timeout: Duration,
    /// Certificate authorities of `sink.webhook.ca_file`, trusted besides the system's.
    pub authorities: Vec<reqwest::Certificate>,
    /// How long a failing receiver is left alone.
    pub backoff: Backoff,
}

struct Shared {
    http: reqwest::Client,
    settings: Settings,
    places: Semaphore,
    /// Failures in a row.
    failures: Mutex<u32>,
    /// Whether events may be sent. Every change, and every place that gets free, wakes the publisher.
    open: watch::Sender<bool>,
    life: Lifecycle,
}

impl WebhookSink {
    /// A receiver that is assumed to be up.
    pub fn new(settings: Settings, life: &Lifecycle) -> reqwest::Result<Self> {
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .timeout(settings.timeout)
            .tls_certs_merge(settings.authorities.clone())
            .user_agent(concat!("invite-relay/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let shared = Shared {
            http,
            settings,
            places: Semaphore::new(PLACES),
            failures: Mutex::new(0),
            open: watch::Sender::new(true),
            life: life.clone(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether it may be sent an event now.
    pub fn is_up(&self) -> bool {
        *self.shared.open.borrow() && self.shared.places.available_permits() > 0
    }

    /// Requests that may be sent now.
    pub fn places(&self) -> usize {
        self.shared.places.available_permits()
    }

    /// Changes whenever it may have become able to take an event.
    pub fn state(&self) -> watch::Receiver<bool> {
        self.shared.open.subscribe()
    }

    /// Sends one event. `Ok` means a 2xx.
    pub async fn publish(&self, event: &Outgoing, trail: &Trail<'_>) -> Result<(), NotConfirmed> {
        let away = NotConfirmed { setback: Setback::Away, reason: PublishFailure::Other };
        if !self.is_up() {
            return Err(away);
        }
        let Ok(place) = self.shared.places.try_acquire() else { return Err(away) };
        let id = event.id.to_string();
        let server = spans::Server::of(&self.shared.settings.url);
        let described = spans::OutgoingEvent { server, id: &id, kind: event.type_ };
        let span = trail.attempt.part(|parent| spans::send_webhook(parent, &described, &trail.work));
        let sent = self.send(&id, event, &span).instrument(span.clone()).await;
        // A refusal is an answer: its status has said it.
        if let Err(Refused { reason, .. }) = &sent
            && *reason != PublishFailure::Refused
        {
            spans::failed(&span, reason.as_str());
        }
        drop(place);
        self.judge(&sent);
        sent.map_err(|refused| NotConfirmed { setback: Setback::Refused, reason: refused.reason })
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that sends requests to the receiver")]
    async fn send(&self, id: &str, event: &Outgoing, span: &Span) -> Result<(), Refused> {
        let settings = &self.shared.settings;
        let now = time::now();
        let refused = |reason| Refused { reason, pause: None };
        // Checked when it was read; a file that has since been broken keeps its last good content.
        let secret: Secret =
            settings.secret.current().reveal().parse().map_err(|_| refused(PublishFailure::Other))?;
        let seconds = now.as_millis() / 1000;
        let signature = signature::sign(&secret, id, seconds, &event.body);
        let request = self
            .shared
            .http
            .post(settings.url.clone())
            .header(CONTENT_TYPE, event::CONTENT_TYPE)
            .header(signature::ID_HEADER, id)
            .header(signature::TIMESTAMP_HEADER, seconds.to_string())
            .header(signature::SIGNATURE_HEADER, signature)
            .headers(propagation::outgoing_headers())
            .body(event.body.clone());
        let response = request.send().await.map_err(|error| {
            refused(if error.is_timeout() { PublishFailure::Timeout } else { PublishFailure::Disconnected })
        })?;
        spans::answered(span, response.status().as_u16());
        if response.status().is_success() {
            return Ok(());
        }
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let asked = header.and_then(|value| retry_after::parse(value, None, SystemTime::UNIX_EPOCH));
        Err(Refused { reason: PublishFailure::Refused, pause: asked.map(|asked| asked.wait) })
    }

    /// Counts failures in a row, and leaves a receiver alone that fails again and again or asks for a pause.
    fn judge(&self, sent: &Result<(), Refused>) {
        let shared = &self.shared;
        let mut failures = shared.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = match sent {
            Ok(()) => {
                if std::mem::take(&mut *failures) >= STRIKES {
                    info!(sink = "webhook", "the receiver takes events again");
                }
                None
            }
            Err(refused) => {
                *failures = failures.saturating_add(1);
                let tired = failures.checked_sub(STRIKES);
                let own = tired.map(|over| shared.settings.backoff.no_earlier(over + 1, rand::random()));
                own.max(refused.pause)
            }
        };
        match pause {
            Some(pause) if *shared.open.borrow() => {
                let reason = sent.as_ref().err().map(|refused| refused.reason.as_str());
                warn!(
                    sink = "webhook",
                    reason,
                    failures = *failures,
                    pause_ms = pause.as_millis(),
                    "the receiver fails, it is left alone for a while"
                );
                self.close_for(pause);
            }
            // A place got free: that alone is worth a look.
            Some(_) | None => shared.open.send_modify(|_| {}),
        }
    }

    fn close_for(&self, pause: Duration) {
        self.shared.open.send_replace(false);
        let shared = Arc::clone(&self.shared);
        self.shared.life.spawn_work(async move {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shared.life.draining() => {}
            }
            shared.open.send_replace(true);
        });
    }
}

/// A delivery that failed.
struct Refused {
    reason: PublishFailure,
    /// What `Retry-After` asked for.
    pause: Option<Duration>,
}
