//! Every crash point: killed there, started again on the same store, and nothing is lost or doubled.
//!
//! A scenario is a short story that passes some of the points. Each of its points is armed in turn, in a world of
//! its own: simulator, bus and store. [`every_crash_point_is_passed_by_a_scenario`] keeps the lists complete.

use invite_relay::crash::Point;
use invite_relay::dashdoc::simulator::{Fault, HoldAt};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt as _;

use super::checker::check;
use super::harness::Service;
use super::platform::{Bus, Receiver, Sender};
use super::{Api, bus};
use crate::support::until;

/// The trucker of every story.
const PK: u64 = 1;

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
const UNKNOWN: [Armed; 12] = [
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

#[test]
fn every_crash_point_is_passed_by_a_scenario() {
    let stories = [&HAPPY[..], &UNKNOWN, &THROTTLED, &INHERITED, &WEBHOOK, &TIDIED];
    for point in Point::ALL {
        let passed = stories.iter().any(|story| story.iter().any(|(passed, _)| passed == point));
        assert!(passed, "no scenario passes {}", point.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_of_a_happy_event_is_survived() {
    for armed in HAPPY {
        let api = Api::faultless().await;
        through_rabbitmq("happy", armed, &api).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_of_an_unknown_outcome_is_survived() {
    for armed in UNKNOWN {
        let api = Api::faultless().await;
        api.handle.script_posts(PK, [Fault::ErrorAfter]);
        through_rabbitmq("unknown", armed, &api).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_of_a_throttled_call_is_survived() {
    for armed in THROTTLED {
        let api = Api::faultless().await;
        api.handle.script_posts(PK, [Fault::Throttled]);
        through_rabbitmq("throttled", armed, &api).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_crash_over_inherited_work_is_survived() {
    for armed in INHERITED {
        let (api, bus) = (Api::faultless().await, bus("inherited").await);
        let mut service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
        let held = api.handle.hold_post(PK, HoldAt::BeforeReply);
        bus.tell([PK]).await;
        held.arrived().await;
        service.kill().await;
        held.release();
        let mut trial = Trial::begin("inherited", armed, &mut service).await;
        trial.wait_for_crash(&mut service).await;
        service.start_again().await;
        service.settle(1).await;
        trial.report(&api, &bus.take_announced().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_under_a_webhook_sender_is_survived() {
    for armed in WEBHOOK {
        let (api, sender) = (Api::faultless().await, Sender::new());
        let receiver = Receiver::start(&api.life).await;
        let mut service = Service::prepare(&receiver.as_sink(sender.as_source(api.settings())));
        let mut trial = Trial::begin("webhook", armed, &mut service).await;
        // The answer may be lost with the process.
        let _ = sender.send(&service, &super::platform::trucker_created(PK, "event-1")).await;
        trial.wait_for_crash(&mut service).await;
        service.start_again().await;
        sender.tell(&service, [PK]).await;
        service.settle(1).await;
        trial.report(&api, &receiver.taken());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_while_codes_are_erased_is_survived() {
    for armed in TIDIED {
        let (api, bus) = (Api::faultless().await, bus("tidied").await);
        let settings = bus.as_sink(bus.as_source(api.settings())).with("store.erase_codes_after", "1ms");
        let mut service = Service::start(&settings).await;
        bus.tell([PK]).await;
        service.settle(1).await;
        service.terminate().await;
        let mut trial = Trial::begin("tidied", armed, &mut service).await;
        trial.wait_for_crash(&mut service).await;
        service.start_again().await;
        let code_kept = |service: &Service| {
            let shown = service.run(&["invites", "show", "default/1", "--output", "json"]);
            serde_json::from_slice::<serde_json::Value>(&shown.stdout).unwrap()["code_kept"] == true
        };
        until("the code to be erased", async || !code_kept(&service)).await;
        trial.report(&api, &bus.take_announced().await);
    }
}

/// One event over RabbitMQ, killed at the point, and started again.
async fn through_rabbitmq(story: &'static str, armed: Armed, api: &Api) {
    let bus = bus(story).await;
    let mut service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    // The queue is made; the point is armed from here on.
    service.terminate().await;
    bus.tell([PK]).await;
    let mut trial = Trial::begin(story, armed, &mut service).await;
    trial.wait_for_crash(&mut service).await;
    service.start_again().await;
    service.settle(1).await;
    source_is_done(&bus).await;
    trial.report(api, &bus.take_announced().await);
}

async fn source_is_done(bus: &Bus) {
    until("the queue to be empty", async || bus.source_is_empty().await).await;
}

/// One crash at one point, and a line of the table.
struct Trial {
    story: &'static str,
    point: String,
    ended: Option<std::process::ExitStatus>,
    /// What the killed process left in the store.
    left: &'static str,
}

impl Trial {
    async fn begin(story: &'static str, (point, nth): Armed, service: &mut Service) -> Self {
        let point = format!("{}:{nth}", point.name());
        let ended = service.start_to_crash_at(&point).await;
        Self { story, point, ended, left: "" }
    }

    /// The process must die of SIGKILL: then the point was passed.
    async fn wait_for_crash(&mut self, service: &mut Service) {
        let (story, point) = (self.story, &self.point);
        let status = match self.ended {
            Some(status) => status,
            None => service.ended().await,
        };
        assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{story}: {point} was not passed, {status}");
        let invites = service.invites();
        self.left = invites.first().map_or("nothing", |invite| invite.state.name().as_str());
    }

    fn report(&self, api: &Api, deliveries: &[super::platform::Delivery]) {
        let (story, point, left) = (self.story, &self.point, &self.left);
        check([PK], deliveries, &api.handle);
        let trucker = api.handle.trucker(PK).unwrap();
        let n_refused = trucker.post_answers.iter().filter(|answer| **answer == Some(429)).count() as u64;
        assert!(trucker.posts <= 1 + n_refused, "{story}: {point}: {} posts", trucker.posts);
        let last = deliveries.last().unwrap().json();
        println!(
            "{story:<10} {point:<20} left {left:<9}  posts {}  gets {}  deliveries {}  generation {}  {}",
            trucker.posts,
            trucker.gets,
            deliveries.len(),
            last["data"]["generation"],
            last["data"]["origin"].as_str().unwrap(),
        );
    }
}
