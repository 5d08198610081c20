//! Traces over OTLP, as the standard `OTEL_*` variables ask for it. No variable, no traffic.
//!
//! | variable | meaning here |
//! |---|---|
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, `OTEL_EXPORTER_OTLP_ENDPOINT` | where to; setting one turns traces on (to the second, `/v1/traces` is appended) |
//! | `OTEL_TRACES_EXPORTER` | `none` turns traces off; `otlp` turns them on, to the standard's own endpoint if none is set |
//! | `OTEL_SDK_DISABLED` | `true` turns traces off |
//! | `OTEL_TRACES_SAMPLER`, `…_ARG` | default `parentbased_always_on` |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` | win over our own resource attributes |
//! | `OTEL_EXPORTER_OTLP_[TRACES_]HEADERS`, `…_TIMEOUT`, `OTEL_BSP_*` | as the standard says |
//!
//! Spoken is http/protobuf. The exporter has a thread of its own and a bounded queue: a collector that is
//! away, slow or hanging costs spans, never work.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use url::Url;
use uuid::Uuid;

use super::delivery;
use super::metrics::SpanCounters;

/// Where the standard says a collector listens for http/protobuf.
const DEFAULT_ENDPOINT: &str = "http://localhost:4318/v1/traces";

/// The standard's default for one export.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Variables that hold a whole number; the SDK falls back to its default without a word.
const NUMBERS: [&str; 6] = [
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
];

/// What the environment asks for.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// Where the traces go; `None` when they are not wanted.
    pub(super) target: Option<Target>,
    /// Settings that cannot be followed. They name the variable, never its value: values may be secret.
    pub(super) warnings: Vec<String>,
}

/// A wanted export.
#[derive(Debug)]
pub(super) struct Target {
    endpoint: Url,
    timeout: Duration,
    sampler: Sampler,
    /// Spans that may wait.
    queue: usize,
    /// `OTEL_SERVICE_NAME`, which wins over everything.
    service_name: Option<String>,
}

impl Target {
    /// Host and port, for people; the rest of the URL may hold a credential.
    pub(super) fn address(&self) -> String {
        let (host, port) = self.host_and_port();
        format!("{host}:{port}")
    }

    pub(super) fn host_and_port(&self) -> (String, u16) {
        let host = self.endpoint.host_str().unwrap_or_default().to_owned();
        (host, self.endpoint.port_or_known_default().unwrap_or_default())
    }
}

impl Wish {
    /// Reads the variables through `lookup`. Empty means unset, as the standard has it.
    pub(super) fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let env = |name: &str| lookup(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let mut warnings = Vec::new();
        if env("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Self::default();
        }
        let named = match env("OTEL_TRACES_EXPORTER").as_deref() {
            None => false,
            Some("otlp") => true,
            Some("none") => return Self::default(),
            Some(_) => {
                warnings.push("OTEL_TRACES_EXPORTER: only otlp and none are known, traces are off".into());
                return Self { target: None, warnings };
            }
        };
        let endpoint = match endpoint(&env, named) {
            Ok(Some(endpoint)) => endpoint,
            Ok(None) => return Self::default(),
            Err(name) => {
                warnings.push(format!("{name}: not an http or https URL, traces are off"));
                return Self { target: None, warnings };
            }
        };
        for name in NUMBERS {
            if env(name).is_some_and(|value| value.parse::<u32>().is_err()) {
                warnings.push(format!("{name}: not a whole number, the default is used"));
            }
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if env(name).is_some_and(|value| value != "http/protobuf") {
                warnings.push(format!("{name}: http/protobuf is used, nothing else is spoken"));
            }
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"] {
            if env(name).is_some_and(|value| !value.eq_ignore_ascii_case("none")) {
                warnings.push(format!("{name}: traces are sent uncompressed"));
            }
        }
        let timeout = env("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
            .or_else(|| env("OTEL_EXPORTER_OTLP_TIMEOUT"))
            .and_then(|millis| millis.parse::<u32>().ok())
            .map_or(DEFAULT_TIMEOUT, |millis| Duration::from_millis(millis.into()));
        let sampler = sampler(&env, &mut warnings);
        let service_name = env("OTEL_SERVICE_NAME");
        let queue = env("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|size| size.parse().ok());
        let queue = queue.unwrap_or(delivery::DEFAULT_QUEUE);
        Self { target: Some(Target { endpoint, timeout, sampler, queue, service_name }), warnings }
    }
}

/// The endpoint; `Err` is the name of the variable that holds none.
fn endpoint(env: &impl Fn(&str) -> Option<String>, named: bool) -> Result<Option<Url>, &'static str> {
    let (name, text) = if let Some(whole) = env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", whole)
    } else if let Some(base) = env("OTEL_EXPORTER_OTLP_ENDPOINT") {
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{}/v1/traces", base.trim_end_matches('/')))
    } else if named {
        ("OTEL_TRACES_EXPORTER", DEFAULT_ENDPOINT.to_owned())
    } else {
        return Ok(None);
    };
    let url = Url::parse(&text).map_err(|_| name)?;
    let usable = matches!(url.scheme(), "http" | "https") && url.has_host();
    if usable { Ok(Some(url)) } else { Err(name) }
}

fn sampler(env: &impl Fn(&str) -> Option<String>, warnings: &mut Vec<String>) -> Sampler {
    let mut ratio = || {
        let ratio = env("OTEL_TRACES_SAMPLER_ARG").map(|text| text.parse::<f64>());
        match ratio {
            Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => Sampler::TraceIdRatioBased(ratio),
            _ => {
                warnings.push("OTEL_TRACES_SAMPLER_ARG: not a number from 0 to 1, 1 is used".into());
                Sampler::TraceIdRatioBased(1.0)
            }
        }
    };
    let by_parent = |root| Sampler::ParentBased(Box::new(root));
    match env("OTEL_TRACES_SAMPLER").as_deref() {
        None | Some("parentbased_always_on") => by_parent(Sampler::AlwaysOn),
        Some("always_on") => Sampler::AlwaysOn,
        Some("always_off") => Sampler::AlwaysOff,
        Some("parentbased_always_off") => by_parent(Sampler::AlwaysOff),
        Some("traceidratio") => ratio(),
        Some("parentbased_traceidratio") => by_parent(ratio()),
        Some(_) => {
            warnings.push("OTEL_TRACES_SAMPLER: not a known sampler, parentbased_always_on is used".into());
            by_parent(Sampler::AlwaysOn)
        }
    }
}

/// Starts the exporter's thread. No collector has to be there; `Err` is a reason for people.
pub(super) fn provider(
    target: &Target,
    service_version: &str,
    counters: &SpanCounters,
) -> Result<SdkTracerProvider, String> {
    let client = http_client(target)?;
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(target.endpoint.as_str())
        .with_timeout(target.timeout)
        .build()
        .map_err(|error| error.to_string())?;
    Ok(SdkTracerProvider::builder()
        .with_sampler(target.sampler.clone())
        .with_resource(resource(target.service_name.as_deref(), service_version))
        .with_span_processor(delivery::queue(exporter, target.queue, counters))
        .build())
}

/// A blocking client, for the exporter's own thread: an async one would need a runtime there.
fn http_client(target: &Target) -> Result<reqwest::blocking::Client, String> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing this race is fine: whoever won installed one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let mut builder = reqwest::blocking::Client::builder()
        .timeout(target.timeout)
        .redirect(reqwest::redirect::Policy::none());
    if target.endpoint.scheme() == "http" {
        // An image without CA certificates must still be able to reach a collector in plain text.
        builder = builder.tls_certs_only([]);
    }
    // Building a blocking client within a runtime panics; this thread has none.
    let built = std::thread::spawn(move || builder.build()).join();
    let client = built.map_err(|_| "the HTTP client could not be built".to_owned())?;
    client.map_err(|error| format!("the HTTP client could not be built: {}", error.without_url()))
}

/// Who the spans are from. Later entries win, so the environment's do.
fn resource(service_name: Option<&str>, service_version: &str) -> Resource {
    let own = [
        KeyValue::new("service.name", "invite-relay"),
        KeyValue::new("service.version", service_version.to_owned()),
        KeyValue::new("service.instance.id", Uuid::now_v7().to_string()),
        KeyValue::new("telemetry.sdk.name", "opentelemetry"),
        KeyValue::new("telemetry.sdk.language", "rust"),
    ];
    let resource =
        Resource::builder_empty().with_attributes(own).with_detector(Box::new(EnvResourceDetector::new()));
    match service_name {
        Some(name) => resource.with_service_name(name.to_owned()).build(),
        None => resource.build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{Tracer, TracerProvider};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::time::Instant;

    fn wish(variables: &[(&str, &str)]) -> Wish {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name);
        Wish::from_env(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn traces_leave_only_when_asked_for() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        let url = |variables: &[(&str, &str)]| wish(variables).target.map(|t| t.endpoint.to_string());
        for off in [
            &[][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")],
            &[endpoint, ("OTEL_SDK_DISABLED", "True")],
            &[endpoint, ("OTEL_TRACES_EXPORTER", "none")],
            &[("OTEL_SERVICE_NAME", "x")],
        ] {
            assert_eq!(url(off), None, "{off:?}");
            assert!(wish(off).warnings.is_empty());
        }
        assert_eq!(url(&[endpoint]).unwrap(), "http://collector:4318/v1/traces");
        assert_eq!(url(&[endpoint, ("OTEL_SDK_DISABLED", "no")]).unwrap(), "http://collector:4318/v1/traces");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://c.example/custom");
        assert_eq!(url(&[endpoint, whole]).unwrap(), "https://c.example/custom");
        assert_eq!(url(&[("OTEL_TRACES_EXPORTER", "otlp")]).unwrap(), DEFAULT_ENDPOINT);
    }

    #[test]
    fn a_wrong_value_is_a_warning_that_does_not_repeat_it() {
        for (name, traces) in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", false),
            ("OTEL_TRACES_EXPORTER", false),
            ("OTEL_TRACES_SAMPLER", true),
            ("OTEL_BSP_MAX_QUEUE_SIZE", true),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", true),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", true),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", true),
        ] {
            let wish = wish(&[(name, "s3cret"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")]);
            assert_eq!(wish.target.is_some(), traces, "{name}");
            assert_eq!(wish.warnings.len(), 1, "{name}");
            assert!(wish.warnings[0].contains(name) && !wish.warnings[0].contains("s3cret"));
        }
    }

    #[test]
    fn the_sampler_follows_the_standard_names() {
        let sampler = |name: &str, arg: &str| {
            let wish = wish(&[
                ("OTEL_TRACES_SAMPLER", name),
                ("OTEL_TRACES_SAMPLER_ARG", arg),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318"),
            ]);
            (format!("{:?}", wish.target.unwrap().sampler), wish.warnings.len())
        };
        assert_eq!(sampler("", ""), ("ParentBased(AlwaysOn)".into(), 0));
        assert_eq!(sampler("always_off", ""), ("AlwaysOff".into(), 0));
        assert_eq!(sampler("traceidratio", "0.25"), ("TraceIdRatioBased(0.25)".into(), 0));
        assert_eq!(
            sampler("parentbased_traceidratio", "7"),
            ("ParentBased(TraceIdRatioBased(1.0))".into(), 1)
        );
    }

    #[test]
    fn a_target_shows_its_host_and_port_only() {
        let wish = wish(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://user:pw@c.example/?key=s3cret")]);
        assert_eq!(wish.target.unwrap().address(), "c.example:443");
    }

    #[test]
    fn our_service_name_gives_way_to_the_standard_variable() {
        let name = |given| resource(given, "1").get(&"service.name".into()).unwrap().to_string();
        assert_eq!(name(None), "invite-relay");
        assert_eq!(name(Some("relay-eu")), "relay-eu");
    }

    fn target_at(listener: &TcpListener) -> Target {
        let base = format!("http://{}", listener.local_addr().unwrap());
        wish(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &base)]).target.unwrap()
    }

    #[tokio::test]
    async fn a_hanging_collector_delays_neither_the_caller_nor_the_shutdown() {
        // The kernel completes the handshake; nobody ever answers.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = provider(&target_at(&listener), "1", &SpanCounters::default()).unwrap();
        let tracer = provider.tracer("test");
        let start = Instant::now();
        // More than the queue and a batch hold, so that the export has begun and spans are dropped.
        for _ in 0..5_000 {
            drop(tracer.start("span"));
        }
        assert!(start.elapsed() < Duration::from_secs(2), "the caller waited {:?}", start.elapsed());
        let telemetry = crate::telemetry::setup::Telemetry::exporting(provider);
        let start = Instant::now();
        telemetry.shutdown(Duration::from_millis(200)).await;
        assert!(start.elapsed() < Duration::from_secs(3), "the shutdown took {:?}", start.elapsed());
    }

    #[tokio::test]
    async fn queued_spans_reach_the_collector_at_shutdown() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let provider = provider(&target_at(&listener), "1", &SpanCounters::default()).unwrap();
        let collector = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut chunk = [0; 4096];
            while !request.windows(9).any(|window| window == b"last-span") {
                let n = stream.read(&mut chunk).unwrap();
                assert!(n > 0, "the request ended early");
                request.extend_from_slice(&chunk[..n]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned()
        });
        drop(provider.tracer("test").start("last-span"));
        crate::telemetry::setup::Telemetry::exporting(provider).shutdown(Duration::from_secs(10)).await;
        assert_eq!(collector.join().unwrap(), "POST /v1/traces HTTP/1.1");
    }
}
