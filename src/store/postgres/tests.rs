//! The conformance suite, and what only a shared store has to promise.

use std::sync::Mutex;

use super::*;
use crate::invite::{Cause, Effect, Failure, FailureClass, State, StateName};
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
