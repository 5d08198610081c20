//! Both ends of the demo over webhooks: signed events in, and a receiver that verifies what comes out.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use tokio::net::TcpListener;
use url::Url;

use super::news::{self, News};
use super::settings::Settings;
use crate::cli::send::NotSent;
use crate::cli::send::webhook::{Credential, Webhook};
use crate::http::serve::serve;
use crate::lifecycle::Lifecycle;
use crate::signature::{self, Secret, SignedHeaders};
use crate::time;

/// Where the platform's webhook posts to; the service's default.
const IN_PATH: &str = "/webhooks/trucker-created";
/// Where the receiver takes announcements.
const OUT_PATH: &str = "/invite-ready";

/// The two ends, each with a secret of its own.
pub(super) struct Webhooks {
    in_secret: Secret,
    receiver: SocketAddr,
}

struct Receiver {
    secret: Secret,
    news: news::Sender,
}

impl Webhooks {
    /// Starts the receiver, and sets the relay up for both ends.
    pub(super) async fn start(
        settings: &mut Settings,
        news: news::Sender,
        life: &Lifecycle,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(super::ANY_PORT).await.context("no port for the receiver")?;
        let receiver = listener.local_addr()?;
        let (in_secret, out_secret) = (Secret::generate(), Secret::generate());
        settings.set("source.webhook.enabled", true);
        settings.set("source.webhook.listen", super::ANY_PORT);
        settings.set("source.webhook.path", IN_PATH);
        settings.set("source.webhook.secrets", vec![in_secret.reveal()]);
        settings.set("sink.webhook.enabled", true);
        settings.set("sink.webhook.url", format!("http://{receiver}{OUT_PATH}"));
        settings.set("sink.webhook.secret", out_secret.reveal());
        let state = Arc::new(Receiver { secret: out_secret, news });
        let router = Router::new().route(OUT_PATH, post(receive)).with_state(state);
        life.spawn_long("receiver", serve(listener, router, life.clone(), "receiver"));
        Ok(Self { in_secret, receiver })
    }

    /// The address that events are posted to.
    pub(super) fn entrance(listen: SocketAddr) -> String {
        format!("http://{listen}{IN_PATH}")
    }

    /// The address that announcements are posted to.
    pub(super) fn exit(&self) -> String {
        format!("http://{}{OUT_PATH}", self.receiver)
    }

    /// The platform's sender.
    pub(super) fn sender(&self, listen: SocketAddr) -> Result<Webhook, NotSent> {
        let url: Url = Self::entrance(listen).parse().expect("made of an address and a path");
        Webhook::new(url, Credential::Signature(self.in_secret.clone()))
    }
}

/// 204 for an announcement with a good signature: a consumer that takes unsigned ones can be fed false codes.
async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let signed = SignedHeaders {
        id: text(signature::ID_HEADER),
        timestamp: text(signature::TIMESTAMP_HEADER),
        signature: text(signature::SIGNATURE_HEADER),
    };
    let secrets = std::slice::from_ref(&receiver.secret);
    if let Err(error) = signature::verify(secrets, signed, &body, time::now()) {
        let _ = receiver.news.send(News::Refused { why: error.to_string() });
        return StatusCode::UNAUTHORIZED;
    }
    if news::announce(&receiver.news, &body) { StatusCode::NO_CONTENT } else { StatusCode::BAD_REQUEST }
}
