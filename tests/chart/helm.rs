//! The real helm, and the manifests that it renders.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Name and namespace of the release that is rendered; objects are called `relay-invite-relay`.
pub(crate) const RELEASE: &str = "relay";
pub(crate) const NAMESPACE: &str = "invites";

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn chart() -> PathBuf {
    root().join("helm/invite-relay")
}

/// A program that scripts/test installs, or the one that the environment names.
fn tool(name: &str, variable: &str) -> PathBuf {
    let tool =
        env::var_os(variable).map_or_else(|| root().join("target/test-venv/bin").join(name), PathBuf::from);
    assert!(
        tool.exists(),
        "there is no {}: run scripts/test, which installs tests/chart/requirements.txt, or set {variable}",
        tool.display()
    );
    tool
}

pub(crate) fn python() -> Command {
    Command::new(tool("python", "INVITE_RELAY_TEST_PYTHON"))
}

pub(crate) fn helm(arguments: &[&str]) -> Output {
    // A configuration of its own: repositories and plugins of the machine have no say.
    let home = tempfile::tempdir().unwrap();
    Command::new(tool("helm", "INVITE_RELAY_TEST_HELM"))
        .args(arguments)
        .env("HELM_CONFIG_HOME", home.path())
        .env("HELM_CACHE_HOME", home.path())
        .env("HELM_DATA_HOME", home.path())
        .env("KUBECONFIG", home.path().join("none"))
        .output()
        .unwrap()
}

/// The values files in `ci/`, by name.
pub(crate) fn scenarios() -> BTreeMap<String, PathBuf> {
    let files: BTreeMap<_, _> = fs::read_dir(chart().join("ci"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().trim_end_matches("-values.yaml").to_owned(), path)
        })
        .collect();
    assert!(files.len() >= 6, "the scenarios are there");
    files
}

/// What `helm template` makes of a chart and values files, as text.
pub(crate) fn template(chart: &Path, values: &[&Path]) -> Result<String, String> {
    let mut arguments = vec!["template", RELEASE, chart.to_str().unwrap(), "--namespace", NAMESPACE];
    for file in values {
        arguments.extend(["--values", file.to_str().unwrap()]);
    }
    let output = helm(&arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The same for values given here; later ones win.
pub(crate) fn template_values(values: &[&Value]) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> =
        (0..values.len()).map(|number| directory.path().join(format!("{number}.json"))).collect();
    for (file, values) in files.iter().zip(values) {
        fs::write(file, values.to_string()).unwrap();
    }
    template(&chart(), &files.iter().map(PathBuf::as_path).collect::<Vec<_>>())
}

/// Rendered manifests.
pub(crate) struct Manifests(pub(crate) Vec<Value>);

impl Manifests {
    pub(crate) fn parse(rendered: &str) -> Self {
        let documents: Vec<Value> = serde_saphyr::from_multiple(rendered).unwrap();
        Self(documents.into_iter().filter(|document| !document.is_null()).collect())
    }

    pub(crate) fn of(values: &[&Value]) -> Self {
        Self::parse(&template_values(values).unwrap_or_else(|refusal| panic!("{refusal}")))
    }

    pub(crate) fn kind(&self, kind: &str) -> Vec<&Value> {
        self.0.iter().filter(|manifest| manifest["kind"] == kind).collect()
    }

    /// The one object of that kind and, where there are several, that name.
    pub(crate) fn find(&self, what: &str) -> Option<&Value> {
        let (kind, name) = what.split_once('/').unwrap_or((what, ""));
        let mut found = self.0.iter().filter(|manifest| {
            manifest["kind"] == kind && (name.is_empty() || manifest["metadata"]["name"] == name)
        });
        let first = found.next();
        assert!(found.next().is_none(), "several {what}");
        first
    }

    pub(crate) fn get(&self, what: &str) -> &Value {
        self.find(what).unwrap_or_else(|| panic!("no {what}"))
    }

    /// The pod template of the workload.
    pub(crate) fn pod(&self) -> &Value {
        let workload = self.find("StatefulSet").or_else(|| self.find("Deployment")).expect("a workload");
        &workload["spec"]["template"]
    }

    /// The text of the program's configuration.
    pub(crate) fn relay_toml(&self) -> &str {
        self.0
            .iter()
            .find_map(|manifest| manifest["data"]["relay.toml"].as_str())
            .expect("a ConfigMap with relay.toml")
    }
}

/// Values for a relay with everything that has an option, on SQLite.
pub(crate) fn sqlite() -> Value {
    json!({
        "config": {
            "source": {"rabbitmq": {"enabled": true}, "webhook": {"enabled": true}},
            "sink": {"rabbitmq": {"enabled": true}},
        },
        "secrets": {"existingSecret": "kept"},
    })
}

/// The same on Postgres.
pub(crate) fn postgres() -> Value {
    let mut values = sqlite();
    values["store"] = json!({"engine": "postgres"});
    values
}

/// `{"a": {"b": value}}` for `a.b`.
pub(crate) fn nested(path: &str, value: &Value) -> Value {
    path.rsplit('.').fold(value.clone(), |inner, key| json!({key: inner}))
}
