//! What is read by people: notes, the README's table, the schema; the test that `helm test` runs; the version.

use std::fs;

use serde_json::Value;

use crate::helm::{Manifests, NAMESPACE, RELEASE, chart, helm, nested, python, root, scenarios, sqlite};

#[test]
fn the_notes_say_what_to_do_next() {
    for (name, file) in scenarios() {
        let chart = chart();
        let output = helm(&[
            "install",
            RELEASE,
            chart.to_str().unwrap(),
            "--dry-run=client",
            "--namespace",
            NAMESPACE,
            "--values",
            file.to_str().unwrap(),
        ]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let notes = text.split("NOTES:").nth(1).unwrap();
        for step in
            ["kubectl rollout status", "invite-relay doctor", "helm test", "invites list --state dead"]
        {
            assert!(notes.contains(step), "{name}: {step}\n{notes}");
        }
        insta::assert_snapshot!(format!("notes_{name}"), notes.trim());
    }
}

#[test]
fn the_helm_test_asks_health_and_sees_an_unsigned_event_refused() {
    let manifests = Manifests::of(&[&sqlite(), &nested("networkPolicy.enabled", &true.into())]);
    let pod = manifests.get("Pod");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    let script = pod["spec"]["containers"][0]["args"][0].as_str().unwrap();
    for part in ["/livez", "/readyz", "= 401"] {
        assert!(script.contains(part), "{part}: {script}");
    }
    let policy = manifests.get("NetworkPolicy/relay-invite-relay-test");
    assert_eq!(policy["metadata"]["annotations"]["helm.sh/hook"], "test");
    let from = &policy["spec"]["ingress"][0]["from"][0]["podSelector"]["matchLabels"];
    for (key, value) in from.as_object().unwrap() {
        assert_eq!(&pod["metadata"]["labels"][key], value, "it lets the test's pod in");
    }
}

#[test]
fn the_readmes_table_and_the_schema_are_what_values_and_program_say() {
    let directory = tempfile::tempdir().unwrap();
    let schema = directory.path().join("schema.json");
    let program =
        assert_cmd::Command::cargo_bin("invite-relay").unwrap().args(["config", "schema"]).output().unwrap();
    fs::write(&schema, program.stdout).unwrap();
    let output = python()
        .current_dir(root())
        .arg("scripts/chart_docs.py")
        .arg(&schema)
        .arg("--check")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn chart_and_program_have_one_version() {
    let chart: Value =
        serde_saphyr::from_str(&fs::read_to_string(chart().join("Chart.yaml")).unwrap()).unwrap();
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    let manifests = Manifests::of(&[&sqlite()]);
    let image = manifests.pod()["spec"]["containers"][0]["image"].as_str().unwrap();
    assert_eq!(image, concat!("invite-relay:", env!("CARGO_PKG_VERSION")));
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(
        changelog.contains(concat!("\n## [", env!("CARGO_PKG_VERSION"), "]")),
        "the changelog has this version"
    );
}
