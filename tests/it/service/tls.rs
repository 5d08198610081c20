//! The whole service, with a broker that is reached over TLS.

use secrecy::ExposeSecret as _;

use super::Api;
use super::checker::check;
use super::harness::Service;
use super::platform::Bus;
use crate::support::certificates::certificates;
use crate::support::rabbitmq::RabbitMq;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_come_and_go_over_tls_become_codes() {
    let directory = tempfile::tempdir().unwrap();
    let broker = tokio::task::block_in_place(|| {
        certificates(directory.path());
        RabbitMq::start_with_tls(directory.path())
    });
    let (api, bus) = (Api::faultless().await, Bus::at(broker.url(), "tls").await);
    let url = broker.url_with_tls("127.0.0.1");
    let settings = bus
        .as_sink(bus.as_source(api.settings()))
        .with("source.rabbitmq.url", url.expose_secret())
        .with("source.rabbitmq.ca_file", directory.path().join("ca.crt").display().to_string())
        // The authorities are those of the source.
        .with("sink.rabbitmq.url", url.expose_secret());
    let service = Service::start(&settings).await;
    bus.tell(1..=20).await;
    service.settle(20).await;
    println!("over TLS: {}", check(1..=20, &bus.take_announced().await, &api.handle));
}
