//! The collector of traces, if the environment asks for one.

use super::finding::{Finding, Findings};
use super::net;
use crate::telemetry::setup::wanted_export;

pub(super) async fn check(env: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let mut findings = Findings::about("telemetry");
    let wanted = wanted_export(env);
    for warning in &wanted.warnings {
        findings.warning("variables", warning.clone(), "correct or unset the variable");
    }
    let Some((host, port)) = wanted.collector else {
        findings.skipped("collector", "no OTEL_* variable asks for traces");
        return findings.found;
    };
    match net::reach(&host, port).await {
        Ok(address) => findings.ok("collector", format!("{host}:{port} takes connections ({address})")),
        Err(net::Unreached::Name(why) | net::Unreached::Connect(why)) => findings.warning(
            "collector",
            format!("{host}:{port} can't be reached: {why}; traces are dropped, invites are not affected"),
            "start the collector, correct OTEL_EXPORTER_OTLP_ENDPOINT (http/protobuf, most often port 4318), or \
             set OTEL_SDK_DISABLED=true",
        ),
    }
    findings.found
}
