//! Outages of the API cost no attempts.

use std::time::Instant;

use invite_relay::dashdoc::simulator::{DEFAULT_TOKEN, Faults, HoldAt, Mix, RetryAfter, Settings};
use invite_relay::invite::StateName;

use super::checker::check;
use super::harness::Service;
use super::settings::Settings as Fast;
use super::{Api, bus};
use crate::support::proxy::Proxy;
use crate::support::{soon, until};

/// The API behind a network that can be broken.
async fn through_a_line(api: &Api) -> (Proxy, Fast) {
    let target = api.base_url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let line = Proxy::start(target.parse().unwrap()).await;
    let settings = Fast::fast(&format!("http://{}/api/v4", line.address()));
    (line, settings)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pace_below_the_real_limit_is_never_throttled() {
    let (api, bus) = (Api::start(Settings::default()).await, bus("paced").await);
    let settings = bus.as_sink(bus.as_source(api.settings())).with("dashdoc.rate_per_second", 9.0);
    let service = Service::start(&settings).await;
    bus.tell(1..=40).await;
    service.settle(40).await;
    println!("9/s under a limit of 10/s: {}", check(1..=40, &bus.take_announced().await, &api.handle));
    assert!(api.handle.stats().throttled <= 2, "{:?}", api.handle.stats());
    assert!(service.invites().iter().all(|invite| invite.attempts == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_doctor_within_the_service_asks_counts_in_the_pace() {
    let (api, bus) = (Api::faultless().await, bus("looked-at").await);
    let settings = bus
        .as_sink(bus.as_source(api.settings()))
        .with("dashdoc.rate_per_second", 4.0)
        .with("telemetry.doctor_every", "1s");
    let begun = Instant::now();
    let service = Service::start(&settings).await;
    bus.tell(1..=24).await;
    service.settle(24).await;
    println!("4/s, and a look every second: {}", check(1..=24, &bus.take_announced().await, &api.handle));
    let (stats, seconds) = (api.handle.stats(), begun.elapsed().as_secs_f64());
    assert!(stats.gets >= 3, "the doctor has hardly looked: {stats:?}");
    let requests = u32::try_from(stats.posts + stats.gets).unwrap();
    assert!(f64::from(requests) <= 4.0 * seconds + 2.0, "{requests} requests in {seconds} s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_within_the_service_keeps_the_pause_that_the_api_asks_for() {
    let pause = Mix { throttled: 1.0, retry_after: RetryAfter::Seconds(600), ..Mix::default() };
    let (api, bus) = (Api::with(Faults::posts(pause)).await, bus("pause").await);
    let settings = bus.as_sink(bus.as_source(api.settings())).with("telemetry.doctor_every", "1s");
    let service = Service::start(&settings).await;
    let looked =
        async |verdict: &str| service.count("invite_relay_doctor_findings", &["part=\"api\"", verdict]).await;
    until("a look before the pause", async || looked("verdict=\"ok\"").await > 0).await;
    bus.tell(1..=1).await;
    // The checks behind the connection are skipped with it.
    until("a look in the pause", async || looked("verdict=\"skipped\"").await >= 4).await;
    let gets = api.handle.stats().gets;
    service.look_again().await;
    assert_eq!(api.handle.stats().gets, gets, "a request during the pause");
    assert_eq!(service.part("account.default").await["ready"], false, "{}", service.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pace_above_the_real_limit_costs_requests_but_no_attempts() {
    let (api, bus) = (Api::start(Settings::default()).await, bus("too-fast").await);
    let service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    bus.tell(1..=40).await;
    service.settle(40).await;
    println!("500/s under a limit of 10/s: {}", check(1..=40, &bus.take_announced().await, &api.handle));
    assert!(service.invites().iter().all(|invite| invite.attempts == 1), "throttling spends no attempt");
    // What was in flight when the limit was found, and perhaps once more.
    assert!(api.handle.stats().throttled <= 20, "{:?}", api.handle.stats());
    let metrics = service.metrics().await;
    let pace = metrics.lines().find_map(|line| line.strip_prefix("invite_relay_pace{account=\"default\"} "));
    let pace: f64 = pace.unwrap().parse().unwrap();
    assert!((5.0..=10.0).contains(&pace), "the limit of 10/s was learned as {pace}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_nobody_reaches_for_a_long_time_costs_no_attempts() {
    let (api, bus) = (Api::faultless().await, bus("away").await);
    let (line, settings) = through_a_line(&api).await;
    line.close();
    let settings =
        bus.as_sink(bus.as_source(settings)).with("retry.max_attempts", 3).with("retry.max_delay", "50ms");
    let service = Service::start(&settings).await;
    bus.tell(1..=20).await;
    let part = async || service.part("account.default").await;
    until("the circuit to open", async || part().await["ready"] == false).await;
    assert!(part().await["detail"].as_str().unwrap().contains("circuit"), "{}", part().await);
    let failed = ["outcome=\"transient\""];
    until("many failures", async || service.count("invite_relay_api_requests_total", &failed).await > 80)
        .await;
    assert_eq!(service.readiness().await["ready"], true, "events are still accepted");

    line.resume();
    service.settle(20).await;
    println!("nobody there at first: {}", check(1..=20, &bus.take_announced().await, &api.handle));
    until("the circuit to close", async || part().await["ready"] == true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_whose_answers_never_arrive_is_read_back_when_they_do() {
    let (api, bus) = (Api::faultless().await, bus("mute").await);
    let (line, settings) = through_a_line(&api).await;
    let settings = bus
        .as_sink(bus.as_source(settings))
        .with("dashdoc.timeout", "200ms")
        .with("retry.max_attempts", 3)
        .with("retry.max_delay", "50ms");
    let service = Service::start(&settings).await;
    line.mute();
    bus.tell(1..=20).await;
    let failed = ["outcome=\"unknown\""];
    until("many timeouts", async || service.count("invite_relay_api_requests_total", &failed).await > 30)
        .await;
    line.resume();
    service.settle(20).await;
    println!("half open: {}", check(1..=20, &bus.take_announced().await, &api.handle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_that_fails_every_request_for_a_long_time_costs_no_attempts() {
    let failing = Mix { error_before: 1.0, ..Mix::default() };
    let faults = Faults { read: failing.clone(), ..Faults::posts(failing) };
    let (api, bus) = (Api::with(faults).await, bus("failing").await);
    let settings = bus
        .as_sink(bus.as_source(api.settings()))
        .with("retry.max_attempts", 3)
        .with("retry.base_delay", "10ms")
        .with("retry.max_delay", "50ms");
    let service = Service::start(&settings).await;
    bus.tell(1..=20).await;
    let failed = ["outcome=\"unknown\""];
    until("many failures", async || service.count("invite_relay_api_requests_total", &failed).await > 100)
        .await;
    assert!(service.count("invite_relay_gate_closings_total", &["reason=\"circuit\""]).await > 1);
    api.handle.set_faults(Faults::default());
    service.settle(20).await;
    println!("a failing API: {}", check(1..=20, &bus.take_announced().await, &api.handle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_token_parks_the_account_until_its_file_changes() {
    let (api, bus) = (Api::faultless().await, bus("refused").await);
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, DEFAULT_TOKEN).unwrap();
    let settings = bus
        .as_sink(bus.as_source(api.settings().without("dashdoc.token")))
        .with("dashdoc.token_file", token_file.to_str().unwrap())
        // The change resumes the work, not a probe.
        .with("retry.probe_delay", "10m");
    let mut service = Service::start(&settings).await;
    api.handle.set_tokens(["the-new-token"]);
    bus.tell(1..=20).await;
    until("the account to be parked", async || service.part("account.default").await["ready"] == false).await;
    until("all events to be stored", async || service.invites().len() == 20).await;
    let part = service.part("account.default").await;
    assert!(part["detail"].as_str().unwrap().contains("credentials"), "{part}");
    assert_eq!(service.readiness().await["ready"], true, "events are still accepted");

    // The gate holds across a restart.
    service.terminate().await;
    let n_requests = api.handle.stats().posts;
    assert!(n_requests <= 16, "{n_requests} requests: no more than were in flight");
    service.start_again().await;
    assert_eq!(service.part("account.default").await["ready"], false);
    assert!(service.invites().iter().all(|invite| invite.attempts == 0), "no attempt is spent");
    assert!(service.invites().iter().all(|invite| invite.state.name() != StateName::Dead));
    assert_eq!(api.handle.stats().posts, n_requests, "nobody asks in vain");

    std::fs::write(&token_file, "the-new-token").unwrap();
    service.settle(20).await;
    println!("a new token: {}", check(1..=20, &bus.take_announced().await, &api.handle));
    assert_eq!(service.part("account.default").await["ready"], true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_taken_up_ahead_of_its_turn_goes_back_without_a_request_when_the_gate_closes() {
    let (api, bus) = (Api::faultless().await, bus("ahead").await);
    let directory = tempfile::tempdir().unwrap();
    let token_file = directory.path().join("token");
    std::fs::write(&token_file, DEFAULT_TOKEN).unwrap();
    let settings = bus
        .as_sink(bus.as_source(api.settings().without("dashdoc.token")))
        .with("dashdoc.token_file", token_file.to_str().unwrap())
        .with("dashdoc.max_in_flight", 8)
        // Requests are held for as long as a slow machine needs.
        .with("dashdoc.timeout", "60s")
        .with("retry.probe_delay", "10m");
    let mut held: Vec<_> = (1..=20).map(|pk| Some(api.handle.hold_post(pk, HoldAt::BeforeEffect))).collect();
    let service = Service::start(&settings).await;
    bus.tell(1..=20).await;
    let calling = || {
        let invites = service.invites();
        invites.iter().filter(|invite| invite.state.name() == StateName::Calling).count()
    };
    // At 500/s, up to half as many as may be at the API are committed ahead of their turn.
    until("eight requests, and four to follow", async || calling() == 12).await;
    let at_the_api = api.handle.wait_for(|view| view.stats().in_flight == 8);
    soon("eight requests at the API", at_the_api).await;

    // One turn gets free. Who takes it is refused; the others must not ask any more.
    api.handle.set_tokens(["the-new-token"]);
    let arrived = |pk: u64| api.handle.trucker(pk).is_some_and(|trucker| trucker.posts == 1);
    let first = (1..=20).position(arrived).unwrap();
    drop(held[first].take());
    until("the gate to close", async || service.part("account.default").await["ready"] == false).await;
    held.clear();
    until("nothing to be under way", async || calling() == 0).await;
    let stats = api.handle.stats();
    assert_eq!((stats.effects, stats.posts, stats.peak_in_flight), (8, 9, 8), "{stats:?}");

    std::fs::write(&token_file, "the-new-token").unwrap();
    service.settle(20).await;
    println!("ahead of a closed gate: {}", check(1..=20, &bus.take_announced().await, &api.handle));
    let at_once = |invite: &invite_relay::invite::Invite| invite.attempts == 1 && !invite.ever_unknown;
    assert!(service.invites().iter().all(at_once), "nothing was in doubt, and no attempt was spent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trucker_that_the_api_does_not_know_yet_gets_its_code_once_it_does() {
    let faults = Faults { absent_ms: 500, ..Faults::default() };
    let (api, bus) = (Api::with(faults).await, bus("absent").await);
    let service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    bus.tell(1..=20).await;
    service.settle(20).await;
    println!("not there yet: {}", check(1..=20, &bus.take_announced().await, &api.handle));
    assert_eq!(api.handle.stats().effects, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_effect_that_comes_after_the_read_back_is_announced_as_the_next_generation() {
    let late = Mix { late_effect: 0.5, late_effect_ms: 400, ..Mix::default() };
    let (api, bus) = (Api::with(Faults::posts(late)).await, bus("late").await);
    // Half of the calls fail: an open circuit would hold the read-backs up until the effects are there.
    let settings = api.settings().with("retry.circuit_after", 1000);
    let service = Service::start(&bus.as_sink(bus.as_source(settings))).await;
    bus.tell(1..=60).await;
    api.effects(60).await;
    service.settle(60).await;
    println!("late effects: {}", check(1..=60, &bus.take_announced().await, &api.handle));
    let invites = service.invites();
    let second: Vec<_> = invites.iter().filter(|invite| invite.generation.get() == 2).collect();
    assert!(!second.is_empty() && second.iter().all(|invite| invite.ever_unknown));
}
