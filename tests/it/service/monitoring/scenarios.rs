//! A real Prometheus in front of the real service, while things go wrong: each alert fires in its scenario and clears
//! after it, and every query of every dashboard has data.

use invite_relay::dashdoc::simulator::{DEFAULT_TOKEN, Fault, Faults, Mix};

use super::files::{alerts, moving_series, queries, rules};
use crate::service::harness::Service;
use crate::service::platform::Bus;
use crate::service::webhook::Sender;
use crate::service::{Api, settings::Settings};
use crate::support::collector::Collector;
use crate::support::prometheus::{Prometheus, free_address};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::support::until;

/// The alerts that the scenarios set off.
pub(super) const PLAYED: [&str; 17] = [
    "InviteRelayReadyBudgetBurnFast",
    "InviteRelayReadyBudgetBurnSlow",
    "InviteRelayThrottled",
    "InviteRelayOldestWaiting",
    "InviteRelayAccountParked",
    "InviteRelayNotTakingEvents",
    "InviteRelayDoctorFailed",
    "InviteRelayCircuitOpen",
    "InviteRelayDeadPresent",
    "InviteRelayManyDie",
    "InviteRelayPoison",
    "InviteRelayPublishFailing",
    "InviteRelayPublishedCodeStale",
    "InviteRelayPublishedCodeUnverified",
    "InviteRelayPublisherNotConnected",
    "InviteRelayConsumerNotLive",
    "InviteRelayDown",
];

/// The rules with seconds in place of minutes and hours. Each of these must be there: a rule that is written in another
/// way would wait its true time here.
fn hurried(rules: &str) -> String {
    let shorter = [
        ("[5m]", "[8s]"),
        ("[15m]", "[12s]"),
        ("[30m]", "[8s]"),
        ("[1h]", "[12s]"),
        ("[6h]", "[12s]"),
        ("for: 1m\n", "for: 1s\n"),
        ("for: 2m\n", "for: 1s\n"),
        ("for: 5m\n", "for: 1s\n"),
        ("for: 10m\n", "for: 1s\n"),
        ("for: 15m\n", "for: 1s\n"),
        // Fifteen minutes of waiting, two minutes without a sign of the consumer, a minute to a code.
        ("> 900", "> 3"),
        ("> 120", "> 25"),
        ("le=\"60.0\"", "le=\"0.25\""),
    ];
    let hurried = shorter.into_iter().fold(rules.to_owned(), |text, (long, short)| {
        assert!(text.contains(long), "no rule has {long} any more");
        text.replace(long, short)
    });
    let is_long =
        |word: &str| word.ends_with(['m', 'h', 'd']) && word[..word.len() - 1].parse::<u32>().is_ok();
    let long: Vec<_> =
        hurried.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| is_long(word)).collect();
    assert!(long.is_empty(), "these would take too long: {long:?}");
    hurried
}

/// What the scenarios are played on.
struct Stage {
    api: Api,
    broker: RabbitMq,
    bus: Bus,
    line: Proxy,
    collector: Collector,
    /// Between the service and the collector.
    traces: Proxy,
    service: Service,
    prometheus: Prometheus,
    /// The next trucker.
    pk: u64,
}

impl Stage {
    async fn set() -> (Self, Sender) {
        let api = Api::faultless().await;
        let broker = tokio::task::block_in_place(RabbitMq::start);
        let bus = Bus::at(broker.url(), "monitored").await;
        let line = Proxy::start(broker.address()).await;
        let sender = Sender::new();
        let (admin, address) = (free_address(), format!("amqp://guest:guest@{}/%2f", line.address()));
        let settings: Settings = sender
            .as_source(bus.as_sink(bus.as_source(api.settings())))
            .with("source.rabbitmq.url", address.as_str())
            .with("sink.rabbitmq.url", address.as_str())
            .with("sink.rabbitmq.confirm_timeout", "2s")
            .with("admin.listen", admin.to_string())
            .with("store.max_backlog", 150)
            .with("retry.max_attempts", 4)
            .with("telemetry.doctor_every", "1s");
        let mut service = Service::prepare(&settings);
        // Nobody is there yet: spans are sampled, and lost.
        let collector = Collector::start().await;
        let traces = Proxy::start(collector.address()).await;
        traces.close();
        service.environment("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", traces.address()));
        service.start_again().await;
        let prometheus = Prometheus::start(&hurried(&rules()), admin).await;
        until("the first scrape", async || prometheus.n_samples("invite_relay_build_info").await > 0).await;
        (Self { api, broker, bus, line, collector, traces, service, prometheus, pk: 0 }, sender)
    }

    /// So many truckers that nobody has heard of.
    fn new_truckers(&mut self, n: u64) -> std::ops::RangeInclusive<u64> {
        let first = self.pk + 1;
        self.pk += n;
        first..=self.pk
    }

    async fn tell(&mut self, n: u64) {
        let truckers = self.new_truckers(n);
        self.bus.tell(truckers).await;
    }

    async fn fires(&self, alert: &str) {
        let alert = format!("InviteRelay{alert}");
        assert!(PLAYED.contains(&alert.as_str()), "{alert}");
        until(&format!("{alert} to fire"), async || self.prometheus.alerts().await[&alert] == "firing").await;
    }

    /// Waits until all is well, as far as Prometheus can tell.
    async fn clears(&self, after: &str) {
        until(&format!("all alerts to clear after {after}"), async || {
            self.prometheus.alerts().await.values().all(|state| state == "inactive")
        })
        .await;
        println!("clear after {after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_alert_fires_in_its_scenario_and_clears_and_every_panel_has_data() {
    let (mut stage, sender) = Stage::set().await;

    stage.tell(30).await;
    let truckers = stage.new_truckers(10);
    sender.tell(&stage.service, truckers).await;
    stage.service.settle(40).await;
    let mut expected = alerts();
    expected.sort();
    assert_eq!(stage.prometheus.alerts().await.into_keys().collect::<Vec<_>>(), expected);
    stage.clears("a normal start").await;

    slow_and_throttled(&mut stage).await;
    a_bad_token(&mut stage).await;
    an_api_that_fails(&mut stage).await;
    rejected(&mut stage).await;
    unreadable_and_unwanted(&mut stage).await;
    codes_in_doubt(&mut stage).await;
    rare(&mut stage).await;
    broken_broker(&mut stage).await;

    stage.service.terminate().await;
    stage.fires("Down").await;
    stage.service.start_again().await;
    stage.clears("a restart").await;

    let mut empty = Vec::new();
    for query in queries() {
        let text = query.text.replace("$__rate_interval", "5m").replace("$__range", "5m");
        let text = text.replace("$job", ".*").replace("$account", ".*");
        if stage.prometheus.n_samples(&text).await == 0 {
            empty.push(format!("{}: {text}", query.panel));
        }
    }
    assert!(empty.is_empty(), "no data for {empty:#?}");
    // Every series is there from the start: that a query has data may mean no more than a zero.
    let mut still = Vec::new();
    for series in moving_series() {
        if stage.prometheus.n_samples(&format!("{series} > 0")).await == 0 {
            still.push(series);
        }
    }
    assert!(still.is_empty(), "never moved: {still:#?}");
    let buckets = "invite_relay_time_to_ready_seconds_bucket";
    let traces = stage.prometheus.exemplars(buckets).await;
    assert!(!traces.is_empty() && traces.iter().all(|id| id.len() == 32), "{traces:?}");
}

async fn slow_and_throttled(stage: &mut Stage) {
    stage.api.handle.set_faults(Faults::posts(Mix { latency_ms: 400, ..Mix::default() }));
    stage.tell(20).await;
    stage.fires("ReadyBudgetBurnFast").await;
    stage.fires("ReadyBudgetBurnSlow").await;
    stage.api.handle.set_faults(Faults::posts(Mix { throttled: 1.0, ..Mix::default() }));
    stage.tell(10).await;
    stage.fires("Throttled").await;
    stage.fires("OldestWaiting").await;
    stage.api.handle.set_faults(Faults::default());
    stage.clears("a storm of 429").await;
}

async fn a_bad_token(stage: &mut Stage) {
    stage.api.handle.set_tokens(["another"]);
    stage.tell(160).await;
    stage.fires("AccountParked").await;
    stage.fires("NotTakingEvents").await;
    stage.fires("DoctorFailed").await;
    stage.api.handle.set_tokens([DEFAULT_TOKEN]);
    stage.clears("a bad token").await;
}

async fn an_api_that_fails(stage: &mut Stage) {
    let failing = Mix { error_before: 1.0, ..Mix::default() };
    stage.api.handle.set_faults(Faults { read: failing.clone(), ..Faults::posts(failing) });
    stage.tell(10).await;
    stage.fires("CircuitOpen").await;
    stage.api.handle.set_faults(Faults::default());
    stage.clears("an outage of the API").await;
}

async fn rejected(stage: &mut Stage) {
    stage.api.handle.set_faults(Faults::posts(Mix { rejected: 1.0, ..Mix::default() }));
    stage.tell(15).await;
    stage.fires("ManyDie").await;
    stage.fires("DeadPresent").await;
    stage.api.handle.set_faults(Faults::default());
    let output = stage.service.run(&["invites", "redrive", "--all", "--by", "ada", "--apply"]);
    assert!(output.status.success(), "{output:?}");
    stage.clears("a redrive").await;
}

async fn unreadable_and_unwanted(stage: &mut Stage) {
    stage.bus.send(["no event".to_owned()]).await;
    stage.fires("Poison").await;
    stage.bus.stop_listening().await;
    stage.tell(5).await;
    stage.fires("PublishFailing").await;
    stage.bus.listen().await;
    stage.clears("poison and a missing binding").await;
}

async fn codes_in_doubt(stage: &mut Stage) {
    stage.api.handle.set_faults(Faults::posts(Mix { late_effect_ms: 400, ..Mix::default() }));
    let late = *stage.new_truckers(1).end();
    stage.api.handle.script_posts(late, [Fault::LateEffect]);
    stage.bus.tell([late]).await;
    stage.fires("PublishedCodeStale").await;
    let silent = *stage.new_truckers(1).end();
    stage.api.handle.script_posts(silent, [Fault::ErrorAfter]);
    stage.api.handle.script_gets(silent, [Fault::None].into_iter().chain([Fault::NotFound; 10]));
    stage.bus.tell([silent]).await;
    stage.fires("PublishedCodeUnverified").await;
    stage.api.handle.set_faults(Faults::default());
    stage.clears("codes in doubt").await;
}

/// What no alert is about, and a panel shows.
async fn rare(stage: &mut Stage) {
    let odd = *stage.new_truckers(1).end();
    stage.api.handle.script_posts(odd, [Fault::OddCode]);
    stage.bus.tell([odd]).await;
    stage.traces.resume();
    until("spans to be delivered", async || {
        stage.tell(1).await;
        !stage.collector.spans().is_empty()
    })
    .await;
    // Somebody else writes to the store, and does not come to an end.
    let store = rusqlite::Connection::open(stage.service.file("store.db")).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    stage.tell(5).await;
    stage.fires("NotTakingEvents").await;
    store.execute_batch("ROLLBACK").unwrap();
    stage.clears("a store that was locked").await;
}

async fn broken_broker(stage: &mut Stage) {
    tokio::task::block_in_place(|| stage.broker.stop());
    stage.fires("PublisherNotConnected").await;
    stage.fires("ConsumerNotLive").await;
    tokio::task::block_in_place(|| stage.broker.start_again());
    stage.clears("a restart of the broker").await;

    // The connections look healthy, and nothing arrives.
    stage.line.stall();
    stage.fires("ConsumerNotLive").await;
    stage.line.resume();
    stage.line.cut();
    stage.clears("a stuck consumer").await;
}
