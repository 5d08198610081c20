//! How the process lives and ends: every task is spawned here, and the end of any long task is noticed.
//!
//! A first signal *drains* (take nothing new, finish what is in hand); a second signal or the grace period
//! *aborts*. A long task that ends or panics before the drain starts one itself and makes the process fail,
//! because a relay with a dead part looks healthy and works no more.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// Cheap to clone; all clones speak of the same process.
#[derive(Clone, Default)]
pub struct Lifecycle {
    drain: CancellationToken,
    abort: CancellationToken,
    tasks: TaskTracker,
    /// The first long task that died, set by its [`DeathNotice`] and read by [`Lifecycle::finish`].
    died: Arc<OnceLock<&'static str>>,
}

/// How a drain ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// A long task ended or panicked on its own.
    #[error("the task \"{0}\" died")]
    TaskDied(&'static str),
    /// Work in hand was cut off by the grace period or a second signal. What was cut is in the store.
    #[error(
        "shutdown was cut short with {0} tasks still at work; they resume from the store at the next start"
    )]
    CutShort(usize),
}

impl Lifecycle {
    /// A process that runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a long task. It may end only once the drain has begun; ending earlier fails the process.
    pub fn spawn_long<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let notice = self.death_notice(name);
        self.tasks.spawn(async move {
            let _notice = notice;
            task.await;
        });
    }

    /// A guard for a long-lived *thread*: unless it is disarmed, dropping it before the drain fails the process.
    pub fn death_notice(&self, name: &'static str) -> DeathNotice {
        DeathNotice { name, life: self.clone(), armed: true }
    }

    /// Spawns a piece of work that ends by itself; shutdown waits for it.
    pub fn spawn_work<F>(&self, task: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Begins the drain; harmless when it has begun already.
    pub fn begin_drain(&self) {
        self.drain.cancel();
    }

    /// Resolves when the drain begins.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.drain.is_cancelled()
    }

    /// Resolves when work in hand is to be dropped.
    pub async fn aborted(&self) {
        self.abort.cancelled().await;
    }

    /// Waits for the drain, then for all tasks, at most `grace`; then aborts what is left.
    pub async fn finish(&self, grace: Duration) -> Result<(), Failed> {
        self.draining().await;
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = tokio::time::sleep(grace) => warn!(grace_s = grace.as_secs(), "shutdown grace is over, aborting"),
            () = self.aborted() => {}
        }
        let left = self.tasks.len();
        self.abort.cancel();
        match self.died.get() {
            Some(name) => Err(Failed::TaskDied(name)),
            None if left > 0 => Err(Failed::CutShort(left)),
            None => Ok(()),
        }
    }

    /// Turns SIGTERM and SIGINT into drain, and a second one into abort.
    pub fn watch_signals(&self) -> std::io::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let life = self.clone();
        // Not tracked: it waits for a second signal for as long as the process lives.
        #[expect(clippy::disallowed_methods, reason = "outlives the drain on purpose")]
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if life.is_draining() {
                    life.abort.cancel();
                    warn!(signal = name, "second signal, aborting");
                } else {
                    info!(signal = name, "draining: nothing new is taken, work in hand is finished");
                    life.begin_drain();
                }
            }
        });
        Ok(())
    }
}

/// Held by a long task or thread; dropped when it returns or panics.
pub struct DeathNotice {
    name: &'static str,
    life: Lifecycle,
    armed: bool,
}

impl DeathNotice {
    /// Ends it without a notice: its owner wanted it to end.
    pub fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for DeathNotice {
    fn drop(&mut self) {
        if self.armed && !self.life.is_draining() {
            error!(task = self.name, "a task died, stopping the process");
            let _ = self.life.died.set(self.name);
            self.life.begin_drain();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_task_that_dies_stops_the_process_with_a_failure() {
        let life = Lifecycle::new();
        life.spawn_long("consumer", async {});
        assert_eq!(life.finish(Duration::from_secs(5)).await, Err(Failed::TaskDied("consumer")));
    }

    #[tokio::test]
    async fn a_drain_waits_for_work_in_hand() {
        let life = Lifecycle::new();
        let (done, wait) = tokio::sync::oneshot::channel();
        let work = life.spawn_work(async move { wait.await.is_ok() });
        life.begin_drain();
        let ending = life.clone();
        let finish = life.spawn_work(async move { ending.draining().await });
        finish.await.unwrap();
        done.send(()).unwrap();
        assert_eq!(life.finish(Duration::from_secs(5)).await, Ok(()));
        assert!(work.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn work_that_outlasts_the_grace_is_cut_and_counted() {
        let life = Lifecycle::new();
        life.spawn_work(std::future::pending::<()>());
        life.begin_drain();
        assert_eq!(life.finish(Duration::from_secs(5)).await, Err(Failed::CutShort(1)));
    }
}
