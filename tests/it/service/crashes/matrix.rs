//! Every crash point × everything that the next request may meet, on both stores.

use invite_relay::crash::Point;
use invite_relay::dashdoc::simulator::Fault;

use super::run;
use super::trial::{Store, Trial, Way};

/// What the next request after the crash may meet. Left out is a GET that lies (no code, no such trucker): after it
/// another POST is right.
const NEXT: [Fault; 11] = [
    Fault::None,
    Fault::ErrorBefore,
    Fault::ErrorAfter,
    Fault::ReplyLost,
    Fault::LateEffect,
    Fault::Reset,
    Fault::HalfBody,
    Fault::Throttled,
    Fault::Unavailable,
    Fault::Garbage,
    Fault::Oversized,
];

/// Those that differ most: the store's part is the same under all.
const NEXT_ON_POSTGRES: [Fault; 4] = [Fault::None, Fault::ReplyLost, Fault::LateEffect, Fault::Throttled];

/// A story that passes the point, and the passing that matters most. A new point does not compile without one.
fn reached(point: Point) -> Trial {
    let bus = Trial::at(point, 1);
    match point {
        Point::PrepareCommit => Trial { way: Way::Prepared, ..bus },
        Point::AcceptCommit
        | Point::Accepted
        | Point::SourceAck
        | Point::SourceAcked
        | Point::CallSend
        | Point::CallAnswered
        | Point::AdvanceCommit
        | Point::Advanced
        | Point::PublishSend
        | Point::PublishConfirmed => bus,
        Point::BurySend | Point::BuryConfirmed => Trial { way: Way::Poisoned, ..bus },
        Point::WebhookAnswer => Trial { way: Way::Webhook, ..bus },
        // An invite is taken when it is due again.
        Point::TakeCommit | Point::Taken => Trial { first: Fault::Throttled, ..bus },
        // The second passing is after the commit.
        Point::GateCommit => Trial { first: Fault::Throttled, nth: 2, ..bus },
        Point::ReadSend | Point::ReadAnswered => Trial { first: Fault::ReplyLost, ..bus },
        Point::OrderCommit | Point::OrderCommitted => Trial { way: Way::Ordered, ..bus },
        Point::TidyCommit => Trial { way: Way::Tidied, ..bus },
        // Replicas only: a store of one process knows at its next start.
        Point::GiveBackCommit => Trial { way: Way::Drained, store: Store::Postgres, ..bus },
    }
}

/// On SQLite: every point × every outcome, for a trucker that has a code before and for one that has none.
pub(super) fn on_sqlite(code_before: bool) -> Vec<Trial> {
    let points = Point::ALL.iter().map(|point| reached(*point)).filter(|trial| trial.store == Store::Sqlite);
    points.flat_map(|trial| NEXT.map(|next| Trial { next, code_before, ..trial })).collect()
}

/// On Postgres: every point × the outcomes that differ most, for a trucker that has no code before.
pub(super) fn on_postgres() -> Vec<Trial> {
    let points = Point::ALL.iter().map(|point| Trial { store: Store::Postgres, ..reached(*point) });
    let crossed = points.flat_map(|trial| NEXT_ON_POSTGRES.map(|next| Trial { next, ..trial }));
    crossed.map(|trial| Trial { code_before: false, ..trial }).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_point_is_survived_whatever_the_api_does_next() {
    run(on_sqlite(true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_point_is_survived_when_the_trucker_had_no_code_before() {
    run(on_sqlite(false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_every_point_is_survived_on_a_shared_store() {
    run(on_postgres()).await;
}

/// `docs/crash-points.md` holds the printed tables.
#[test]
fn every_crash_point_and_every_trial_is_in_the_docs() {
    let page = include_str!("../../../../docs/crash-points.md");
    let points = Point::ALL.iter().filter(|point| !page.contains(&format!("\n| `{}` |", point.name())));
    let missing: Vec<_> = points.map(|point| point.name()).collect();
    assert!(missing.is_empty(), "docs/crash-points.md does not name {missing:?}");
    let trials = [on_sqlite(true), on_sqlite(false), on_postgres()].concat();
    let missing: Vec<_> = trials.iter().map(Trial::line).filter(|line| !page.contains(line)).collect();
    println!("{} trials", trials.len());
    assert!(missing.is_empty(), "docs/crash-points.md has no line for {missing:#?}");
}
