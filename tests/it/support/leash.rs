//! Ends a child process with the test process, whichever way that ends.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// Kills when its pipe ends without a word: no destructor runs when a test process is killed.
const SCRIPT: &str = r#"read -r word || kill -KILL "$0""#;

/// Held as long as the child may live: dropping it kills the child.
pub(crate) struct Leash(Child);

impl Leash {
    pub(crate) fn on(child: &Child) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, &child.id().to_string()]).stdin(Stdio::piped());
        // Out of reach of a Ctrl-C at the terminal.
        Self(command.process_group(0).spawn().unwrap())
    }

    /// The child has ended: its process id may soon be another's.
    pub(crate) fn release(self) {
        writeln!(self.0.stdin.as_ref().expect("it was piped"), "released").unwrap();
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
