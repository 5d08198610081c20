//! What a confirm proves.

use std::time::Duration;

use futures_util::future::join_all;
use invite_relay::broker::{
    BrokerEvent, BrokerState, Mode, PublishError, Publisher, PublisherOptions, SinkTopology,
};
use invite_relay::lifecycle::Lifecycle;
use lapin::types::AMQPValue;

use super::{Counts, drain_with, endpoint, message, publisher, unique};
use crate::support::operator::Operator;
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::support::{soon, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_no_queue_wants_is_told_apart_from_one_that_is_safe() {
    let url = RabbitMq::shared().url();
    let (queue, counts, life) = (unique("routed"), Counts::default(), Lifecycle::new());
    let operator = Operator::at(url.clone()).await;
    operator.declare(&queue).await;
    let publisher = publisher(&url, "", &counts, &life).await;
    assert_eq!(publisher.publish(message("", &queue, "m1")).await, Ok(()));
    assert_eq!(publisher.publish(message("", "nowhere", "m2")).await, Err(PublishError::Unroutable));
    counts.reach(BrokerEvent::Returned, 1).await;
    let taken = operator.take(&queue).await.expect("a confirmed message is in its queue");
    let properties = &taken.properties;
    assert_eq!(properties.delivery_mode(), &Some(2), "persistent");
    assert_eq!(properties.message_id(), &Some("m1".into()));
    assert_eq!(properties.correlation_id(), &Some("cause".into()));
    assert_eq!(properties.timestamp(), &Some(1_649_367_553));
    let headers = properties.headers().as_ref().unwrap().inner();
    assert_eq!(headers.get("cloudEvents_type"), Some(&AMQPValue::LongString("invite.ready".into())));
    drain_with(publisher, &life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returned_messages_are_matched_by_their_id_among_many_in_flight() {
    let url = RabbitMq::shared().url();
    let (queue, counts, life) = (unique("mixed"), Counts::default(), Lifecycle::new());
    let operator = Operator::at(url.clone()).await;
    operator.declare(&queue).await;
    let publisher = publisher(&url, "", &counts, &life).await;
    let is_routed = |index: usize| index % 3 != 1;
    let results = join_all((0..5000).map(|index| {
        let routing_key = if is_routed(index) { queue.as_str() } else { "nowhere" };
        publisher.publish(message("", routing_key, &index.to_string()))
    }))
    .await;
    for (index, result) in results.into_iter().enumerate() {
        let expected = if is_routed(index) { Ok(()) } else { Err(PublishError::Unroutable) };
        assert_eq!(result, expected, "message {index}");
    }
    let mut taken = operator.take_all(&queue).await;
    taken.sort_unstable();
    assert_eq!(taken, (0..5000).filter(|index| is_routed(*index)).collect::<Vec<_>>());
    drain_with(publisher, &life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_dies_under_the_publisher_is_replaced() {
    let url = RabbitMq::shared().url();
    let (queue, counts, life) = (unique("replaced"), Counts::default(), Lifecycle::new());
    Operator::at(url.clone()).await.declare(&queue).await;
    let publisher = publisher(&url, "", &counts, &life).await;
    let nowhere = message("no-such-exchange", "key", "m1");
    assert_eq!(publisher.publish(nowhere).await, Err(PublishError::Disconnected));
    counts.reach(BrokerEvent::Connected, 2).await;
    assert_eq!(counts.of(BrokerEvent::ChannelDied), 1);
    soon("the publisher", publisher.ready()).await;
    assert_eq!(publisher.publish(message("", &queue, "m2")).await, Ok(()));
    drain_with(publisher, &life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishing_fails_fast_without_a_broker_and_works_again_after_its_restart() {
    let rabbitmq = RabbitMq::start();
    let url = rabbitmq.url();
    let (queue, counts, life) = (unique("restarted"), Counts::default(), Lifecycle::new());
    Operator::at(url.clone()).await.declare(&queue).await;
    let publisher = publisher(&url, "relay.test", &counts, &life).await;
    assert_eq!(publisher.publish(message("", &queue, "1")).await, Ok(()));

    let endings: [(_, fn(&RabbitMq)); 2] = [("2", RabbitMq::kill), ("3", RabbitMq::stop)];
    for (id, end) in endings {
        end(&rabbitmq);
        let mut state = publisher.state();
        soon("down", state.wait_for(|state| matches!(state, BrokerState::Down { .. }))).await.unwrap();
        for _ in 0..3 {
            let publishing = publisher.publish(message("", &queue, "lost"));
            let result = tokio::time::timeout(Duration::from_secs(1), publishing).await;
            assert_eq!(result.expect("fails fast"), Err(PublishError::Disconnected));
        }
        rabbitmq.start_again();
        soon("the publisher", publisher.ready()).await;
        assert_eq!(publisher.publish(message("", &queue, id)).await, Ok(()));
    }
    let operator = Operator::at(url).await;
    assert_eq!(operator.take_all(&queue).await, [1, 2, 3], "what was confirmed outlives the broker");
    drain_with(publisher, &life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_without_a_confirm_is_unconfirmed_and_does_not_hold_up_later_ones() {
    let rabbitmq = RabbitMq::shared();
    let (queue, counts, life) = (unique("stalled"), Counts::default(), Lifecycle::new());
    let operator = Operator::at(rabbitmq.url()).await;
    operator.declare(&queue).await;
    let proxy = Proxy::start(rabbitmq.address()).await;
    let topology = SinkTopology { exchange: String::new(), mode: Mode::Declare };
    let mut options = PublisherOptions::new(endpoint(&RabbitMq::url_at(proxy.address())), topology);
    options.confirm_timeout = Duration::from_secs(1);
    let publisher = Publisher::start(options, counts.observer(), &life);
    soon("the publisher", publisher.ready()).await;
    proxy.stall();
    assert_eq!(publisher.publish(message("", &queue, "1")).await, Err(PublishError::Unconfirmed));
    counts.reach(BrokerEvent::ConfirmTimeout, 1).await;
    proxy.resume();
    until("publishing again", async || publisher.publish(message("", &queue, "2")).await == Ok(())).await;
    let taken = operator.take_all(&queue).await;
    assert!(taken.contains(&2), "the unconfirmed one may be there too: {taken:?}");
    drain_with(publisher, &life).await;
}
