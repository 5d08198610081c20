//! What the layers of the configuration may do to each other, and what may be said about them.

use std::sync::OnceLock;

use invite_relay::config::{ENV_PREFIX, Origin, Sources, load, schema, show, show_json};
use serde_json::Value as Json;
use toml::{Table, Value};

/// What secrets are made of here. Nothing else holds this word.
const CANARY: &str = "Kanarie7f3a9c1d";

/// A secret in a place of its own: which key, by which layer, and written how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Planted {
    pub(crate) key: u8,
    pub(crate) layer: u8,
    pub(crate) form: u8,
    pub(crate) place: u8,
}

/// Layers over the reference, with secrets planted into them.
pub(crate) fn holds(file: &str, env: &[(String, String)], sets: &[String], planted: &[Planted]) {
    let foreign = [file].into_iter().chain(sets.iter().map(String::as_str));
    let foreign = foreign.chain(env.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
    let canaries_are_ours = foreign.map(str::to_ascii_lowercase).all(|text| !text.contains("kanarie"));
    // A file whose syntax is broken may be any text; what is planted into it must be found all the same.
    let (mut file, mut env, mut sets) = (file.to_owned(), env.to_vec(), sets.to_vec());
    for secret in planted {
        secret.plant(&mut file, &mut env, &mut sets);
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("relay.toml");
    std::fs::write(&path, &file).unwrap();
    let result = load(Sources { file: Some(path), env: env.clone(), sets: sets.clone() });
    let said = match &result {
        Ok(loaded) => {
            let shown = show(loaded);
            assert!(shown.parse::<Table>().is_ok(), "what is shown is no TOML:\n{shown}");
            let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
            format!("{shown}\n{}\n{loaded:?}\n{warnings:?}", show_json(loaded))
        }
        Err(problems) => {
            assert!(!problems.0.is_empty(), "refused without a reason");
            format!("{problems}\n{problems:?}")
        }
    };
    if canaries_are_ours && let Some((before, after)) = said.split_once(CANARY) {
        let n_before = before.chars().count().saturating_sub(120);
        let before: String = before.chars().skip(n_before).collect();
        let after: String = after.chars().take(60).collect();
        panic!("a secret shows: {before}>>>{after}\n{file}\n{env:?}\n{sets:?}");
    }
    let Ok(loaded) = result else { return };

    let table: Table = file.parse().expect("a file that is no TOML was taken");
    every_key_is_known(&Value::Table(table.clone()), &mut Vec::new());
    // The highest layer that has a key decides.
    for set in &sets {
        let (path, text) = set.split_once('=').expect("a flag without a value was taken");
        let path: Vec<String> = path.trim().split('.').map(str::to_owned).collect();
        one_value(&path, text, |key| assert_eq!(loaded.origins.get(key), Some(&Origin::Flag), "{key}"));
        assert!(kind(&path) != Some(Kind::Secret), "a secret in a flag was taken: {path:?}");
    }
    for (name, text) in &env {
        let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
        let path: Vec<String> = path.split("__").map(str::to_lowercase).collect();
        one_value(&path, text, |key| {
            let origin = loaded.origins.get(key);
            assert!(matches!(origin, Some(Origin::Environment { .. } | Origin::Flag)), "{key}: {origin:?}");
        });
    }
}

/// Checks that `path` is known, and its origin where the text is one value and the path has one spelling. At a key, a
/// text that looks like a table is a text: a password may begin with a brace.
fn one_value(path: &[String], text: &str, check: impl Fn(&str)) {
    if kind(path).is_none() {
        let table = text.trim().parse().unwrap_or(Value::Boolean(false));
        return every_key_is_known(&table, &mut path.to_vec());
    }
    let bare = |name: &String| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if path.iter().all(bare) {
        check(&path.join("."));
    }
}

fn every_key_is_known(value: &Value, path: &mut Vec<String>) {
    let Value::Table(table) = value else {
        assert!(kind(path).is_some(), "an unknown key was taken: {path:?}");
        return;
    };
    for (name, value) in table {
        path.push(name.clone());
        every_key_is_known(value, path);
        path.pop();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Open,
    Url,
    Secret,
}

/// What the published schema says of a place: `None` where there is no key.
fn kind(path: &[String]) -> Option<Kind> {
    static SCHEMA: OnceLock<Json> = OnceLock::new();
    let whole = SCHEMA.get_or_init(schema);
    let place = path.iter().try_fold(whole, |place, name| {
        place["properties"]
            .get(name)
            .or_else(|| place.get("additionalProperties").filter(|any| any.is_object()))
    })?;
    let is_key = place.get("properties").is_none() && !place["additionalProperties"].is_object();
    is_key.then(|| {
        match (place["writeOnly"] == true || place["items"]["writeOnly"] == true, &place["format"]) {
            (false, _) => Kind::Open,
            (true, format) if format == "uri" => Kind::Url,
            (true, _) => Kind::Secret,
        }
    })
}

/// Every key that holds a secret, and the file form of each.
fn secret_keys() -> &'static [String] {
    static KEYS: OnceLock<Vec<String>> = OnceLock::new();
    KEYS.get_or_init(|| {
        let mut keys = Vec::new();
        walk(&schema(), "", &mut keys);
        assert!(keys.len() >= 18, "{keys:?}");
        keys
    })
}

fn walk(place: &Json, path: &str, keys: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, inner) in place["properties"].as_object().into_iter().flatten() {
        let sibling = name.strip_suffix("_file").is_some_and(|secret| {
            let sibling = &place["properties"][secret];
            sibling["writeOnly"] == true || sibling["items"]["writeOnly"] == true
        });
        if inner["writeOnly"] == true || inner["items"]["writeOnly"] == true || sibling {
            keys.push(below(name));
        }
        walk(inner, &below(name), keys);
    }
    if place["additionalProperties"].is_object() {
        walk(&place["additionalProperties"], &below("acme"), keys);
    }
}

impl Planted {
    /// Writes the secret into its layer.
    fn plant(self, file: &mut String, env: &mut Vec<(String, String)>, sets: &mut Vec<String>) {
        let keys = secret_keys();
        let mut key = keys[usize::from(self.key) % keys.len()].clone();
        let text = match self.form % 7 {
            0 => CANARY.to_owned(),
            1 => format!("amqp://user:{CANARY}@broker:5672/%2f"),
            2 => format!("https://platform.example/?key={CANARY}"),
            // Base64, which has slashes in it like a path.
            3 => format!("whsec_{CANARY}/abcdefghijklmnopqrstuvwxyz"),
            4 => format!("postgres://user:{CANARY}@host/db"),
            5 => format!("https://{CANARY}:{CANARY}@host/hook"),
            _ => format!("{CANARY}/{CANARY}=="),
        };
        match self.place % 4 {
            // Mistyped.
            1 => drop(key.pop()),
            2 => key.push('s'),
            // In the section above.
            3 => {
                let mut parts: Vec<&str> = key.split('.').collect();
                if parts.len() > 2 {
                    parts.remove(parts.len() - 2);
                }
                key = parts.join(".");
            }
            _ => {}
        }
        let quoted = Value::from(text.as_str()).to_string();
        let value = match (self.form / 7) % 5 {
            0 => quoted,
            1 => format!("[{quoted}]"),
            2 => format!("{{ a = {quoted} }}"),
            // Not TOML: the quotes are forgotten.
            3 => text,
            _ => format!("[{quoted}, 1]"),
        };
        match self.layer % 3 {
            0 => *file = format!("{key} = {value}\n{file}"),
            1 => env.push((format!("{ENV_PREFIX}{}", key.replace('.', "__").to_uppercase()), value)),
            _ => sets.push(format!("{key}={value}")),
        }
    }
}
