//! Named crash points: every durable write, send, ack and publish passes one.
//!
//! They are compiled into every build and inert, until a test names one in [`VARIABLE`]; then the process kills
//! itself with SIGKILL there, exactly as a kernel or a node failure would, and the test looks at what a restart
//! makes of it. [`Point::ALL`] is the list that tests enumerate, so a new point can't be forgotten.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Environment variable that arms a point: `name`, or `name:n` for its n-th passing. With `!words` behind it the thread
/// panics there with these words, as a mistake in the program would, instead of being killed.
pub const VARIABLE: &str = "INVITE_RELAY_CRASH_POINT";

macro_rules! points {
    ($($(#[doc = $doc:literal])+ $point:ident => $name:literal),+ $(,)?) => {
        /// A place where a crash is interesting.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Point { $($(#[doc = $doc])+ $point),+ }

        impl Point {
            /// Every point, about in the order of a process's and an invite's life.
            pub const ALL: &[Self] = &[$(Self::$point),+];

            /// The name that arms it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$point => $name),+ }
            }
        }
    };
}

points! {
    /// The schema is about to be brought up to date, or the key of the fingerprints to be kept.
    PrepareCommit => "prepare.commit",
    /// Events are about to be committed.
    AcceptCommit => "accept.commit",
    /// Events are committed, nobody knows yet.
    Accepted => "accept.committed",
    /// The delivery is about to be acked.
    SourceAck => "source.ack",
    /// The ack is handed to the connection; it may or may not have left.
    SourceAcked => "source.acked",
    /// Poison is about to be published to the dead-letter queue.
    BurySend => "bury.send",
    /// Poison is confirmed in the dead-letter queue, and not acknowledged yet.
    BuryConfirmed => "bury.confirmed",
    /// The webhook is about to answer 202.
    WebhookAnswer => "webhook.answer",
    /// Due invites are about to be committed as taken.
    TakeCommit => "take.commit",
    /// Due invites are taken.
    Taken => "take.committed",
    /// The POST is about to leave.
    CallSend => "call.send",
    /// The POST is answered.
    CallAnswered => "call.answered",
    /// The GET is about to leave.
    ReadSend => "read.send",
    /// The GET is answered.
    ReadAnswered => "read.answered",
    /// The outcome of an effect is about to be committed.
    AdvanceCommit => "advance.commit",
    /// The outcome of an effect is committed.
    Advanced => "advance.committed",
    /// An announcement is about to leave.
    PublishSend => "publish.send",
    /// An announcement is confirmed.
    PublishConfirmed => "publish.confirmed",
    /// An account's gate is about to be committed.
    GateCommit => "gate.commit",
    /// A person's order is about to be committed.
    OrderCommit => "order.commit",
    /// A person's order is committed.
    OrderCommitted => "order.committed",
    /// Codes and old rows are about to be erased.
    TidyCommit => "tidy.commit",
    /// What this replica has in hand is about to be given back to the others.
    GiveBackCommit => "give_back.commit",
}

struct Armed {
    point: Point,
    passes_left: AtomicU32,
    /// What a panic says; `None` is killed.
    words: Option<String>,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Arms the point that `setting` names. Called once, by `main`.
pub fn arm(setting: &str) -> Result<(), UnknownPoint> {
    let (place, words) =
        setting.split_once('!').map_or((setting, None), |(place, words)| (place, Some(words)));
    let (name, nth) = place.split_once(':').unwrap_or((place, "1"));
    let point = Point::ALL.iter().copied().find(|point| point.name() == name);
    let (Some(point), Ok(nth)) = (point, nth.parse::<u32>()) else {
        return Err(UnknownPoint(place.to_owned()));
    };
    let (passes_left, words) = (AtomicU32::new(nth.max(1)), words.map(str::to_owned));
    let _ = ARMED.set(Armed { point, passes_left, words });
    Ok(())
}

/// Passes `point`; the process ends here if it is armed.
pub fn pass(point: Point) {
    let Some(armed) = ARMED.get() else { return };
    if armed.point == point && armed.passes_left.fetch_sub(1, Ordering::SeqCst) == 1 {
        if let Some(words) = &armed.words {
            panic!("{words}");
        }
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // SIGKILL is delivered before the call returns to this thread or not at all.
        std::process::abort();
    }
}

/// The variable names no point.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}={0} names no crash point; they are: {names}", names = Point::ALL.iter().map(|p| p.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownPoint(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crash_point_has_a_name_of_its_own() {
        let mut names: Vec<_> = Point::ALL.iter().map(|point| point.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Point::ALL.len());
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_list() {
        let error = arm("nowhere").unwrap_err().to_string();
        assert!(error.contains("nowhere") && error.contains("accept.commit"), "{error}");
    }
}
