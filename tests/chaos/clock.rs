//! The service's wall clock, set from outside with `faketime`. Its monotonic clock is left alone, as when an
//! operator or NTP sets the time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};

/// How far the clock may get from the true time: signatures of webhooks are valid for five minutes.
const FURTHEST_S: i64 = 120;

/// A clock that can be set.
pub(crate) struct Clock {
    library: PathBuf,
    file: PathBuf,
    offset_s: AtomicI64,
}

impl Clock {
    /// `None` where `faketime` is not installed.
    pub(crate) fn find(directory: &Path) -> Option<Self> {
        let libraries = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
        let library =
            libraries.map(|path| path.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())?;
        let clock = Self { library, file: directory.join("clock"), offset_s: AtomicI64::new(0) };
        clock.write(0);
        Some(clock)
    }

    pub(crate) fn equip(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }

    /// Sets the clock by so many seconds, or back towards the true time if that would lead too far from it.
    /// Returns by how much.
    pub(crate) fn step(&self, by_s: i64) -> i64 {
        let offset = self.offset_s.load(Ordering::Relaxed);
        let by_s = if (offset + by_s).abs() > FURTHEST_S { -by_s } else { by_s };
        self.write(offset + by_s);
        by_s
    }

    pub(crate) fn offset_s(&self) -> i64 {
        self.offset_s.load(Ordering::Relaxed)
    }

    fn write(&self, offset_s: i64) {
        self.offset_s.store(offset_s, Ordering::Relaxed);
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, format!("{offset_s:+}s\n")).unwrap();
        std::fs::rename(&beside, &self.file).unwrap();
    }
}
