//! Collects what the rules find, with value and origin of the key each finding is about.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::layer::Layers;
use crate::config::problem::Problem;
use crate::config::secret::{Secret, SecretUrl};
use crate::config::secret_path::SecretPath;
use crate::config::secret_source::{SecretError, SecretListSource, SecretSource};

/// Problems go to the layers, where those about single values are already; warnings stay here.
pub(super) struct Report<'l, 's> {
    layers: &'l mut Layers<'s>,
    pub(super) warnings: Vec<Problem>,
    /// Keys that did not fit their type and hold their default now, or nothing.
    replaced: BTreeSet<String>,
}

/// What a pair of keys `x` and `x_file` gives.
pub(super) enum Found<T> {
    /// Neither key is set.
    Nothing,
    /// The value, and the key to blame if it is wrong.
    Value { key: String, value: T },
    /// Something is set and wrong; it has been reported.
    Bad,
}

impl<'l, 's> Report<'l, 's> {
    pub(super) fn new(layers: &'l mut Layers<'s>) -> Self {
        let replaced = layers.problems.0.iter().map(|problem| problem.key.clone()).collect();
        Self { layers, warnings: Vec::new(), replaced }
    }

    /// The value of `key` is wrong.
    pub(super) fn wrong(&mut self, key: &str, message: &str, mend: &str) {
        if !self.replaced.contains(key) {
            let problem = self.about(key, message, mend);
            self.layers.problems.0.push(problem);
        }
    }

    /// Like [`Report::wrong`], for a value that is not to be repeated.
    pub(super) fn wrong_unseen(&mut self, key: &str, message: &str, mend: &str) {
        if !self.replaced.contains(key) {
            let problem = Problem { value: None, ..self.about(key, message, mend) };
            self.layers.problems.0.push(problem);
        }
    }

    /// Something that has no value is wrong, most often that it is missing.
    pub(super) fn missing(&mut self, key: &str, message: &str, mend: &str) {
        if !self.replaced.contains(key) {
            let (key, message, mend) = (key.to_owned(), message.to_owned(), mend.to_owned());
            self.layers.problems.0.push(Problem { key, value: None, origin: None, message, mend });
        }
    }

    /// The value of `key` is allowed, but probably not meant.
    pub(super) fn warn(&mut self, key: &str, message: &str, mend: &str) {
        let warning = self.about(key, message, mend);
        self.warnings.push(warning);
    }

    /// A duration of nothing is never meant.
    pub(super) fn positive(&mut self, key: &str, duration: Duration) {
        if duration.is_zero() {
            self.wrong(key, "must be longer than nothing", "write for example 250ms, 30s, 5m or 72h");
        }
    }

    /// The secret of `key` and its file form.
    pub(super) fn secret(
        &mut self,
        key: &str,
        inline: Option<&Secret>,
        file: Option<&SecretPath>,
    ) -> Found<Secret> {
        let source = SecretSource::of_pair(inline, file);
        let found = self.read(key, inline.is_some(), file, || source.map(|source| source.read()));
        match &found {
            Found::Value { key, value } if value.reveal().trim().is_empty() => {
                self.wrong(key, "is empty", "set the secret, or remove the key");
                Found::Bad
            }
            _ => found,
        }
    }

    /// The URL of `key` and its file form.
    pub(super) fn url(
        &mut self,
        key: &str,
        inline: Option<&SecretUrl>,
        file: Option<&SecretPath>,
    ) -> Found<SecretUrl> {
        match self.secret(key, inline.map(SecretUrl::as_secret), file) {
            Found::Value { key, value } => Found::Value { key, value: SecretUrl::from(value) },
            Found::Nothing => Found::Nothing,
            Found::Bad => Found::Bad,
        }
    }

    /// The secrets of `key` and its file form.
    pub(super) fn list(
        &mut self,
        key: &str,
        inline: &[Secret],
        file: Option<&SecretPath>,
    ) -> Found<Vec<Secret>> {
        let source = SecretListSource::of_pair(inline, file);
        let found = self.read(key, !inline.is_empty(), file, || source.map(|source| source.read()));
        match &found {
            Found::Value { key, value } if value.iter().any(|secret| secret.reveal().trim().is_empty()) => {
                self.wrong(key, "holds an empty secret", "remove it");
                Found::Bad
            }
            _ => found,
        }
    }

    fn read<T>(
        &mut self,
        key: &str,
        inline: bool,
        file: Option<&SecretPath>,
        read: impl FnOnce() -> Option<Result<T, SecretError>>,
    ) -> Found<T> {
        let file_key = format!("{key}_file");
        if inline && file.is_some() {
            self.wrong(&file_key, &format!("set beside {key}"), "keep one of the two");
            return Found::Bad;
        }
        match read() {
            Some(Ok(value)) => Found::Value { key: if inline { key.to_owned() } else { file_key }, value },
            Some(Err(error)) => {
                let mend = "put the secret there, correct the path, or let this user read the file";
                self.wrong(&file_key, &error.to_string(), mend);
                Found::Bad
            }
            None if self.replaced.contains(key) || self.replaced.contains(&file_key) => Found::Bad,
            None => Found::Nothing,
        }
    }

    fn about(&self, key: &str, message: &str, mend: &str) -> Problem {
        let (value, origin) = self.layers.describe(key);
        Problem { key: key.to_owned(), value, origin, message: message.to_owned(), mend: mend.to_owned() }
    }
}
