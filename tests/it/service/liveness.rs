//! Promise 10, from the outside: what a broker or a network does to the consumer is counted, logged once, told by the
//! readiness, and healed without a restart.

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};

use super::Api;
use super::checker::check;
use super::harness::Service;
use super::platform::Bus;
use crate::support::operator::Operator;
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::support::until;

const PART: &str = "source.rabbitmq";

/// Waits until the event was counted at least `n` times.
async fn counted(service: &Service, event: &str, n: u64) {
    let labels = [format!("kind=\"{event}\"")];
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    until(event, async || service.count("invite_relay_broker_events_total", &labels).await >= n).await;
}

/// How often the log has a line with this text.
fn n_logged(service: &Service, text: &str) -> usize {
    service.log().lines().filter(|line| line.contains(text)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_channel_and_a_cancel_by_a_deleted_queue_are_healed_without_a_restart() {
    // A node of its own: channels are killed on it.
    let rabbitmq = tokio::task::block_in_place(RabbitMq::start);
    let api = Api::faultless().await;
    let bus = Bus::at(rabbitmq.url(), "healed").await;
    let operator = Operator::at(rabbitmq.url()).await;
    let queue = "healed.trucker-created";
    // As an operator made it: the service would make a quorum queue.
    operator.declare(queue).await;
    let service = Service::start(&bus.as_sink(bus.as_source(api.settings()))).await;
    let pid = service.pid();
    let differs = async || service.part(PART).await["detail"].as_str().unwrap().contains("with another x-");
    assert!(differs().await, "{}", service.part(PART).await);
    bus.tell(1..=5).await;
    service.settle(5).await;

    // An acknowledgement of a delivery that never was.
    let dying = "[rabbit_channel:do(C, {'basic.ack', 999999, false}) || C <- rabbit_channel:list()].";
    tokio::task::block_in_place(|| rabbitmq.ctl(&["eval", dying]));
    counted(&service, "channel_died", 1).await;
    service.ready().await;
    bus.tell(6..=10).await;
    service.settle(10).await;
    assert!(differs().await, "it is still as the operator made it");
    assert_eq!(n_logged(&service, "using it as it is"), 1, "once for all sessions");

    let operator = Operator::at(rabbitmq.url()).await;
    operator.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    counted(&service, "consumer_cancelled", 1).await;
    until("the queue to be made again", async || operator.n_ready(queue).await == Some(0)).await;
    service.ready().await;
    until("a queue as we want it", async || !differs().await).await;
    bus.tell(11..=15).await;
    service.settle(15).await;
    check(1..=15, &bus.take_announced().await, &api.handle);
    assert_eq!(service.pid(), pid);
    assert_eq!(n_logged(&service, "\"reason\":\"the broker cancelled the consumer\""), 1, "once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_makes_the_source_not_ready_until_the_network_is_whole() {
    let rabbitmq = tokio::task::block_in_place(RabbitMq::shared);
    let api = Api::faultless().await;
    let bus = Bus::at(rabbitmq.url(), "half-open").await;
    let line = Proxy::start(rabbitmq.address()).await;
    let url = format!("amqp://guest:guest@{}/%2f?heartbeat=1", line.address());
    let settings = bus.as_source(bus.as_sink(api.settings())).with("source.rabbitmq.url", url);
    let service = Service::start(&settings).await;
    bus.tell(1..=5).await;
    service.settle(5).await;

    line.mute();
    counted(&service, "disconnected", 1).await;
    let part = async || service.part(PART).await;
    until("the source to be not ready", async || part().await["ready"] == false).await;
    assert_eq!(service.readiness().await["ready"], false, "it is the only source");
    bus.tell(6..=10).await;
    line.resume();
    until("the source to be ready", async || part().await["ready"] == true).await;
    service.settle(10).await;
    check(1..=10, &bus.take_announced().await, &api.handle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_may_be_declared_a_missing_queue_is_named_and_taken_up_when_it_is_there() {
    let rabbitmq = tokio::task::block_in_place(RabbitMq::shared);
    let api = Api::faultless().await;
    let bus = Bus::at(rabbitmq.url(), "verified").await;
    let operator = Operator::at(rabbitmq.url()).await;
    let queue = "verified.trucker-created";
    operator.declare(&format!("{queue}.dead")).await;
    let make = async || {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(5));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        operator.channel.queue_declare(queue.into(), durable, arguments).await.unwrap();
        operator.bind(queue, "verified.events", "trucker.created").await;
    };
    make().await;
    let settings = bus.as_sink(bus.as_source(api.settings())).with("source.rabbitmq.topology", "verify");
    let service = Service::start(&settings).await;
    bus.tell(1..=5).await;
    service.settle(5).await;

    operator.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    let missing = format!("missing on the broker: queue \"{queue}\"");
    until("readiness to name the queue", async || {
        service.part(PART).await["detail"].as_str().unwrap().contains(&missing)
    })
    .await;
    counted(&service, "attempt_failed", 3).await;
    assert_eq!(service.readiness().await["ready"], false);
    assert_eq!(operator.n_ready(queue).await, None, "nothing is declared");
    assert_eq!(n_logged(&service, "missing on the broker"), 1, "once, however often it is tried");
    make().await;
    service.ready().await;
    bus.tell(6..=10).await;
    service.settle(10).await;
    check(1..=10, &bus.take_announced().await, &api.handle);
}
