//! Everything fails, and nothing is lost or doubled.
//!
//! The real binary between a real broker and the API simulator, with a network in between that can be broken. A
//! seed decides what goes wrong when ([`plan`]); a platform tells of truckers all the while ([`platform`]); at
//! the end everything is healed, and what was accepted, announced, called and stored is compared ([`checker`]).
//!
//! `scripts/chaos --minutes N --seed S` runs it at length. The environment says how:
//!
//! | variable | default | |
//! |---|---|---|
//! | `CHAOS_SECONDS` | 60 | how long things go wrong |
//! | `CHAOS_SEED` | 1 | what goes wrong |
//! | `CHAOS_RATE` | 6 | events per second |
//! | `CHAOS_STORE` | a file on a small disk | `store.url` of the service |
//! | `CHAOS_KEEP` | unset | keep the evidence of a run that passed |
//!
//! The evidence of a run that failed is in `target/chaos/SEED/`.

#![expect(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

mod api_faults;
mod checker;
mod clock;
mod disk;
mod fault;
#[path = "../it/service/http.rs"]
mod http;
mod line;
mod plan;
mod platform;
mod report;
mod run;
mod service;
#[path = "../it/service/settings.rs"]
#[expect(dead_code, reason = "shared with the integration tests, which use more of it")]
mod settings;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "shared with the integration tests, which use more of it")]
mod support;
mod timeline;
mod world;

use std::str::FromStr;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn whatever_fails_nothing_is_lost_or_doubled_and_the_last_published_code_is_the_valid_one() {
    run::run(run::Settings {
        seed: variable("CHAOS_SEED", 1),
        lasts: Duration::from_secs(variable("CHAOS_SECONDS", 60)),
        rate: variable("CHAOS_RATE", 6.0),
        store: std::env::var("CHAOS_STORE").ok(),
        keep: std::env::var_os("CHAOS_KEEP").is_some(),
    })
    .await;
}

fn variable<T: FromStr>(name: &str, default: T) -> T {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    }
}
