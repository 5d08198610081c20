//! The conformance suite, and what only a shared store has to promise.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Instant;

use futures_util::future::{join, join_all};

use super::*;
use crate::invite::{Cause, Effect, Sink, Sinks, StateName};
use crate::store::conformance::{self, Bench};
use crate::store::{Admission, Shared as SharedStore};

#[path = "../../../tests/it/support/postgres.rs"]
#[expect(dead_code, reason = "the integration tests use more of it")]
mod server;
use server::Postgres;

/// A database of the shared server.
struct PostgresBench {
    server: &'static Postgres,
    database: String,
    rules: Mutex<Rules>,
}

fn bench() -> PostgresBench {
    let server = Postgres::shared();
    PostgresBench { server, database: server.database(), rules: Mutex::new(conformance::rules()) }
}

fn address(url: String) -> AddressSource {
    Arc::new(move || Address::parse(&url).map_err(|error| error.to_string()))
}

impl PostgresBench {
    fn settings(&self) -> Settings {
        Settings {
            address: address(self.server.url(&self.database)),
            rules: self.rules.lock().unwrap().clone(),
            erase_codes_after: Duration::ZERO,
            retention: Duration::ZERO,
            fingerprint_key: None,
            observer: Arc::new(|_, _| {}),
        }
    }

    /// Shifts the server's clock, as seen from this database, against the one of this machine.
    fn shift_clock(&self, by: &str) {
        for (name, kind) in [("clock_timestamp", "VOLATILE"), ("statement_timestamp", "STABLE")] {
            self.run(&format!(
                "CREATE FUNCTION public.{name}() RETURNS timestamptz LANGUAGE sql {kind} \
                 AS $$ SELECT pg_catalog.{name}() + interval '{by}' $$"
            ));
        }
        self.run(&format!("ALTER DATABASE {} SET search_path = public, pg_catalog", self.database));
    }

    fn run(&self, sql: &str) -> String {
        self.server.run(&self.database, sql)
    }
}

impl Bench for PostgresBench {
    async fn open(&self) -> SharedStore {
        Arc::new(PostgresStore::open(self.settings(), &Lifecycle::new()).await.unwrap())
    }

    fn set_rules(&self, rules: Rules) {
        *self.rules.lock().unwrap() = rules;
    }

    fn ended_lease(&self) -> Duration {
        Duration::ZERO
    }

    fn kept_bytes(&self) -> Vec<u8> {
        self.server.dump(&self.database)
    }
}

macro_rules! conforms {
    ($($promise:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $promise() {
            conformance::$promise(&bench()).await;
        })+

        #[test]
        fn the_whole_suite_is_run() {
            assert_eq!([$(stringify!($promise)),+], conformance::ALL);
        }
    };
}

crate::store::conformance::for_each_promise!(conforms);

fn arrival(pk: u64, event: &str, admission: Admission) -> Arrival {
    let key = format!("default/{pk}").parse().unwrap();
    let cause = Cause { event_id: event.to_owned(), event_source: "/test".to_owned(), ..Cause::default() };
    Arrival { key, cause, admission }
}

async fn start(store: &SharedStore, pk: u64) -> Work {
    match store.accept(vec![arrival(pk, "e1", Admission::Start)]).await.unwrap().remove(0) {
        Receipt::New(work) => *work,
        other => panic!("expected a new invite, found {other:?}"),
    }
}

async fn take(store: &SharedStore, limit: usize) -> Vec<Work> {
    store.take(Due::Api { account: AccountName::default_account(), limit }).await.unwrap().work
}

#[tokio::test]
async fn replicas_that_start_at_once_make_one_schema_and_share_one_key() {
    let bench = bench();
    let stores = join_all((0..6).map(|_| bench.open())).await;
    assert_eq!(bench.run("SELECT version FROM schema_version"), SCHEMA.to_string());
    let trucker = "default/1".parse().unwrap();
    let code = crate::invite::InviteCode::new("K7Q2ZD").unwrap();
    let mut prints = stores.iter().map(|store| store.fingerprint_key().fingerprint(&trucker, &code));
    let first = prints.next().unwrap();
    assert!(prints.all(|print| print == first));
}

#[tokio::test]
async fn a_store_of_the_first_version_is_brought_up_to_date_and_its_invites_go_on() {
    let bench = bench();
    bench.run(include_str!("../migrations/postgres/0001_initial.sql"));
    bench.run(
        "CREATE TABLE schema_version (one int2 PRIMARY KEY CHECK (one = 1), version int4 NOT NULL); \
         INSERT INTO schema_version VALUES (1, 1); \
         INSERT INTO invites (account, pk, generation, state, lane, due, attempts, tries, ever_unknown, accepted_at, \
           begun_at, event_id, event_source) \
         VALUES ('default', 1, 1, 'received', 8, 0, 0, 0, false, 0, 0, 'e1', '/test'); \
         INSERT INTO events (account, pk, id, source, accepted_at) VALUES ('default', 1, 'e1', '/test', 0); \
         INSERT INTO moves (account, to_state, n) VALUES ('default', 'received', 1)",
    );
    let store = bench.open().await;
    assert_eq!(bench.run("SELECT version FROM schema_version"), SCHEMA.to_string());
    let taken = take(&store, 10).await;
    assert_eq!(taken.iter().map(|work| work.invite.key.to_string()).collect::<Vec<_>>(), ["default/1"]);
    conformance::each_event_is_recognised_and_shown_once(&store).await;
}

#[tokio::test]
async fn a_role_that_does_not_own_the_tables_is_found_out_before_a_migration_needs_it() {
    let bench = bench();
    drop(bench.open().await);
    let guest = format!("{}_guest", bench.database);
    bench.run(&format!(
        "CREATE ROLE {guest} LOGIN PASSWORD 'guest'; GRANT CREATE, USAGE ON SCHEMA public TO {guest}; \
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {guest}"
    ));
    let url = bench.server.url(&bench.database);
    let (_, place) = url.split_once('@').unwrap();
    let source = address(format!("postgres://{guest}:guest@{place}"));
    assert_eq!(inspect(&source).await.unwrap().rights, Ok(()));
    bench.run("UPDATE schema_version SET version = version - 1");
    let refused = inspect(&source).await.unwrap().rights.unwrap_err();
    assert!(refused.contains("must be owner of table invites"), "{refused}");
    let owner = inspect(&address(url)).await.unwrap().rights;
    assert_eq!(owner, Ok(()));
}

#[tokio::test]
async fn a_store_of_a_newer_version_is_refused_and_left_as_it_is() {
    let bench = bench();
    drop(bench.open().await);
    bench.run("UPDATE schema_version SET version = 1000");
    let error = PostgresStore::open(bench.settings(), &Lifecycle::new()).await.err().unwrap().to_string();
    assert!(error.contains("newer version (schema 1000"), "{error}");
    assert_eq!(bench.run("SELECT version FROM schema_version"), "1000");
}

#[tokio::test]
async fn a_commit_waits_for_the_disk_whatever_the_servers_default() {
    let bench = bench();
    assert_eq!(bench.run("SHOW synchronous_commit"), "off");
    let (client, _driver) = connect(&bench.settings().address).await.unwrap();
    let row = client.query_one("SHOW synchronous_commit", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "on");
}

#[tokio::test]
async fn work_in_hand_is_given_back_by_who_closes_and_kept_by_its_lease_after_a_crash() {
    let bench = bench();
    let (first, second, third) = (bench.open().await, bench.open().await, bench.open().await);
    let crashed = start(&first, 1).await;
    let closed = start(&second, 2).await;
    drop(first);
    assert!(take(&third, 10).await.is_empty(), "both are in other hands");
    second.close().await.unwrap();
    let taken = take(&third, 10).await;
    assert_eq!(taken.iter().map(|work| &work.invite.key).collect::<Vec<_>>(), [&closed.invite.key]);
    assert_eq!(taken[0].effect, Some(Effect::Read), "never blindly another POST");
    let refused = second.advance(closed.invite, Input::Take).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    // Its lease is on.
    let stored = third.show(crashed.invite.key.clone()).await.unwrap().unwrap().invite;
    assert_eq!(stored, crashed.invite);
}

#[tokio::test]
async fn replicas_share_the_work_and_take_nothing_twice() {
    const N: u64 = 300;
    let bench = bench();
    let stores = join_all((0..3).map(|_| bench.open())).await;
    let arrivals = (1..=N).map(|pk| arrival(pk, "e1", Admission::Queue)).collect();
    stores[0].accept(arrivals).await.unwrap();
    let work = stores.iter().map(async |store| {
        let mut taken = Vec::new();
        loop {
            let portion = take(store, 7).await;
            if portion.is_empty() {
                return taken;
            }
            taken.extend(portion.into_iter().map(|work| work.invite.key));
        }
    });
    let taken: Vec<TruckerKey> = join_all(work).await.concat();
    // Rows that another one had locked at the end of a round may be left to a further look.
    let rest = take(&stores[0], usize::try_from(N).unwrap()).await;
    let n_taken = taken.len() + rest.len();
    let all: BTreeSet<_> = taken.into_iter().chain(rest.into_iter().map(|work| work.invite.key)).collect();
    assert_eq!((n_taken, all.len()), (300, 300));
}

#[tokio::test]
async fn of_two_replicas_that_accept_the_same_event_one_makes_the_invite() {
    let bench = bench();
    let (one, two) = (bench.open().await, bench.open().await);
    for pk in 1..=50 {
        let event = || vec![arrival(pk, "e1", Admission::Start)];
        let (first, second) = join(one.accept(event()), two.accept(event())).await;
        let mut receipts = [first.unwrap().remove(0), second.unwrap().remove(0)];
        receipts.sort_by_key(|receipt| !matches!(receipt, Receipt::New(_)));
        assert!(matches!(receipts, [Receipt::New(_), Receipt::Duplicate(_)]), "{receipts:?}");
    }
    let counted = "SELECT sum(n) FROM tally";
    assert_eq!(bench.run(counted), "50");
}

#[tokio::test]
async fn truckers_are_written_in_the_order_of_their_keys_so_that_replicas_cannot_lock_each_other_out() {
    let bench = bench();
    let (one, two) = (bench.open().await, bench.open().await);
    let event = |pk| arrival(pk, "e1", Admission::Start);
    one.accept((1..=9).rev().map(event).collect()).await.unwrap();
    // One of them is known, so all are written after a look.
    one.accept((9..=19).rev().map(event).collect()).await.unwrap();
    assert_eq!(bench.run("SELECT bool_and(pk = seq) FROM invites"), "t");
    for round in 1..=20 {
        let pks = round * 50..round * 50 + 50;
        let (forwards, backwards) = (pks.clone().map(event), pks.rev().map(event));
        let (first, second) = join(one.accept(forwards.collect()), two.accept(backwards.collect())).await;
        let receipts = [first.unwrap(), second.unwrap()].concat();
        let n_new = receipts.iter().filter(|receipt| matches!(receipt, Receipt::New(_))).count();
        assert_eq!((receipts.len(), n_new), (100, 50));
    }
}

/// The first words of the last statement on each connection of a writer.
fn last_writes(bench: &PostgresBench) -> String {
    bench.run(
        "SELECT string_agg(DISTINCT substr(query, 1, 10), ', ') FROM pg_stat_activity \
         WHERE datname = current_database() AND (query ~ '^WITH (new|moved)' OR query IN ('COMMIT', 'BEGIN'))",
    )
}

#[tokio::test]
async fn new_events_and_results_are_each_committed_by_one_statement_without_a_look_beforehand() {
    let bench = bench();
    let store = bench.open().await;
    let work = start(&store, 1).await;
    assert_eq!(last_writes(&bench), "WITH new A");
    let result = Input::Called(conformance::issued(&store, "default/1", "K7Q2ZD"));
    store.advance(work.invite, result).await.unwrap();
    assert!(last_writes(&bench).contains("WITH moved"), "{}", last_writes(&bench));
    // A trucker that is known needs the look.
    let again = store.accept(vec![arrival(1, "e2", Admission::Start)]).await.unwrap();
    assert!(matches!(again[0], Receipt::Joined(_)), "{again:?}");
    assert!(last_writes(&bench).contains("COMMIT"), "{}", last_writes(&bench));
}

#[tokio::test]
async fn the_first_event_is_recognised_and_shown_once_also_where_an_earlier_version_kept_it_twice() {
    let bench = bench();
    let store = bench.open().await;
    start(&store, 1).await;
    bench.run(
        "INSERT INTO events (account, pk, id, source, accepted_at) \
         SELECT account, pk, event_id, event_source, accepted_at FROM invites",
    );
    conformance::each_event_is_recognised_and_shown_once(&store).await;
}

#[tokio::test]
async fn a_plan_that_was_made_for_a_small_table_does_not_outlast_its_growth() {
    let bench = bench();
    let store = PostgresStore::open(bench.settings(), &Lifecycle::new()).await.unwrap();
    let event = |pk| arrival(pk, "e1", Admission::Queue);
    store.accept(vec![event(1)]).await.unwrap();
    // The server believes for long that this is all.
    bench.run("ALTER TABLE invites SET (autovacuum_enabled = off)");
    bench.run("VACUUM ANALYZE invites");
    let mut line = Some(writer::open(&store.shared).await.unwrap());
    let plan_of_find = async |line: &Option<writer::Line>| {
        let client = &line.as_ref().unwrap().client;
        let name = "SELECT name FROM pg_prepared_statements WHERE statement LIKE 'SELECT i.%KEY SHARE%'";
        let name: String = client.query_one(name, &[]).await.unwrap().get(0);
        let explain = format!("EXPLAIN EXECUTE {name}('{{default}}', '{{1}}')");
        let lines = client.query(&explain, &[]).await.unwrap();
        lines.iter().map(|line| line.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
    };
    let small = plan_of_find(&line).await;
    assert!(small.contains("Join Filter: ((i.account = k.account)"), "goes through all of it: {small}");
    let many: Vec<Arrival> = (2..5000).map(event).collect();
    store.accept(many.clone()).await.unwrap();
    assert_eq!(plan_of_find(&line).await, small);
    let (to, _) = oneshot::channel();
    writer::plan_anew(&mut line, &[Command::Accept { arrivals: many, to }]).await;
    let grown = plan_of_find(&line).await;
    assert!(
        grown.contains("Index Cond: ((pk = k.pk) AND (account = k.account))"),
        "looks for what it needs: {grown}"
    );
}

#[tokio::test]
async fn a_server_whose_clock_was_set_meanwhile_is_decided_by_as_it_shows_now() {
    for by in ["1 hour", "-1 hour"] {
        let bench = bench();
        // Both know the clock as it was; the writers of the second connect only when it is needed.
        let (first, second) = (bench.open().await, bench.open().await);
        let begun = start(&first, 1).await.invite;
        bench.shift_clock(by);
        let result = Input::Called(conformance::issued(&second, "default/1", "K7Q2ZD"));
        let moved = second.advance(begun, result).await.unwrap();
        let shown = |column: &str, pk: u64| {
            bench.run(&format!(
                "SELECT abs({column} - extract(epoch FROM clock_timestamp()) * 1000) < 120000 FROM invites \
                 WHERE pk = {pk}"
            ))
        };
        assert_eq!(shown("ready_at", 1), "t", "{by}: {moved:?}");
        // The same for what is new: a store that knows another time than the server.
        let misled = PostgresStore::open(bench.settings(), &Lifecycle::new()).await.unwrap();
        misled.shared.clock.look(crate::time::now(), since_boot(), since_boot());
        let misled: SharedStore = Arc::new(misled);
        start(&misled, 2).await;
        assert_eq!(shown("accepted_at", 2), "t", "{by}");
        // Both have learned from it.
        start(&second, 3).await;
        assert_eq!(shown("accepted_at", 3), "t", "{by}");
    }
}

#[tokio::test]
async fn a_command_that_the_server_refuses_does_not_fail_its_neighbours() {
    let bench = bench();
    let store = bench.open().await;
    // The server takes no text with a zero byte.
    let accepts = (1..=20).map(|pk| {
        let event = if pk == 7 { "\0" } else { "e1" };
        store.accept(vec![arrival(pk, event, Admission::Queue)])
    });
    let receipts = join_all(accepts).await;
    for (pk, receipt) in (1..).zip(&receipts) {
        match receipt {
            Ok(receipts) => assert!(matches!(receipts[0], Receipt::New(_)), "{pk}"),
            Err(error) => assert!(pk == 7 && matches!(error, Error::Unavailable(_)), "{pk}: {error}"),
        }
    }
    assert_eq!(bench.run("SELECT count(*), (SELECT sum(n) FROM tally) FROM invites"), "19|19");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_holds_up_nobody() {
    let bench = bench();
    let store = bench.open().await;
    for pk in [1, 2] {
        store.accept(vec![arrival(pk, "e1", Admission::Queue)]).await.unwrap();
    }
    bench.run("UPDATE invites SET state = 'nonsense', due = 0 WHERE pk = 1");
    let taken = take(&store, 10).await;
    assert_eq!(taken.iter().map(|work| work.invite.key.to_string()).collect::<Vec<_>>(), ["default/2"]);
    assert_eq!(bench.run("SELECT due > 0 FROM invites WHERE pk = 1"), "t");
}

#[tokio::test]
async fn every_decision_is_on_the_databases_clock() {
    for by in ["1 hour", "-1 hour"] {
        let bench = bench();
        bench.shift_clock(by);
        let store = bench.open().await;
        let shifted = store.now().since(crate::time::now()).max(crate::time::now().since(store.now()));
        assert!(shifted > Duration::from_secs(3500), "{by}: {shifted:?}");
        conformance::due_work_comes_oldest_first_and_not_beyond_the_limit(&bench).await;
        let due = "SELECT bool_and(abs(due - extract(epoch FROM clock_timestamp()) * 1000) < 120000) FROM invites \
                   WHERE due IS NOT NULL";
        assert_eq!(bench.run(due), "t", "{by}");
    }
    let bench = bench();
    bench.shift_clock("-1 hour");
    conformance::work_that_was_taken_is_not_taken_twice(&bench).await;
}

#[tokio::test]
async fn a_new_event_is_told_to_the_replicas_that_may_have_a_place_for_it() {
    let bench = bench();
    let (one, two) = (bench.open().await, bench.open().await);
    let mut hints = two.hints().unwrap();
    // It listens from here on.
    while hints.recv().await.unwrap() != Hint::Everything {}
    one.accept(vec![arrival(1, "e1", Admission::Queue)]).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(60), async {
        while hints.recv().await.unwrap() != Hint::Account(AccountName::default_account()) {}
    });
    heard.await.unwrap();
}

#[tokio::test]
async fn what_the_writers_note_is_summed_up_once_however_many_replicas_do_it() {
    let bench = bench();
    let stores = [bench.open().await, bench.open().await, bench.open().await];
    let working = (1..).zip(&stores).map(async |(nth, store)| {
        for pk in (0..300).step_by(3) {
            start(store, nth + pk).await;
            store.tally().await.unwrap();
        }
    });
    join_all(working).await;
    let began = Instant::now();
    while bench.run("SELECT count(*), (SELECT sum(n) FROM counts) FROM moves") != "0|300" {
        assert!(began.elapsed() < Duration::from_secs(60), "there are notes left");
        // It is the same before and after.
        assert_eq!(store_says(&stores[0]).await, [(StateName::Calling, 300)]);
    }
    assert_eq!(store_says(&stores[1]).await, [(StateName::Calling, 300)]);
}

async fn store_says(store: &SharedStore) -> Vec<(StateName, u64)> {
    store.tally().await.unwrap().iter().map(|tally| (tally.state, tally.count)).collect()
}

#[tokio::test]
async fn confirmed_and_unfinished_invites_are_counted_without_counting_rows() {
    let bench = bench();
    let store = bench.open().await;
    bench.set_rules(Rules { sinks: Sinks::NONE.with(Sink::Stdout), ..conformance::rules() });
    start(&store, 1).await;
    start(&store, 2).await;
    assert_eq!(store.unfinished(), 2);
    // Another replica knows as much once it has counted, or opened.
    assert_eq!(bench.open().await.unfinished(), 2);
    let plan = bench.run("EXPLAIN SELECT account, state, n FROM tally");
    assert!(!plan.contains("invites"), "{plan}");
}
