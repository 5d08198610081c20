//! Everything that was shown, and the search for what must not be in it.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::super::harness::Service;

/// How much is shown around a finding.
const AROUND: usize = 200;

/// Texts with the place they were shown in.
#[derive(Default)]
pub(super) struct Shown(Vec<(String, Vec<u8>)>);

impl Shown {
    pub(super) fn add(&mut self, place: impl Into<String>, text: impl Into<Vec<u8>>) {
        self.0.push((place.into(), text.into()));
    }

    /// Runs a command of the service, and keeps what it says and how it ended.
    pub(super) fn run(&mut self, service: &Service, command: &str) -> Option<i32> {
        let output = service.run(&command.split(' ').collect::<Vec<_>>());
        self.add(format!("`{command}`"), [output.stdout, output.stderr].concat());
        output.status.code()
    }

    /// Adds the files of the store: all that lie beside the configuration, which holds the secrets itself.
    pub(super) fn add_files(&mut self, place: &str, directory: &Path) {
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "toml") {
                self.add(format!("{place}, {}", path.display()), std::fs::read(&path).unwrap());
            }
        }
    }

    pub(super) fn n_in(&self, place: &str) -> usize {
        self.0.iter().filter(|(shown, _)| shown == place).count()
    }

    /// Everything that another look has shown, under one name.
    pub(super) fn take_over(&mut self, place: &str, other: Self) {
        self.0.extend(other.0.into_iter().map(|(_, text)| (place.to_owned(), text)));
    }

    /// Whether this text is in any of it, as it is.
    pub(super) fn holds(&self, text: &str) -> bool {
        self.0.iter().any(|(_, shown)| shown.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    /// Fails on the first canary that shows: as it is, percent-encoded, in base64, or as a list of its bytes.
    pub(super) fn hold_none_of(&self, canaries: &[String]) {
        assert!(
            canaries.iter().all(|canary| canary.len() >= 4),
            "a short one is found anywhere: {canaries:?}"
        );
        let n_bytes: usize = self.0.iter().map(|(_, text)| text.len()).sum();
        println!("{} canaries in {n_bytes} bytes from {} places", canaries.len(), self.0.len());
        for (place, text) in &self.0 {
            let text = String::from_utf8_lossy(text);
            for canary in canaries {
                for form in forms(canary) {
                    let Some((before, after)) = text.split_once(form.as_str()) else { continue };
                    let n_skipped = before.chars().count().saturating_sub(AROUND);
                    let before: String = before.chars().skip(n_skipped).collect();
                    let after: String = after.chars().take(AROUND).collect();
                    panic!("{canary} is in {place}: {before}>>>{form}<<<{after}");
                }
            }
        }
    }
}

fn forms(canary: &str) -> [String; 4] {
    let bytes = format!("{:?}", canary.as_bytes());
    [
        canary.to_owned(),
        utf8_percent_encode(canary, NON_ALPHANUMERIC).to_string(),
        STANDARD.encode(canary).trim_end_matches('=').to_owned(),
        bytes.trim_matches(['[', ']']).to_owned(),
    ]
}
