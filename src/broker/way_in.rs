//! Whether deliveries may be taken, as the rest of the service says it.

use tokio::sync::watch;

/// A signal that a [`super::Consumer`] follows. Closed, it holds what it has and takes nothing new.
#[derive(Clone, Debug)]
pub struct WayIn(watch::Receiver<Result<(), String>>);

impl WayIn {
    /// Open while the newest value is `Ok`; otherwise it says why not. Without its sender it stays as it was last.
    pub fn following(open: watch::Receiver<Result<(), String>>) -> Self {
        Self(open)
    }

    /// Open for ever.
    pub fn always_open() -> Self {
        Self(watch::channel(Ok(())).1)
    }

    /// The reason, if it is closed.
    pub(super) fn closed_because(&self) -> Option<String> {
        self.0.borrow().as_ref().err().cloned()
    }

    /// Waits for a change. Cancel safe; a change between two calls ends the second at once.
    pub(super) async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
