//! The configuration of a service under test.

use std::path::Path;

use invite_relay::dashdoc::simulator::DEFAULT_TOKEN;
use toml::{Table, Value};

/// Waits that a test can afford, and no limit of the pace unless the test is about it.
const FAST: &str = r#"
[source.webhook]
listen = "127.0.0.1:0"

[dashdoc]
timeout = "5s"
rate_per_second = 500.0
max_in_flight = 16

[invite]
verify_after = "1s"

[retry]
base_delay = "50ms"
max_delay = "1s"
probe_delay = "1s"

[sink.webhook]
timeout = "5s"

[admin]
listen = "127.0.0.1:0"

[telemetry]
log = "info"

[shutdown]
grace = "10s"
"#;

/// A configuration, setting by setting.
#[derive(Clone)]
pub(crate) struct Settings(Table);

impl Settings {
    /// Against the API at `base_url`, with no source and no sink yet.
    pub(crate) fn fast(base_url: &str) -> Self {
        Self(FAST.parse().unwrap()).with("dashdoc.base_url", base_url).with("dashdoc.token", DEFAULT_TOKEN)
    }

    /// A configuration that is shipped with the sources.
    pub(crate) fn shipped(path: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        Self(std::fs::read_to_string(path).unwrap().parse().unwrap())
    }

    /// The setting at the dotted `key`, in place of what was there.
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        let (sections, name) = key.rsplit_once('.').unwrap();
        let mut table = &mut self.0;
        for section in sections.split('.') {
            let inner = table.entry(section).or_insert_with(|| Table::new().into());
            table = inner.as_table_mut().unwrap();
        }
        table.insert(name.to_owned(), value.into());
        self
    }

    /// Without the setting at the dotted `key`.
    pub(crate) fn without(mut self, key: &str) -> Self {
        let (section, name) = key.split_once('.').unwrap();
        self.0[section].as_table_mut().unwrap().remove(name).unwrap();
        self
    }

    /// The text at the dotted `key`, if it is set.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        let (section, name) = key.split_once('.').unwrap();
        self.0.get(section)?.get(name)?.as_str()
    }

    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, toml::to_string(&self.0).unwrap()).unwrap();
    }
}
