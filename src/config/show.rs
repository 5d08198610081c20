//! The effective configuration for people and programs, secrets masked.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::json;
use toml::{Table, Value};

use super::layer::dotted;
use super::load::Loaded;
use super::origin::Origin;
use super::reference;
use super::section::Config;

/// The effective configuration as TOML, in the order of the reference; what is not a default says where it came
/// from. Secrets are masked by their types, so there is no list here that could be incomplete.
pub fn show(loaded: &Loaded) -> String {
    let mut sections = BTreeMap::new();
    collect(&mut Vec::new(), &effective(&loaded.config), &mut sections);
    let mut sections: Vec<_> = sections.into_iter().collect();
    sections.sort_by_key(|(name, _)| position(name, None));

    let mut text = String::new();
    for (section, mut keys) in sections {
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = writeln!(text, "{separator}[{section}]");
        keys.sort_by_key(|(key, _)| position(&section, Some(key)));
        for (key, value) in keys {
            let _ = write!(text, "{key} = {value}");
            match loaded.origins.get(&format!("{section}.{key}")) {
                Some(Origin::Default) | None => text.push('\n'),
                Some(origin) => {
                    let _ = writeln!(text, "  # {origin}");
                }
            }
        }
    }
    text
}

/// The effective configuration and the origins of its values as JSON: `{"config": …, "origins": …, "warnings": …}`.
pub fn show_json(loaded: &Loaded) -> serde_json::Value {
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    json!({ "config": loaded.config, "origins": loaded.origins, "warnings": warnings })
}

fn effective(config: &Config) -> Table {
    Table::try_from(config).expect("the sections are texts, numbers, lists and maps of text keys")
}

/// Sorts the keys of `table` and all tables below into sections by dotted path.
fn collect(path: &mut Vec<String>, table: &Table, sections: &mut BTreeMap<String, Vec<(String, Value)>>) {
    for (key, value) in table {
        if let Value::Table(inner) = value {
            path.push(key.clone());
            collect(path, inner, sections);
            path.pop();
        } else {
            sections.entry(dotted(path)).or_default().push((key.clone(), value.clone()));
        }
    }
}

/// Where the reference has `key` of `section`. Named accounts stand where it explains them.
fn position(section: &str, key: Option<&str>) -> usize {
    let known = if section.starts_with("dashdoc.accounts.") { "dashdoc.accounts.acme" } else { section };
    let fits = |(name, each): &(&str, &str)| *name == known && key.is_none_or(|key| key == *each);
    reference::keys().iter().position(fits).unwrap_or(usize::MAX)
}
