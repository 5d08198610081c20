//! The service on a Postgres store: the main job, and everything that a database may do to it.

use std::ops::RangeInclusive;
use std::time::Instant;

use serde_json::Value;

use super::checker::check;
use super::harness::Service;
use super::settings::Settings;
use super::{Api, bus};
use crate::support::postgres::Postgres;
use crate::support::until;

const TRUCKERS: RangeInclusive<u64> = 1..=300;

pub(super) fn on(server: &Postgres, settings: Settings) -> Settings {
    let database = tokio::task::block_in_place(|| server.database());
    settings.with("store.url", server.url(&database))
}

pub(super) fn shared() -> &'static Postgres {
    tokio::task::block_in_place(Postgres::shared)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_events_become_a_thousand_valid_codes_on_a_flaky_api() {
    let (api, bus) = (Api::profile("flaky").await, bus("postgres-thousand").await);
    let service = Service::start(&on(shared(), bus.as_sink(bus.as_source(api.settings())))).await;
    let started = Instant::now();
    bus.tell(1..=1000).await;
    service.settle(1000).await;
    let summary = check(1..=1000, &bus.take_announced().await, &api.handle);
    println!("postgres: {summary} in {:?}", started.elapsed());
    assert!(bus.source_is_empty().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_the_service_again_and_again_loses_and_doubles_nothing() {
    let (api, bus) = (Api::profile("flaky").await, bus("postgres-killed").await);
    let settings = on(shared(), bus.as_sink(bus.as_source(api.settings())))
        .with("source.rabbitmq.prefetch", 50)
        // What was in hand waits for its lease, which follows from this one.
        .with("sink.rabbitmq.confirm_timeout", "5s");
    let mut service = Service::start(&settings).await;
    bus.tell(TRUCKERS).await;
    for n_effects in [1, 60, 150, 200] {
        api.effects(n_effects).await;
        service.kill().await;
        service.start_again().await;
    }
    service.settle(300).await;
    println!("postgres, SIGKILL: {}", check(TRUCKERS, &bus.take_announced().await, &api.handle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_stops_dies_and_returns_under_load_loses_and_doubles_nothing() {
    let (api, bus) = (Api::profile("flaky").await, bus("postgres-stopped").await);
    let server = tokio::task::block_in_place(Postgres::start_durable);
    let settings =
        on(&server, bus.as_sink(bus.as_source(api.settings()))).with("sink.rabbitmq.confirm_timeout", "5s");
    let service = Service::start(&settings).await;
    bus.tell(1..=150).await;
    api.effects(40).await;
    tokio::task::block_in_place(|| server.stop());
    until("the store to be away", async || service.part("store").await["ready"] == false).await;
    assert_eq!(service.readiness().await["ready"], false);
    bus.tell(151..=300).await;
    tokio::task::block_in_place(|| server.start_again());
    api.effects(150).await;
    tokio::task::block_in_place(|| server.kill());
    tokio::task::block_in_place(|| server.start_again());
    service.settle(300).await;
    until("the store to work again", async || service.part("store").await["ready"] == true).await;
    println!("postgres restarts: {}", check(TRUCKERS, &bus.take_announced().await, &api.handle));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_drains_hands_its_work_to_the_other() {
    let (api, bus) = (Api::profile("flaky").await, bus("postgres-drained").await);
    let settings =
        on(shared(), bus.as_sink(bus.as_source(api.settings()))).with("source.rabbitmq.prefetch", 20);
    let (mut first, second) = (Service::start(&settings).await, Service::start(&settings).await);
    bus.tell(TRUCKERS).await;
    api.effects(100).await;
    first.terminate().await;
    second.settle(300).await;
    println!("postgres, two replicas: {}", check(TRUCKERS, &bus.take_announced().await, &api.handle));
    assert!(first.log().contains("started") && !first.log().contains("canary-postgres-password"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_without_privileges_is_enough_and_its_password_can_be_changed_in_its_file() {
    let (api, bus) = (Api::faultless().await, bus("postgres-password").await);
    let server = shared();
    let password = tempfile::NamedTempFile::new().unwrap();
    let database = tokio::task::block_in_place(|| server.database());
    let sql = |sql: &str| tokio::task::block_in_place(|| server.run(&database, sql));
    let role = format!("{database}_role");
    sql(&format!("CREATE ROLE {role} LOGIN PASSWORD 'canary-one'"));
    sql(&format!("ALTER DATABASE {database} OWNER TO {role}"));
    std::fs::write(password.path(), "canary-one").unwrap();
    // The checks of the test go in as the superuser.
    let settings = bus.as_sink(bus.as_source(api.settings()));
    let mut service = Service::prepare(&settings.clone().with("store.url", server.url(&database)));
    settings
        .with("store.url", format!("postgres://{role}@{}/{database}", server.address()))
        .with("store.password_file", password.path().to_str().unwrap())
        .write(&service.file("relay.toml"));
    service.start_again().await;
    bus.tell(1..=10).await;
    service.settle(10).await;

    sql(&format!("ALTER ROLE {role} PASSWORD 'canary-two'"));
    std::fs::write(password.path(), "canary-two").unwrap();
    sql(&format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"));
    bus.tell(11..=20).await;
    service.settle(20).await;
    check(1..=20, &bus.take_announced().await, &api.handle);

    let doctor = service.run(&["doctor", "--output", "json"]);
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let verdict = |check: &str| {
        let checks = report["checks"].as_array().unwrap();
        let found = checks.iter().find(|finding| finding["check"] == check);
        found.unwrap_or_else(|| panic!("no {check} in {report:#}"))["verdict"].clone()
    };
    for check in ["server", "tls", "schema", "rights", "failover", "connections", "clock"] {
        assert_eq!(verdict(&format!("store.{check}")), "ok", "{check}");
    }
    // The test's own server runs without fsync.
    assert_eq!(verdict("store.durability"), "warning");
    let listed = service.run(&["invites", "list", "--output", "json"]);
    let listed: Vec<Value> = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.len(), 20);
    let shown = format!("{}{}", String::from_utf8_lossy(&doctor.stdout), service.log());
    assert!(!shown.contains("canary"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_given_to_the_database_itself_while_the_service_runs() {
    let (api, bus) = (Api::faultless().await, bus("postgres-orders").await);
    let service = Service::start(&on(shared(), bus.as_sink(bus.as_source(api.settings())))).await;
    bus.tell(1..=1).await;
    service.settle(1).await;
    let ordered = service.run(&["invites", "reissue", "default", "1", "--by", "ada"]);
    assert!(ordered.status.success(), "{}", String::from_utf8_lossy(&ordered.stderr));
    until("the second generation", async || {
        let invites = service.invites();
        invites[0].generation.get() == 2 && invites[0].state.schedule().is_none()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erased_code_is_in_no_dump_of_the_database() {
    let (api, bus, server) = (Api::faultless().await, bus("postgres-erased").await, shared());
    let database = tokio::task::block_in_place(|| server.database());
    let settings = bus.as_sink(bus.as_source(api.settings())).with("store.url", server.url(&database));
    let mut service = Service::start(&settings).await;
    bus.tell([1]).await;
    service.settle(1).await;
    let code = api.handle.trucker(1).unwrap().code.unwrap();
    let dumped = || tokio::task::block_in_place(|| server.dump(&database));
    let holds = |dump: &[u8]| dump.windows(code.len()).any(|window| window == code.as_bytes());
    assert!(holds(&dumped()), "published a moment ago");
    service.terminate().await;
    let mut service = Service::start(&settings.with("store.erase_codes_after", "1ms")).await;
    until("the code to be erased", async || !holds(&dumped())).await;
    service.terminate().await;
}
