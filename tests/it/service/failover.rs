//! The service while its Postgres server changes: the standby takes over.

use serde_json::Value;

use super::checker::check;
use super::harness::Service;
use super::platform::Bus;
use super::{Api, bus};
use crate::support::postgres::Postgres;
use crate::support::until;

/// A service whose database is on a server with a synchronous standby.
struct Pair {
    api: Api,
    bus: Bus,
    primary: Postgres,
    standby: Postgres,
    database: String,
    service: Service,
}

impl Pair {
    async fn new(name: &str) -> Self {
        let (api, bus) = (Api::profile("flaky").await, bus(name).await);
        let (primary, standby, database) = tokio::task::block_in_place(|| {
            let primary = Postgres::start_durable();
            let database = primary.database();
            let standby = primary.standby();
            (primary, standby, database)
        });
        let settings = bus
            .as_sink(bus.as_source(api.settings()))
            .with("store.url", Postgres::url_of_either([&primary, &standby], &database))
            .with("sink.rabbitmq.confirm_timeout", "5s");
        let service = Service::start(&settings).await;
        Self { api, bus, primary, standby, database, service }
    }

    async fn each_event_is_one_code(&self, what: &str) {
        self.service.settle(300).await;
        until("the store to work again", async || self.service.part("store").await["ready"] == true).await;
        println!("{what}: {}", check(1..=300, &self.bus.take_announced().await, &self.api.handle));
        assert!(self.bus.source_is_empty().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_dies_and_leaves_its_work_to_the_standby_loses_and_doubles_nothing() {
    let pair = Pair::new("failover").await;
    let Pair { api, bus, primary, standby, service, .. } = &pair;
    bus.tell(1..=150).await;
    api.effects(40).await;
    tokio::task::block_in_place(|| primary.kill());
    until("the store to be away", async || service.part("store").await["ready"] == false).await;
    bus.tell(151..=300).await;
    tokio::task::block_in_place(|| standby.promote());
    pair.each_event_is_one_code("failover").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_goes_on_without_taking_writes_is_left_for_the_one_that_takes_them() {
    let pair = Pair::new("switchover").await;
    let Pair { api, bus, primary, standby, .. } = &pair;
    bus.tell(1..=150).await;
    api.effects(40).await;
    // Its connections live on, and it answers every question.
    tokio::task::block_in_place(|| {
        primary.set("default_transaction_read_only", "on");
        standby.promote();
    });
    bus.tell(151..=300).await;
    pair.each_event_is_one_code("switchover").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_left_for_the_one_that_takes_writes() {
    let mut pair = Pair::new("hanging").await;
    let Pair { api, bus, primary, standby, database, service } = &mut pair;
    bus.tell(1..=150).await;
    api.effects(40).await;
    tokio::task::block_in_place(|| {
        primary.freeze();
        standby.promote();
    });
    // The test itself would have to wait for the other at every second look.
    service.look_into(standby.url(database));
    bus.tell(151..=300).await;
    pair.each_event_is_one_code("hanging server").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_warns_of_a_standby_that_commits_do_not_wait_for() {
    let Pair { primary, service, standby, .. } = Pair::new("doctor-standby").await;
    let found = || {
        let doctor = service.run(&["doctor", "--output", "json"]);
        let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
        let checks = report["checks"].as_array().unwrap();
        checks.iter().find(|finding| finding["check"] == "store.failover").unwrap().clone()
    };
    assert_eq!(found()["verdict"], "ok");
    tokio::task::block_in_place(|| primary.set("synchronous_standby_names", ""));
    until("the server to follow its setting", async || found()["verdict"] != "ok").await;
    let warning = found();
    println!("{warning:#}");
    assert_eq!(warning["verdict"], "warning");
    assert!(warning["mend"].as_str().unwrap().contains("synchronous_standby_names"), "{warning}");
    tokio::task::block_in_place(|| standby.stop());
    until("the server to miss its standby", async || found()["verdict"] == "ok").await;
    tokio::task::block_in_place(|| primary.set("synchronous_standby_names", "*"));
    until("commits to wait for nobody", async || found()["verdict"] == "failed").await;
}
