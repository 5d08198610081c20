//! The Postgres store across a network that breaks, and across TLS.

use std::sync::Arc;
use std::time::Duration;

use invite_relay::invite::{
    AccountName, Answer, Backoff, Cause, Effect, Input, InviteCode, IssuedCode, Policy, Rules, Sink, Sinks,
    StateName, TruckerKey,
};
use invite_relay::lifecycle::Lifecycle;
use invite_relay::store::postgres::{Address, PostgresStore, Settings};
use invite_relay::store::{Admission, Arrival, Due, Error, Hint, Receipt, Shared, Store as _, Work};

use crate::support::certificates::certificates;
use crate::support::postgres::Postgres;
use crate::support::proxy::Proxy;
use crate::support::until;

fn settings(url: String) -> Settings {
    Settings {
        address: Arc::new(move || Address::parse(&url).map_err(|error| error.to_string())),
        rules: Rules {
            policy: Policy::Generate,
            lease: Duration::from_secs(60),
            backoff: Backoff::fixed(Duration::from_nanos(1)),
            max_attempts: 3,
            max_age: Duration::from_secs(3600),
            not_found_for: Duration::from_secs(60),
            verify_after: Duration::from_secs(60),
            sinks: Sinks::NONE.with(Sink::Rabbitmq),
        },
        erase_codes_after: Duration::from_secs(3600),
        retention: Duration::from_secs(3600),
        fingerprint_key: None,
        observer: Arc::new(|_, _| {}),
    }
}

fn arrival(pk: u64, admission: Admission) -> Arrival {
    let cause = Cause { event_id: "e1".to_owned(), event_source: "/test".to_owned(), ..Cause::default() };
    Arrival { key: format!("default/{pk}").parse().unwrap(), cause, admission }
}

async fn accept(store: &Shared, pk: u64) -> Result<Receipt, Error> {
    Ok(store.accept(vec![arrival(pk, Admission::Start)]).await?.remove(0))
}

async fn start(store: &Shared, pk: u64) -> Work {
    match accept(store, pk).await.unwrap() {
        Receipt::New(work) => *work,
        other => panic!("expected a new invite, found {other:?}"),
    }
}

fn answered(store: &Shared, key: &TruckerKey) -> Input {
    let code = InviteCode::new("K7Q2ZD").unwrap();
    Input::Called(Answer::Code(IssuedCode {
        fingerprint: store.fingerprint_key().fingerprint(key, &code),
        code,
    }))
}

fn is_away<T: std::fmt::Debug>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Unavailable(_)))
}

/// A store behind a proxy, and the same database without one.
struct Behind {
    proxy: Proxy,
    store: Shared,
    direct: Shared,
}

impl Behind {
    async fn new() -> Self {
        let server = tokio::task::block_in_place(Postgres::shared);
        let database = tokio::task::block_in_place(|| server.database());
        let proxy = Proxy::start(server.address()).await;
        let open = async |url| {
            let store: Shared =
                Arc::new(PostgresStore::open(settings(url), &Lifecycle::new()).await.unwrap());
            store
        };
        let store = open(Postgres::url_at(proxy.address(), &database)).await;
        Self { store, direct: open(server.url(&database)).await, proxy }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_code_whose_commit_nobody_heard_of_is_found_again_by_the_next_try() {
    let Behind { proxy, store, direct } = Behind::new().await;
    let calling = start(&store, 1).await;
    // The writers take turns, and both have to be connected.
    start(&store, 2).await;
    let input = answered(&store, &calling.invite.key);
    proxy.lose_commits();
    let unheard = store.advance(calling.invite.clone(), input.clone()).await;
    assert!(is_away(&unheard), "{unheard:?}");
    // Again without an answer: still in doubt.
    let unheard = store.advance(calling.invite.clone(), input.clone()).await;
    assert!(is_away(&unheard) || unheard.is_ok(), "{unheard:?}");
    proxy.resume();
    let work = store.advance(calling.invite.clone(), input.clone()).await.unwrap();
    assert_eq!(work.effect, Some(Effect::Announce(Sinks::NONE.with(Sink::Rabbitmq))), "the work goes on");
    assert_eq!(direct.show(calling.invite.key.clone()).await.unwrap().unwrap().invite, work.invite);
    let done = store.advance(work.invite, Input::Confirmed(Sink::Rabbitmq)).await.unwrap();
    assert_eq!(done.invite.state.name(), StateName::Published);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_in_doubt_that_another_replica_has_written_over_is_lost() {
    let Behind { proxy, store, direct } = Behind::new().await;
    let calling = start(&store, 1).await;
    // The writers take turns, and both have to be connected.
    start(&store, 2).await;
    let input = answered(&store, &calling.invite.key);
    proxy.lose_commits();
    let unheard = store.advance(calling.invite.clone(), input.clone()).await;
    assert!(is_away(&unheard), "{unheard:?}");
    let stored = direct.show(calling.invite.key.clone()).await.unwrap().unwrap().invite;
    assert_eq!(stored.state.name(), StateName::Ready, "it was committed");
    direct.advance(stored, Input::Confirmed(Sink::Rabbitmq)).await.unwrap();
    proxy.resume();
    let late = store.advance(calling.invite, input).await;
    assert!(matches!(late, Err(Error::Lost)), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_whose_commit_nobody_heard_of_is_a_duplicate_at_the_next_try() {
    // Once with one round trip for all, once with a look beforehand: an event that comes twice asks for it.
    for (pk, n_copies) in [(1, 1), (2, 2)] {
        let Behind { proxy, store, direct } = Behind::new().await;
        // The writers take turns, and both have to be connected.
        start(&store, 101).await;
        start(&store, 102).await;
        proxy.lose_commits();
        let unheard = store.accept(vec![arrival(pk, Admission::Start); n_copies]).await;
        assert!(is_away(&unheard), "{unheard:?}");
        proxy.resume();
        assert_eq!(accept(&store, pk).await.unwrap(), Receipt::Duplicate(StateName::Calling));
        let tally = direct.tally().await.unwrap();
        assert_eq!(
            tally.iter().map(|tally| (tally.state, tally.count)).collect::<Vec<_>>(),
            [(StateName::Calling, 3)]
        );
        // Its lease is on: nobody calls for it a second time.
        let due = Due::Api { account: AccountName::default_account(), limit: 10 };
        assert!(direct.take(due).await.unwrap().work.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_out_of_reach_fails_every_command_and_changes_nothing_until_it_is_back() {
    let Behind { proxy, store, direct } = Behind::new().await;
    let calling = start(&store, 1).await;
    proxy.refuse();
    let input = answered(&store, &calling.invite.key);
    assert!(is_away(&accept(&store, 2).await));
    assert!(is_away(&store.advance(calling.invite.clone(), input.clone()).await));
    assert!(is_away(&store.tidy().await));
    assert!(is_away(&store.tally().await));
    assert_eq!(direct.show(calling.invite.key.clone()).await.unwrap().unwrap().invite, calling.invite);
    proxy.resume();
    let work = store.advance(calling.invite, input).await.unwrap();
    assert_eq!(work.invite.state.name(), StateName::Ready);
    assert!(matches!(accept(&store, 2).await.unwrap(), Receipt::New(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_falls_silent_is_given_up_and_found_again() {
    let Behind { proxy, store, .. } = Behind::new().await;
    start(&store, 1).await;
    proxy.stall();
    let silent = accept(&store, 2).await;
    assert!(is_away(&silent), "{silent:?}");
    proxy.resume();
    until("the store to work again", async || accept(&store, 3).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_leaves_a_server_that_takes_no_writes_any_more() {
    let (primary, standby, database) = tokio::task::block_in_place(|| {
        let primary = Postgres::start();
        let database = primary.database();
        let standby = primary.standby();
        (primary, standby, database)
    });
    let url = Postgres::url_of_either([&primary, &standby], &database);
    let store: Shared = Arc::new(PostgresStore::open(settings(url), &Lifecycle::new()).await.unwrap());
    let calling = start(&store, 1).await;
    store.tidy().await.unwrap();
    tokio::task::block_in_place(|| {
        primary.set("default_transaction_read_only", "on");
        standby.promote();
    });
    let input = answered(&store, &calling.invite.key);
    until("the writers to find the other server", async || {
        store.advance(calling.invite.clone(), input.clone()).await.is_ok()
    })
    .await;
    // On the connection that was with the other server: what is read is not the state from before.
    let seen = store.show(calling.invite.key.clone()).await.unwrap().unwrap().invite;
    assert_eq!(seen.state.name(), StateName::Ready);
    store.tidy().await.unwrap();
    let url = Postgres::url_of_either([&primary, &standby], &database);
    let other = PostgresStore::open(settings(url), &Lifecycle::new()).await.unwrap();
    let mut hints = store.hints().unwrap();
    let mut pks = 2..;
    until("a hint of another replica", async || {
        other.accept(vec![arrival(pks.next().unwrap(), Admission::Queue)]).await.unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(1), hints.recv()).await;
        matches!(heard, Ok(Ok(Hint::Account(_))))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_trusted_by_its_certificate_only() {
    let directory = tempfile::tempdir().unwrap();
    let server = tokio::task::block_in_place(|| {
        certificates(directory.path());
        Postgres::start_with_tls(directory.path())
    });
    let database = tokio::task::block_in_place(|| server.database());
    let open = async |query: &str| {
        let url = format!("{}?{query}", server.url(&database));
        PostgresStore::open(settings(url), &Lifecycle::new())
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let (ca, other) = (directory.path().join("ca.crt"), directory.path().join("other.crt"));
    assert_eq!(open(&format!("sslmode=verify-full&sslrootcert={}", ca.display())).await, Ok(()));
    for query in
        ["sslmode=verify-full".to_owned(), format!("sslmode=verify-full&sslrootcert={}", other.display())]
    {
        let error = open(&query).await.unwrap_err();
        assert!(error.contains("certificate"), "{error}");
    }
    let plain = tokio::task::block_in_place(Postgres::shared);
    let url = format!("{}?sslmode=verify-full", plain.url("postgres"));
    let error = PostgresStore::open(settings(url), &Lifecycle::new()).await.err().unwrap().to_string();
    assert!(error.contains("TLS"), "{error}");
}
