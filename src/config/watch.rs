//! Secrets that change while the process runs: files are read again every few seconds.
//!
//! Content is compared, not modification times: a Kubernetes secret mount swaps a symbolic link, after which the
//! old inotify watch is dead and the new file's time may be any.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use super::secret::Secret;
use super::secret_source::{SecretError, SecretListSource, SecretSource};
use crate::lifecycle::Lifecycle;

/// How often files are read again. The kubelet itself needs up to a minute to bring a new secret into a mount.
pub const POLL_INTERVAL: Duration = Duration::from_secs(5);

/// One secret that follows its file.
pub type SecretWatch = Watched<SecretSource>;

/// A list of secrets that follows its file.
pub type SecretListWatch = Watched<SecretListSource>;

/// What can be read again: one secret or a list of them.
pub trait Reread: Send + Sync + 'static {
    /// What reading gives.
    type Value: Clone + PartialEq + Send + Sync + 'static;

    /// The value as it is now.
    fn reread(&self) -> Result<Self::Value, SecretError>;

    /// The file, if there is one to follow.
    fn path(&self) -> Option<&Path>;
}

impl Reread for SecretSource {
    type Value = Secret;

    fn reread(&self) -> Result<Secret, SecretError> {
        self.read()
    }

    fn path(&self) -> Option<&Path> {
        self.file()
    }
}

impl Reread for SecretListSource {
    type Value = Vec<Secret>;

    fn reread(&self) -> Result<Vec<Secret>, SecretError> {
        self.read()
    }

    fn path(&self) -> Option<&Path> {
        self.file()
    }
}

/// The last good value of a source. Clones follow the same file; each has its own [`Watched::changed`].
pub struct Watched<S: Reread> {
    shared: Arc<Shared<S>>,
    seen: watch::Receiver<Version<S::Value>>,
}

impl<S: Reread> Clone for Watched<S> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), seen: self.seen.clone() }
    }
}

impl<S: Reread> fmt::Debug for Watched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, version) = (self.shared.source.path(), self.version());
        f.debug_struct("Watched").field("file", &file).field("version", &version).finish_non_exhaustive()
    }
}

struct Shared<S: Reread> {
    source: S,
    /// Receivers are in the [`Watched`] handles.
    newest: watch::Sender<Version<S::Value>>,
    /// Set while the file gives no value, so that one outage is one warning.
    failing: AtomicBool,
}

#[derive(Clone)]
struct Version<V> {
    number: u64,
    value: V,
}

impl<S: Reread> Watched<S> {
    /// Reads `source` for the first time. The value follows its file only through [`SecretFiles::watch`].
    pub fn new(source: S) -> Result<Self, SecretError> {
        let (newest, seen) = watch::channel(Version { number: 1, value: source.reread()? });
        Ok(Self { shared: Arc::new(Shared { source, newest, failing: AtomicBool::new(false) }), seen })
    }

    /// The last good value.
    pub fn current(&self) -> S::Value {
        self.seen.borrow().value.clone()
    }

    /// Counts the different values seen, from 1. Who remembers the version a refused call was made with knows
    /// whether there is something new to try.
    pub fn version(&self) -> u64 {
        self.seen.borrow().number
    }

    /// Resolves at the next value this handle has not yet waited for; never for an inline secret.
    pub async fn changed(&mut self) {
        let sender_lives = self.seen.changed().await;
        debug_assert!(sender_lives.is_ok(), "the handle itself keeps the sender alive");
    }
}

/// What the poller needs of a [`Watched`], whatever it yields.
trait Poll: Send + Sync {
    fn poll(&self);
}

impl<S: Reread> Poll for Shared<S> {
    fn poll(&self) {
        let Some(path) = self.source.path() else { return };
        match self.source.reread() {
            Ok(value) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!(path = %path.display(), "a secret file is readable again");
                }
                let changed = self.newest.send_if_modified(|newest| {
                    let new = newest.value != value;
                    if new {
                        *newest = Version { number: newest.number + 1, value };
                    }
                    new
                });
                if changed {
                    info!(path = %path.display(), "a secret file has new content, now in use");
                }
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    warn!(path = %path.display(), %error, "a secret file gives no secret, the last good one stays in use");
                }
            }
        }
    }
}

/// All watched files of the process, read again by one task. Cheap to clone.
#[derive(Clone, Default)]
pub struct SecretFiles {
    /// Strong ends are in the [`Watched`] handles; a secret nobody holds is no longer read.
    watched: Arc<Mutex<Vec<Weak<dyn Poll>>>>,
}

impl SecretFiles {
    /// No files yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `source` and follows it from the next poll on.
    pub fn watch<S: Reread>(&self, source: S) -> Result<Watched<S>, SecretError> {
        let watched = Watched::new(source)?;
        if watched.shared.source.path().is_some() {
            let shared: Arc<dyn Poll> = Arc::<Shared<S>>::clone(&watched.shared);
            self.lock().push(Arc::downgrade(&shared));
        }
        Ok(watched)
    }

    /// Reads every watched file once. Blocks on the file system.
    pub fn poll_once(&self) {
        let live: Vec<_> = {
            let mut watched = self.lock();
            watched.retain(|file| file.strong_count() > 0);
            watched.iter().filter_map(Weak::upgrade).collect()
        };
        for file in live {
            file.poll();
        }
    }

    /// Polls every `interval` until the drain.
    pub fn spawn(self, life: &Lifecycle, interval: Duration) {
        let draining = life.clone();
        life.spawn_long("secret files", async move {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    () = draining.draining() => return,
                    _ = ticks.tick() => {}
                }
                let files = self.clone();
                if tokio::task::spawn_blocking(move || files.poll_once()).await.is_err() {
                    // A panic while reading: end, so that the lifecycle notices.
                    return;
                }
            }
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Weak<dyn Poll>>> {
        // The list is whole between any two operations on it, so a panic elsewhere does not spoil it.
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::SecretPath;

    #[test]
    fn a_changed_file_gives_a_new_value_and_the_same_content_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "one\n").unwrap();
        let files = SecretFiles::new();
        let token = files.watch(SecretSource::File(SecretPath::new(&path))).unwrap();
        fs::write(&path, "one").unwrap();
        files.poll_once();
        assert_eq!((token.current().reveal(), token.version()), ("one", 1));
        fs::write(&path, "two\n").unwrap();
        files.poll_once();
        assert_eq!((token.current().reveal(), token.version()), ("two", 2));
    }

    #[test]
    fn the_last_good_secret_outlives_a_file_that_is_emptied_or_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        fs::write(&path, "one\ntwo\n").unwrap();
        let files = SecretFiles::new();
        let tokens = files.watch(SecretListSource::File(SecretPath::new(&path))).unwrap();
        fs::write(&path, "").unwrap();
        files.poll_once();
        fs::remove_file(&path).unwrap();
        files.poll_once();
        assert_eq!((tokens.current().len(), tokens.version()), (2, 1));
        fs::write(&path, "three").unwrap();
        files.poll_once();
        assert_eq!((tokens.current().len(), tokens.version()), (1, 2));
    }

    #[test]
    fn a_file_that_nobody_holds_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "one").unwrap();
        let files = SecretFiles::new();
        drop(files.watch(SecretSource::File(SecretPath::new(path))).unwrap());
        files.poll_once();
        assert!(files.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_poller_wakes_who_waits_for_a_change_and_ends_with_the_drain() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        fs::write(&path, "one").unwrap();
        let (life, files) = (Lifecycle::new(), SecretFiles::new());
        let mut token = files.watch(SecretSource::File(SecretPath::new(&path))).unwrap();
        files.spawn(&life, POLL_INTERVAL);
        fs::write(&path, "two").unwrap();
        token.changed().await;
        assert_eq!(token.current().reveal(), "two");
        life.begin_drain();
        assert_eq!(life.finish(Duration::from_secs(60)).await, Ok(()));
    }
}
