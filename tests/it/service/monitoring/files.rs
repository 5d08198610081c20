//! The shipped files, and that they agree with each other and with the declared metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use invite_relay::telemetry::metrics::{Metrics, reference};
use serde_json::Value;

const RULES: &str = "helm/invite-relay/rules";
const DASHBOARDS: &str = "helm/invite-relay/dashboards";
/// Unit tests of the rules, with their true durations; `promtool test rules` runs them.
const RULE_TESTS: &str = "tests/rules/invite-relay.yaml";

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(directory: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        std::fs::read_dir(root(directory)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{directory} is empty");
    files
}

/// The text of the rules.
pub(super) fn rules() -> String {
    let files = files(RULES);
    assert_eq!(files.len(), 1, "the tests know of one file");
    read(&files[0])
}

/// The names of all alerts.
pub(super) fn alerts() -> Vec<String> {
    let rules = rules();
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// A panel's query.
pub(super) struct Query {
    pub(super) panel: String,
    pub(super) text: String,
}

/// Every query of every dashboard: of panels, and of the annotations.
pub(super) fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for file in files(DASHBOARDS) {
        let dashboard: Value = serde_json::from_str(&read(&file)).unwrap();
        let title = dashboard["title"].as_str().unwrap();
        let panels = dashboard["panels"].as_array().unwrap().iter();
        for panel in panels.chain(dashboard["annotations"]["list"].as_array().unwrap()) {
            let name = panel["title"].as_str().or(panel["name"].as_str()).unwrap();
            let targets = panel["targets"].as_array().into_iter().flatten().chain([panel]);
            for text in targets.filter_map(|target| target["expr"].as_str()) {
                queries.push(Query { panel: format!("{title}: {name}"), text: text.to_owned() });
            }
        }
    }
    assert!(queries.len() > 50, "{} queries", queries.len());
    queries
}

/// The metric names in a text, with the suffixes of histograms taken off where that makes a declared name.
fn names(text: &str, declared: &BTreeSet<String>) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("invite_relay_") || word.starts_with("process_"));
    let bare = ours.map(|name| {
        let suffixes = ["_bucket", "_sum", "_count"].into_iter();
        let stem =
            suffixes.filter_map(|suffix| name.strip_suffix(suffix)).find(|stem| declared.contains(*stem));
        stem.unwrap_or(name).to_owned()
    });
    bare.collect()
}

/// A series of each metric that rises above zero once there is something to tell.
pub(super) fn moving_series() -> Vec<String> {
    let metrics = Metrics::new(&[]);
    let series = metrics.catalog().iter().map(|doc| {
        let suffix = if doc.kind == "histogram" { "_count" } else { "" };
        format!("{}{suffix}", doc.name)
    });
    series.collect()
}

fn declared() -> BTreeSet<String> {
    Metrics::new(&[]).catalog().iter().map(|doc| doc.name.clone()).collect()
}

#[test]
fn dashboards_alerts_and_runbook_speak_of_metrics_that_exist() {
    let declared = declared();
    let texts = queries().into_iter().map(|query| (query.panel, query.text));
    let texts =
        texts.chain([("the rules".to_owned(), rules()), ("their tests".to_owned(), read(&root(RULE_TESTS)))]);
    let mut shown = BTreeSet::new();
    for (place, text) in texts {
        let names = names(&text, &declared);
        let unknown: Vec<_> = names.difference(&declared).collect();
        assert!(unknown.is_empty(), "{place} speaks of {unknown:?}");
        shown.extend(names);
    }
    let hidden: Vec<_> = declared.difference(&shown).collect();
    assert!(hidden.is_empty(), "no dashboard and no alert shows {hidden:?}");
}

#[test]
fn panels_lie_side_by_side_and_leave_no_row_of_the_page_empty() {
    // Grafana's page is 24 columns wide.
    const COLUMNS: u64 = 24;
    for file in files(DASHBOARDS) {
        let dashboard: Value = serde_json::from_str(&read(&file)).unwrap();
        let (mut taken, mut ids) = (BTreeMap::new(), BTreeSet::new());
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap_or_else(|| panic!("no title: {panel}"));
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{title}: its id is taken");
            let side = |name: &str| panel["gridPos"][name].as_u64().unwrap();
            assert!(side("x") + side("w") <= COLUMNS, "{title} is out of the page");
            for y in side("y")..side("y") + side("h") {
                for x in side("x")..side("x") + side("w") {
                    let other = taken.insert((y, x), title);
                    assert_eq!(other, None, "{title} lies over another panel");
                }
            }
        }
        let rows: BTreeSet<u64> = taken.keys().map(|(y, _)| *y).collect();
        assert_eq!(rows.last(), Some(&(rows.len() as u64 - 1)), "{} has an empty row", file.display());
    }
}

#[test]
fn dashboards_and_alerts_select_label_values_that_exist() {
    let page = reference::markdown();
    let known: BTreeSet<&str> = page.split('`').collect();
    let texts = queries().into_iter().map(|query| query.text).chain([rules()]);
    for text in texts {
        for matcher in text.split(['{', ',', '}']).filter(|part| part.contains("=\"") || part.contains("~\""))
        {
            let Some((label, values)) = matcher.split_once(['=', '!']) else { continue };
            let values = values.trim_start_matches(['=', '~', '!']).trim_matches('"');
            if values.starts_with('$') || label == "le" {
                continue;
            }
            for value in values.split('|') {
                assert!(known.contains(value), "{label} is never {value}: {text}");
            }
        }
    }
}

#[test]
fn every_alert_has_a_section_in_the_runbook_a_test_of_its_durations_and_a_scenario() {
    let runbook = read(&root("docs/runbook.md"));
    let sections: Vec<_> = runbook.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let alerts = alerts();
    assert_eq!(sections, alerts, "the runbook has a section for each alert, in their order");
    let (rules, tests) = (rules(), read(&root(RULE_TESTS)));
    let parts: BTreeMap<_, _> =
        runbook.split("\n## ").skip(1).map(|part| part.split_once('\n').unwrap()).collect();
    for alert in &alerts {
        let url = format!("runbook_url: docs/runbook.md#{}\n", alert.to_lowercase());
        assert_eq!(rules.matches(&url).count(), 1, "{alert} links to its section");
        let section = parts[alert.as_str()];
        for heading in ["**Means.**", "**Look at", "o.**"] {
            assert!(section.contains(heading), "{alert}: the runbook lacks {heading}");
        }
        let asserted = format!("alertname: {alert}\n");
        assert!(tests.matches(&asserted).count() >= 2, "{alert}: silent before its time, and firing");
    }
    let played: Vec<_> = super::scenarios::PLAYED.iter().map(ToString::to_string).collect();
    assert_eq!(played.iter().collect::<BTreeSet<_>>(), alerts.iter().collect::<BTreeSet<_>>());
}

#[test]
fn the_runbook_links_to_sections_that_exist() {
    let runbook = read(&root("docs/runbook.md"));
    let anchors: BTreeSet<_> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_lowercase).collect();
    for link in runbook.split("](#").skip(1) {
        let anchor = link.split(')').next().unwrap();
        assert!(anchors.contains(anchor), "{anchor}");
    }
}
