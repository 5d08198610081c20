//! The API client against every fault of the simulator: one request, once, and what it means.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail by panicking, as tests do")]

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use invite_relay::dashdoc::client::{Client, Exchange, Settings};
use invite_relay::dashdoc::simulator::{self, Fault, Faults, Handle, Mix, RetryAfter, Simulator, Truckers};
use invite_relay::invite::{Answer, FailureClass, FingerprintKey, TruckerKey};
use invite_relay::lifecycle::Lifecycle;

const TIMEOUT: Duration = Duration::from_secs(2);

struct Api {
    client: Client,
    simulator: Handle,
    life: Lifecycle,
}

fn client(base_url: &str, header: &str, scheme: &str) -> Client {
    static TLS: OnceLock<()> = OnceLock::new();
    TLS.get_or_init(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    let settings = Settings {
        base_url: base_url.parse().unwrap(),
        auth_header: header.parse().unwrap(),
        auth_scheme: scheme.to_owned(),
        timeout: TIMEOUT,
        authorities: Vec::new(),
    };
    Client::new(settings, Arc::new(|| simulator::DEFAULT_TOKEN.into()), FingerprintKey::new([7; 32])).unwrap()
}

async fn api(settings: simulator::Settings) -> Api {
    let life = Lifecycle::new();
    let running = Simulator::bind(simulator::Settings { rate_limit: 0, ..settings }).await.unwrap();
    // A trailing slash in the setting does no harm.
    let client = client(&format!("{}/", running.base_url()), "Authorization", "Token");
    let simulator = running.handle();
    life.spawn_long("simulator", running.run(life.clone()));
    Api { client, simulator, life }
}

fn key(pk: u64) -> TruckerKey {
    format!("default/{pk}").parse().unwrap()
}

fn class(exchange: &Exchange) -> Option<FailureClass> {
    match &exchange.answer {
        Answer::Failed { failure, .. } => Some(failure.class),
        Answer::Code(_) | Answer::NoCode => None,
    }
}

#[tokio::test]
async fn each_fault_of_a_call_has_its_class_and_no_request_is_repeated() {
    use FailureClass::{Credentials, Doubtful, Misconfigured, NotFound, Rejected, Throttled, Unknown};
    let api = api(simulator::Settings::default()).await;
    let table = [
        (Fault::ErrorBefore, Unknown),
        (Fault::ErrorAfter, Unknown),
        (Fault::ReplyLost, Unknown),
        (Fault::LateEffect, Unknown),
        (Fault::Reset, Unknown),
        (Fault::HalfBody, Doubtful),
        (Fault::NoCode, Doubtful),
        (Fault::EmptyCode, Doubtful),
        (Fault::Garbage, Doubtful),
        (Fault::Oversized, Doubtful),
        (Fault::Throttled, Throttled),
        (Fault::Unauthorized, Credentials),
        (Fault::Forbidden, Credentials),
        (Fault::Rejected, Rejected),
        (Fault::NotFound, NotFound),
        (Fault::Redirect, Misconfigured),
    ];
    for (pk, (fault, expected)) in (1..).zip(table) {
        api.simulator.script_posts(pk, [fault]);
        let exchange = api.client.generate(&key(pk)).await;
        assert_eq!(class(&exchange), Some(expected), "{fault:?}: {:?}", exchange.answer);
        assert_eq!(api.simulator.trucker(pk).unwrap().posts, 1, "{fault:?} was repeated");
    }
    api.life.begin_drain();
}

#[tokio::test]
async fn a_code_comes_back_by_a_call_and_by_a_read_with_the_same_fingerprint() {
    let api = api(simulator::Settings::default()).await;
    let Answer::Code(called) = api.client.generate(&key(1)).await.answer else { panic!("no code") };
    let Answer::Code(read) = api.client.read(&key(1)).await.answer else { panic!("no code") };
    assert_eq!(called, read);
    assert_eq!(api.simulator.trucker(1).unwrap().code.as_deref(), Some(called.code.reveal()));
    assert!(api.simulator.use_code(1, called.code.reveal()));
    assert_eq!(api.client.read(&key(1)).await.answer, Answer::NoCode, "a used code reads as none");
    api.life.begin_drain();
}

#[tokio::test]
async fn a_code_of_unusual_length_is_taken_and_tells_so() {
    let api = api(simulator::Settings::default()).await;
    api.simulator.script_posts(1, [Fault::OddCode]);
    let Answer::Code(odd) = api.client.generate(&key(1)).await.answer else { panic!("no code") };
    assert!(!odd.code.has_usual_length());
    api.life.begin_drain();
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_an_unknown_outcome() {
    let slow = Mix { latency_ms: 60_000, ..Mix::default() };
    let api =
        api(simulator::Settings { faults: Faults::posts(slow), ..simulator::Settings::default() }).await;
    let exchange = api.client.generate(&key(1)).await;
    assert_eq!(class(&exchange), Some(FailureClass::Unknown));
    assert_eq!(api.simulator.trucker(1).unwrap().posts, 1);
    api.life.begin_drain();
}

#[tokio::test]
async fn retry_after_is_read_in_both_forms_and_cut_at_an_hour() {
    for (asked, wait, cut) in [
        (RetryAfter::None, None, false),
        (RetryAfter::Seconds(7), Some(7), false),
        (RetryAfter::Date(7), Some(7), false),
        (RetryAfter::Seconds(86_400), Some(3600), true),
    ] {
        let throttled = Mix { throttled: 1.0, retry_after: asked, ..Mix::default() };
        let faults = Faults::posts(throttled);
        let api = api(simulator::Settings { faults, ..simulator::Settings::default() }).await;
        let exchange = api.client.generate(&key(1)).await;
        let Answer::Failed { retry_after, .. } = exchange.answer else { panic!("not throttled") };
        // Between the two headers of a date form the second may turn.
        let seconds = retry_after.map(|wait| wait.as_secs());
        assert!(seconds == wait || seconds == wait.map(|wait| wait - 1), "{seconds:?} for {wait:?}");
        assert_eq!(exchange.retry_after_cut, cut);
        api.life.begin_drain();
    }
}

#[tokio::test]
async fn both_documented_forms_of_authentication_work_and_a_stranger_is_refused() {
    let api = api(simulator::Settings::default()).await;
    let base = api.client.base_url().as_str().to_owned();
    for (header, scheme) in [("Authorization", "Token"), ("Authentication", "")] {
        let exchange = client(&base, header, scheme).read(&key(1)).await;
        assert!(matches!(exchange.answer, Answer::Code(_)), "{header}");
    }
    api.simulator.set_tokens(["another-token"]);
    assert_eq!(class(&api.client.read(&key(1)).await), Some(FailureClass::Credentials));
    api.life.begin_drain();
}

#[tokio::test]
async fn an_api_that_is_not_there_has_seen_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let exchange =
        client(&format!("http://{address}/api/v4"), "Authorization", "Token").generate(&key(1)).await;
    assert_eq!(class(&exchange), Some(FailureClass::Transient));
}

#[tokio::test]
async fn a_trucker_that_is_not_there_yet_is_told_apart() {
    let api = api(simulator::Settings { truckers: Truckers::Known, ..simulator::Settings::default() }).await;
    assert_eq!(class(&api.client.generate(&key(1)).await), Some(FailureClass::NotFound));
    assert!(api.simulator.create(1, None));
    assert!(matches!(api.client.generate(&key(1)).await.answer, Answer::Code(_)));
    api.life.begin_drain();
}
