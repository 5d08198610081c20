//! The work list: what died is seen, mended and put back to work; a code is replaced when a person asks.

use invite_relay::dashdoc::simulator::Fault;
use invite_relay::invite::StateName;
use serde_json::Value;

use super::harness::Service;
use super::platform::Delivery;
use super::{Api, bus};
use crate::support::until;

fn json(service: &Service, arguments: &[&str]) -> Value {
    let output = service.run(&[arguments, &["--output", "json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a command that must succeed; what it prints.
fn order(service: &Service, arguments: &[&str]) -> String {
    let output = service.run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn types_of(announced: &[Delivery]) -> Vec<(u64, String)> {
    let of = |delivery: &Delivery| {
        let event = delivery.json();
        let pk = event["data"]["trucker"]["pk"].as_u64().unwrap();
        (pk, event["type"].as_str().unwrap().to_owned())
    };
    let mut types: Vec<_> = announced.iter().map(of).collect();
    types.sort();
    types
}

async fn three_dead(api: &Api, bus: &super::Bus) -> Service {
    for pk in 1..=3 {
        api.handle.script_posts(pk, [if pk == 3 { Fault::Redirect } else { Fault::Rejected }]);
    }
    api.handle.script_posts(3, [Fault::Rejected]);
    let service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    bus.tell(1..=4).await;
    service.settle(4).await;
    service
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_invites_are_listed_by_cause_and_work_again_when_a_person_says_so() {
    let (api, bus) = (Api::faultless().await, bus("redrive").await);
    let service = three_dead(&api, &bus).await;
    let causes = json(&service, &["invites", "causes"]);
    let causes = causes.as_array().unwrap();
    assert_eq!(causes.iter().map(|cause| cause["count"].as_u64().unwrap()).sum::<u64>(), 3, "{causes:?}");
    let cause = causes[0]["cause"].as_str().unwrap().to_owned();
    assert!(cause.starts_with("rejected/http_400"), "{cause}");
    assert_eq!(json(&service, &["invites", "list", "--state", "dead", "--cause", &cause])[0]["cause"], cause);
    assert_eq!(
        types_of(&bus.take_announced().await).iter().filter(|(_, what)| what == "invite.failed").count(),
        3
    );

    // Without --apply nothing happens.
    let dry = order(&service, &["invites", "redrive", "--cause", "rejected", "--by", "ada"]);
    assert!(dry.contains("3 invites would be put back to work; add --apply"), "{dry}");
    assert_eq!(json(&service, &["invites", "orders"]), serde_json::json!([]));
    let one = order(&service, &["invites", "redrive", "default/1", "--by", "ada", "--apply"]);
    assert!(one.contains("1 invite back to work"), "{one}");
    let all = order(&service, &["invites", "redrive", "--cause", "rejected", "--by", "bob", "--apply"]);
    assert!(all.contains("2 invites back to work"), "{all}");
    until("all to be published", async || service.are_all(4, StateName::Published)).await;

    let announced = types_of(&bus.take_announced().await);
    let ready = |pk| (pk, "invite.ready".to_owned());
    assert_eq!(announced, [ready(1), ready(2), ready(3)]);
    let orders = json(&service, &["invites", "orders"]);
    let given: Vec<_> = orders
        .as_array()
        .unwrap()
        .iter()
        .map(|order| {
            (order["by"].as_str().unwrap(), order["kind"].as_str().unwrap(), order["count"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(given, [("bob", "redrive", 2), ("ada", "redrive", 1)]);
    assert!(!service.log().contains("\"ada\""), "who gave an order is in the store, not in the log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_taken_by_the_store_itself_while_no_service_runs() {
    let (api, bus) = (Api::faultless().await, bus("offline").await);
    let mut service = three_dead(&api, &bus).await;
    service.terminate().await;
    let all = order(&service, &["invites", "redrive", "--all", "--by", "ada", "--apply"]);
    assert!(all.contains("3 invites back to work"), "{all}");
    let again = order(&service, &["invites", "redrive", "--all", "--by", "ada", "--apply"]);
    assert!(again.contains("no dead invite fits"), "{again}");
    let reissued = order(&service, &["invites", "reissue", "default", "4", "--by", "ada"]);
    assert!(reissued.contains("default/4: generation 2 begins"), "{reissued}");
    service.start_again().await;
    until("all to be published", async || service.are_all(4, StateName::Published)).await;
    assert_eq!(api.handle.trucker(4).unwrap().effects, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reissue_makes_one_new_code_and_announces_it_as_the_next_generation() {
    let (api, bus) = (Api::faultless().await, bus("reissue").await);
    let service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    bus.tell([7]).await;
    service.settle(1).await;
    let first = bus.take_announced().await.remove(0).json();
    // The answer to the new call is lost, and it had no effect: the old code must not pass for the new one.
    api.handle.script_posts(7, [Fault::Reset]);
    order(&service, &["invites", "reissue", "default", "7", "--by", "ada"]);
    until("the next generation", async || {
        service.invites()[0].generation.get() == 2 && service.are_all(1, StateName::Published)
    })
    .await;
    service.settle(1).await;
    let announced = bus.take_announced().await;
    assert_eq!(announced.len(), 1);
    let second = announced[0].json();
    assert_eq!(second["data"]["generation"], 2);
    assert_ne!(second["data"]["invite_code"], first["data"]["invite_code"]);
    assert_ne!(second["id"], first["id"]);
    let trucker = api.handle.trucker(7).unwrap();
    assert_eq!(trucker.code.as_deref(), second["data"]["invite_code"].as_str());
    assert_eq!(trucker.effects, 2, "one for each generation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_can_not_be_carried_out_says_what_to_do() {
    let (api, bus) = (Api::faultless().await, bus("no-order").await);
    let service = three_dead(&api, &bus).await;
    for (arguments, code, text) in [
        (
            &["invites", "reissue", "default", "1", "--by", "ada"] as &[&str],
            1,
            "put it back to work by a redrive",
        ),
        (&["invites", "reissue", "default", "99", "--by", "ada"], 1, "there is no invite"),
        (&["invites", "redrive", "--by", "ada"], 2, "say which invites"),
        (&["invites", "redrive", "--all"], 2, "--by"),
        (&["invites", "redrive", "--all", "--by", ""], 2, "give a name of 1 to 80 printable characters"),
    ] {
        let output = service.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(text), "{arguments:?}: {error}");
    }
}
