//! One crash at one point in a world of its own, and its line of the table.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use invite_relay::crash::Point;
use invite_relay::dashdoc::simulator::{Fault, Faults, Mix, TruckerReport};
use rustix::process::Signal;

use crate::service::Api;
use crate::service::checker::check_announced;
use crate::service::harness::Service;
use crate::service::platform::Delivery;
use crate::service::settings::Settings;
use crate::support::postgres::Postgres;

/// The trucker of every trial.
pub(super) const PK: u64 = 1;

/// How long a late effect is late: long enough to miss the first read-back, and in time for the second.
const LATE_MS: u64 = 300;

/// The first lines of the table, in Markdown.
pub(super) const HEADER: &str = "\
| store | way | first call | killed at | code before | next request | left | outcome |
|---|---|---|---|---|---|---|---|";

/// Which crash, in which story.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trial {
    pub(super) way: Way,
    pub(super) point: Point,
    /// Which passing of the point kills.
    pub(super) nth: u32,
    /// What the first POST meets.
    pub(super) first: Fault,
    /// What the next request after the crash meets, POST or GET.
    pub(super) next: Fault,
    /// Whether the trucker has a code before anything is asked for. Then a read-back always finds one.
    pub(super) code_before: bool,
    pub(super) store: Store,
}

/// How the point is reached; see [`super::ways`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// An event over RabbitMQ, announced there.
    Bus,
    /// A former process was killed under the call; this one finds the work in the store.
    Inherited,
    /// A message that can't be read, and an event behind it.
    Poisoned,
    /// In and out by webhook; the sender repeats what was not answered.
    Webhook,
    /// The first start on an empty store.
    Prepared,
    /// The code of a published invite is erased.
    Tidied,
    /// A person asks for a new code.
    Ordered,
    /// A drain ends while a call is open.
    Drained,
}

/// On which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Sqlite,
    Postgres,
}

/// What a killed process left in the store.
pub(super) struct Left(&'static str);

impl Trial {
    /// One event over RabbitMQ, killed at this passing of a point, and nothing else goes wrong.
    pub(super) fn at(point: Point, nth: u32) -> Self {
        let (way, none) = (Way::Bus, Fault::None);
        Self { way, point, nth, first: none, next: none, code_before: true, store: Store::Sqlite }
    }

    /// The API's side of the trial.
    pub(super) async fn api(&self) -> Api {
        let late = Mix { late_effect_ms: LATE_MS, ..Mix::default() };
        let api = Api::with(Faults::posts(late)).await;
        if !self.code_before {
            assert!(api.handle.create(PK, None));
            let code = api.handle.trucker(PK).unwrap().code.unwrap();
            assert!(api.handle.use_code(PK, &code));
        }
        if self.first != Fault::None {
            api.handle.script_posts(PK, [self.first]);
        }
        api
    }

    /// These settings with the store of the trial.
    pub(super) fn on_store(&self, settings: Settings) -> Settings {
        match self.store {
            Store::Sqlite => settings,
            Store::Postgres => tokio::task::block_in_place(|| {
                let server = Postgres::shared();
                // What a killed process had in hand waits for its lease, which follows from these.
                let settings =
                    settings.with("dashdoc.timeout", "2s").with("sink.rabbitmq.confirm_timeout", "2s");
                settings.with("store.url", server.url(&server.database()))
            }),
        }
    }

    /// What the API does next.
    pub(super) fn script_next(&self, api: &Api) {
        if self.next != Fault::None {
            api.handle.script_posts(PK, [self.next]);
            api.handle.script_gets(PK, [self.next]);
        }
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
        assert!(killed, "{self:?} was not passed, {status}");
        Left(service.invites().first().map_or("nothing", |invite| invite.state.name().as_str()))
    }

    /// Checks the end of the story and prints its line of the table.
    pub(super) fn report(&self, left: &Left, api: &Api, deliveries: &[Delivery]) {
        check_announced([PK], deliveries, &api.handle);
        let trucker = api.handle.trucker(PK).unwrap();
        self.check_calls(&trucker);
        let last = &deliveries.last().unwrap().json()["data"];
        println!(
            "{} {} | {} POST, {} GET, {} codes made, {} deliveries, generation {}, {} |",
            self.line(),
            left.0,
            trucker.posts,
            trucker.gets,
            trucker.effects,
            deliveries.len(),
            last["generation"],
            last["origin"].as_str().unwrap()
        );
    }

    /// No call too many: one per generation that was asked for, and another after one that certainly did nothing.
    fn check_calls(&self, trucker: &TruckerReport) {
        let n_asked = if matches!(self.way, Way::Tidied | Way::Ordered) { 2 } else { 1 };
        let is_refusal = |answer: &&Option<u16>| matches!(answer, Some(429 | 503));
        let n_refused = trucker.post_answers.iter().filter(is_refusal).count() as u64;
        // Where a read-back can't find another code, a call without (timely) effect is rightly made again.
        let read_back_is_empty = !self.code_before || n_asked == 2;
        let count = |faults: &[Fault]| {
            let met = [self.first, self.next].into_iter().filter(|fault| faults.contains(fault)).count();
            if read_back_is_empty { met as u64 } else { 0 }
        };
        let n_void = count(&[Fault::ErrorBefore, Fault::Reset, Fault::Garbage, Fault::LateEffect]);
        let n_late = count(&[Fault::LateEffect]);
        assert!(trucker.posts <= n_asked + n_refused + n_void, "{self:?}: {} posts", trucker.posts);
        assert!(trucker.effects <= n_asked + n_late, "{self:?}: {} codes made", trucker.effects);
    }

    /// The columns that name the trial.
    pub(super) fn line(&self) -> String {
        let (Self { store, way, first, next, .. }, armed) = (self, self.armed());
        let code = if self.code_before { "yes" } else { "no" };
        format!("| {store:?} | {way:?} | {first:?} | `{armed}` | {code} | {next:?} |")
    }

    fn armed(&self) -> String {
        format!("{}:{}", self.point.name(), self.nth)
    }
}
