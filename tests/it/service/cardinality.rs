//! No input adds a series: not ten thousand truckers, not accounts that nobody configured, not a scanner.

use std::collections::BTreeSet;

use invite_relay::invite::StateName;

use super::harness::Service;
use super::platform::trucker_created;
use super::webhook::Sender;
use super::{Api, bus, http};
use crate::support::until;

/// What scanners ask for.
const HOSTILE: [&str; 8] = [
    "/.env",
    "/wp-login.php?a=1",
    "/webhooks/trucker-created/",
    "/webhooks/trucker-created/../../etc/passwd",
    "/%00%ff",
    "/metrics",
    "/api/v1/invites/default/1",
    "/a/very/long/path/that/nobody/has/ever/heard/of",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_truckers_and_hostile_paths_add_no_series() {
    let (api, bus, sender) = (Api::faultless().await, bus("cardinality").await, Sender::new());
    let settings = sender
        .as_source(bus.as_sink(bus.as_source(api.settings())))
        .with("event.account", "/data/account")
        .with("dashdoc.rate_per_second", 1000.0)
        .with("telemetry.log", "warn,invite_relay::app=info");
    let service = Service::start(&settings).await;
    let before = series(&service.metrics().await);

    bus.tell(1..=9_000).await;
    // Each for an account of its own, which nobody has configured.
    bus.send((9_001..=9_900).map(|pk| in_account(pk, &format!("company-{pk}")))).await;
    sender.tell(&service, 9_901..=10_000).await;
    bus.send((0..20).map(|n| format!("poison {n}"))).await;
    for path in HOSTILE {
        let public = service.webhook_url().replace("/webhooks/trucker-created", path);
        for url in [public, service.admin_url(path)] {
            http::get(url.clone()).await;
            http::post(url, &[("x-hostile", path)], path).await.unwrap();
        }
    }
    until("all truckers to come to an end", async || {
        let count = async |state: StateName| {
            let label = format!("state=\"{state}\"");
            service.count("invite_relay_invites", &[&label]).await
        };
        count(StateName::Published).await == 9_100 && count(StateName::Dead).await == 900
    })
    .await;

    let page = service.metrics().await;
    let after = series(&page);
    let added: Vec<_> = after.difference(&before).take(5).collect();
    assert!(added.is_empty(), "{} series more, among them {added:?}", after.len() - before.len());
    assert_eq!(after, before);
    let scanned = ["route=\"other\""];
    assert!(service.count("invite_relay_http_server_request_duration_seconds_count", &scanned).await >= 14);
    println!("{} series, {} KiB, before and after 10,000 truckers", after.len(), page.len() / 1024);
}

fn in_account(pk: u64, account: &str) -> String {
    trucker_created(pk, &format!("event-{pk}"))
        .replace("\"data\":{", &format!("\"data\":{{\"account\":\"{account}\","))
}

/// The names and labels on a page.
fn series(page: &str) -> BTreeSet<String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let names = samples.map(|line| line.split(" # ").next().unwrap().rsplit_once(' ').unwrap().0.to_owned());
    names.collect()
}
