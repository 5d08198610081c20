//! The Dashdoc API simulator, over raw HTTP/1.1: what it promises on the wire and in its state.
#![expect(clippy::unwrap_used, reason = "the helpers of tests fail by panicking, as tests do")]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use invite_relay::dashdoc::simulator::{
    Cause, End, Fault, Faults, Handle, HoldAt, Mix, RetryAfter, Settings, Simulator, Truckers,
};
use invite_relay::lifecycle::{Failed, Lifecycle};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

const AUTH: &str = "Authorization: Token demo-token\r\n";

/// A running simulator.
struct Sim {
    address: SocketAddr,
    handle: Handle,
    life: Lifecycle,
}

/// How a request ended.
#[derive(Debug, PartialEq)]
enum Ended {
    Answer(Answer),
    /// Closed without a byte.
    Closed,
    Reset,
}

#[derive(Debug, PartialEq)]
struct Answer {
    status: u16,
    /// In lower case.
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.body))
    }

    fn code(&self) -> String {
        self.json()["invite_code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Ended {
    fn answer(self) -> Answer {
        match self {
            Self::Answer(answer) => answer,
            other => panic!("an answer was expected, not {other:?}"),
        }
    }
}

impl Sim {
    async fn start(settings: Settings) -> Self {
        let simulator = Simulator::bind(settings).await.unwrap();
        let (address, handle, life) = (simulator.address(), simulator.handle(), Lifecycle::new());
        assert_eq!(simulator.base_url(), format!("http://{address}/api/v4"));
        life.spawn_long("simulator", simulator.run(life.clone()));
        Self { address, handle, life }
    }

    /// Without a rate limit.
    async fn unlimited(faults: Faults) -> Self {
        Self::start(Settings { faults, rate_limit: 0, ..Settings::default() }).await
    }

    async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Ended {
        exchange(self.address, &request(method, path, headers, body)).await
    }

    async fn generate(&self, pk: u64) -> Ended {
        self.send("POST", &generate_path(pk), AUTH, "{}").await
    }

    async fn read(&self, pk: u64) -> Ended {
        self.send("GET", &format!("/api/v4/manager-truckers/{pk}/"), AUTH, "").await
    }

    async fn control(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(method, &format!("/_simulator/{path}"), "", &body).await.answer()
    }

    /// The code that is valid now, or nothing.
    fn code(&self, pk: u64) -> String {
        self.handle.trucker(pk).and_then(|trucker| trucker.code).unwrap_or_default()
    }

    fn effects(&self) -> u64 {
        self.handle.stats().effects
    }

    /// Sends a generate in the background.
    fn generating(&self, pk: u64) -> tokio::task::JoinHandle<Ended> {
        let (address, text) = (self.address, request("POST", &generate_path(pk), AUTH, "{}"));
        self.life.spawn_work(async move { exchange(address, &text).await })
    }
}

fn generate_path(pk: u64) -> String {
    format!("/api/v4/manager-truckers/{pk}/generate-invite-code/")
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: simulator\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

async fn exchange(address: SocketAddr, request: &str) -> Ended {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes).await {
        Ok(0) => Ended::Closed,
        Ok(_) => Ended::Answer(parse(&bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ended::Reset,
        Err(error) => panic!("{error}"),
    }
}

fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

fn known() -> Settings {
    Settings { truckers: Truckers::Known, rate_limit: 0, ..Settings::default() }
}

// Truckers and codes

#[tokio::test]
async fn a_trucker_has_a_code_from_its_creation_and_a_read_does_not_change_it() {
    let sim = Sim::unlimited(Faults::default()).await;
    let first = sim.read(5).await.answer();
    assert_eq!((first.status, first.code().len()), (200, 6));
    assert_eq!(sim.read(5).await.answer().code(), first.code());
    let trucker = sim.handle.trucker(5).unwrap();
    assert_eq!((trucker.gets, trucker.effects, trucker.codes.len()), (2, 0, 1));
    assert_eq!(trucker.codes[0].cause, Cause::Creation);
}

#[tokio::test]
async fn a_generate_replaces_the_code() {
    let sim = Sim::unlimited(Faults::default()).await;
    let old = sim.read(5).await.answer().code();
    let new = sim.generate(5).await.answer().code();
    assert_ne!(old, new);
    assert_eq!(sim.read(5).await.answer().code(), new);
    assert!(!sim.handle.use_code(5, &old), "the replaced code still works");
    let trucker = sim.handle.trucker(5).unwrap();
    assert_eq!(trucker.codes[0].end, Some(End::Replaced));
    assert_eq!(trucker.codes[1].cause, Cause::Generate { fault: Fault::None });
    assert_eq!((trucker.posts, trucker.effects), (1, 1));
}

#[tokio::test]
async fn a_used_code_is_emptied_and_works_only_once() {
    let sim = Sim::unlimited(Faults::default()).await;
    let code = sim.generate(5).await.answer().code();
    assert!(sim.handle.use_code(5, &code));
    assert!(!sim.handle.use_code(5, &code));
    assert_eq!(sim.read(5).await.answer().json()["invite_code"], "");
    assert_eq!(sim.handle.trucker(5).unwrap().codes[1].end, Some(End::Used));
}

#[tokio::test]
async fn codes_are_six_unmistakable_characters_and_never_repeat() {
    let sim = Sim::start(known()).await;
    for pk in 1..=5000 {
        assert!(sim.handle.create(pk, None));
    }
    let codes: HashSet<_> = sim.handle.truckers().into_iter().map(|trucker| trucker.code.unwrap()).collect();
    assert_eq!(codes.len(), 5000);
    for code in codes {
        assert_eq!(code.len(), 6);
        assert!(code.chars().all(|c| "ABCDEFGHJKLMNPQRSTUVWXYZ23456789".contains(c)), "{code}");
    }
}

#[tokio::test]
async fn the_answer_has_every_field_of_the_reference() {
    let sim = Sim::unlimited(Faults::default()).await;
    let answer = sim.generate(23498).await.answer();
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let value = answer.json();
    for pointer in [
        "/pk",
        "/user/pk",
        "/user/username",
        "/user/display_name",
        "/user/email",
        "/user/date_joined",
        "/user/last_login",
        "/user/has_usable_password",
        "/user/first_name",
        "/user/last_name",
        "/phone_number",
        "/invite_code",
        "/app_version",
        "/readable_app_version",
        "/platform",
        "/remote_id",
        "/carrier/pk",
        "/carrier/remote_id",
        "/carrier/name",
        "/carrier/phone_number",
        "/carrier/country",
        "/carrier/primary_address/pk",
        "/carrier/primary_address/city",
        "/carrier/primary_address/postcode",
        "/carrier/primary_address/country",
        "/carrier/managers/0/pk",
        "/carrier/managers/0/display_name",
        "/carrier/managers/0/role",
        "/carrier/has_loggable_managers",
        "/is_rented",
        "/phone_number_personal",
        "/address",
        "/postcode",
        "/city",
        "/country_code",
        "/driving_license_number",
        "/driving_license_deadline",
        "/new_app_update_available",
        "/unavailability/0/id",
        "/unavailability/0/start_date",
        "/unavailability/0/unavailability_type",
        "/events/0",
        "/tags/0/pk",
        "/tags/0/name",
    ] {
        assert!(value.pointer(pointer).is_some_and(|found| !found.is_null()), "{pointer} is missing");
    }
    assert_eq!(value["pk"], 23498);
    assert_eq!(value["user"]["email"], "trucker-23498@example.com");
}

#[tokio::test]
async fn an_unknown_trucker_is_404_until_it_is_created() {
    let sim = Sim::start(known()).await;
    let refused = sim.generate(7).await.answer();
    assert_eq!((refused.status, refused.json()["code"].as_str()), (404, Some("not_found")));
    assert_eq!(sim.handle.trucker(7).map(|trucker| (trucker.posts, trucker.exists)), Some((1, false)));
    let created =
        sim.send("POST", "/api/v4/manager-truckers/", AUTH, r#"{"pk":7,"remote_id":"D-7"}"#).await.answer();
    assert_eq!((created.status, created.json()["remote_id"].as_str()), (201, Some("D-7")));
    assert_ne!(sim.generate(7).await.answer().code(), created.code());
    let taken = sim.send("POST", "/api/v4/manager-truckers/", AUTH, r#"{"remote_id":"D-7"}"#).await.answer();
    assert_eq!((taken.status, taken.json()["remote_id"]["code"].as_str()), (400, Some("unique")));
}

#[tokio::test(start_paused = true)]
async fn a_trucker_can_be_absent_for_a_while_after_it_was_first_asked_for() {
    let sim = Sim::unlimited(Faults { absent_ms: 5000, ..Faults::default() }).await;
    assert_eq!(sim.generate(5).await.answer().status, 404);
    tokio::time::advance(Duration::from_millis(4999)).await;
    assert_eq!(sim.read(5).await.answer().status, 404);
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(sim.generate(5).await.answer().status, 200);
}

#[tokio::test]
async fn the_list_is_paged_and_its_links_can_point_at_a_foreign_host() {
    let foreign_next = Some("https://api.dashdoc.example/".to_owned());
    let sim = Sim::start(Settings { foreign_next, ..known() }).await;
    for pk in 1..=41 {
        assert!(sim.handle.create(pk, None));
    }
    let page = async |n: u32| {
        sim.send("GET", &format!("/api/v4/manager-truckers/?page={n}"), AUTH, "").await.answer()
    };
    let (first, last) = (page(1).await.json(), page(3).await.json());
    assert_eq!(first["count"], 41);
    assert_eq!(first["results"].as_array().unwrap().len(), 20);
    assert_eq!(first["results"][0]["invite_code"], sim.code(1));
    assert_eq!(first["next"], "https://api.dashdoc.example/api/v4/manager-truckers/?page=2");
    assert_eq!(first["previous"], Value::Null);
    assert_eq!((&last["next"], last["results"][0]["pk"].as_u64()), (&Value::Null, Some(41)));
    assert_eq!(page(4).await.status, 404);
    assert_eq!(page(0).await.status, 404);
}

#[tokio::test]
async fn a_path_without_its_slash_a_wrong_method_and_a_wrong_path_are_told_apart() {
    let sim = Sim::unlimited(Faults::default()).await;
    let status = async |method: &str, path: &str| sim.send(method, path, AUTH, "").await.answer();
    let redirect = status("POST", "/api/v4/manager-truckers/5/generate-invite-code").await;
    assert_eq!(redirect.status, 301);
    assert_eq!(redirect.header("location"), Some("/api/v4/manager-truckers/5/generate-invite-code/"));
    assert_eq!(status("GET", &generate_path(5)).await.status, 405);
    assert_eq!(status("GET", "/api/v4/manager-truckers/five/").await.status, 404);
    assert_eq!(status("GET", "/api/v3/manager-truckers/5/").await.status, 404);
    assert_eq!(sim.handle.trucker(5), None);
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let sim = Sim::unlimited(Faults::default()).await;
    let mut stream = TcpStream::connect(sim.address).await.unwrap();
    let text = request("POST", &generate_path(5), AUTH, "{}").replace("Connection: close\r\n", "");
    for n in 1..=3 {
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"]}") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        assert_eq!(parse(&bytes).code(), sim.code(5));
        assert_eq!(sim.effects(), n);
    }
}

// The door

#[tokio::test]
async fn both_documented_forms_of_the_token_are_accepted() {
    let sim = Sim::unlimited(Faults::default()).await;
    for header in ["Authorization: Token demo-token\r\n", "Authentication: demo-token\r\n"] {
        assert_eq!(sim.send("POST", &generate_path(5), header, "{}").await.answer().status, 200, "{header}");
    }
}

#[tokio::test]
async fn a_bad_token_is_401_and_makes_no_code() {
    let sim = Sim::unlimited(Faults::default()).await;
    for (header, code) in [
        ("", "not_authenticated"),
        ("Authorization: Token wrong\r\n", "authentication_failed"),
        ("Authorization: Bearer demo-token\r\n", "authentication_failed"),
        ("Authentication: Token demo-token\r\n", "authentication_failed"),
    ] {
        let answer = sim.send("POST", &generate_path(5), header, "{}").await.answer();
        assert_eq!((answer.status, answer.json()["code"].as_str()), (401, Some(code)), "{header}");
        assert!(answer.json()["detail"].is_string());
    }
    assert_eq!(sim.effects(), 0);
}

#[tokio::test]
async fn tokens_can_be_changed_while_it_runs() {
    let sim = Sim::unlimited(Faults::default()).await;
    sim.handle.set_tokens(["new"]);
    assert_eq!(sim.generate(5).await.answer().status, 401);
    let header = "Authorization: Token new\r\n";
    assert_eq!(sim.send("POST", &generate_path(5), header, "{}").await.answer().status, 200);
}

#[tokio::test(start_paused = true)]
async fn the_eleventh_request_within_a_second_is_429_for_that_token_only() {
    let tokens = vec!["demo-token".to_owned(), "other".to_owned()];
    let sim = Sim::start(Settings { tokens, ..Settings::default() }).await;
    for n in 0..10 {
        assert_eq!(sim.read(n).await.answer().status, 200);
    }
    let refused = sim.generate(1).await.answer();
    assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("throttled")));
    assert_eq!(refused.header("retry-after"), None);
    assert_eq!(sim.handle.stats().throttled, 1);
    let other = "Authorization: Token other\r\n";
    assert_eq!(sim.send("POST", &generate_path(1), other, "{}").await.answer().status, 200);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(sim.generate(1).await.answer().status, 200);
}

#[tokio::test]
async fn the_throttled_profile_brings_its_own_limit() {
    let faults = Faults::profile("throttled").unwrap();
    let retry_after_on_limit = true;
    let settings = Settings { faults, rate_limit: 0, retry_after_on_limit, ..Settings::default() };
    let sim = Sim::start(settings).await;
    let mut refused = Vec::new();
    // A slow machine may let some out of the window; forty in a row are too many for that.
    for _ in 0..40 {
        let answer = sim.read(1).await.answer();
        if answer.status == 429 {
            refused.push(answer);
        }
    }
    assert_eq!(refused[0].header("retry-after"), Some("1"));
}

// Faults

#[tokio::test]
async fn every_fault_of_a_post_shows_on_the_wire_and_in_the_state() {
    use Fault as F;
    let closed = 0;
    for (fault, status, effects) in [
        (F::None, 200, 1),
        (F::ErrorBefore, 500, 0),
        (F::ErrorAfter, 500, 1),
        (F::ReplyLost, closed, 1),
        (F::HalfBody, 200, 1),
        (F::Drip, 200, 1),
        (F::NoCode, 200, 1),
        (F::EmptyCode, 200, 0),
        (F::Throttled, 429, 0),
        (F::Unavailable, 503, 0),
        (F::Unauthorized, 401, 0),
        (F::Forbidden, 403, 0),
        (F::Rejected, 400, 0),
        (F::NotFound, 404, 0),
        (F::Redirect, 302, 0),
        (F::Garbage, 200, 0),
        (F::Oversized, 200, 1),
        (F::OddCode, 200, 1),
    ] {
        let sim = Sim::unlimited(Faults::posts(Mix { drip_ms: 0, ..Mix::default() })).await;
        sim.handle.script_posts(5, [fault]);
        let got = match sim.generate(5).await {
            Ended::Answer(answer) => answer.status,
            Ended::Closed => closed,
            Ended::Reset => panic!("{fault:?} reset the connection"),
        };
        assert_eq!((got, sim.effects()), (status, effects), "{fault:?}");
        let trucker = sim.handle.trucker(5).unwrap();
        assert_eq!((trucker.posts, trucker.codes.len() as u64), (1, 1 + effects), "{fault:?}");
        assert_eq!(sim.handle.stats().in_flight, 0, "{fault:?}");
    }
}

#[tokio::test]
async fn a_reset_is_a_real_one_and_makes_no_code() {
    let sim = Sim::unlimited(Faults::default()).await;
    sim.handle.script_posts(5, [Fault::Reset]);
    assert_eq!(sim.generate(5).await, Ended::Reset);
    let stats = sim.handle.stats();
    assert_eq!((stats.posts, stats.effects, stats.unanswered), (1, 0, 1));
}

#[tokio::test]
async fn half_a_body_comes_under_the_length_of_all_of_it() {
    let sim = Sim::unlimited(Faults::default()).await;
    sim.handle.script_posts(5, [Fault::HalfBody]);
    let answer = sim.generate(5).await.answer();
    let declared: usize = answer.header("content-length").unwrap().parse().unwrap();
    let whole = sim.read(5).await.answer().body.len();
    assert_eq!((declared, answer.body.len()), (whole, whole / 2));
}

#[tokio::test(start_paused = true)]
async fn a_dripping_body_is_whole_in_the_end() {
    let sim = Sim::unlimited(Faults::posts(Mix { drip_ms: 10_000, ..Mix::default() })).await;
    sim.handle.script_posts(5, [Fault::Drip]);
    let started = Instant::now();
    let answer = sim.generate(5).await.answer();
    assert_eq!(answer.code(), sim.code(5));
    let pieces = answer.body.len().div_ceil(64);
    assert!(started.elapsed() >= Duration::from_secs(10) * u32::try_from(pieces).unwrap());
}

#[tokio::test]
async fn a_late_effect_comes_after_the_connection_is_gone() {
    let hour = Duration::from_secs(3600);
    let sim = Sim::unlimited(Faults::posts(Mix { late_effect_ms: 3_600_000, ..Mix::default() })).await;
    let creation = sim.read(5).await.answer().code();
    sim.handle.script_posts(5, [Fault::LateEffect]);
    assert_eq!(sim.generate(5).await, Ended::Closed);
    assert_eq!((sim.effects(), sim.code(5)), (0, creation.clone()));
    tokio::time::pause();
    tokio::time::advance(hour).await;
    sim.handle.wait_for(|view| view.stats().effects == 1).await;
    assert_ne!(sim.code(5), creation);
    assert_eq!(sim.handle.trucker(5).unwrap().codes[1].cause, Cause::Generate { fault: Fault::LateEffect });
}

#[tokio::test]
async fn the_faults_about_codes_show_what_they_promise() {
    let sim = Sim::unlimited(Faults::default()).await;
    sim.handle.script_posts(5, [Fault::NoCode, Fault::EmptyCode, Fault::OddCode, Fault::Oversized]);
    assert_eq!(sim.generate(5).await.answer().json()["invite_code"], Value::Null);
    assert_eq!(sim.generate(5).await.answer().json()["invite_code"], "");
    let odd = sim.generate(5).await.answer().code();
    assert_eq!((odd.len(), &odd), (10, &sim.code(5)));
    let oversized = sim.generate(5).await.answer();
    assert!(oversized.body.len() > 4 * 1024 * 1024);
    assert_eq!(oversized.code(), sim.code(5));
}

#[tokio::test]
async fn garbage_is_no_json_and_a_redirect_leads_elsewhere() {
    let sim = Sim::unlimited(Faults::default()).await;
    sim.handle.script_posts(5, [Fault::Garbage, Fault::Redirect]);
    let garbage = sim.generate(5).await.answer().body;
    assert!(serde_json::from_str::<Value>(&garbage).is_err());
    let redirect = sim.generate(5).await.answer();
    assert!(redirect.header("location").unwrap().starts_with("http://elsewhere.invalid/"));
}

#[tokio::test]
async fn rejections_go_through_the_known_shapes_of_errors() {
    let sim = Sim::unlimited(Faults::posts(Mix { rejected: 1.0, ..Mix::default() })).await;
    let mut shapes = HashSet::new();
    for _ in 0..6 {
        shapes.insert(sim.generate(5).await.answer().body);
    }
    assert_eq!(shapes.len(), 6);
}

#[tokio::test]
async fn retry_after_comes_in_seconds_as_a_date_or_not_at_all() {
    let sim = Sim::unlimited(Faults::default()).await;
    for (fault, status) in [(Fault::Throttled, 429), (Fault::Unavailable, 503)] {
        for retry_after in [RetryAfter::None, RetryAfter::Seconds(7), RetryAfter::Date(7)] {
            sim.handle.set_faults(Faults::posts(Mix { retry_after, ..Mix::default() }));
            sim.handle.script_posts(5, [fault]);
            let answer = sim.generate(5).await.answer();
            assert_eq!(answer.status, status);
            match (retry_after, answer.header("retry-after")) {
                (RetryAfter::None, None) | (RetryAfter::Seconds(7), Some("7")) => {}
                (RetryAfter::Date(7), Some(date)) => assert!(date.ends_with(" gmt"), "{date}"),
                (asked, got) => panic!("{asked:?} came as {got:?}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn latency_comes_before_the_answer_with_at_most_its_jitter() {
    let mix = Mix { latency_ms: 30_000, jitter_ms: 10_000, ..Mix::default() };
    let sim = Sim::unlimited(Faults { read: mix.clone(), ..Faults::posts(mix) }).await;
    for _ in 0..5 {
        let started = Instant::now();
        sim.generate(5).await.answer();
        sim.read(5).await.answer();
        let both = started.elapsed().as_secs();
        assert!((60..=81).contains(&both), "{both} s");
    }
}

#[tokio::test]
async fn reads_have_faults_of_their_own_that_make_no_code() {
    let sim = Sim::unlimited(Faults::reads(Mix { unavailable: 1.0, drip_ms: 0, ..Mix::default() })).await;
    let code = sim.generate(5).await.answer().code();
    assert_eq!(sim.read(5).await.answer().status, 503);
    sim.handle.script_gets(
        5,
        [Fault::ErrorAfter, Fault::NoCode, Fault::ReplyLost, Fault::LateEffect, Fault::Reset, Fault::None],
    );
    assert_eq!(sim.read(5).await.answer().status, 500);
    assert_eq!(sim.read(5).await.answer().json()["invite_code"], Value::Null);
    assert_eq!(sim.read(5).await, Ended::Closed);
    assert_eq!(sim.read(5).await, Ended::Closed);
    assert_eq!(sim.read(5).await, Ended::Reset);
    assert_eq!(sim.read(5).await.answer().code(), code);
    assert_eq!(sim.effects(), 1);
    assert_eq!(sim.send("GET", "/api/v4/manager-truckers/", AUTH, "").await.answer().status, 503);
}

#[tokio::test]
async fn a_script_wins_over_chances_in_its_order_and_for_its_trucker_only() {
    let sim = Sim::unlimited(Faults::profile("outage").unwrap()).await;
    sim.handle.script_posts(5, [Fault::ErrorAfter, Fault::ReplyLost]);
    sim.handle.script_posts(5, [Fault::None]);
    assert_eq!(sim.generate(6).await.answer().status, 503);
    assert_eq!(sim.send("POST", &generate_path(5), "", "{}").await.answer().status, 401);
    assert_eq!(sim.generate(5).await.answer().status, 500);
    assert_eq!(sim.generate(5).await, Ended::Closed);
    assert_eq!(sim.generate(5).await.answer().code(), sim.code(5));
    assert_eq!(sim.generate(5).await.answer().status, 503);
    assert_eq!(sim.effects(), 3);
}

#[tokio::test]
async fn one_seed_gives_the_same_faults_and_codes_in_whatever_order_truckers_come() {
    async fn outcomes(seed: u64, pks: impl Iterator<Item = u64>) -> Vec<(u64, Vec<u16>, String)> {
        let faults = Faults::posts(Mix { error_before: 0.3, rejected: 0.3, ..Mix::default() });
        let sim = Sim::start(Settings { faults, seed, rate_limit: 0, ..Settings::default() }).await;
        let mut found = Vec::new();
        for pk in pks {
            let mut statuses = Vec::new();
            for _ in 0..4 {
                statuses.push(sim.generate(pk).await.answer().status);
            }
            found.push((pk, statuses, sim.code(pk)));
        }
        found.sort();
        found
    }
    let forth = outcomes(7, 1..20).await;
    assert_eq!(forth, outcomes(7, (1..20).rev()).await);
    assert_ne!(forth, outcomes(8, 1..20).await);
}

// Holds

#[tokio::test]
async fn a_held_post_waits_before_its_effect_or_before_its_reply() {
    let sim = Sim::unlimited(Faults::default()).await;
    let before_effect = sim.handle.hold_post(5, HoldAt::BeforeEffect);
    let before_reply = sim.handle.hold_post(5, HoldAt::BeforeReply);
    let first = sim.generating(5);
    before_effect.arrived().await;
    assert_eq!((sim.effects(), sim.handle.stats().in_flight), (0, 1));
    let second = sim.generating(5);
    before_reply.arrived().await;
    assert_eq!((sim.effects(), sim.handle.stats().by_status.len()), (1, 0));
    before_effect.release();
    let first = first.await.unwrap().answer().code();
    before_reply.release();
    assert_ne!(second.await.unwrap().answer().code(), first, "the reply held is the one of its own effect");
    assert_eq!(sim.code(5), first);
    assert_eq!(sim.handle.trucker(5).unwrap().peak_posts_in_flight, 2);
    assert_eq!(sim.handle.stats().peak_in_flight, 2);
}

#[tokio::test]
async fn a_post_takes_effect_although_its_client_has_hung_up() {
    let sim = Sim::unlimited(Faults::default()).await;
    let held = sim.handle.hold_post(5, HoldAt::BeforeEffect);
    let client = sim.generating(5);
    held.arrived().await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    // Answered on a later connection, so the hang-up has been seen.
    sim.read(6).await.answer();
    held.release();
    let applied = sim.handle.wait_for(|view| view.trucker(5).is_some_and(|trucker| trucker.effects == 1));
    tokio::time::timeout(Duration::from_secs(10), applied)
        .await
        .expect("the effect died with the connection");
}

#[tokio::test]
async fn a_drain_ends_held_requests_and_idle_connections() {
    let sim = Sim::unlimited(Faults::default()).await;
    let idle = TcpStream::connect(sim.address).await.unwrap();
    let held = sim.handle.hold_get(5, HoldAt::BeforeReply);
    let text = request("GET", "/api/v4/manager-truckers/5/", AUTH, "");
    let (address, clients) = (sim.address, Lifecycle::new());
    let client = clients.spawn_work(async move { exchange(address, &text).await });
    held.arrived().await;
    sim.life.begin_drain();
    assert_eq!(client.await.unwrap(), Ended::Closed);
    assert_eq!(sim.life.finish(Duration::from_secs(30)).await, Ok::<(), Failed>(()));
    drop(idle);
    assert!(TcpStream::connect(sim.address).await.is_err(), "the listener is still there");
}

// Control

#[tokio::test]
async fn stats_and_truckers_are_told_over_http() {
    let sim = Sim::unlimited(Faults::default()).await;
    let code = sim.generate(5).await.answer().code();
    sim.read(5).await.answer();
    let stats = sim.control("GET", "stats", &Value::Null).await.json();
    assert_eq!(
        stats,
        json!({"posts": 1, "gets": 1, "effects": 1, "by_status": {"200": 2}, "throttled": 0, "unanswered": 0,
               "in_flight": 0, "peak_in_flight": 1, "truckers": 1})
    );
    let trucker = sim.control("GET", "truckers/5", &Value::Null).await.json();
    assert_eq!((&trucker["posts"], &trucker["code"]), (&json!(1), &json!(code)));
    assert_eq!(trucker["codes"][0]["cause"], "creation");
    assert_eq!(trucker["codes"][0]["end"], "replaced");
    assert_eq!(
        (&trucker["codes"][1]["cause"], &trucker["codes"][1]["fault"]),
        (&json!("generate"), &json!("none"))
    );
    assert!(trucker["codes"][1]["at"].is_u64());
    assert_eq!(sim.control("GET", "truckers", &Value::Null).await.json(), json!([trucker]));
}

#[tokio::test]
async fn faults_scripts_tokens_truckers_and_uses_are_steered_over_http() {
    let sim = Sim::start(known()).await;
    let created = sim.control("POST", "truckers", &json!({"pk": 5, "remote_id": "D-5"})).await;
    assert_eq!((created.status, created.json()["remote_id"].as_str()), (201, Some("D-5")));
    let set = sim.control("PUT", "faults", &json!({"error_before": 1.0, "read": {"no_code": 1.0}})).await;
    assert_eq!((set.status, set.json()["read"]["no_code"].as_f64()), (200, Some(1.0)));
    assert_eq!(sim.generate(5).await.answer().status, 500);
    let scripted = sim.control("POST", "truckers/5/script", &json!({"posts": ["none", "forbidden"]})).await;
    assert_eq!(scripted.status, 200);
    assert_eq!(sim.generate(5).await.answer().code(), sim.code(5));
    assert_eq!(sim.generate(5).await.answer().status, 403);
    let used = sim.control("POST", "truckers/5/use", &json!({"code": sim.code(5)})).await;
    assert_eq!((used.status, sim.code(5)), (200, String::new()));
    sim.control("PUT", "faults", &json!({"profile": "flaky"})).await;
    assert_eq!(sim.handle.faults(), Faults::profile("flaky").unwrap());
    let shown = sim.control("GET", "faults", &Value::Null).await.json();
    assert_eq!(serde_json::from_value::<Faults>(shown).unwrap(), sim.handle.faults());
    assert_eq!(sim.control("PUT", "tokens", &json!({"tokens": ["other"]})).await.status, 200);
    assert_eq!(sim.generate(5).await.answer().status, 401);
}

#[tokio::test]
async fn a_bad_control_request_is_refused_with_the_field_and_changes_nothing() {
    let sim = Sim::start(known()).await;
    assert!(sim.handle.create(5, Some("D-5")));
    for (method, path, body, status, field) in [
        ("PUT", "faults", json!({"error_befor": 0.1}), 400, "error_befor"),
        ("PUT", "faults", json!({"error_before": 1.1}), 400, "error_before"),
        ("PUT", "faults", json!({"error_before": "often"}), 400, "error_before"),
        ("PUT", "faults", json!({"read": {"reset": -1.0}}), 400, "read.reset"),
        ("PUT", "faults", json!({"read": {"rest": 1.0}}), 400, "read.rest"),
        ("PUT", "faults", json!({"reset": 0.6, "drip": 0.6}), 400, "faults"),
        ("PUT", "faults", json!({"profile": "stormy"}), 400, "profile"),
        ("PUT", "faults", json!({"profile": "flaky", "reset": 1.0}), 400, "reset"),
        ("PUT", "tokens", json!({"tokens": "one"}), 400, "tokens"),
        ("POST", "truckers/5/script", json!({"posts": ["none", "nonsense"]}), 400, "posts[1]"),
        ("POST", "truckers/x/script", json!({}), 400, "pk"),
        ("POST", "truckers/5/use", json!({"code": "WRONG2"}), 400, "code"),
        ("POST", "truckers", json!({"pk": 5}), 400, "pk"),
        ("POST", "truckers", json!({"remote_id": "D-5"}), 400, "remote_id"),
        ("GET", "truckers/6", Value::Null, 404, "pk"),
        ("DELETE", "stats", Value::Null, 404, "path"),
    ] {
        let answer = sim.control(method, path, &body).await;
        assert_eq!((answer.status, answer.json()["field"].as_str()), (status, Some(field)), "{path} {body}");
        assert!(answer.json()["error"].as_str().is_some_and(|text| !text.is_empty()), "{path} {body}");
    }
    let text = sim.send("PUT", "/_simulator/faults", "", "{").await.answer();
    assert_eq!((text.status, text.json()["field"].as_str()), (400, Some("body")));
    assert_eq!(sim.handle.faults(), Faults::default());
    assert_eq!(sim.generate(5).await.answer().status, 200);
}

#[test]
fn faults_are_read_from_a_profile_a_toml_file_or_a_json_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let expected = Faults {
        rate_limit: Some(3),
        read: Mix { reset: 0.5, ..Mix::default() },
        ..Faults::posts(Mix { drip: 1.0, retry_after: RetryAfter::Date(9), ..Mix::default() })
    };
    let toml = "drip = 1.0\nrate_limit = 3\nretry_after = { date = 9 }\n[read]\nreset = 0.5\n";
    let json = r#"{"drip": 1, "rate_limit": 3, "retry_after": {"date": 9}, "read": {"reset": 0.5}}"#;
    assert_eq!(Faults::profile_or_file(&file("f.toml", toml)), Ok(expected.clone()));
    assert_eq!(Faults::profile_or_file(&file("f.json", json)), Ok(expected));
    assert_eq!(Faults::profile_or_file("late"), Ok(Faults::profile("late").unwrap()));
    let unreadable = Faults::profile_or_file("stormy").unwrap_err();
    assert!(unreadable.to_string().contains("flaky"), "{unreadable}");
    let wrong = Faults::profile_or_file(&file("g.toml", "[read]\nrest = 1.0\n")).unwrap_err();
    assert_eq!(wrong.field, "read.rest");
}
