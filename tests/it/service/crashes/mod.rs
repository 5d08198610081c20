//! Every crash point: killed there, started again on the same store, and nothing is lost or doubled.
//!
//! A story passes some of the points. Each passing is armed in turn, in a world of its own: simulator, bus and
//! store. [`matrix`] crosses every point with everything that the next request may meet; [`places`] keeps the list of
//! points complete.

mod matrix;
mod places;
mod trial;
mod ways;

use futures_util::{StreamExt as _, stream};
use invite_relay::crash::Point;
use invite_relay::dashdoc::simulator::Fault;

use self::trial::{HEADER, Store, Trial, Way};

/// Trials at the same time: most of one is waiting for a second read-back.
const AT_ONCE: usize = 4;

/// On a shared store most of a trial is waiting for the lease of the process that was killed.
const AT_ONCE_ON_POSTGRES: usize = 16;

/// A point, and which passing of it kills.
type Armed = (Point, u32);

/// One event, one call, one announcement.
const HAPPY: [Armed; 12] = [
    (Point::AcceptCommit, 1),
    (Point::Accepted, 1),
    (Point::SourceAck, 1),
    (Point::SourceAcked, 1),
    (Point::CallSend, 1),
    (Point::CallAnswered, 1),
    (Point::AdvanceCommit, 1),
    (Point::Advanced, 1),
    (Point::PublishSend, 1),
    (Point::PublishConfirmed, 1),
    (Point::AdvanceCommit, 2),
    (Point::Advanced, 2),
];

/// The POST is answered 500 after its effect; then a read-back, an announcement, a second read-back.
const UNKNOWN: [Armed; 14] = [
    (Point::CallSend, 1),
    (Point::CallAnswered, 1),
    (Point::AdvanceCommit, 1),
    (Point::Advanced, 1),
    (Point::ReadSend, 1),
    (Point::ReadAnswered, 1),
    (Point::AdvanceCommit, 2),
    (Point::Advanced, 2),
    (Point::PublishSend, 1),
    (Point::PublishConfirmed, 1),
    (Point::ReadSend, 2),
    (Point::ReadAnswered, 2),
    (Point::AdvanceCommit, 4),
    (Point::Advanced, 4),
];

/// The POST takes effect after the read-back: the second read-back announces another generation.
const LATE: [Armed; 6] = [
    (Point::ReadAnswered, 1),
    (Point::Advanced, 2),
    (Point::ReadAnswered, 2),
    (Point::Advanced, 4),
    (Point::PublishSend, 2),
    (Point::PublishConfirmed, 2),
];

/// The POST is answered 429, the next one 200. The second passing of the gate's point is after its commit.
const THROTTLED: [Armed; 6] = [
    (Point::GateCommit, 1),
    (Point::GateCommit, 2),
    (Point::GateCommit, 3),
    (Point::CallAnswered, 2),
    (Point::AdvanceCommit, 1),
    (Point::Advanced, 1),
];

/// Work that is found in the store.
const INHERITED: [Armed; 6] = [
    (Point::TakeCommit, 1),
    (Point::Taken, 1),
    (Point::ReadSend, 1),
    (Point::ReadAnswered, 1),
    (Point::AdvanceCommit, 1),
    (Point::PublishConfirmed, 1),
];

/// In and out by webhook.
const WEBHOOK: [Armed; 5] = [
    (Point::AcceptCommit, 1),
    (Point::Accepted, 1),
    (Point::WebhookAnswer, 1),
    (Point::PublishSend, 1),
    (Point::PublishConfirmed, 1),
];

/// A published code is due to be erased. The second passing is after the commit.
const TIDIED: [Armed; 2] = [(Point::TidyCommit, 1), (Point::TidyCommit, 2)];

/// A person asks for a new code, and the service is killed on the way.
const ORDERED: [Armed; 2] = [(Point::OrderCommit, 1), (Point::OrderCommitted, 1)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_of_a_happy_event_is_survived() {
    run(story(Way::Bus, &HAPPY, Fault::None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_of_an_unknown_outcome_is_survived() {
    run(story(Way::Bus, &UNKNOWN, Fault::ErrorAfter)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_around_a_late_effect_is_survived() {
    run(story(Way::Bus, &LATE, Fault::LateEffect)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_of_a_throttled_call_is_survived() {
    run(story(Way::Bus, &THROTTLED, Fault::Throttled)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_crash_over_inherited_work_is_survived() {
    run(story(Way::Inherited, &INHERITED, Fault::None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_a_webhook_sender_is_survived() {
    run(story(Way::Webhook, &WEBHOOK, Fault::None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_codes_are_erased_is_survived() {
    run(story(Way::Tidied, &TIDIED, Fault::None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_the_order_of_a_person_is_survived() {
    run(story(Way::Ordered, &ORDERED, Fault::None)).await;
}

fn story(way: Way, passings: &[Armed], first: Fault) -> Vec<Trial> {
    passings.iter().map(|&(point, nth)| Trial { way, first, ..Trial::at(point, nth) }).collect()
}

/// Runs trials on one store and prints a table of them.
async fn run(trials: Vec<Trial>) {
    let at_once = match trials[0].store {
        Store::Sqlite => AT_ONCE,
        Store::Postgres => AT_ONCE_ON_POSTGRES,
    };
    println!("{HEADER}");
    stream::iter(trials).for_each_concurrent(at_once, Trial::run).await;
}
