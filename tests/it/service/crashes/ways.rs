//! The ways to a crash point: each begins with an empty world, dies at the point, starts again and comes to an end.

use invite_relay::crash::Point;
use invite_relay::dashdoc::simulator::HoldAt;
use rustix::process::Signal;
use serde_json::Value;

use super::trial::{PK, Trial, Way};
use crate::service::harness::Service;
use crate::service::platform::trucker_created;
use crate::service::webhook::{Receiver, Sender};
use crate::service::{Api, Bus, bus};
use crate::support::until;

impl Trial {
    /// From the empty world to the checked end.
    pub(super) async fn run(self) {
        match self.way {
            Way::Bus => self.over_rabbitmq().await,
            Way::Inherited => self.with_work_of_a_former_process().await,
            Way::Poisoned => self.behind_poison().await,
            Way::Webhook => self.under_a_webhook_sender().await,
            Way::Prepared => self.at_the_first_start().await,
            Way::Tidied => self.while_codes_are_erased().await,
            Way::Ordered => self.under_the_order_of_a_person().await,
            Way::Drained => self.at_the_end_of_a_drain().await,
        }
    }

    async fn over_rabbitmq(self) {
        let (api, bus) = self.world().await;
        let mut service = Service::start(&self.on_store(bus.as_sink(bus.as_source(api.settings())))).await;
        // The queue is made; the point is armed from here on.
        service.terminate().await;
        bus.tell([PK]).await;
        let ended = self.start(&mut service).await;
        let left = self.died(ended, &mut service).await;
        self.script_next(&api);
        service.start_again().await;
        service.settle(1).await;
        until("the queue to be empty", async || bus.source_is_empty().await).await;
        self.report(&left, &api, &bus.take_announced().await);
    }

    async fn with_work_of_a_former_process(self) {
        let (api, bus) = self.world().await;
        let mut service = Service::start(&self.on_store(bus.as_sink(bus.as_source(api.settings())))).await;
        let held = api.handle.hold_post(PK, HoldAt::BeforeReply);
        bus.tell([PK]).await;
        held.arrived().await;
        service.kill().await;
        held.release();
        let ended = self.start(&mut service).await;
        let left = self.died(ended, &mut service).await;
        self.script_next(&api);
        service.start_again().await;
        service.settle(1).await;
        self.report(&left, &api, &bus.take_announced().await);
    }

    async fn behind_poison(self) {
        let (api, bus) = self.world().await;
        let mut service = Service::start(&self.on_store(bus.as_sink(bus.as_source(api.settings())))).await;
        service.terminate().await;
        bus.send([POISON.to_owned(), trucker_created(PK, "event-1")]).await;
        let ended = self.start(&mut service).await;
        let left = self.died(ended, &mut service).await;
        self.script_next(&api);
        service.start_again().await;
        service.settle(1).await;
        until("the poison to be put aside", async || bus.n_dead().await > 0).await;
        // What it has in hand counts as taken from the queue, until it is gone.
        service.terminate().await;
        assert!(bus.source_is_empty().await, "{self:?}: something is left in the queue");
        // Killed after the confirm it is there twice; never less than once.
        let n_dead = bus.take_dead_headers().await.len();
        let n_copies = if self.point == Point::BuryConfirmed { 2 } else { 1 };
        assert!((1..=n_copies).contains(&n_dead), "{self:?}: {n_dead} dead letters");
        self.report(&left, &api, &bus.take_announced().await);
    }

    async fn under_a_webhook_sender(self) {
        let (api, sender) = (self.api().await, Sender::new());
        let receiver = Receiver::start(&api.life).await;
        let settings = receiver.as_sink(sender.as_source(api.settings()));
        let mut service = Service::prepare(&self.on_store(settings));
        let ended = self.start(&mut service).await;
        // The answer may be lost with the process.
        let _ = sender.send(&service, &trucker_created(PK, "event-1")).await;
        let left = self.died(ended, &mut service).await;
        self.script_next(&api);
        service.start_again().await;
        sender.tell(&service, [PK]).await;
        service.settle(1).await;
        self.report(&left, &api, &receiver.taken());
    }

    async fn at_the_first_start(self) {
        let (api, bus) = self.world().await;
        let settings = bus.as_sink(bus.as_source(api.settings()));
        // Makes the queue, on a store of its own.
        Service::start(&settings).await.terminate().await;
        bus.tell([PK]).await;
        let mut service = Service::prepare(&self.on_store(settings));
        let ended = self.start(&mut service).await;
        let left = self.died(ended, &mut service).await;
        self.script_next(&api);
        service.start_again().await;
        service.settle(1).await;
        self.report(&left, &api, &bus.take_announced().await);
    }

    async fn while_codes_are_erased(self) {
        let (api, bus) = self.world().await;
        let settings = bus.as_sink(bus.as_source(api.settings())).with("store.erase_codes_after", "1ms");
        let mut service = Service::start(&self.on_store(settings)).await;
        bus.tell([PK]).await;
        service.settle(1).await;
        service.terminate().await;
        let ended = self.start(&mut service).await;
        let left = self.died(ended, &mut service).await;
        self.script_next(&api);
        service.start_again().await;
        until("the code to be erased", async || !is_code_kept(&service)).await;
        // The erased code can still be told from a new one.
        ask_for_a_new_code(&service).await;
        service.settle(1).await;
        self.report(&left, &api, &bus.take_announced().await);
    }

    async fn under_the_order_of_a_person(self) {
        let (api, bus) = self.world().await;
        let mut service = Service::start(&self.on_store(bus.as_sink(bus.as_source(api.settings())))).await;
        bus.tell([PK]).await;
        service.settle(1).await;
        service.terminate().await;
        let ended = self.start(&mut service).await;
        let unanswered = service.order(REISSUE, BY).await;
        assert!(unanswered.is_none(), "killed before the answer");
        let left = self.died(ended, &mut service).await;
        let was_committed = service.invites()[0].generation.get() == 2;
        self.script_next(&api);
        service.start_again().await;
        // Whoever got no answer looks, and asks again if nothing came of it.
        if !was_committed {
            ask_for_a_new_code(&service).await;
        }
        service.settle(1).await;
        self.report(&left, &api, &bus.take_announced().await);
    }

    async fn at_the_end_of_a_drain(self) {
        let (api, bus) = self.world().await;
        let settings = bus.as_sink(bus.as_source(api.settings())).with("shutdown.grace", "1s");
        let mut service = Service::prepare(&self.on_store(settings));
        let held = api.handle.hold_post(PK, HoldAt::BeforeReply);
        let ended = self.start(&mut service).await;
        assert!(ended.is_none(), "{self:?} was passed too early");
        service.ready().await;
        bus.tell([PK]).await;
        held.arrived().await;
        service.signal(Signal::TERM);
        let left = self.died(None, &mut service).await;
        held.release();
        self.script_next(&api);
        service.start_again().await;
        service.settle(1).await;
        self.report(&left, &api, &bus.take_announced().await);
    }

    async fn world(&self) -> (Api, Bus) {
        (self.api().await, bus("crash").await)
    }
}

const POISON: &str = r#"{"no":"trucker"}"#;
const REISSUE: &str = "/api/v1/invites/default/1/reissue";
const BY: &str = r#"{"by":"ada"}"#;

async fn ask_for_a_new_code(service: &Service) {
    let answer = service.order(REISSUE, BY).await.expect("an answer to the order");
    assert!((200..300).contains(&answer.status), "the order was answered {}", answer.status);
}

fn is_code_kept(service: &Service) -> bool {
    let shown = service.run(&["invites", "show", "default/1", "--output", "json"]);
    serde_json::from_slice::<Value>(&shown.stdout).unwrap()["code_kept"] == true
}
