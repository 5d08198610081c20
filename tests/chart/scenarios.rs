//! Each values file in `ci/`: linted, rendered, validated, compared with its snapshot, and loaded by the program.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::Stdio;

use assert_cmd::Command as Program;
use serde_json::Value;

use crate::helm::{Manifests, chart, helm, python, root, scenarios, template};

/// Of kinds that Kubernetes itself does not have, kubernetes-validate has no schema.
const CUSTOM: [&str; 5] = ["HTTPRoute", "PodMonitor", "PrometheusRule", "ScaledObject", "ServiceMonitor"];

fn rendered() -> Vec<(String, String)> {
    scenarios()
        .into_iter()
        .map(|(name, file)| {
            let text = template(&chart(), &[&file]).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            (name, text)
        })
        .collect()
}

#[test]
fn every_scenario_passes_a_strict_lint() {
    let chart = chart();
    for (name, file) in scenarios() {
        let output = helm(&["lint", "--strict", "--values", file.to_str().unwrap(), chart.to_str().unwrap()]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn every_manifest_is_valid_for_the_newest_kubernetes() {
    let all: String = rendered().into_iter().map(|(_, text)| text).collect();
    let mut validate = python()
        .arg(root().join("tests/chart/validate.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    validate.stdin.take().unwrap().write_all(all.as_bytes()).unwrap();
    let output = validate.wait_with_output().unwrap();
    assert!(output.status.success(), "validate.py failed, see above");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdicts = answer["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), Manifests::parse(&all).0.len(), "each manifest has a verdict");
    println!("{} manifests, Kubernetes {}", verdicts.len(), answer["version"]);
    for verdict in verdicts {
        let kind = verdict["what"].as_str().unwrap().split('/').next().unwrap();
        let expected = if CUSTOM.contains(&kind) { Value::from("custom") } else { Value::Null };
        assert_eq!(verdict["wrong"], expected, "{}", verdict["what"]);
    }
}

#[test]
fn every_scenario_renders_as_it_did() {
    // Names of people's dashboards and rules come and go with their files, and have their own tests.
    for (name, text) in rendered() {
        let without_files: Vec<&str> = text
            .split("\n---\n")
            .filter(|part| {
                !part.contains("templates/dashboards.yaml") && !part.contains("templates/prometheusrule.yaml")
            })
            .collect();
        insta::assert_snapshot!(name, without_files.join("\n---\n"));
    }
}

#[test]
fn the_scenarios_show_every_template() {
    let shown: BTreeSet<String> = rendered()
        .iter()
        .flat_map(|(_, text)| text.lines())
        .filter_map(|line| line.strip_prefix("# Source: invite-relay/templates/"))
        .map(str::to_owned)
        .collect();
    let mut files = BTreeSet::new();
    for folder in ["", "tests/"] {
        for entry in fs::read_dir(chart().join("templates").join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            // checks.yaml refuses, and renders nothing.
            if path.extension().is_some_and(|extension| extension == "yaml") && name != "checks.yaml" {
                files.insert(format!("{folder}{name}"));
            }
        }
    }
    let missing: Vec<_> = files
        .difference(&shown)
        .filter(|name| !matches!(name.as_str(), "dashboards.yaml" | "prometheusrule.yaml"))
        .collect();
    assert!(missing.is_empty(), "no scenario shows {missing:?}");
}

#[test]
fn the_program_accepts_the_configuration_of_every_scenario() {
    for (name, text) in rendered() {
        let manifests = Manifests::parse(&text);
        let directory = tempfile::tempdir().unwrap();
        // The files that the pod would mount, with something of the right form in them.
        for file in mounted(&manifests) {
            let content = match file.as_str() {
                "rabbitmq-url" | "announcements-url" => {
                    "amqp://relay:pw@rabbitmq.example:5672/%2f".to_owned()
                }
                "store-url" => "postgres://relay:pw@db.example:5432/relay".to_owned(),
                "webhook-secrets" | "sink-secret" => {
                    "whsec_dGhpcyBpcyBubyBzZWNyZXQsIG9ubHkgYSB0ZXN0IQ==".to_owned()
                }
                "company-ca.pem" => fs::read_to_string(root().join("tests/chart/company-ca.pem")).unwrap(),
                other => format!("content-of-{other}-long-enough-for-a-key"),
            };
            fs::write(directory.path().join(file), content).unwrap();
        }
        let toml = manifests
            .relay_toml()
            .replace("/run/secrets/invite-relay", directory.path().to_str().unwrap())
            .replace("/var/lib/invite-relay", directory.path().to_str().unwrap());
        let file = directory.path().join("relay.toml");
        fs::write(&file, toml).unwrap();
        println!("{name}");
        Program::cargo_bin("invite-relay")
            .unwrap()
            .args(["config", "check"])
            .env("INVITE_RELAY_CONFIG", &file)
            .assert()
            .success();
    }
}

/// Paths in the directory of secrets.
pub(crate) fn mounted(manifests: &Manifests) -> Vec<String> {
    let volumes = manifests.pod()["spec"]["volumes"].as_array().unwrap();
    let secrets = volumes.iter().find(|volume| volume["name"] == "secrets").expect("a volume of secrets");
    secrets["projected"]["sources"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|source| source["secret"]["items"].as_array().unwrap())
        .map(|item| item["path"].as_str().unwrap().to_owned())
        .collect()
}
