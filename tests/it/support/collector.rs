//! A real OpenTelemetry collector: spans go through it to a receiver in the test's own process.

use std::env;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use flate2::read::GzDecoder;
use invite_relay::http::serve;
use invite_relay::lifecycle::Lifecycle;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};

use super::leash::Leash;
use super::prometheus::free_address;
use super::until;

/// The process, and everything that has come out of it.
pub(crate) struct Collector {
    process: Child,
    leash: Option<Leash>,
    home: TempDir,
    address: SocketAddr,
    taken: Taken,
    life: Lifecycle,
}

type Taken = Arc<Mutex<Vec<Recorded>>>;

/// A span as the collector passed it on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Recorded {
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) trace: String,
    pub(crate) id: String,
    /// Empty for a root.
    pub(crate) parent: String,
    /// The linked spans' ids.
    pub(crate) links: Vec<String>,
    pub(crate) failed: bool,
    pub(crate) start: u64,
    attributes: Vec<(String, String)>,
    resource: Vec<(String, String)>,
}

impl Recorded {
    /// An attribute as text; empty where there is none.
    pub(crate) fn attribute(&self, name: &str) -> &str {
        find(&self.attributes, name)
    }

    /// An attribute of the process.
    pub(crate) fn resource(&self, name: &str) -> &str {
        find(&self.resource, name)
    }
}

fn find<'a>(attributes: &'a [(String, String)], name: &str) -> &'a str {
    attributes.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let (life, taken) = (Lifecycle::new(), Taken::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let onward = listener.local_addr().unwrap();
        let router = Router::new().route("/v1/traces", post(receive)).with_state(Arc::clone(&taken));
        life.spawn_long("receiver", serve::serve(listener, router, life.clone(), "receiver"));
        let home = tempfile::Builder::new().prefix("relay-collector-").tempdir().unwrap();
        let address = free_address();
        let log = File::create(home.path().join("output")).unwrap();
        let mut command = Command::new(binary());
        command
            .arg("start")
            .arg(format!("--pid-file={}", home.path().join("pid").display()))
            .arg(format!("--log-file={}", home.path().join("log").display()))
            .arg(format!("--otlp-http-endpoint={address}"))
            .arg(format!("--otlp-grpc-endpoint={}", free_address()))
            .arg(format!("--otlp-exporter-endpoint=http://{onward}"))
            .args(["--exporter=otlp", "--otlp-exporter-protocol=http"])
            .arg("--disable-batching");
        let process = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn();
        let process = process.unwrap();
        let leash = Some(Leash::on(&process));
        until("the collector to listen", async || TcpStream::connect(address).await.is_ok()).await;
        Self { process, leash, home, address, taken, life }
    }

    /// Where it takes spans.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The base URL for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until `are_all` is true of the spans that carry this `invite.id`; gives them in the order of their start.
    pub(crate) async fn story(&self, invite: &str, are_all: impl Fn(&[Recorded]) -> bool) -> Vec<Recorded> {
        let mut story = Vec::new();
        until(&format!("the spans of {invite}"), async || {
            let taken = self.taken.lock().unwrap();
            story = taken.iter().filter(|span| span.attribute("invite.id") == invite).cloned().collect();
            story.sort_by_key(|span| span.start);
            drop(taken);
            are_all(&story)
        })
        .await;
        story
    }

    /// Everything that came so far.
    pub(crate) fn spans(&self) -> Vec<Recorded> {
        self.taken.lock().unwrap().clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        drop(self.leash.take());
        let _ = self.process.wait();
        self.life.begin_drain();
        if std::thread::panicking() {
            for span in self.spans() {
                eprintln!("{span:?}");
            }
            eprintln!("{}", std::fs::read_to_string(self.home.path().join("output")).unwrap_or_default());
        }
    }
}

/// Where `scripts/test` has put it.
fn binary() -> PathBuf {
    if let Some(given) = env::var_os("INVITE_RELAY_TEST_COLLECTOR") {
        return given.into();
    }
    let libraries = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-venv/lib");
    let versions = std::fs::read_dir(&libraries).into_iter().flatten().flatten();
    let places = versions.map(|version| version.path().join("site-packages/rotel/rotel-agent"));
    places.into_iter().find(|place| place.exists()).unwrap_or_else(|| {
        panic!(
            "there is no collector below {}: run scripts/test, which installs tests/collector/requirements.txt, or set \
             INVITE_RELAY_TEST_COLLECTOR to a rotel-agent",
            libraries.display()
        )
    })
}

/// The collector compresses, whatever it is told.
async fn receive(State(taken): State<Taken>, body: Bytes) -> (StatusCode, Vec<u8>) {
    let mut plain = Vec::new();
    GzDecoder::new(&*body).read_to_end(&mut plain).unwrap();
    let request = ExportTraceServiceRequest::decode(&*plain).unwrap();
    let mut taken = taken.lock().unwrap();
    for group in request.resource_spans {
        let resource = texts(group.resource.map(|resource| resource.attributes).unwrap_or_default());
        let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
        taken.extend(spans.map(|span| recorded(span, &resource)));
    }
    (StatusCode::OK, ExportTraceServiceResponse::default().encode_to_vec())
}

fn recorded(span: Span, resource: &[(String, String)]) -> Recorded {
    Recorded {
        kind: span.kind(),
        failed: span.status.as_ref().is_some_and(|status| status.code == 2),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
        start: span.start_time_unix_nano,
        attributes: texts(span.attributes),
        resource: resource.to_vec(),
        name: span.name,
    }
}

fn texts(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    attributes.into_iter().map(|one| (one.key, one.value.map(text).unwrap_or_default())).collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
