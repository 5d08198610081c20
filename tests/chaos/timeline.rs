//! What was done when, for people and for the evidence of a failing run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use crate::fault::Fault;

/// Written as it happens, so that it is there whichever way a run ends.
pub(crate) struct Timeline {
    directory: PathBuf,
    started: Instant,
    file: Mutex<File>,
    done: Mutex<BTreeMap<Fault, usize>>,
}

impl Timeline {
    /// In an empty directory for this seed.
    pub(crate) fn begin(seed: u64) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/chaos").join(seed.to_string());
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let file = Mutex::new(File::create(directory.join("timeline.txt")).unwrap());
        Self { directory, started: Instant::now(), file, done: Mutex::default() }
    }

    pub(crate) fn note(&self, text: &str) {
        // The wall clock too, to find the place in the service's log.
        let now = invite_relay::time::now();
        let line = format!("{:>9.3} s  {now}  {text}", self.started.elapsed().as_secs_f64());
        println!("{line}");
        writeln!(self.file.lock().unwrap(), "{line}").unwrap();
    }

    /// Notes that a fault was carried out.
    pub(crate) fn count(&self, fault: Fault) {
        *self.done.lock().unwrap().entry(fault).or_default() += 1;
    }

    /// How often each fault was carried out.
    pub(crate) fn counts(&self) -> BTreeMap<Fault, usize> {
        self.done.lock().unwrap().clone()
    }

    /// A file among the evidence.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Nothing went wrong: the evidence is of no use.
    pub(crate) fn discard(&self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
