//! The flat form of an invite: one field per column, the same for every engine.

use std::fmt;
use std::sync::Arc;

use crate::invite::{
    Announce, Cause, Failure, FailureClass, Fingerprint, Generation, Invite, InviteCode, IssuedCode, Lane,
    Origin, Sinks, State, StateName, TruckerKey, Verify,
};
use crate::time::Timestamp;

/// `lane` of work for the API. Lanes 1 to 7 are the sinks that an announcement still waits for.
pub(super) const LANE_API: u8 = 8;

/// A code as its column holds it, readable or not. `Debug` masks it.
#[derive(Clone, PartialEq)]
pub(super) struct CodeText(pub String);

impl fmt::Debug for CodeText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeText(…)")
    }
}

/// A row, as far as it changes during a life.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Record {
    pub generation: u32,
    pub state: &'static str,
    /// 0 for nothing to do, 1–7 the pending sinks, 8 the API.
    pub lane: u8,
    pub due: Option<i64>,
    pub attempts: u32,
    /// Failed reads in `unknown` and `published`; refusals in `ready` and `dead`.
    pub tries: u32,
    pub ever_unknown: bool,
    /// The code that is being replaced.
    pub previous: Option<[u8; 16]>,
    pub not_found_since: Option<i64>,
    pub failure_class: Option<&'static str>,
    pub failure_code: Option<String>,
    pub begun_at: i64,
    pub code: Option<CodeText>,
    pub fingerprint: Option<[u8; 16]>,
    pub origin: Option<&'static str>,
    pub ready_at: Option<i64>,
    /// When it was published or died.
    pub ended_at: Option<i64>,
}

impl Record {
    pub(super) fn of(invite: &Invite) -> Self {
        let (lane, due) = match invite.state.schedule() {
            Some((Lane::Api, due)) => (LANE_API, Some(due.as_millis())),
            Some((Lane::Publish(pending), due)) => (pending.bits(), Some(due.as_millis())),
            None => (0, None),
        };
        let mut record = Self {
            generation: invite.generation.get(),
            state: invite.state.name().as_str(),
            lane,
            due,
            attempts: invite.attempts,
            ever_unknown: invite.ever_unknown,
            previous: invite.previous.map(|fingerprint| fingerprint.0),
            not_found_since: invite.not_found_since.map(Timestamp::as_millis),
            failure_class: invite.last_failure.as_ref().map(|failure| failure.class.as_str()),
            failure_code: invite.last_failure.as_ref().map(|failure| failure.code.clone()),
            begun_at: invite.begun_at.as_millis(),
            ..Self::default()
        };
        match &invite.state {
            State::Received { .. } | State::Calling { .. } | State::Waiting { .. } | State::Parked { .. } => {
            }
            State::Unknown { reads, .. } => record.tries = *reads,
            State::Ready { issued, origin, since, announce } => {
                record.code = Some(CodeText(issued.code.reveal().to_owned()));
                record.fingerprint = Some(issued.fingerprint.0);
                record.origin = Some(origin.as_str());
                record.ready_at = Some(since.as_millis());
                record.tries = announce.refusals;
            }
            State::Published { code, fingerprint, origin, since, at, verify } => {
                record.code = code.as_ref().map(|code| CodeText(code.reveal().to_owned()));
                record.fingerprint = Some(fingerprint.0);
                record.origin = Some(origin.as_str());
                record.ready_at = Some(since.as_millis());
                record.ended_at = Some(at.as_millis());
                record.tries = verify.map_or(0, |verify| verify.reads);
            }
            State::Dead { since, announce } => {
                record.ended_at = Some(since.as_millis());
                record.tries = announce.map_or(0, |announce| announce.refusals);
            }
        }
        record
    }
}

/// A row as it was read. No `Debug`: it holds the trucker's fields as text.
pub(super) struct StoredInvite {
    pub key: TruckerKey,
    pub fence: u64,
    pub accepted_at: i64,
    pub state: String,
    pub failure_class: Option<String>,
    pub origin: Option<String>,
    pub trucker: Option<String>,
    pub event_id: String,
    pub event_source: String,
    pub traceparent: Option<String>,
    pub tracestate: Option<String>,
    /// The words above stay empty in here.
    pub record: Record,
}

/// A row that this version did not write or that was damaged.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the row of {key} can't be read: column {column}")]
pub struct Corrupt {
    key: TruckerKey,
    column: &'static str,
}

impl StoredInvite {
    pub(super) fn into_invite(self) -> Result<Invite, Corrupt> {
        let key = self.key;
        let need = |column: &'static str| Corrupt { key: key.clone(), column };
        let record = self.record;
        let time =
            |millis: Option<i64>, column| millis.map(Timestamp::from_millis).ok_or_else(|| need(column));
        let due = |column| time(record.due, column);
        let fingerprint = || record.fingerprint.map(Fingerprint).ok_or_else(|| need("fingerprint"));
        let origin = || self.origin.as_deref().and_then(Origin::from_stored).ok_or_else(|| need("origin"));
        let code = match &record.code {
            Some(CodeText(text)) => Some(InviteCode::new(text).ok_or_else(|| need("code"))?),
            None => None,
        };
        let announce = || -> Result<Announce, Corrupt> {
            Ok(Announce { pending: Sinks::from_bits(record.lane), due: due("due")?, refusals: record.tries })
        };
        let state = match StateName::from_stored(&self.state).ok_or_else(|| need("state"))? {
            StateName::Received => State::Received { due: due("due")? },
            StateName::Calling => State::Calling { lease_until: due("due")? },
            StateName::Waiting => State::Waiting { due: due("due")? },
            StateName::Parked => State::Parked { due: due("due")? },
            StateName::Unknown => State::Unknown { due: due("due")?, reads: record.tries },
            StateName::Ready => State::Ready {
                issued: IssuedCode { code: code.ok_or_else(|| need("code"))?, fingerprint: fingerprint()? },
                origin: origin()?,
                since: time(record.ready_at, "ready_at")?,
                announce: announce()?,
            },
            StateName::Published => State::Published {
                code,
                fingerprint: fingerprint()?,
                origin: origin()?,
                since: time(record.ready_at, "ready_at")?,
                at: time(record.ended_at, "ended_at")?,
                verify: record
                    .due
                    .map(|due| Verify { due: Timestamp::from_millis(due), reads: record.tries }),
            },
            StateName::Dead => State::Dead {
                since: time(record.ended_at, "ended_at")?,
                announce: if record.lane == 0 { None } else { Some(announce()?) },
            },
        };
        let last_failure = match self.failure_class {
            Some(word) => {
                let class = FailureClass::from_stored(&word).ok_or_else(|| need("failure_class"))?;
                Some(Failure { class, code: record.failure_code.unwrap_or_default() })
            }
            None => None,
        };
        let trucker = match self.trucker {
            Some(text) => serde_json::from_str(&text).map_err(|_| need("trucker"))?,
            None => serde_json::Map::new(),
        };
        Ok(Invite {
            generation: Generation::from_stored(record.generation),
            state,
            attempts: record.attempts,
            ever_unknown: record.ever_unknown,
            previous: record.previous.map(Fingerprint),
            not_found_since: record.not_found_since.map(Timestamp::from_millis),
            last_failure,
            accepted_at: Timestamp::from_millis(self.accepted_at),
            begun_at: Timestamp::from_millis(record.begun_at),
            cause: Arc::new(Cause {
                event_id: self.event_id,
                event_source: self.event_source,
                trucker,
                traceparent: self.traceparent,
                tracestate: self.tracestate,
            }),
            fence: self.fence,
            key,
        })
    }
}

/// The included trucker fields as the store keeps them; nothing for none.
pub(super) fn trucker_text(cause: &Cause) -> Option<String> {
    if cause.trucker.is_empty() {
        return None;
    }
    Some(serde_json::to_string(&cause.trucker).expect("a JSON map has text keys and always serialises"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_of_a_row_never_shows_the_code() {
        let record = Record { code: Some(CodeText("K7Q2ZD".to_owned())), ..Record::default() };
        let shown = format!("{record:?} {record:#?}");
        assert!(shown.contains("CodeText(…)") && !shown.contains("K7Q2ZD"), "{shown}");
    }
}
