//! The whole service, with every end over TLS, and certificates of an authority that the system does not know.

use std::net::SocketAddr;

use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::Api;
use super::checker::check;
use super::harness::Service;
use super::platform::Bus;
use super::settings::Settings;
use super::webhook::Receiver;
use crate::support::certificates::certificates;
use crate::support::postgres::Postgres;
use crate::support::rabbitmq::RabbitMq;
use crate::support::tls_end::TlsEnd;
use crate::support::until;

/// An API, a broker, a database and a receiver that are reached over TLS.
struct Ends {
    authority: TempDir,
    api: Api,
    api_end: TlsEnd,
    broker: RabbitMq,
    bus: Bus,
    server: Postgres,
    receiver: Receiver,
    receiver_end: TlsEnd,
}

impl Ends {
    async fn new() -> Self {
        let authority = tempfile::tempdir().unwrap();
        let directory = authority.path();
        let (broker, server) = tokio::task::block_in_place(|| {
            certificates(directory);
            (RabbitMq::start_with_tls(directory), Postgres::start_with_tls(directory))
        });
        let (api, bus) = (Api::faultless().await, Bus::at(broker.url(), "tls").await);
        let receiver = Receiver::start(&api.life).await;
        let api_end = TlsEnd::before(api.address(), directory).await;
        let receiver_end = TlsEnd::before(receiver.address(), directory).await;
        Self { authority, api, api_end, broker, bus, server, receiver, receiver_end }
    }

    fn file(&self, name: &str) -> String {
        self.authority.path().join(name).display().to_string()
    }

    /// Without any authority.
    fn settings(&self) -> Settings {
        let broker = self.broker.url_with_tls("127.0.0.1");
        let settings = self.receiver.as_sink(self.bus.as_sink(self.bus.as_source(self.api.settings())));
        settings
            .with("dashdoc.base_url", at(self.api_end.address, "api/v4"))
            .with("source.rabbitmq.url", broker.expose_secret())
            .with("sink.rabbitmq.url", broker.expose_secret())
            .with("sink.webhook.url", at(self.receiver_end.address, "invites"))
    }
}

fn at(address: SocketAddr, path: &str) -> String {
    format!("https://{address}/{path}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_company_s_own_authority_every_end_is_reached_over_tls() {
    let ends = Ends::new().await;
    let database = tokio::task::block_in_place(|| ends.server.database());
    let url = format!("{}?sslmode=verify-full", ends.server.url(&database));
    let settings = ends
        .settings()
        .with("dashdoc.ca_file", ends.file("ca.crt"))
        // That of the sink is the same unless it has its own.
        .with("source.rabbitmq.ca_file", ends.file("ca.crt"))
        .with("sink.webhook.ca_file", ends.file("ca.crt"));
    // The checks of the test find the authority in the URL.
    let with_authority = format!("{url}&sslrootcert={}", ends.file("ca.crt"));
    let mut service = Service::prepare(&settings.clone().with("store.url", with_authority));
    let settings = settings.with("store.url", url).with("store.ca_file", ends.file("ca.crt"));
    settings.write(&service.file("relay.toml"));
    service.start_again().await;
    ends.bus.tell(1..=20).await;
    service.settle(20).await;
    println!("over TLS: {}", check(1..=20, &ends.bus.take_announced().await, &ends.api.handle));
    check(1..=20, &ends.receiver.taken(), &ends.api.handle);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_token_and_no_code_goes_to_a_server_whose_certificate_is_not_trusted() {
    let ends = Ends::new().await;
    let trusted = ends.settings().with("source.rabbitmq.ca_file", ends.file("ca.crt"));
    let service = Service::start(&trusted.clone().with("dashdoc.ca_file", ends.file("other.crt"))).await;
    ends.bus.tell(1..=1).await;
    until("the gate of the account to close", async || {
        service.count("invite_relay_gate_closings_total", &[r#"reason="circuit""#]).await >= 1
    })
    .await;
    let stats = ends.api.handle.stats();
    assert_eq!((stats.posts, stats.gets), (0, 0));
    drop(service);

    let service = Service::start(&trusted.with("dashdoc.ca_file", ends.file("ca.crt"))).await;
    ends.bus.tell(2..=3).await;
    until("what RabbitMQ is owed", async || {
        service.count("invite_relay_published_total", &[r#"sink="rabbitmq""#]).await >= 2
    })
    .await;
    until("a try at the receiver", async || {
        service.count("invite_relay_publish_failures_total", &[r#"sink="webhook""#]).await >= 1
    })
    .await;
    assert!(ends.receiver.taken().is_empty());
}
