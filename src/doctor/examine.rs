//! All checks, at the same time, in one order.

use std::future::{Ready, ready};

use futures_util::future::join_all;

use super::finding::{Finding, Findings, Report, Verdict};
use super::keys::Keys;
use super::{api, broker, ports, store, telemetry, webhook};
use crate::config::{Loaded, Problem};
use crate::invite::AccountName;

/// Looks at everything that `loaded` names. Takes as long as the slowest part: some seconds where something does
/// not answer. `env` looks up environment variables, for the `OTEL_*` ones. `turn` waits until the request to an
/// account may leave, or says why it must not: [`at_once`], unless the service itself asks.
pub async fn examine<T>(
    loaded: &Loaded,
    env: impl Fn(&str) -> Option<String>,
    turn: impl Fn(AccountName) -> T,
) -> Report
where
    T: Future<Output = Result<(), String>>,
{
    let keys = Keys(&loaded.origins);
    let config = &loaded.config;
    let accounts = config.accounts();
    let (store, source, sink, webhook_sink, apis, ports, telemetry) = tokio::join!(
        store::check(config, keys),
        broker::sources(config, keys),
        broker::sink(config, keys),
        webhook::sink(&config.sink.webhook, keys),
        join_all(accounts.values().map(|account| api::check(account, turn(account.name.clone()), keys))),
        ports::check(config, keys),
        telemetry::check(env),
    );
    let mut checks = configuration(&loaded.warnings);
    checks.extend(store);
    checks.extend(source);
    checks.extend(webhook::source(&config.source.webhook, keys));
    checks.extend(webhook::accounts(config, keys));
    checks.extend(sink);
    checks.extend(webhook_sink);
    checks.extend(apis.into_iter().flatten());
    checks.extend(ports);
    checks.extend(telemetry);
    Report { checks }
}

/// Every request may leave at once.
pub fn at_once(_: AccountName) -> Ready<Result<(), String>> {
    ready(Ok(()))
}

/// A configuration with problems never gets here; what is left are its warnings.
fn configuration(warnings: &[Problem]) -> Vec<Finding> {
    let mut findings = Findings::about("configuration");
    if warnings.is_empty() {
        findings.ok("values", "every key and value is right");
    }
    for warning in warnings {
        let Problem { key, message, mend, .. } = warning;
        let verdict = Verdict::Warning { mend: mend.clone() };
        let check = format!("configuration.{key}");
        findings.found.push(Finding { check, verdict, evidence: message.clone() });
    }
    findings.found
}
