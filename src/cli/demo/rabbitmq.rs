//! Both ends of the demo over a real broker, with names of its own that are removed at the end.

use std::num::NonZeroU16;

use anyhow::Context as _;

use super::news;
use super::settings::Settings;
use crate::broker::{
    Consumer, ConsumerOptions, Delivery, Endpoint, Mode, Observer, QueueType, Topology, Verdict, connect,
};
use crate::config::SecretUrl;
use crate::lifecycle::Lifecycle;

/// Deliveries in hand at the demo's consumer.
const PREFETCH: NonZeroU16 = NonZeroU16::new(64).expect("above zero");

/// What the demo declared on the broker.
pub(super) struct Broker {
    endpoint: Endpoint,
    /// What the relay consumes.
    entrance: Topology,
    /// What the demo consumes.
    exit: Topology,
}

impl Broker {
    /// Declares everything, starts the demo's consumer, and sets the relay up for both ends.
    pub(super) async fn start(
        url: &SecretUrl,
        suffix: &str,
        settings: &mut Settings,
        news: news::Sender,
        life: &Lifecycle,
    ) -> anyhow::Result<Self> {
        let endpoint = Endpoint::parse(&url.reveal().into()).context("--rabbitmq")?;
        let exchange = format!("invite-relay.demo.{suffix}");
        let topology = |queue: &str, routing_key: &str| Topology {
            exchange: exchange.clone(),
            queue: format!("{exchange}.{queue}"),
            routing_key: routing_key.to_owned(),
            queue_type: QueueType::Classic,
            mode: Mode::Declare,
        };
        let broker = Self {
            endpoint: endpoint.clone(),
            entrance: topology("trucker-created", "trucker.created"),
            // invite.ready and invite.failed
            exit: topology("invites", "invite.*"),
        };
        broker.declare().await.with_context(|| {
            format!("--rabbitmq: {endpoint}: check the address, and that its user may declare queues")
        })?;
        settings.set("source.rabbitmq.enabled", true);
        settings.set("source.rabbitmq.url", url.reveal());
        settings.set("source.rabbitmq.exchange", exchange.as_str());
        settings.set("source.rabbitmq.queue", broker.entrance.queue.as_str());
        settings.set("source.rabbitmq.routing_key", broker.entrance.routing_key.as_str());
        settings.set("source.rabbitmq.queue_type", "classic");
        settings.set("sink.rabbitmq.enabled", true);
        settings.set("sink.rabbitmq.exchange", exchange.as_str());
        let options = ConsumerOptions::new(endpoint, broker.exit.clone(), PREFETCH);
        let consumer = Consumer::new(options, Observer::default());
        let consuming = consumer.run(life.clone(), move |deliveries: Vec<Delivery>| {
            let verdicts = deliveries.iter().map(|delivery| judge(&news, delivery)).collect();
            async move { verdicts }
        });
        life.spawn_long("demo consumer", consuming);
        Ok(broker)
    }

    /// Before the relay starts, so that no event and no announcement is without its queue.
    async fn declare(&self) -> Result<(), crate::broker::Error> {
        let connection = connect(&self.endpoint, "demo").await?;
        self.entrance.apply(&connection, &Observer::default()).await?;
        self.exit.apply(&connection, &Observer::default()).await?;
        connection.close().await;
        Ok(())
    }

    /// Removes what was declared. An error says what is left.
    pub(super) async fn remove(&self) -> anyhow::Result<()> {
        let removing = async {
            let connection = connect(&self.endpoint, "demo").await?;
            self.entrance.remove(&connection).await?;
            self.exit.remove(&connection).await?;
            connection.close().await;
            Ok::<_, crate::broker::Error>(())
        };
        removing.await.with_context(|| {
            let exchange = &self.entrance.exchange;
            format!("what was declared on {} is left there: exchange and queues {exchange}*", self.endpoint)
        })
    }

    /// Where events are published to.
    pub(super) fn entrance(&self) -> String {
        format!("{} at {}", self.entrance.queue, self.endpoint)
    }

    /// Where announcements are consumed from.
    pub(super) fn exit(&self) -> String {
        format!("{} at {}", self.exit.queue, self.endpoint)
    }
}

fn judge(news: &news::Sender, delivery: &Delivery) -> Verdict {
    if news::announce(news, &delivery.body) {
        return Verdict::Ack;
    }
    Verdict::DeadLetter {
        reason_code: "not-an-announcement".to_owned(),
        reason: "neither invite.ready nor invite.failed".to_owned(),
    }
}
