//! The relay's configuration in the demo: what an operator would write, and loaded on the same way.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use toml::Value;

use crate::config::{self, ENV_PREFIX, Loaded, Problems, Sources};

/// Settings by dotted key, in the order they are written.
#[derive(Clone, Default)]
pub(super) struct Settings(Vec<(&'static str, Value)>);

impl Settings {
    /// Sets `key`, over what was set before.
    pub(super) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        let value = value.into();
        match self.0.iter_mut().find(|(known, _)| *known == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// Changes the text of `key`, if it is set.
    pub(super) fn mask(&mut self, key: &'static str, mask: impl FnOnce(&str) -> String) {
        if let Some((_, Value::String(text))) = self.0.iter_mut().find(|(known, _)| *known == key) {
            *text = mask(text);
        }
    }

    /// The configuration, as `serve` would get it from its environment.
    pub(super) fn load(&self) -> Result<Loaded, Problems> {
        let variable = |(key, value): &(&'static str, Value)| {
            (format!("{ENV_PREFIX}{}", key.replace('.', "__").to_uppercase()), value.to_string())
        };
        config::load(Sources { file: None, env: self.0.iter().map(variable), sets: Vec::new() })
    }

    /// Writes the settings as a configuration file that only this user may read.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let mut text =
            String::from("# The running demo, for `invite-relay … --config`. Gone when the demo ends.\n");
        for (key, value) in &self.0 {
            writeln!(text, "{key} = {value}").expect("a String takes everything");
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_and_the_file_say_the_same() {
        let mut settings = Settings::default();
        settings.set("source.webhook.enabled", true);
        settings.set("source.webhook.secrets", vec!["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"]);
        settings.set("sink.stdout.enabled", true);
        settings.set("dashdoc.token", "t");
        settings.set("dashdoc.rate_per_second", 5.0);
        settings.set("dashdoc.rate_per_second", 9.0);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.toml");
        settings.write(&path).unwrap();
        let none: [(String, String); 0] = [];
        let from_file =
            config::load(Sources { file: Some(path), env: none, sets: Vec::new() }).unwrap().config;
        let from_env = settings.load().unwrap().config;
        assert_eq!(from_env.dashdoc.rate_per_second.to_bits(), 9.0_f64.to_bits());
        assert_eq!(format!("{from_env:?}"), format!("{from_file:?}"));
    }
}
