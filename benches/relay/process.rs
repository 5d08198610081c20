//! A subject's process, and what the kernel knows of it.

use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::support::leash::Leash;

/// Ticks of `/proc/PID/stat`: 100 a second on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that ends with its handle.
pub(crate) struct Process {
    child: Child,
    leash: Option<Leash>,
}

/// Memory in MiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) now: f64,
    pub(crate) peak: f64,
}

impl Process {
    /// Starts it with its log in a file. What the shell is set up for must not change what is measured.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("INVITE_RELAY_")) {
                command.env_remove(&name);
            }
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().unwrap();
        let leash = Some(Leash::on(&child));
        Self { child, leash }
    }

    pub(crate) fn stdin(&mut self) -> &mut ChildStdin {
        self.child.stdin.as_mut().expect("it is piped")
    }

    /// CPU time of all its threads so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = self.proc("stat");
        // The name in parentheses may hold anything; fields are counted after it.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks = |index: usize| fields[index].parse::<f64>().unwrap();
        (ticks(11) + ticks(12)) / TICKS_PER_SECOND
    }

    pub(crate) fn memory(&self) -> Memory {
        let status = self.proc("status");
        let kib = |name: &str| -> f64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Memory { now: kib("VmRSS:") / 1024.0, peak: kib("VmHWM:") / 1024.0 }
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.leash.take());
        let _ = self.child.wait();
    }
}
