//! How long what piled up takes after an outage: of the broker, and of the API's patience.
//!
//! Both at the same time, with a relay each: events come in by webhook at a steady rate all the while. One relay
//! announces to the broker, which is stopped; the other to its standard output, and its API refuses every call.

use std::io::Write as _;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::Scale;
use crate::platform::{a_moment, event};
use crate::process::Process;
use crate::report::note;
use crate::scene::{Api, Scene, metric};
use crate::support::{rabbitmq::RabbitMq, soon};

/// Events per second, to each relay.
const RATE: u64 = 20;
const SECONDS: u64 = 120;
/// Calls per second that are allowed in the storm's wake.
const PACE: f64 = 100.0;

struct Trial {
    name: String,
    sink: &'static str,
    api: Api,
    _relay: Process,
}

pub(crate) async fn run(scene: &mut Scene, scale: Scale) -> String {
    let seconds = scale.of(SECONDS);
    let outage = begin(scene, "rabbitmq").await;
    let mut storm = begin(scene, "stdout").await;
    let told = RATE * seconds;
    // One event each, so that everything works before it stops working.
    for trial in [&outage, &storm] {
        tell(scene, trial, 1..2).await;
        soon("the first invite", published(scene, trial, 1)).await;
    }
    scene.broker.stop();
    writeln!(storm.api.process.stdin(), "throttle").unwrap();
    tokio::join!(tell(scene, &outage, 2..told + 2), tell(scene, &storm, 2..told + 2));

    writeln!(storm.api.process.stdin(), "open").unwrap();
    let opened = Instant::now();
    soon("the end of the storm", published(scene, &storm, told + 1)).await;
    let after_storm = opened.elapsed();
    start_again(&scene.broker);
    let back = Instant::now();
    soon("the end of the outage", published(scene, &outage, told + 1)).await;
    let after_outage = back.elapsed();
    note(&format!("catch-up: broker {after_outage:.1?}, storm {after_storm:.1?}"));
    format!(
        "{RATE} events/s come in by webhook all the while.\n\n\
         | outage | lasts | invites that wait | all announced after |\n|---|---:|---:|---:|\n\
         | the broker is stopped | {seconds} s | {told} | {:.1} s after it takes connections again; the \
         relay tries within 10 s |\n\
         | every call is refused (429, `Retry-After: 2`) | {seconds} s | {told} | {:.1} s, of which {:.1} s are the pace \
         of {PACE}/s |\n",
        after_outage.as_secs_f64(),
        after_storm.as_secs_f64(),
        Duration::from_secs(told).as_secs_f64() / PACE
    )
}

async fn begin(scene: &mut Scene, sink: &'static str) -> Trial {
    let (bus, api) = (scene.bus().await, scene.api(0).await);
    let store = format!("sqlite://{}", scene.file(&format!("{}.db", bus.name)).display());
    let settings = scene
        .settings(&bus, &api, &store)
        .with("source.rabbitmq.enabled", false)
        .with("source.webhook.enabled", true)
        .with("source.webhook.insecure_accept_unsigned", true)
        .with("sink.rabbitmq.enabled", sink == "rabbitmq")
        .with("sink.stdout.enabled", sink == "stdout")
        .with("dashdoc.rate_per_second", PACE);
    let relay = scene.relay(&settings, &api.url, &bus.name);
    let name = bus.name.clone();
    scene.listening(&name, "webhook").await;
    Trial { name, sink, api, _relay: relay }
}

/// Tells of truckers at the steady rate; each must be accepted.
#[expect(clippy::disallowed_methods, reason = "the platform, not the service")]
async fn tell(scene: &Scene, trial: &Trial, pks: std::ops::Range<u64>) {
    let url = format!("http://{}/webhooks/trucker-created", scene.listening(&trial.name, "webhook").await);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut timer = tokio::time::interval(Duration::from_secs(1) / u32::try_from(RATE).unwrap());
    let mut sending = FuturesUnordered::new();
    for pk in pks {
        timer.tick().await;
        let request = http.post(&url).header("content-type", "application/cloudevents+json").body(event(pk));
        sending.push(async { assert_eq!(request.send().await.unwrap().status(), 202) });
        while sending.len() > 64 {
            sending.next().await;
        }
    }
    sending.for_each(async |()| {}).await;
}

/// Waits until so many events were announced.
async fn published(scene: &Scene, trial: &Trial, n: u64) {
    let admin = scene.admin_of(&trial.name).await;
    let series = format!(r#"invite_relay_published_total{{sink="{}",event="ready"}}"#, trial.sink);
    while metric(&admin, &series).await < n {
        a_moment().await;
    }
}

fn start_again(broker: &RabbitMq) {
    // Starting blocks its thread; nothing else is to be done on it meanwhile.
    broker.start_again();
}
