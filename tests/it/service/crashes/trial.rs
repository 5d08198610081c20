//! One crash at one point in a world of its own, and a line of the table.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use invite_relay::crash::Point;
use invite_relay::dashdoc::simulator::{Fault, Faults, Mix};
use rustix::process::Signal;

use crate::service::checker::check;
use crate::service::harness::Service;
use crate::service::platform::Delivery;
use crate::service::{Api, bus};
use crate::support::until;

/// The trucker of every trial.
pub(super) const PK: u64 = 1;

/// How long a late effect is late: long enough to miss the first read-back, and in time for the second.
const LATE_MS: u64 = 300;

/// Which crash, in which story.
#[derive(Clone, Copy)]
pub(super) struct Trial {
    pub(super) story: &'static str,
    pub(super) point: Point,
    /// Which passing of the point kills.
    pub(super) nth: u32,
    /// What the first POST meets.
    pub(super) first: Fault,
    /// What the next request after the crash meets, POST or GET.
    pub(super) next: Fault,
}

/// What a killed process left in the store.
pub(super) struct Left(pub(super) &'static str);

impl Trial {
    /// The API's side of the trial.
    pub(super) async fn api(&self) -> Api {
        let late = Mix { late_effect_ms: LATE_MS, ..Mix::default() };
        let api = Api::with(Faults::posts(late)).await;
        if self.first != Fault::None {
            api.handle.script_posts(PK, [self.first]);
        }
        api
    }

    /// One event over RabbitMQ: killed at the point, started again, settled, checked.
    pub(super) async fn through_rabbitmq(self) {
        let (api, bus) = (self.api().await, bus(self.story).await);
        let mut service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
        // The queue is made; the point is armed from here on.
        service.terminate().await;
        bus.tell([PK]).await;
        let ended = self.start(&mut service).await;
        let left = self.died(ended, &mut service).await;
        if self.next != Fault::None {
            api.handle.script_posts(PK, [self.next]);
            api.handle.script_gets(PK, [self.next]);
        }
        service.start_again().await;
        service.settle(1).await;
        until("the queue to be empty", async || bus.source_is_empty().await).await;
        self.report(&left, &api, &bus.take_announced().await);
    }

    /// Starts the service with the point armed. `Some` if it passed the point while it was starting.
    pub(super) async fn start(&self, service: &mut Service) -> Option<ExitStatus> {
        service.start_to_crash_at(&self.armed()).await
    }

    /// Waits for the end, which must be a kill: then the point was passed.
    pub(super) async fn died(&self, ended: Option<ExitStatus>, service: &mut Service) -> Left {
        let status = match ended {
            Some(status) => status,
            None => service.ended().await,
        };
        let killed = status.signal() == Some(Signal::KILL.as_raw());
        assert!(killed, "{}: {} was not passed, {status}", self.story, self.armed());
        Left(service.invites().first().map_or("nothing", |invite| invite.state.name().as_str()))
    }

    /// Checks the end of the story and prints its line.
    pub(super) fn report(&self, left: &Left, api: &Api, deliveries: &[Delivery]) {
        let (story, point, next) = (self.story, self.armed(), format!("{:?}", self.next));
        println!("{story:<9} | {point:<19} | {:<9} | {next:<11} | {}", left.0, self.outcome(api, deliveries));
    }

    fn outcome(&self, api: &Api, deliveries: &[Delivery]) -> String {
        check([PK], deliveries, &api.handle);
        let trucker = api.handle.trucker(PK).unwrap();
        let n_throttled = trucker.post_answers.iter().filter(|answer| **answer == Some(429)).count() as u64;
        // Any other outcome is either a success or unknown, and then it is read back: a code is always there.
        assert!(trucker.posts <= 1 + n_throttled, "{}: {} posts", self.armed(), trucker.posts);
        let last = &deliveries.last().unwrap().json()["data"];
        format!(
            "{} POST, {} GET, {} deliveries, generation {}, {}",
            trucker.posts,
            trucker.gets,
            deliveries.len(),
            last["generation"],
            last["origin"].as_str().unwrap()
        )
    }

    fn armed(&self) -> String {
        format!("{}:{}", self.point.name(), self.nth)
    }
}
