//! Traces, as a real collector gets them: the tree of each kind of story, found by one attribute; and a collector that
//! is away, slow or hanging, which nobody notices.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use invite_relay::dashdoc::simulator::{Fault, HoldAt};
use invite_relay::http::serve;
use invite_relay::invite::StateName;
use invite_relay::lifecycle::Lifecycle;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::json;

use super::harness::Service;
use super::platform::{Bus, trucker_created};
use super::settings::Settings;
use super::webhook::{Mood, Receiver, Sender};
use super::{Api, bus};
use crate::support::collector::{Collector, Recorded};
use crate::support::proxy::Proxy;
use crate::support::until;

/// The platform's own span, in which it tells of a trucker.
const PLATFORM: (&str, &str) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");

/// An event in a trace of the platform's.
fn traced_event(pk: u64) -> String {
    let mut event: serde_json::Value =
        serde_json::from_str(&trucker_created(pk, &format!("event-{pk}"))).unwrap();
    event["traceparent"] = json!(format!("00-{}-{}-01", PLATFORM.0, PLATFORM.1));
    event.to_string()
}

async fn service(api: &Api, bus: &Bus, endpoint: &str) -> Service {
    traced(&bus.as_sink(bus.as_source(api.settings())), endpoint).await
}

async fn traced(settings: &Settings, endpoint: &str) -> Service {
    let mut service = Service::prepare(settings);
    service.environment("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
    service.environment("OTEL_BSP_SCHEDULE_DELAY", "100");
    service.start_again().await;
    service
}

fn of<'s>(story: &'s [Recorded], name: &str) -> Vec<&'s Recorded> {
    story.iter().filter(|span| span.name.starts_with(name)).collect()
}

/// The one span of that name.
fn one<'s>(story: &'s [Recorded], name: &str) -> &'s Recorded {
    let found = of(story, name);
    assert_eq!(found.len(), 1, "{name} in {story:#?}");
    found[0]
}

/// The spans below `attempt`, by name, in the order of their start.
fn below<'s>(story: &'s [Recorded], attempt: &Recorded) -> Vec<(&'s str, SpanKind, bool)> {
    let children = story.iter().filter(|span| span.parent == attempt.id);
    children
        .map(|span| {
            assert_eq!(span.trace, attempt.trace);
            (span.name.as_str(), span.kind, span.failed)
        })
        .collect()
}

const POST: &str = "POST /manager-truckers/{pk}/generate-invite-code/";
const GET: &str = "GET /manager-truckers/{pk}/";

fn is_published(story: &[Recorded]) -> bool {
    !of(story, "publish").is_empty() && of(story, "publish").len() == of_finished(story)
}

/// Announcements whose attempt has come as well.
fn of_finished(story: &[Recorded]) -> usize {
    of(story, "publish")
        .iter()
        .filter(|publish| of(story, "attempt").iter().any(|attempt| attempt.id == publish.parent))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invite_that_works_at_once_is_one_trace_from_the_platform_to_the_announcement() {
    let (api, bus, collector) = (Api::faultless().await, bus("traced").await, Collector::start().await);
    let service = service(&api, &bus, &collector.endpoint()).await;
    bus.send([traced_event(1)]).await;
    service.settle(1).await;
    let story =
        collector.story("default/1", |story| is_published(story) && !of(story, "process").is_empty()).await;

    let intake = one(&story, "process ");
    assert_eq!((intake.kind, intake.trace.as_str()), (SpanKind::Consumer, PLATFORM.0));
    assert_eq!(intake.parent, PLATFORM.1, "the platform's span is the parent");
    assert_eq!(intake.attribute("messaging.system"), "rabbitmq");
    assert_eq!(intake.attribute("messaging.operation.type"), "process");
    assert_eq!(intake.attribute("cloudevents.event_id"), "event-1");
    assert_eq!(intake.resource("service.name"), "invite-relay");
    assert_eq!(intake.resource("service.version"), env!("CARGO_PKG_VERSION"));
    let attempt = one(&story, "attempt");
    assert_eq!((attempt.trace.as_str(), &attempt.parent), (PLATFORM.0, &intake.id));
    assert_eq!(attempt.attribute("event.id"), "event-1");
    let publish = one(&story, "publish ");
    assert_eq!(
        below(&story, attempt),
        [(POST, SpanKind::Client, false), (publish.name.as_str(), SpanKind::Producer, false)]
    );
    assert_eq!(one(&story, POST).attribute("http.response.status_code"), "200");
    assert_eq!(one(&story, POST).attribute("url.template"), "/manager-truckers/{pk}/generate-invite-code/");
    assert_eq!(story.len(), 4, "{story:#?}");

    // The context goes on: in the header as the hop, in the event as the start of the transmission.
    let announced = bus.take_announced_with_trace().await;
    let (hop, event) = &announced[0];
    assert_eq!(*hop, format!("00-{}-{}-01", PLATFORM.0, publish.id));
    assert_eq!(event["traceparent"], format!("00-{}-{}-01", PLATFORM.0, intake.id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_webhook_to_webhook_it_is_one_trace_too() {
    let (api, collector, life) = (Api::faultless().await, Collector::start().await, Lifecycle::new());
    let (sender, receiver) = (Sender::new(), Receiver::start(&life).await);
    let settings = sender.as_source(receiver.as_sink(api.settings()));
    let service = traced(&settings, &collector.endpoint()).await;
    let answer = sender.send(&service, &traced_event(5)).await.unwrap();
    assert_eq!(answer.status, 202);
    service.settle(1).await;
    let story = collector.story("default/5", |story| story.len() == 4).await;

    let intake = one(&story, "POST /webhooks/trucker-created");
    assert_eq!((intake.kind, intake.trace.as_str()), (SpanKind::Server, PLATFORM.0));
    assert_eq!(intake.parent, PLATFORM.1, "the platform's span is the parent");
    assert_eq!(intake.attribute("http.route"), "/webhooks/trucker-created");
    assert_eq!(intake.attribute("http.response.status_code"), "202");
    assert_eq!(intake.attribute("cloudevents.event_id"), "event-5");
    let attempt = one(&story, "attempt");
    assert_eq!((attempt.trace.as_str(), &attempt.parent), (PLATFORM.0, &intake.id));
    assert_eq!(below(&story, attempt), [(POST, SpanKind::Client, false), ("POST", SpanKind::Client, false)]);
    let delivery = story.iter().find(|span| span.name == "POST").unwrap();
    assert_eq!(delivery.attribute("http.response.status_code"), "204");
    assert_eq!(delivery.attribute("cloudevents.event_type"), "invite.ready");
    assert_eq!(receiver.hops(), [format!("00-{}-{}-01", PLATFORM.0, delivery.id)]);
    assert_eq!(
        receiver.taken()[0].json()["traceparent"],
        format!("00-{}-{}-01", PLATFORM.0, intake.id),
        "in the event the start of the transmission"
    );

    receiver.be(Mood::Refuse);
    sender.send(&service, &traced_event(7)).await.unwrap();
    let refused = |span: &&Recorded| span.name == "POST" && span.failed;
    let story = collector.story("default/7", |story| story.iter().any(|span| refused(&span))).await;
    let refused = story.iter().find(refused).unwrap();
    assert_eq!(refused.attribute("http.response.status_code"), "500");
    assert_eq!(refused.attribute("error.type"), "500");
    life.begin_drain();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_a_crash_left_open_is_read_back_in_an_attempt_linked_to_the_event() {
    let (api, bus, collector) = (Api::faultless().await, bus("crashed").await, Collector::start().await);
    let mut service = service(&api, &bus, &collector.endpoint()).await;
    let held = api.handle.hold_post(6, HoldAt::BeforeReply);
    bus.send([traced_event(6)]).await;
    held.arrived().await;
    let intake = collector.story("default/6", |story| !story.is_empty()).await.remove(0);
    service.kill().await;
    drop(held);
    service.start_again().await;
    service.settle(1).await;
    let story = collector.story("default/6", |story| is_published(story) && of(story, GET).len() == 2).await;
    // What the killed process had not sent is lost, and what it remembered of its attempt.
    let attempts = of(&story, "attempt");
    assert_eq!(attempts[0].links, std::slice::from_ref(&intake.id));
    assert_eq!(attempts[0].parent, "", "a root");
    assert_eq!(below(&story, attempts[0])[0], (GET, SpanKind::Client, false));
    assert_eq!(attempts[0].attribute("event.id"), "event-6");
    let opened = service.count("invite_relay_unknown_opened_total", &["cause=\"crash\""]).await;
    let resolved = service.count("invite_relay_unknown_resolved_total", &["how=\"code\""]).await;
    assert_eq!((opened, resolved), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_later_attempt_is_a_root_linked_to_the_event_and_to_the_attempt_before() {
    let (api, bus, collector) = (Api::faultless().await, bus("retried").await, Collector::start().await);
    // Nothing is sent and nothing has an effect: a try is spent each time.
    api.handle.script_posts(2, [Fault::NotFound, Fault::NotFound, Fault::NotFound]);
    let service = service(&api, &bus, &collector.endpoint()).await;
    bus.send([traced_event(2)]).await;
    service.settle(1).await;
    let story =
        collector.story("default/2", |story| is_published(story) && of(story, "attempt").len() == 4).await;
    let intake = one(&story, "process ");
    let attempts = of(&story, "attempt");
    assert_eq!((attempts[0].trace.as_str(), &attempts[0].parent), (PLATFORM.0, &intake.id));
    assert!(attempts[0].links.is_empty());
    for (before, attempt) in attempts.iter().zip(&attempts[1..]) {
        assert_eq!(attempt.parent, "", "a root");
        assert_ne!(attempt.trace, PLATFORM.0);
        assert_eq!(attempt.links, [intake.id.clone(), before.id.clone()]);
        assert_eq!(below(&story, before), [(POST, SpanKind::Client, true)]);
    }
    assert_eq!(below(&story, attempts[3]).iter().map(|span| span.0).collect::<Vec<_>>()[0], POST);
    assert_eq!(below(&story, attempts[3]).len(), 2, "the call and the announcement");
    let numbers: Vec<_> =
        of(&story, POST).iter().map(|call| call.attribute("http.request.resend_count")).collect();
    assert_eq!(numbers, ["", "1", "2", "3"]);
    assert!(of(&story, POST)[..3].iter().all(|call| call.attribute("error.type") == "404"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_shows_the_lost_call_the_read_back_and_the_second_one() {
    let (api, bus, collector) = (Api::faultless().await, bus("unknown").await, Collector::start().await);
    api.handle.script_posts(3, [Fault::ReplyLost]);
    let service = service(&api, &bus, &collector.endpoint()).await;
    bus.send([traced_event(3)]).await;
    service.settle(1).await;
    let story = collector
        .story("default/3", |story| {
            is_published(story) && of(story, GET).len() == 2 && of(story, "attempt").len() >= 2
        })
        .await;
    let calls: Vec<_> = story
        .iter()
        .filter(|span| span.kind == SpanKind::Client)
        .map(|span| (span.name.as_str(), span.failed, span.attribute("http.response.status_code")))
        .collect();
    assert_eq!(calls, [(POST, true, ""), (GET, false, "200"), (GET, false, "200")]);
    // The second reading comes after publishing, in an attempt of its own.
    let attempts = of(&story, "attempt");
    let last = attempts.last().unwrap();
    assert_eq!(below(&story, last), [(GET, SpanKind::Client, false)]);
    let (intake, before) = (one(&story, "process "), attempts[attempts.len() - 2]);
    assert_eq!(last.links, [intake.id.clone(), before.id.clone()]);
    assert_eq!(one(&story, "publish ").kind, SpanKind::Producer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redrive_is_found_by_the_same_attribute_and_linked_to_what_came_before() {
    let (api, bus, collector) = (Api::faultless().await, bus("redriven").await, Collector::start().await);
    api.handle.script_posts(4, [Fault::Rejected]);
    let service = service(&api, &bus, &collector.endpoint()).await;
    bus.send([traced_event(4)]).await;
    until("the death", async || service.are_all(1, StateName::Dead)).await;
    service.settle(1).await;
    let output = service.run(&["invites", "redrive", "--all", "--by", "ada", "--apply"]);
    assert!(output.status.success(), "{output:?}");
    until("the code", async || service.are_all(1, StateName::Published)).await;
    let story = collector
        .story("default/4", |story| {
            is_published(story) && of(story, "publish").len() == 2 && of(story, "attempt").len() == 2
        })
        .await;
    let (intake, attempts) = (one(&story, "process "), of(&story, "attempt"));
    let names: Vec<_> = below(&story, attempts[0]).into_iter().map(|(name, ..)| name).collect();
    assert!(names[0] == POST && names[1].ends_with(":invite.failed"), "{names:?}");
    let names: Vec<_> = below(&story, attempts[1]).into_iter().map(|(name, ..)| name).collect();
    assert!(names[0] == POST && names[1].ends_with(":invite.ready"), "{names:?}");
    assert_eq!(attempts[1].links, [intake.id.clone(), attempts[0].id.clone()]);
    // One attribute finds everything that has to do with it, and nothing else.
    let rest: Vec<_> =
        collector.spans().into_iter().filter(|span| span.attribute("invite.id") != "default/4").collect();
    assert!(rest.is_empty(), "{rest:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_or_hangs_costs_spans_and_no_work() {
    let (api, bus, collector) = (Api::faultless().await, bus("untraced").await, Collector::start().await);
    let line = Proxy::start(collector.endpoint().trim_start_matches("http://").parse().unwrap()).await;
    let mut service = Service::prepare(&bus.as_sink(bus.as_source(api.settings())));
    service.environment("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", line.address()));
    service.environment("OTEL_EXPORTER_OTLP_TIMEOUT", "1000");
    service.environment("OTEL_BSP_SCHEDULE_DELAY", "100");
    service.environment("OTEL_BSP_MAX_QUEUE_SIZE", "100");
    service.start_again().await;
    let lost = async |reason: &str| {
        let label = format!("reason=\"{reason}\"");
        service.count("invite_relay_spans_lost_total", &[&label]).await
    };

    line.close();
    bus.tell(1..=100).await;
    service.settle(100).await;
    until("spans to be lost to nobody", async || lost("not_delivered").await > 0).await;
    line.resume();
    // It takes the connection, and never answers.
    line.stall();
    bus.tell(101..=300).await;
    service.settle(300).await;
    until("spans to be lost to a full queue", async || lost("queue_full").await > 0).await;
    assert_eq!(service.readiness().await["ready"], true);
    line.resume();
    line.cut();
    until("spans to arrive again", async || {
        bus.tell([301]).await;
        !collector.spans().is_empty()
    })
    .await;
    assert!(service.log().contains("traces cannot be delivered"), "it is said once");
    // Stopping does not wait for a collector that hangs.
    line.stall();
    service.terminate().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_collector_gets_what_it_can_take_and_slows_nobody_down() {
    let (api, bus, life) = (Api::faultless().await, bus("slow-collector").await, Lifecycle::new());
    let slow = slow_collector(&life).await;
    let mut service = Service::prepare(&bus.as_sink(bus.as_source(api.settings())));
    service.environment("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{slow}"));
    service.environment("OTEL_BSP_SCHEDULE_DELAY", "100");
    service.environment("OTEL_BSP_MAX_QUEUE_SIZE", "100");
    service.environment("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50");
    service.start_again().await;
    bus.tell(1..=300).await;
    service.settle(300).await;
    assert_eq!(service.readiness().await["ready"], true);
    let full = ["reason=\"queue_full\""];
    until("spans to be lost to a full queue", async || {
        service.count("invite_relay_spans_lost_total", &full).await > 0
    })
    .await;
    until("spans to be delivered", async || {
        service.metrics().await.lines().any(|line| {
            line.strip_prefix("invite_relay_spans_delivered_total ").is_some_and(|count| count != "0")
        })
    })
    .await;
    let undelivered = service.count("invite_relay_spans_lost_total", &["reason=\"not_delivered\""]).await;
    assert_eq!(undelivered, 0, "slow is not away");
    service.terminate().await;
    life.begin_drain();
}

/// Takes every export, and thinks about it for half a second.
async fn slow_collector(life: &Lifecycle) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(async || tokio::time::sleep(Duration::from_millis(500)).await);
    life.spawn_long("slow collector", serve::serve(listener, router, life.clone(), "slow collector"));
    address
}
