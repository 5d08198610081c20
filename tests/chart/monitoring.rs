//! Rules and dashboards: every file of their folders, unchanged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::helm::{Manifests, chart, sqlite, template};

/// A copy of the chart, whose files can be changed.
fn copy() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    assert!(Command::new("cp").arg("-r").arg(chart()).arg(directory.path()).status().unwrap().success());
    let copy = directory.path().join("invite-relay");
    for folder in ["rules", "dashboards"] {
        let _ = fs::remove_dir_all(copy.join(folder));
        fs::create_dir(copy.join(folder)).unwrap();
    }
    (directory, copy)
}

const MONITORED: &str = r#"{"monitoring": {
    "rules": {"enabled": true, "disabled": ["Noisy"], "runbookUrl": "https://runbooks.example/relay"},
    "dashboards": {"enabled": true}}}"#;

fn render_copy(copy: &Path) -> Manifests {
    let values = tempfile::tempdir().unwrap();
    let (base, monitored) = (values.path().join("base.json"), values.path().join("monitored.json"));
    fs::write(&base, sqlite().to_string()).unwrap();
    fs::write(&monitored, MONITORED).unwrap();
    Manifests::parse(&template(copy, &[&base, &monitored]).unwrap())
}

#[test]
fn every_rule_file_and_every_dashboard_is_taken_however_many_there_are() {
    let (_guard, copy) = copy();
    let none = render_copy(&copy);
    assert!(none.find("PrometheusRule").is_none());
    assert_eq!(none.kind("ConfigMap").len(), 1);

    let rule = |name: &str| {
        format!(
            "groups:\n  - name: {name}\n    rules:\n      - record: {name}:recorded\n        expr: up\n      - alert: Noisy\n        \
             expr: up\n      - alert: {name}\n        expr: up == 0\n        annotations:\n          summary: \"{{{{ $value }}}} of \
             {{{{ $labels.job }}}}\"\n          runbook_url: docs/runbook.md#{name}\n"
        )
    };
    fs::write(copy.join("rules/first.yaml"), rule("First")).unwrap();
    fs::write(copy.join("rules/second.yaml"), rule("Second")).unwrap();
    fs::write(copy.join("dashboards/Big_Overview.json"), r#"{"legend": "{{job}}", "title": "A"}"#).unwrap();
    fs::write(copy.join("dashboards/operations.json"), "{\"title\": \"B\"}\n").unwrap();
    let some = render_copy(&copy);
    let groups = some.get("PrometheusRule")["spec"]["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(
        groups[0]["rules"],
        json!([
            {"record": "First:recorded", "expr": "up"},
            {"alert": "First", "expr": "up == 0", "annotations": {
                "summary": "{{ $value }} of {{ $labels.job }}",
                "runbook_url": "https://runbooks.example/relay#First"}},
        ])
    );
    let big = some.get("ConfigMap/relay-invite-relay-big-overview");
    assert_eq!(big["metadata"]["labels"]["grafana_dashboard"], "1");
    let dashboard: Value = serde_json::from_str(big["data"]["Big_Overview.json"].as_str().unwrap()).unwrap();
    assert_eq!(dashboard, json!({"legend": "{{job}}", "title": "A"}));
    some.get("ConfigMap/relay-invite-relay-operations");
}

#[test]
fn the_charts_own_rules_and_dashboards_arrive_unchanged() {
    let on = json!({"monitoring": {"rules": {"enabled": true}, "dashboards": {"enabled": true}}});
    let manifests = Manifests::of(&[&sqlite(), &on]);
    let files = |folder: &str| -> Vec<_> {
        fs::read_dir(chart().join(folder)).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    };
    let mut rules = 0;
    for file in files("rules") {
        let rule_file: Value = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let groups = manifests.get("PrometheusRule")["spec"]["groups"].as_array().unwrap();
        for group in rule_file["groups"].as_array().unwrap() {
            assert!(groups.contains(group), "{}", group["name"]);
            rules += group["rules"].as_array().unwrap().len();
        }
    }
    let dashboards = files("dashboards");
    for file in &dashboards {
        let name = file.file_name().unwrap().to_str().unwrap();
        let original: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        let carried = manifests.0.iter().find_map(|manifest| manifest["data"][name].as_str()).unwrap();
        assert_eq!(serde_json::from_str::<Value>(carried).unwrap(), original, "{name}");
    }
    println!("{rules} rules, {} dashboards", dashboards.len());
}

#[test]
fn rules_and_dashboards_have_their_labels() {
    let (_guard, copy) = copy();
    fs::write(copy.join("rules/a.yaml"), "groups: [{name: a, rules: [{alert: A, expr: up}]}]\n").unwrap();
    fs::write(copy.join("dashboards/a.json"), "{}").unwrap();
    let values = tempfile::tempdir().unwrap();
    let file = values.path().join("values.json");
    let mut all = sqlite();
    all["monitoring"] = json!({
        "rules": {"enabled": true, "labels": {"release": "prometheus"}},
        "dashboards": {"enabled": true, "labels": {"grafana_dashboard": "yes"}, "annotations": {"grafana_folder": "Relay"}},
    });
    fs::write(&file, all.to_string()).unwrap();
    let manifests = Manifests::parse(&template(&copy, &[&file]).unwrap());
    assert_eq!(manifests.get("PrometheusRule")["metadata"]["labels"]["release"], "prometheus");
    let dashboard = manifests.get("ConfigMap/relay-invite-relay-a");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "yes");
    assert_eq!(dashboard["metadata"]["annotations"]["grafana_folder"], "Relay");
}
