//! Every crash point: killed there, started again on the same store, and nothing is lost or doubled.
//!
//! A story passes some of the points. Each of them is armed in turn, in a world of its own: simulator, bus and
//! store. [`every_crash_point_is_passed_by_a_story`] keeps the lists complete.

mod trial;

use futures_util::{StreamExt as _, stream};
use invite_relay::crash::Point;
use invite_relay::dashdoc::simulator::{Fault, HoldAt};
use serde_json::Value;

use self::trial::{PK, Trial};
use super::bus;
use super::harness::Service;
use super::platform::trucker_created;
use super::webhook::{Receiver, Sender};
use crate::support::until;

/// Trials at the same time: most of one is waiting for a second read-back.
const AT_ONCE: usize = 4;

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

/// A former process was killed under the call; this one finds the work in the store.
const INHERITED: [Armed; 6] = [
    (Point::TakeCommit, 1),
    (Point::Taken, 1),
    (Point::ReadSend, 1),
    (Point::ReadAnswered, 1),
    (Point::AdvanceCommit, 1),
    (Point::PublishConfirmed, 1),
];

/// In and out by webhook; the sender repeats what was not answered.
const WEBHOOK: [Armed; 5] = [
    (Point::AcceptCommit, 1),
    (Point::Accepted, 1),
    (Point::WebhookAnswer, 1),
    (Point::PublishSend, 1),
    (Point::PublishConfirmed, 1),
];

/// A published code is due to be erased. The second passing is after the commit.
const TIDIED: [Armed; 2] = [(Point::TidyCommit, 1), (Point::TidyCommit, 2)];

/// Crashes after which the API is asked again, with what the first POST had met.
const ASKED_AGAIN: [(Armed, Fault); 8] = [
    ((Point::AcceptCommit, 1), Fault::None),
    ((Point::Accepted, 1), Fault::None),
    ((Point::CallSend, 1), Fault::None),
    ((Point::CallAnswered, 1), Fault::None),
    ((Point::AdvanceCommit, 1), Fault::None),
    ((Point::ReadSend, 1), Fault::ReplyLost),
    ((Point::ReadAnswered, 1), Fault::ReplyLost),
    ((Point::GateCommit, 2), Fault::Throttled),
];

/// What the API may do then. Left out is a GET that lies (no code, no such trucker): after it another POST is right.
const NEXT: [Fault; 10] = [
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

/// A person asks for a new code, and the service is killed on the way.
const ORDERED: [Armed; 2] = [(Point::OrderCommit, 1), (Point::OrderCommitted, 1)];

#[test]
fn every_crash_point_is_passed_by_a_story() {
    let stories = [&HAPPY[..], &UNKNOWN, &LATE, &THROTTLED, &INHERITED, &WEBHOOK, &TIDIED, &ORDERED];
    for point in Point::ALL {
        let passed = stories.iter().any(|story| story.iter().any(|(passed, _)| passed == point));
        assert!(passed, "no story passes {}", point.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_of_a_happy_event_is_survived() {
    through_rabbitmq(trials("happy", &HAPPY, Fault::None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_of_an_unknown_outcome_is_survived() {
    through_rabbitmq(trials("unknown", &UNKNOWN, Fault::ErrorAfter)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_around_a_late_effect_is_survived() {
    through_rabbitmq(trials("late", &LATE, Fault::LateEffect)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_of_a_throttled_call_is_survived() {
    through_rabbitmq(trials("throttled", &THROTTLED, Fault::Throttled)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_is_survived_whatever_the_api_does_next() {
    let crashes = ASKED_AGAIN.iter().flat_map(|(armed, first)| trials("next", &[*armed], *first));
    let trials = crashes.flat_map(|crash| NEXT.map(|next| Trial { next, ..crash }));
    through_rabbitmq(trials.collect()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_crash_over_inherited_work_is_survived() {
    for trial in trials("inherited", &INHERITED, Fault::None) {
        let (api, bus) = (trial.api().await, bus("inherited").await);
        let mut service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
        let held = api.handle.hold_post(PK, HoldAt::BeforeReply);
        bus.tell([PK]).await;
        held.arrived().await;
        service.kill().await;
        held.release();
        let ended = trial.start(&mut service).await;
        let left = trial.died(ended, &mut service).await;
        service.start_again().await;
        service.settle(1).await;
        trial.report(&left, &api, &bus.take_announced().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_a_webhook_sender_is_survived() {
    for trial in trials("webhook", &WEBHOOK, Fault::None) {
        let (api, sender) = (trial.api().await, Sender::new());
        let receiver = Receiver::start(&api.life).await;
        let mut service = Service::prepare(&receiver.as_sink(sender.as_source(api.settings())));
        let ended = trial.start(&mut service).await;
        // The answer may be lost with the process.
        let _ = sender.send(&service, &trucker_created(PK, "event-1")).await;
        let left = trial.died(ended, &mut service).await;
        service.start_again().await;
        sender.tell(&service, [PK]).await;
        service.settle(1).await;
        trial.report(&left, &api, &receiver.taken());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_codes_are_erased_is_survived() {
    for trial in trials("tidied", &TIDIED, Fault::None) {
        let (api, bus) = (trial.api().await, bus("tidied").await);
        let settings = bus.as_sink(bus.as_source(api.settings())).with("store.erase_codes_after", "1ms");
        let mut service = Service::start(&settings).await;
        bus.tell([PK]).await;
        service.settle(1).await;
        service.terminate().await;
        let ended = trial.start(&mut service).await;
        let left = trial.died(ended, &mut service).await;
        service.start_again().await;
        until("the code to be erased", async || !is_code_kept(&service)).await;
        trial.report(&left, &api, &bus.take_announced().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_the_order_of_a_person_is_survived() {
    for trial in trials("ordered", &ORDERED, Fault::None) {
        let (api, bus) = (trial.api().await, bus("ordered").await);
        let mut service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
        bus.tell([PK]).await;
        service.settle(1).await;
        service.terminate().await;
        let ended = trial.start(&mut service).await;
        let unanswered = service.order("/api/v1/invites/default/1/reissue", r#"{"by":"ada"}"#).await;
        assert!(unanswered.is_none(), "killed before the answer");
        let left = trial.died(ended, &mut service).await;
        service.start_again().await;
        service.settle(1).await;
        let generation = service.invites()[0].generation.get();
        // Whoever got no answer looks, and asks again if nothing came of it.
        assert_eq!(generation, if trial.point == Point::OrderCommit { 1 } else { 2 });
        let (trucker, announced) = (api.handle.trucker(PK).unwrap(), bus.take_announced().await);
        assert_eq!(trucker.effects, u64::from(generation));
        let last = announced.last().unwrap().json();
        assert_eq!(last["data"]["invite_code"].as_str(), trucker.code.as_deref());
        println!(
            "ordered   | {:<19} | {:<9} | None        | generation {generation}",
            trial.point.name(),
            left.0
        );
    }
}

fn trials(story: &'static str, crashes: &[Armed], first: Fault) -> Vec<Trial> {
    let trial = |&(point, nth): &Armed| Trial { story, point, nth, first, next: Fault::None };
    crashes.iter().map(trial).collect()
}

async fn through_rabbitmq(trials: Vec<Trial>) {
    println!("story     | killed at           | left      | then        | outcome");
    stream::iter(trials).for_each_concurrent(AT_ONCE, Trial::through_rabbitmq).await;
}

fn is_code_kept(service: &Service) -> bool {
    let shown = service.run(&["invites", "show", "default/1", "--output", "json"]);
    serde_json::from_slice::<Value>(&shown.stdout).unwrap()["code_kept"] == true
}
