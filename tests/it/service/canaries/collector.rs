//! A collector of traces that keeps every request as it came: texts are plain in protobuf.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use invite_relay::http::serve;
use invite_relay::lifecycle::Lifecycle;
use tokio::net::TcpListener;

use super::super::harness::Service;

pub(super) struct Collector {
    address: SocketAddr,
    requests: Requests,
}

/// The bodies so far.
type Requests = Arc<Mutex<Vec<Bytes>>>;

impl Collector {
    pub(super) async fn start(life: &Lifecycle) -> Self {
        let requests = Requests::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/v1/traces", post(keep)).with_state(Arc::clone(&requests));
        life.spawn_long("collector", serve::serve(listener, router, life.clone(), "collector"));
        Self { address, requests }
    }

    /// Makes it the collector of the service's next process, which has to identify itself with `key`.
    pub(super) fn collect_from(&self, service: &mut Service, key: &str) {
        service.environment("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.address));
        service.environment("OTEL_EXPORTER_OTLP_HEADERS", format!("x-key={key}"));
        service.environment("OTEL_BSP_SCHEDULE_DELAY", "200");
    }

    pub(super) fn taken(&self) -> Vec<u8> {
        self.requests.lock().unwrap().concat()
    }
}

async fn keep(State(requests): State<Requests>, body: Bytes) {
    requests.lock().unwrap().push(body);
}
