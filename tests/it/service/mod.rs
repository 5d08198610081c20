//! The real binary between a real broker and the API simulator: what the service promises, from the outside.

mod accounts;
mod backlog;
mod canaries;
mod cardinality;
mod checker;
mod crashes;
mod duplicates;
mod examples;
mod failover;
mod harness;
mod health;
mod http;
mod interruptions;
mod liveness;
mod monitoring;
mod outages;
mod platform;
mod poison;
mod postgres;
mod replicas;
mod settings;
mod shutdown;
mod sinks;
mod thousand;
mod tls;
mod traces;
mod webhook;
mod work_list;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use invite_relay::dashdoc::simulator::{self, Faults, Handle, Simulator};
use invite_relay::lifecycle::Lifecycle;

use self::platform::Bus;
use self::settings::Settings;
use crate::support::rabbitmq::RabbitMq;

/// A simulated API in the test's own process; it ends with this value.
struct Api {
    handle: Handle,
    base_url: String,
    life: Lifecycle,
}

impl Api {
    /// Every trucker exists, nothing is limited, and these faults happen.
    async fn with(faults: Faults) -> Self {
        Self::start(simulator::Settings { faults, rate_limit: 0, ..simulator::Settings::default() }).await
    }

    /// Nothing goes wrong by itself.
    async fn faultless() -> Self {
        Self::with(Faults::default()).await
    }

    async fn profile(name: &str) -> Self {
        Self::with(Faults::profile(name).unwrap()).await
    }

    async fn start(settings: simulator::Settings) -> Self {
        let simulator = Simulator::bind(settings).await.unwrap();
        let (handle, base_url, life) = (simulator.handle(), simulator.base_url(), Lifecycle::new());
        life.spawn_long("simulator", simulator.run(life.clone()));
        Self { handle, base_url, life }
    }

    fn settings(&self) -> Settings {
        Settings::fast(&self.base_url)
    }

    /// Where it listens.
    fn address(&self) -> SocketAddr {
        let address = self.base_url.split('/').nth(2).unwrap();
        address.parse().unwrap()
    }

    /// Waits until so many new codes were made.
    async fn effects(&self, n: u64) {
        let reached = self.handle.wait_for(|view| view.stats().effects >= n);
        crate::support::soon(&format!("{n} codes"), reached).await;
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.life.begin_drain();
    }
}

/// A bus of its own on the shared broker.
async fn bus(name: &str) -> Bus {
    static NAMES: AtomicUsize = AtomicUsize::new(0);
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    let broker = tokio::task::block_in_place(RabbitMq::shared);
    Bus::at(broker.url(), &format!("service-{name}-{number}")).await
}
