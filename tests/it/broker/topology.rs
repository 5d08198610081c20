//! Declaring and verifying.

use invite_relay::broker::{BrokerEvent, Difference, Error, Mode, Observer, Topology, connect};
use invite_relay::lifecycle::Lifecycle;
use lapin::BasicProperties;

use super::{Accepted, Counts, consume, drain, endpoint, options, source, unique};
use crate::support::operator::Operator;
use crate::support::rabbitmq::RabbitMq;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_arguments_is_reported_by_argument_and_used_as_it_is() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let topology = source(&unique("other"));
    operator.declare(&topology.queue).await;
    let connection = connect(&endpoint(&url), "test").await.unwrap();
    let differences = topology.apply(&connection, &Observer::default()).await.unwrap();
    let [Difference { object, argument, .. }] = differences.as_slice() else { panic!("{differences:?}") };
    assert_eq!(object, &format!("queue \"{}\"", topology.queue));
    assert!(argument.as_deref().is_some_and(|name| name.starts_with("x-")), "{argument:?}");

    let (counts, life, accepted) = (Counts::default(), Lifecycle::new(), Accepted::default());
    consume(options(&url, &topology, 10), &counts, &life, accepted.judge());
    counts.reach(BrokerEvent::Connected, 1).await;
    operator.publish(&topology.exchange, "trucker.created", "1", BasicProperties::default()).await;
    accepted.reach(1).await;
    assert_eq!(counts.of(BrokerEvent::TopologyDiffers), 1);
    assert_eq!(counts.of(BrokerEvent::AttemptFailed), 0);
    drain(&life).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifying_creates_nothing_and_names_all_that_is_missing() {
    let url = RabbitMq::shared().url();
    let name = unique("verified");
    let topology = Topology { mode: Mode::Verify, ..source(&name) };
    let connection = connect(&endpoint(&url), "test").await.unwrap();
    let missing = topology.apply(&connection, &Observer::default()).await.unwrap_err();
    let expected = [
        format!("exchange \"{name}.events\""),
        format!("queue \"{name}.dead\""),
        format!("queue \"{name}\""),
    ];
    assert_eq!(missing, Error::Missing(expected.to_vec()));
    assert_eq!(Operator::at(url).await.n_ready(&name).await, None);
    source(&name).apply(&connection, &Observer::default()).await.unwrap();
    assert_eq!(topology.apply(&connection, &Observer::default()).await, Ok(vec![]));
}
