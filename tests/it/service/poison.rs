//! Messages that can't be read: they stand in nobody's way, and a person can look at them and give them back.

use serde_json::Value;

use super::checker::check;
use super::harness::Service;
use super::platform::trucker_created;
use super::{Api, bus};
use crate::support::until;

const N_POISON: usize = 3000;
const N_GOOD: u64 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_poison_starves_no_good_event_and_is_kept_to_the_last_message() {
    let (api, bus) = (Api::faultless().await, bus("flood").await);
    let settings = bus.as_sink(bus.as_source(api.settings())).with("source.rabbitmq.prefetch", 100);
    let service = Service::start(&settings).await;
    let every = N_POISON / usize::try_from(N_GOOD).unwrap();
    let events = (0..N_POISON).flat_map(|n| {
        let good = (n % every == 0).then(|| trucker_created((n / every + 1) as u64, &format!("event-{n}")));
        [Some(format!("poison {n}")), good].into_iter().flatten()
    });
    bus.send(events).await;
    service.settle(usize::try_from(N_GOOD).unwrap()).await;
    check(1..=N_GOOD, &bus.take_announced().await, &api.handle);
    until("all poison to be moved", async || bus.n_dead().await == N_POISON).await;
    assert!(bus.source_is_empty().await);
    let readiness = service.readiness().await;
    assert_eq!(readiness["ready"], true, "{readiness}");
    let dead = bus.take_dead().await;
    assert!(dead.iter().all(|(_, headers)| headers.contains("x-invite-relay-reason")), "each says why");
    let mut bodies: Vec<String> =
        dead.into_iter().map(|(body, _)| String::from_utf8(body).unwrap()).collect();
    let mut sent: Vec<String> = (0..N_POISON).map(|n| format!("poison {n}")).collect();
    bodies.sort_unstable();
    sent.sort_unstable();
    assert_eq!(bodies, sent, "each as it came, once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_looks_at_dead_letters_and_gives_them_back_after_a_mend() {
    let (api, bus) = (Api::faultless().await, bus("returned").await);
    let settings = bus.as_sink(bus.as_source(api.settings()));
    // The platform names the key otherwise than the configuration says.
    let mut service =
        Service::start(&settings.clone().with("event.trucker_pk", vec!["/data/elsewhere"])).await;
    bus.send([trucker_created(1, "event-1"), trucker_created(2, "event-2"), "canary: no JSON".to_owned()])
        .await;
    until("three dead letters", async || bus.n_dead().await == 3).await;
    service.terminate().await;
    service.configure(&settings);
    service.start_again().await;

    let run = |arguments: &[&str]| {
        let output = service.run(&[&["dead-letters"], arguments].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains("canary"), "no bodies: {text}");
        text
    };
    let listed: Value = serde_json::from_str(&run(&["list", "--output", "json"])).unwrap();
    let reasons: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["reason_code"].clone()).collect();
    assert_eq!(reasons.len(), 3, "{listed}");
    assert_eq!(reasons[0], reasons[1]);
    let reason = reasons[0].as_str().unwrap().to_owned();
    // As often as anybody likes: a quorum queue counts, and would drop at its limit.
    for _ in 0..8 {
        run(&["list"]);
    }
    let dry = run(&["return", "--reason", &reason, "--by", "ada"]);
    assert!(dry.contains("2 messages would be moved back"), "{dry}");
    assert_eq!(bus.n_dead().await, 3);
    let done = run(&["return", "--reason", &reason, "--by", "ada", "--apply"]);
    assert!(done.contains("2 messages moved back"), "{done}");
    service.settle(2).await;
    check(1..=2, &bus.take_announced().await, &api.handle);
    // What still can't be read comes back, with its body and who gave it back.
    run(&["return", "--all", "--by", "ada", "--apply"]);
    until("the rest to die again", async || bus.n_dead().await == 1 && bus.source_is_empty().await).await;
    let (body, headers) = bus.take_dead().await.pop().unwrap();
    assert_eq!(body, b"canary: no JSON");
    assert!(headers.contains("x-invite-relay-returned-by: ada\n"), "{headers}");
    assert!(headers.contains("x-invite-relay-reason"), "{headers}");

    for (arguments, code, mend) in [
        (&["return", "--by", "ada"] as &[&str], 2, "say which messages"),
        (&["return", "--all"], 2, "--by"),
        (&["list", "--set", "source.rabbitmq.queue=nowhere"], 1, "makes the queues"),
    ] {
        let output = service.run(&[&["dead-letters"], arguments].concat());
        let error = String::from_utf8(output.stderr).unwrap();
        println!("{error}");
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(mend), "{error}");
    }
}
