//! What the tests stand on: private servers, and a network that can be broken.

pub(crate) mod certificates;
pub(crate) mod collector;
pub(crate) mod leash;
pub(crate) mod operator;
pub(crate) mod postgres;
pub(crate) mod prometheus;
pub(crate) mod proxy;
pub(crate) mod rabbitmq;
pub(crate) mod tls_end;

use std::future::Future;
use std::time::Duration;

/// How long a promise may take to come true before the test fails. Generous: two cores run many tests at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(150);

/// Waits for `what`, or fails naming it.
pub(crate) async fn soon<T>(what: &str, happening: impl Future<Output = T>) -> T {
    let happened = tokio::time::timeout(PATIENCE, happening).await.ok();
    happened.unwrap_or_else(|| panic!("waited {} s in vain for: {what}", PATIENCE.as_secs()))
}

/// Asks again and again until the answer is yes, or fails naming `what`. For facts that only polling can tell.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, polling).await;
}
