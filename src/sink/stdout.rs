//! Events to standard output, one JSON line each. Logs go to standard error, so the two never mix.
//!
//! Whoever reads the other end may stop reading, and then a write lasts for as long as that. One event waits then; the
//! others are told that the sink is away, and hold up no other sink.

use std::time::Duration;

use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use super::NotConfirmed;
use crate::event::Outgoing;
use crate::invite::Setback;
use crate::telemetry::metrics::PublishFailure;

/// How long an event waits for the one before it. A write to a pipe with a reader takes microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Standard output. One line is written at a time.
pub struct StdoutSink<W = tokio::io::Stdout> {
    out: Mutex<W>,
    /// Whether lines are being taken.
    flows: watch::Sender<bool>,
}

impl Default for StdoutSink {
    fn default() -> Self {
        Self::to(tokio::io::stdout())
    }
}

impl<W: AsyncWrite + Unpin> StdoutSink<W> {
    fn to(out: W) -> Self {
        Self { out: Mutex::new(out), flows: watch::Sender::new(true) }
    }

    /// Whether somebody reads what is written.
    pub fn is_up(&self) -> bool {
        *self.flows.borrow()
    }

    /// Changes when the reading stops or goes on.
    pub fn state(&self) -> watch::Receiver<bool> {
        self.flows.subscribe()
    }

    /// Writes one event. `Ok` means that the line was handed to the operating system.
    pub async fn publish(&self, event: &Outgoing) -> Result<(), NotConfirmed> {
        let away = NotConfirmed { setback: Setback::Away, reason: PublishFailure::Other };
        if !self.is_up() {
            return Err(away);
        }
        let Ok(mut out) = tokio::time::timeout(PATIENCE, self.out.lock()).await else {
            if self.flows.send_replace(false) {
                warn!(sink = "stdout", "nobody reads standard output, events wait until somebody does");
            }
            return Err(away);
        };
        // One write per line: a crash leaves whole lines, and the JSON of an event has no line feed in it.
        let mut line = event.body.clone();
        line.push(b'\n');
        let written = async {
            out.write_all(&line).await?;
            out.flush().await
        };
        let written = written.await;
        drop(out);
        if !self.flows.send_replace(true) {
            info!(sink = "stdout", "standard output is read again");
        }
        written.map_err(|_| NotConfirmed { setback: Setback::Refused, reason: PublishFailure::Other })
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    use super::*;
    use crate::event::{InviteReady, TraceContext};
    use crate::invite::{Announcement, Generation, InviteCode, Origin, TruckerKey, event_id};
    use crate::time::Timestamp;

    fn event() -> Outgoing {
        let key: TruckerKey = "default/1".parse().unwrap();
        InviteReady {
            id: event_id(&key, Generation::FIRST, Announcement::Ready),
            source: "/test",
            account: &key.account,
            pk: key.pk,
            trucker: &serde_json::Map::new(),
            code: &InviteCode::new("K7Q2ZD").unwrap(),
            generation: Generation::FIRST,
            origin: Origin::Generated,
            time: Timestamp::EPOCH,
            causation_id: None,
            trace: &TraceContext::default(),
        }
        .to_outgoing()
    }

    #[tokio::test]
    async fn every_event_is_one_line_of_json() {
        let (theirs, ours) = tokio::io::duplex(1 << 16);
        let sink = StdoutSink::to(ours);
        let event = event();
        sink.publish(&event).await.unwrap();
        sink.publish(&event).await.unwrap();
        let mut lines = BufReader::new(theirs).lines();
        for _ in 0..2 {
            let line = lines.next_line().await.unwrap().unwrap();
            assert_eq!(line.as_bytes(), event.body);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn while_nobody_reads_one_event_waits_and_the_others_are_told_that_the_sink_is_away() {
        let (theirs, ours) = tokio::io::duplex(16);
        let sink = StdoutSink::to(ours);
        let (first, second) = (event(), event());
        let writing = sink.publish(&first);
        tokio::pin!(writing);
        let others = async {
            assert_eq!(sink.publish(&second).await.unwrap_err().setback, Setback::Away);
            assert!(!sink.is_up());
            assert_eq!(sink.publish(&second).await.unwrap_err().setback, Setback::Away, "at once");
        };
        tokio::select! {
            biased;
            _ = &mut writing => panic!("nobody reads"),
            () = others => {}
        }
        let mut state = sink.state();
        let mut lines = BufReader::new(theirs).lines();
        let (written, read) = tokio::join!(writing, lines.next_line());
        written.unwrap();
        assert_eq!(read.unwrap().unwrap().as_bytes(), first.body);
        state.changed().await.unwrap();
        assert!(sink.is_up());
    }
}
