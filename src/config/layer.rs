//! The layers: values from the reference, a file, the environment and flags, each with its origin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use toml::de::DeTable;
use toml::{Table, Value};

use super::origin::Origin;
use super::problem::{Problem, Problems};
use super::reference::REFERENCE;
use super::secret::SecretUrl;
use super::secret_path::is_path;
use super::shape::{Key, Kind, Secrecy, Shape};
use super::suggest::suggest;

/// What the name of an environment variable begins with.
pub const ENV_PREFIX: &str = "INVITE_RELAY__";

/// Longest value that a problem repeats.
const SHOWN_MAX: usize = 80;

/// One key's value, out of the highest layer that has one.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub(super) path: Vec<String>,
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// All values collected so far, and what was wrong with those that could not be taken.
pub(super) struct Layers<'s> {
    shape: &'s Shape,
    /// By dotted path; known keys only.
    pub(super) leaves: BTreeMap<String, Leaf>,
    /// The lowest layer alone, to go back to.
    reference: BTreeMap<String, Leaf>,
    /// Named sections seen, as one without any key has no leaf.
    named: BTreeSet<Vec<String>>,
    pub(super) problems: Problems,
    /// Whether every layer could be read, so that a missing value is really missing.
    pub(super) complete: bool,
}

impl<'s> Layers<'s> {
    /// The lowest layer.
    pub(super) fn over_reference(shape: &'s Shape) -> Self {
        let mut layers = Self {
            shape,
            leaves: BTreeMap::new(),
            reference: BTreeMap::new(),
            named: BTreeSet::new(),
            problems: Problems::default(),
            complete: true,
        };
        let reference: Table = REFERENCE.parse().expect("the reference is TOML, a test reads it");
        layers.take(shape, &mut Vec::new(), Value::Table(reference), &|_| Origin::Default);
        layers.reference = layers.leaves.clone();
        layers
    }

    /// The configuration file.
    pub(super) fn add_file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.add_toml(path, &text),
            Err(error) => {
                self.complete = false;
                let key = format!("--config {}", path.display());
                let mend = "correct the path, or let this user read the file";
                self.complain(key, None, None, &format!("cannot be read: {error}"), mend);
            }
        }
    }

    /// The text of a configuration file. Syntax errors name the place and not the line's text, which may be a secret.
    pub(super) fn add_toml(&mut self, path: &Path, text: &str) {
        let (spanned, mut errors) = DeTable::parse_recoverable(text);
        let table = if errors.is_empty() {
            text.parse::<Table>().map_err(|error| errors.push(error)).ok()
        } else {
            None
        };
        // The parser may report one mistake twice in a row.
        errors.dedup_by(|a, b| a.span() == b.span());
        for error in errors {
            self.complete = false;
            let (line, column) = place_of(text, error.span().map_or(0, |span| span.start));
            let key = format!("{} line {line}, column {column}", path.display());
            let mend = "texts stand in quotes, sections in [brackets], and each key only once";
            self.complain(key, None, None, &format!("is not TOML: {}", error.message()), mend);
        }
        let Some(table) = table else { return };
        let mut lines = BTreeMap::new();
        lines_of_keys(spanned.get_ref(), text, &mut Vec::new(), &mut lines);
        let line = |key: &[String]| lines.get(key).copied().unwrap_or(1);
        let origin = |key: &[String]| Origin::File { path: path.to_owned(), line: line(key) };
        self.take(self.shape, &mut Vec::new(), Value::Table(table), &origin);
    }

    /// The environment: variables with [`ENV_PREFIX`]; others are none of ours.
    pub(super) fn add_environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        // Sorted, so that the same environment always gives the same result.
        let variables: BTreeMap<_, _> = variables.into_iter().collect();
        for (name, text) in variables {
            let Some(path) = name.strip_prefix(ENV_PREFIX) else { continue };
            let path = path.split("__").map(str::to_lowercase).collect();
            self.add_text(path, &text, &Origin::Environment { name });
        }
    }

    /// Flags: `key.path=VALUE`.
    pub(super) fn add_flags(&mut self, sets: &[String]) {
        for set in sets {
            match set.split_once('=') {
                Some((path, text)) => {
                    let path = path.trim().split('.').map(str::to_owned).collect();
                    self.add_text(path, text, &Origin::Flag);
                }
                // What was given is not repeated: it may be a secret.
                None => self.complain(
                    "--set".to_owned(),
                    None,
                    None,
                    "is without a value",
                    "write --set key.path=VALUE",
                ),
            }
        }
    }

    /// A value given as text is TOML, or plain text where it is not, or where the key wants text.
    fn add_text(&mut self, path: Vec<String>, text: &str, origin: &Origin) {
        let wants_text = self.shape.key_at(&path).is_some_and(|key| key.kind.wants_text());
        let value = match text.trim().parse::<Value>() {
            Ok(value) if !wants_text || value.is_str() => value,
            _ => Value::String(text.to_owned()),
        };
        let nested =
            path.into_iter().rev().fold(value, |inner, name| Value::Table(Table::from_iter([(name, inner)])));
        self.take(self.shape, &mut Vec::new(), nested, &|_| origin.clone());
    }

    /// Takes every known key under `value` over what lower layers said.
    fn take(
        &mut self,
        place: &Shape,
        path: &mut Vec<String>,
        value: Value,
        origin: &dyn Fn(&[String]) -> Origin,
    ) {
        match (place, value) {
            (Shape::Key(key), value) => self.take_key(key, path, value, origin(path)),
            (Shape::Section(_) | Shape::Named(_), Value::Table(table)) => {
                for (name, value) in table {
                    path.push(name);
                    match place.child(&path[path.len() - 1]) {
                        Some(child) => {
                            if matches!(place, Shape::Named(_)) && value.is_table() {
                                self.named.insert(path.clone());
                            }
                            self.take(child, path, value, origin);
                        }
                        None => self.unknown(place, path, &value, origin(path)),
                    }
                    path.pop();
                }
            }
            (_, _) => {
                let key = dotted(path);
                let mend = format!("write [{key}] and its keys below");
                self.complain(key, None, Some(origin(path)), "is a section, not a key", &mend);
            }
        }
    }

    fn take_key(&mut self, key: &Key, path: &[String], value: Value, origin: Origin) {
        let text = value.as_str().unwrap_or_default();
        let hidden = match key.secrecy {
            Secrecy::Open => false,
            Secrecy::Url => SecretUrl::carries_credentials(text),
            Secrecy::Secret => true,
        };
        let name = dotted(path);
        if origin == Origin::Flag && hidden {
            let mend = match key.kind {
                Kind::Texts | Kind::Text if self.shape.key_at(&file_form(path)).is_some() => {
                    format!("set {name}_file, or use the environment")
                }
                _ => "use a file or the environment".to_owned(),
            };
            let message = "secrets are not taken from flags, which every user of the machine can see";
            self.complain(name, None, Some(origin), message, &mend);
            return;
        }
        // No key wants a table, and the names in it may not go unread because a higher layer covers the key.
        if value.is_table() {
            let (message, mend) = key.kind.complaint();
            self.complain(name, None, Some(origin), &message, &mend);
            return;
        }
        self.leaves.insert(name, Leaf { path: path.to_owned(), value, origin });
    }

    fn unknown(&mut self, place: &Shape, path: &[String], value: &Value, origin: Origin) {
        let (name, section) = path.split_last().expect("an unknown key has a name");
        let suggestion = suggest(self.shape, place, &dotted(section), name);
        let what = if value.is_table() { "unknown section" } else { "unknown key" };
        let value = (suggestion.value_may_show && !value.is_table()).then(|| shown(value));
        self.complain(dotted(path), value, Some(origin), what, &suggestion.mend);
    }

    /// The value of `key` as a problem may show it, and where it came from.
    pub(super) fn describe(&self, key: &str) -> (Option<String>, Option<Origin>) {
        let Some(leaf) = self.leaves.get(key) else { return (None, None) };
        let open = self.shape.key_at(&leaf.path).is_some_and(|key| key.secrecy == Secrecy::Open);
        // A token written into token_file by mistake is still a token.
        let misplaced = key.ends_with("_file") && !leaf.value.as_str().is_some_and(is_path);
        ((open && !misplaced).then(|| shown(&leaf.value)), Some(leaf.origin.clone()))
    }

    fn complain(
        &mut self,
        key: String,
        value: Option<String>,
        origin: Option<Origin>,
        message: &str,
        mend: &str,
    ) {
        self.problems.0.push(Problem {
            key,
            value,
            origin,
            message: message.to_owned(),
            mend: mend.to_owned(),
        });
    }

    /// Records that the value of `key` is not what its shape wants, and goes back to the default.
    pub(super) fn refuse(&mut self, key: &str) {
        let (value, origin) = self.describe(key);
        let Some(leaf) = self.leaves.remove(key) else { return };
        if let Some(shape) = self.shape.key_at(&leaf.path) {
            let (message, mend) = shape.kind.complaint();
            self.complain(key.to_owned(), value, origin, &message, &mend);
        }
        if let Some(default) = self.reference.get(key) {
            self.leaves.insert(key.to_owned(), default.clone());
        }
    }

    /// Keys whose number is out of bounds.
    pub(super) fn out_of_range(&self) -> Vec<String> {
        let bad = |leaf: &Leaf| {
            self.shape.key_at(&leaf.path).is_some_and(|key| !key.kind.has_in_range(&leaf.value))
        };
        self.leaves.iter().filter(|(_, leaf)| bad(leaf)).map(|(key, _)| key.clone()).collect()
    }

    /// A default gives way to the file form of its key: `store.url_file` alone is no contradiction.
    pub(super) fn let_files_replace_defaults(&mut self) {
        let replaced: Vec<String> = self
            .leaves
            .iter()
            .filter(|(_, leaf)| leaf.origin == Origin::Default && leaf.value.is_str())
            .map(|(key, _)| key.clone())
            .filter(|key| self.leaves.contains_key(&format!("{key}_file")))
            .collect();
        for key in replaced {
            self.leaves.remove(&key);
        }
    }

    /// All values as one TOML table.
    pub(super) fn merged(&self) -> Table {
        let mut root = Table::new();
        for path in &self.named {
            table_at(&mut root, path);
        }
        for leaf in self.leaves.values() {
            let (name, section) = leaf.path.split_last().expect("a key has a name");
            table_at(&mut root, section).insert(name.clone(), leaf.value.clone());
        }
        root
    }
}

fn table_at<'t>(root: &'t mut Table, path: &[String]) -> &'t mut Table {
    path.iter().fold(root, |table, name| {
        let inner = table.entry(name.clone()).or_insert_with(|| Value::Table(Table::new()));
        inner.as_table_mut().expect("the shape has either a section or a key at a place")
    })
}

/// The dotted path as it would be written in TOML.
pub(super) fn dotted(path: &[String]) -> String {
    let bare = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    let quoted =
        |name: &String| if bare(name) { name.clone() } else { Value::from(name.as_str()).to_string() };
    path.iter().map(quoted).collect::<Vec<_>>().join(".")
}

fn file_form(path: &[String]) -> Vec<String> {
    let mut path = path.to_owned();
    if let Some(last) = path.last_mut() {
        last.push_str("_file");
    }
    path
}

/// A value for people: short, and without the password of a URL that should not have one.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::String(text) if text.contains("://") => {
            Value::String(SecretUrl::new(text).to_string()).to_string()
        }
        other => other.to_string(),
    };
    match text.char_indices().nth(SHOWN_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]),
        None => text,
    }
}

/// Line and column, counted from 1, of a byte offset.
fn place_of(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let last_line = before.rsplit('\n').next().unwrap_or(before);
    (before.matches('\n').count() + 1, last_line.chars().count() + 1)
}

fn lines_of_keys(
    table: &DeTable<'_>,
    text: &str,
    path: &mut Vec<String>,
    lines: &mut BTreeMap<Vec<String>, usize>,
) {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        lines.insert(path.clone(), place_of(text, key.span().start).0);
        if let Some(inner) = value.get_ref().as_table() {
            lines_of_keys(inner, text, path, lines);
        }
        path.pop();
    }
}
