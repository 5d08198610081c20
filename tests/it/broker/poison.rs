//! What will never be accepted.

use invite_relay::broker::{
    BrokerEvent, DeadQueue, Error, Mode, Observer, Topology, Verdict, Which, connect,
};
use invite_relay::lifecycle::Lifecycle;
use invite_relay::time::Timestamp;
use lapin::BasicProperties;
use lapin::options::QueueDeleteOptions;
use lapin::types::{AMQPValue, FieldTable};

use super::{Counts, consume, drain, endpoint, options, source, unique};
use crate::support::operator::{Operator, number};
use crate::support::rabbitmq::RabbitMq;
use crate::support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_ends_in_the_dead_letter_queue_with_its_reason_and_all_it_came_with() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("poison"));
    let (counts, life) = (Counts::default(), Lifecycle::new());
    consume(options(&url, &topology, 10), &counts, &life, |_| Verdict::DeadLetter {
        reason_code: "not-json".into(),
        reason: "expected an object".into(),
    });
    counts.reach(BrokerEvent::Connected, 1).await;
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString("00-1".into()));
    headers.insert("n".into(), AMQPValue::LongInt(5));
    let properties = BasicProperties::default()
        .with_message_id("m1".into())
        .with_content_type("text/plain".into())
        .with_expiration("60000".into())
        .with_user_id("guest".into())
        .with_headers(headers);
    operator.publish(&topology.exchange, "trucker.created", "not json", properties).await;
    counts.reach(BrokerEvent::DeadLettered, 1).await;
    let dead = operator.take(&topology.dead_queue()).await.expect("a dead letter");
    assert_eq!(dead.data, b"not json");
    assert_eq!(dead.properties.message_id(), &Some("m1".into()));
    assert_eq!(dead.properties.content_type(), &Some("text/plain".into()));
    assert_eq!(dead.properties.delivery_mode(), &Some(2));
    assert_eq!(dead.properties.expiration(), &None);
    let headers = dead.properties.headers().as_ref().unwrap().inner();
    for (name, value) in [
        ("x-invite-relay-reason", "not-json"),
        ("x-invite-relay-reason-detail", "expected an object"),
        ("x-invite-relay-origin-queue", &topology.queue),
        ("x-invite-relay-origin-exchange", &topology.exchange),
        ("x-invite-relay-origin-routing-key", "trucker.created"),
        ("traceparent", "00-1"),
    ] {
        assert_eq!(headers.get(name), Some(&AMQPValue::LongString(value.into())), "{name}");
    }
    assert!(headers.contains_key("x-invite-relay-time"));
    assert_eq!(headers.get("n"), Some(&AMQPValue::LongInt(5)));
    drain(&life).await;
    assert_eq!(operator.n_ready(&topology.queue).await, Some(0), "acknowledged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_is_not_lost_while_it_cannot_be_dead_lettered() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("stuck"));
    let connection = connect(&endpoint(&url), "test").await.unwrap();
    topology.apply(&connection, &Observer::default()).await.unwrap();
    let verify = Topology { mode: Mode::Verify, ..topology.clone() };
    let (counts, life) = (Counts::default(), Lifecycle::new());
    consume(options(&url, &verify, 10), &counts, &life, |delivery| match number(&delivery.body) {
        0 => Verdict::DeadLetter { reason_code: "zero".into(), reason: String::new() },
        _ => Verdict::Ack,
    });
    counts.reach(BrokerEvent::Connected, 1).await;
    let dead = topology.dead_queue();
    operator.channel.queue_delete(dead.as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    operator.fill(&topology.queue, 0..5).await;
    counts.reach(BrokerEvent::DeadLetterFailed, 2).await;
    topology.apply(&connection, &Observer::default()).await.unwrap();
    counts.reach(BrokerEvent::DeadLettered, 1).await;
    assert_eq!(operator.take_all(&dead).await, [0]);
    drain(&life).await;
    assert_eq!(operator.n_ready(&topology.queue).await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_can_not_be_moved_back_stays_where_it_is() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("no-way-back"));
    let connection = connect(&endpoint(&url), "test").await.unwrap();
    topology.apply(&connection, &Observer::default()).await.unwrap();
    operator.fill(&topology.dead_queue(), 0..3).await;
    let source = topology.queue.as_str();
    operator.channel.queue_delete(source.into(), QueueDeleteOptions::default()).await.unwrap();

    let give_back = async || {
        let dead = DeadQueue::open(&endpoint(&url), &topology).await.unwrap();
        let moved = dead.give_back(&Which::default(), 100, "ada", Timestamp::EPOCH).await;
        dead.close().await;
        moved
    };
    let refused = give_back().await.unwrap_err();
    assert!(matches!(refused, Error::NotTaken(_)), "{refused}");
    // The one that was taken goes back with its channel.
    until("none to be lost", async || operator.n_ready(&topology.dead_queue()).await == Some(3)).await;

    topology.apply(&connection, &Observer::default()).await.unwrap();
    assert_eq!(give_back().await.unwrap().len(), 3);
    let mut back = operator.take_all(&topology.queue).await;
    back.sort_unstable();
    assert_eq!(back, [0, 1, 2]);
    assert_eq!(operator.n_ready(&topology.dead_queue()).await, Some(0));
}
