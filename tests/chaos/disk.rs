//! A small disk for the store, which can be filled to the last byte. Needs the right to mount.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A file system in memory; unmounted when this value or the test process is gone.
pub(crate) struct Disk {
    directory: PathBuf,
    /// Unmounts when its pipe ends, whichever way.
    watchdog: Child,
}

impl Disk {
    /// Room for some hundred thousand invites. `None` where mounting is not allowed.
    pub(crate) fn mount(directory: &Path) -> Option<Self> {
        std::fs::create_dir_all(directory).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256m,mode=0700", "tmpfs"]).arg(directory);
        let mounted = mount.stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
        if !mounted.success() {
            return None;
        }
        let mut watchdog = Command::new("sh");
        watchdog.args(["-c", r#"read -r _; umount -l "$0""#]).arg(directory).stdin(Stdio::piped());
        // Out of reach of a Ctrl-C at the terminal.
        let watchdog = watchdog.process_group(0).spawn().unwrap();
        Some(Self { directory: directory.to_owned(), watchdog })
    }

    /// Leaves not a byte.
    pub(crate) fn fill(&self) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.filler()).unwrap();
        for size in [1 << 20, 4096] {
            let piece = vec![0; size];
            while file.write_all(&piece).is_ok() {}
        }
    }

    pub(crate) fn free(&self) {
        let _ = std::fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.directory.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ = self.watchdog.wait();
    }
}
