//! `docs/metrics.md`, written from the declarations.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::table::OTHER_ACCOUNT;
use super::{MetricDoc, Metrics};
use crate::invite::AccountName;

/// The head of the page; the tables follow.
const HEAD: &str = "\
# Metrics

Written from the declarations in `src/telemetry/metrics.rs`; a test fails when this page differs from them, and
`UPDATE_DOCS=1 cargo test --lib metrics::reference` writes it anew.

`GET /metrics` on the admin port answers in OpenMetrics text. Every series of the tables below is there from the start,
at zero, and none is ever added: all labels are closed sets, and accounts that are not configured count as `other`. Ids,
paths and texts from outside are never a label; they are in traces and logs. Histograms marked with \u{201c}exemplars\u{201d} carry the
`trace_id` of the latest sampled observation of each bucket.

Several replicas on one store all export the same books (`invite_relay_invites`, `invite_relay_oldest_waiting_seconds`,
`invite_relay_gate_closed`): take their `max`, not their `sum`. Everything that is counted or timed is the replica's own.

What to look at when: the dashboards in `helm/invite-relay/dashboards`, the alerts in `helm/invite-relay/rules`, and
[runbook.md](runbook.md).
";

/// The whole page.
pub fn markdown() -> String {
    let metrics = Metrics::new(&[AccountName::default_account()]);
    let mut page = HEAD.to_owned();
    page.push_str("\n| name | type | unit | labels | what it tells |\n|---|---|---|---|---|\n");
    for doc in metrics.catalog() {
        let MetricDoc { name, kind, unit, labels, help, exemplars } = doc;
        let labels: Vec<String> = labels.iter().map(|label| format!("`{}`", label.name)).collect();
        let kind = if *exemplars { format!("{kind}, exemplars") } else { (*kind).to_owned() };
        let (unit, labels) = (unit.unwrap_or_default(), labels.join(", "));
        let _ = writeln!(page, "| `{name}` | {kind} | {unit} | {labels} | {help} |");
    }
    page.push_str("\n## Label values\n\n| label | of | values |\n|---|---|---|\n");
    for ((label, values), names) in sets(metrics.catalog()) {
        let _ = writeln!(page, "| `{label}` | {} | {values} |", names.join(", "));
    }
    page
}

/// Each label with its values, and the metrics that have it so.
fn sets(catalog: &[MetricDoc]) -> BTreeMap<(&str, String), Vec<String>> {
    let mut sets: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    for doc in catalog {
        for label in &doc.labels {
            let values = if label.name == "account" {
                format!("the configured accounts, and `{OTHER_ACCOUNT}`")
            } else if label.name == "version" {
                "the version".to_owned()
            } else {
                label.values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
            };
            sets.entry((label.name, values)).or_default().push(format!("`{}`", doc.name));
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_documentation_of_the_metrics_is_written_from_their_declarations() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        let page = super::markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "docs/metrics.md differs from the declarations; run UPDATE_DOCS=1 cargo test --lib metrics::reference"
        );
    }
}
