//! Events to standard output, one JSON line each. Logs go to standard error, so the two never mix.

use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;

use super::NotConfirmed;
use crate::event::Outgoing;
use crate::invite::Setback;
use crate::telemetry::metrics::PublishFailure;

/// Standard output. One line is written at a time.
pub struct StdoutSink {
    out: Mutex<tokio::io::Stdout>,
}

impl Default for StdoutSink {
    fn default() -> Self {
        Self { out: Mutex::new(tokio::io::stdout()) }
    }
}

impl StdoutSink {
    /// Writes one event. `Ok` means that the line was handed to the operating system.
    pub async fn publish(&self, event: &Outgoing) -> Result<(), NotConfirmed> {
        // One write per line: a crash leaves whole lines, and the JSON of an event has no line feed in it.
        let mut line = event.body.clone();
        line.push(b'\n');
        let mut out = self.out.lock().await;
        let written = async {
            out.write_all(&line).await?;
            out.flush().await
        };
        written.await.map_err(|_| NotConfirmed { setback: Setback::Refused, reason: PublishFailure::Other })
    }
}
