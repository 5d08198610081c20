//! The shipped example configuration against a broker as it comes out of the box.

use secrecy::ExposeSecret as _;

use super::Api;
use super::checker::check;
use super::harness::Service;
use super::platform::Bus;
use super::settings::Settings;
use crate::support::rabbitmq::RabbitMq;

const TRUCKERS: std::ops::RangeInclusive<u64> = 1..=5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rabbitmq_example_runs_against_a_broker_out_of_the_box() {
    let broker = tokio::task::block_in_place(RabbitMq::start);
    let api = Api::faultless().await;
    // Only what differs between a laptop and this test: addresses and the token.
    let settings = Settings::shipped("config/rabbitmq.toml")
        .with("source.rabbitmq.url", broker.url().expose_secret())
        .with("dashdoc.base_url", api.base_url.as_str())
        .with("dashdoc.token", invite_relay::dashdoc::simulator::DEFAULT_TOKEN)
        .with("admin.listen", "127.0.0.1:0");
    let bus = Bus::by_default(broker.url()).await;
    let service = Service::start(&settings).await;
    bus.tell(TRUCKERS).await;
    service.settle(5).await;
    println!("example: {}", check(TRUCKERS, &bus.take_announced().await, &api.handle));
}
