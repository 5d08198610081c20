//! The webhook as its senders see it: every refusal with its status and a problem that names the field.
#![expect(clippy::unwrap_used, reason = "a test ends where its ground gives way")]

use std::sync::OnceLock;

use invite_relay::config::{self, Sources};
use invite_relay::lifecycle::Lifecycle;
use invite_relay::signature::{self, Secret};
use invite_relay::telemetry::metrics::SpanCounters;
use invite_relay::{app, dashdoc::simulator, time};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OLD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const TOKEN: &str = "a-token-of-the-platform";
const PATH: &str = "/webhooks/trucker-created";

/// A running relay with a simulator behind it.
struct Relay {
    url: String,
    api: simulator::Handle,
    running: Option<app::Running>,
    life: Lifecycle,
    dir: tempfile::TempDir,
}

impl Relay {
    /// Starts with `extra` settings of `[source.webhook]`, besides those that every test needs.
    async fn start(extra: &[(&str, &str)]) -> Self {
        static TLS: OnceLock<()> = OnceLock::new();
        TLS.get_or_init(|| rustls::crypto::ring::default_provider().install_default().unwrap());
        let life = Lifecycle::new();
        let simulator = simulator::Simulator::bind(simulator::Settings::default()).await.unwrap();
        let (api, base_url) = (simulator.handle(), simulator.base_url());
        life.spawn_long("simulator", simulator.run(life.clone()));
        let dir = tempfile::tempdir().unwrap();
        let store = format!("sqlite://{}", dir.path().join("store.db").display());
        let mut env = vec![
            ("SOURCE__WEBHOOK__ENABLED", "true"),
            ("SOURCE__WEBHOOK__LISTEN", "127.0.0.1:0"),
            ("SINK__WEBHOOK__ENABLED", "true"),
            // Nobody listens there: what is announced does not matter here.
            ("SINK__WEBHOOK__URL", "http://127.0.0.1:1/"),
            ("SINK__WEBHOOK__SECRET", SECRET),
            ("ADMIN__LISTEN", "127.0.0.1:0"),
            ("DASHDOC__TOKEN", simulator::DEFAULT_TOKEN),
            ("DASHDOC__BASE_URL", &base_url),
            ("STORE__URL", &store),
        ];
        env.extend(extra);
        let env = env.iter().map(|(key, value)| (format!("INVITE_RELAY__{key}"), (*value).to_owned()));
        let loaded = config::load(Sources { file: None, env, sets: Vec::new() });
        let loaded = loaded.unwrap_or_else(|problems| panic!("{problems}"));
        let running = app::start(&loaded, &SpanCounters::default(), &Lifecycle::new()).await.unwrap();
        let url = format!("http://{}", running.webhook.unwrap());
        Self { url, api, running: Some(running), life, dir }
    }

    async fn signed() -> Self {
        let secrets = format!("[\"{OLD_SECRET}\", \"{SECRET}\"]");
        Self::start(&[("SOURCE__WEBHOOK__SECRETS", &secrets)]).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        reqwest::Client::new().request(method, format!("{}{path}", self.url))
    }

    fn admin(&self, path: &str) -> RequestBuilder {
        let address = self.running.as_ref().unwrap().admin;
        reqwest::Client::new().get(format!("http://{address}{path}"))
    }

    /// A POST with a good signature over `body`.
    fn post(&self, body: &str) -> RequestBuilder {
        self.post_signed(SECRET, now(), body)
    }

    fn post_signed(&self, secret: &str, seconds: i64, body: &str) -> RequestBuilder {
        self.unlabelled(secret, seconds, body).header(CONTENT_TYPE, "application/json")
    }

    /// A POST with a good signature and another content type.
    fn post_as(&self, content_type: &str, body: &str) -> RequestBuilder {
        self.unlabelled(SECRET, now(), body).header(CONTENT_TYPE, content_type)
    }

    fn unlabelled(&self, secret: &str, seconds: i64, body: &str) -> RequestBuilder {
        let secret: Secret = secret.parse().unwrap();
        self.request(Method::POST, PATH)
            .header(signature::ID_HEADER, "msg_1")
            .header(signature::TIMESTAMP_HEADER, seconds.to_string())
            .header(signature::SIGNATURE_HEADER, signature::sign(&secret, "msg_1", seconds, body.as_bytes()))
            .body(body.to_owned())
    }

    async fn stop(mut self) {
        let running = self.running.take().unwrap();
        running.life.begin_drain();
        running.finish().await.unwrap();
        self.life.begin_drain();
    }
}

fn now() -> i64 {
    time::now().as_millis() / 1000
}

#[expect(clippy::disallowed_methods, reason = "a test is the sender here")]
async fn send(request: RequestBuilder) -> (StatusCode, reqwest::header::HeaderMap, Value) {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.bytes().await.unwrap();
    (status, headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The request is answered with `status` and a problem that blames `field`.
async fn check_refused(request: RequestBuilder, status: u16, field: &str) -> Value {
    let (found, headers, body) = send(request).await;
    assert_eq!((found.as_u16(), body["field"].as_str()), (status, Some(field)), "{body}");
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(body["status"], status);
    for member in ["type", "title", "detail"] {
        assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{member} is missing in {body}");
    }
    body
}

#[tokio::test]
async fn a_signed_event_is_accepted_once_and_a_repeat_is_a_duplicate() {
    let relay = Relay::signed().await;
    let body = json!({ "id": "e1", "type": "trucker.created", "trucker": { "pk": 23498 } }).to_string();
    let (status, _, answer) = send(relay.post(&body)).await;
    assert_eq!(
        (status, &answer),
        (StatusCode::ACCEPTED, &json!({ "status": "accepted", "invite": "default/23498" }))
    );
    // A sender's next try carries a new timestamp and, during a rotation, the other secret's signature.
    let (status, _, answer) = send(relay.post_signed(OLD_SECRET, now() - 1, &body)).await;
    assert_eq!((status, &answer["status"]), (StatusCode::ACCEPTED, &json!("duplicate")));
    relay.api.wait_for(|view| view.trucker(23498).is_some_and(|trucker| trucker.effects == 1)).await;
    assert_eq!(relay.api.trucker(23498).unwrap().posts, 1);
    relay.stop().await;
}

#[tokio::test]
async fn structured_and_binary_cloudevents_are_accepted() {
    let relay = Relay::signed().await;
    let structured = json!({ "specversion": "1.0", "id": "e1", "source": "/platform", "type": "trucker.created",
        "data": { "trucker": { "pk": 1 } } });
    let request = relay.post_as("application/cloudevents+json; charset=utf-8", &structured.to_string());
    assert_eq!(send(request).await.0, StatusCode::ACCEPTED);
    let binary = relay.post(&json!({ "trucker": { "pk": 2 } }).to_string());
    let attributes =
        [("ce-specversion", "1.0"), ("ce-id", "e2"), ("ce-source", "/p"), ("ce-type", "trucker.created")];
    let binary = attributes.into_iter().fold(binary, |request, (name, value)| request.header(name, value));
    let (status, _, answer) = send(binary).await;
    assert_eq!((status, &answer["invite"]), (StatusCode::ACCEPTED, &json!("default/2")));
    relay.stop().await;
}

#[tokio::test]
async fn an_unverified_sender_gets_401_and_the_header_that_is_to_blame() {
    let relay = Relay::signed().await;
    let good = json!({ "pk": 1 }).to_string();
    let unsigned =
        relay.request(Method::POST, PATH).header(CONTENT_TYPE, "application/json").body(good.clone());
    check_refused(unsigned, 401, "webhook-id").await;
    let stranger = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    check_refused(relay.post_signed(stranger, now(), &good), 401, "webhook-signature").await;
    check_refused(relay.post_signed(SECRET, now() - 301, &good), 401, "webhook-timestamp").await;
    check_refused(relay.post_signed(SECRET, now() + 310, &good), 401, "webhook-timestamp").await;
    check_refused(relay.post(&good).body(r#"{"pk":2}"#), 401, "webhook-signature").await;
    let twice = relay.post(&good).header(AUTHORIZATION, format!("Bearer {TOKEN}")).body(r#"{"pk":2}"#);
    check_refused(twice, 401, "webhook-signature").await;
    assert_eq!(relay.api.stats().posts, 0, "nothing was called for");
    relay.stop().await;
}

#[tokio::test]
async fn an_unusable_event_is_refused_with_the_field_and_the_mend_and_never_its_content() {
    let relay = Relay::signed().await;
    check_refused(relay.post("{\"name\": \"Adèle"), 400, "body").await;
    check_refused(relay.post("{}"), 422, "/data/trucker/pk").await;
    let secretive = json!({ "trucker": { "pk": "Adèle Bouvet" } }).to_string();
    let problem = check_refused(relay.post(&secretive), 422, "/trucker/pk").await;
    assert!(!problem.to_string().contains("Bouvet"), "{problem}");
    check_refused(relay.post(r#"{"pk": 0}"#), 422, "/pk").await;
    check_refused(relay.post(r#"{"pk": 1.5}"#), 422, "/pk").await;
    check_refused(relay.post(r#"{"type":"transport.created","pk":1}"#), 422, "type").await;
    let batch = relay.post_as("application/cloudevents-batch+json", "[]");
    check_refused(batch, 415, "content-type").await;
    check_refused(relay.post_as("text/csv", "pk=1"), 415, "content-type").await;
    let broken = r#"{"specversion":"0.3","id":"1","source":"/p","type":"trucker.created","data":{"pk":1}}"#;
    let broken = relay.post_as("application/cloudevents+json", broken);
    check_refused(broken, 400, "specversion").await;
    check_refused(relay.post(&format!("{{\"pk\":1,\"x\":\"{}\"}}", "x".repeat(70_000))), 413, "body").await;
    relay.stop().await;
}

#[tokio::test]
async fn another_method_or_path_is_answered_with_a_problem() {
    let relay = Relay::signed().await;
    let (status, headers, body) = send(relay.request(Method::GET, PATH)).await;
    assert_eq!((status.as_u16(), &headers["allow"]), (405, &"POST".parse().unwrap()));
    assert_eq!(body["type"], "urn:invite-relay:problem:method-not-allowed");
    let (status, _, body) = send(relay.request(Method::POST, "/nowhere")).await;
    assert_eq!((status.as_u16(), &body["status"]), (404, &json!(404)));
    relay.stop().await;
}

#[tokio::test]
async fn a_bearer_token_or_a_token_in_a_header_of_ones_choice_is_enough() {
    let tokens = format!("[\"{TOKEN}\"]");
    let relay = Relay::start(&[("SOURCE__WEBHOOK__TOKENS", &tokens)]).await;
    let post =
        || relay.request(Method::POST, PATH).header(CONTENT_TYPE, "application/json").body(r#"{"pk":1}"#);
    check_refused(post(), 401, "authorization").await;
    check_refused(post().header(AUTHORIZATION, "Bearer wrong-token-of-someone"), 401, "authorization").await;
    check_refused(post().header(AUTHORIZATION, TOKEN), 401, "authorization").await;
    assert_eq!(send(post().header(AUTHORIZATION, format!("Bearer {TOKEN}"))).await.0, StatusCode::ACCEPTED);
    relay.stop().await;

    let header =
        [("SOURCE__WEBHOOK__TOKENS", tokens.as_str()), ("SOURCE__WEBHOOK__TOKEN_HEADER", "X-Api-Key")];
    let relay = Relay::start(&header).await;
    let post =
        || relay.request(Method::POST, PATH).header(CONTENT_TYPE, "application/json").body(r#"{"pk":1}"#);
    check_refused(post().header(AUTHORIZATION, format!("Bearer {TOKEN}")), 401, "x-api-key").await;
    assert_eq!(send(post().header("X-Api-Key", TOKEN)).await.0, StatusCode::ACCEPTED);
    relay.stop().await;
}

#[test]
fn an_empty_or_short_secret_and_a_missing_verifier_are_refused_at_the_start() {
    let load = |extra: &[(&str, &str)]| {
        let base = [
            ("SOURCE__WEBHOOK__ENABLED", "true"),
            ("SINK__STDOUT__ENABLED", "true"),
            ("DASHDOC__TOKEN", "token"),
        ];
        let env = base
            .iter()
            .chain(extra)
            .map(|(key, value)| (format!("INVITE_RELAY__{key}"), (*value).to_owned()));
        config::load(Sources { file: None, env, sets: Vec::new() }).err().map(|problems| problems.to_string())
    };
    let missing = load(&[]).expect("no verifier is refused");
    assert!(missing.contains("source.webhook") && missing.contains("anyone could send events"), "{missing}");
    for secret in ["[\"\"]", "[\"whsec_\"]", "[\"whsec_c2hvcnQ=\"]"] {
        let refused = load(&[("SOURCE__WEBHOOK__SECRETS", secret)]);
        assert!(
            refused.as_deref().is_some_and(|text| text.contains("source.webhook.secrets")),
            "{secret}: {refused:?}"
        );
    }
    assert_eq!(load(&[("SOURCE__WEBHOOK__INSECURE_ACCEPT_UNSIGNED", "true")]), None);
}

#[tokio::test]
async fn while_the_store_takes_no_writes_senders_are_asked_to_come_again_and_nothing_is_lost() {
    let relay = Relay::signed().await;
    let body = json!({ "pk": 1 }).to_string();
    // Another program holds the file's write lock, as a careless backup would.
    let holder = rusqlite::Connection::open(relay.dir.path().join("store.db")).unwrap();
    holder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let (status, headers, problem) = send(relay.post(&body)).await;
    assert_eq!((status.as_u16(), headers["retry-after"].to_str().unwrap()), (503, "5"), "{problem}");
    assert_eq!(headers["content-type"], "application/problem+json");
    let (status, _, report) = send(relay.admin("/readyz")).await;
    assert_eq!((status.as_u16(), &report["parts"][0]["name"]), (503, &json!("store")), "{report}");
    assert_eq!(relay.api.stats().posts, 0, "nothing leaves before it is on the disk");
    holder.execute_batch("ROLLBACK").unwrap();
    let (status, _, answer) = send(relay.post(&body)).await;
    assert_eq!(
        (status, &answer["status"]),
        (StatusCode::ACCEPTED, &json!("accepted")),
        "the refused try left nothing"
    );
    assert_eq!(send(relay.admin("/readyz")).await.0, StatusCode::OK);
    relay.stop().await;
}
