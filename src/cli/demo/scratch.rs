//! A directory for one run, gone afterwards.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// A directory that only this user may enter, removed when dropped: the store in it holds codes.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes it among the system's temporary files.
    pub(super) fn make(suffix: &str) -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("invite-relay-demo-{suffix}"));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is in the place for what is thrown away.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
