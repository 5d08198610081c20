//! What the parts of the demo report, in the order it happens.

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::announced::Announced;

/// One thing that happened.
pub(super) enum News {
    /// An event is about to be sent.
    Sending { pk: u64, at: Instant },
    /// It was refused.
    NotSent { pk: u64, why: String },
    /// An announcement has arrived, its signature verified where it has one.
    Announced { announced: Announced, at: Instant },
    /// Something has arrived that is no announcement of this relay.
    Refused { why: String },
}

/// Where news goes. Unbounded: whoever listens prints lines, which is quicker than any API.
pub(super) type Sender = mpsc::UnboundedSender<News>;

/// Reports an announcement that has just arrived; false if it is none.
pub(super) fn announce(news: &Sender, body: &[u8]) -> bool {
    let at = Instant::now();
    let report = match Announced::read(body) {
        Some(announced) => News::Announced { announced, at },
        None => News::Refused { why: "it is neither invite.ready nor invite.failed".to_owned() },
    };
    let readable = matches!(report, News::Announced { .. });
    // Nobody listens any more once the demo is over.
    let _ = news.send(report);
    readable
}
