//! How a stored invite is shown, to people and to machines. The code is not part of it, in no form.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::order::{OrderKind, cause_of};
use super::{DeadCause, OrderRecord, Story};
use crate::invite::{Invite, State};
use crate::time::Timestamp;

/// An invite as the command line and the admin API show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct InviteView {
    /// The invite's id, `account/pk`.
    #[schema(example = "default/23498")]
    pub invite: String,
    /// Where it stands.
    #[schema(example = "published")]
    pub state: &'static str,
    /// Which code of the trucker this is.
    pub generation: u32,
    /// Tries that counted towards `retry.max_attempts`.
    pub attempts: u32,
    /// Class and code of the last failure in one word: what `--cause` takes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "rejected/http_400.phone_number.invalid")]
    pub cause: Option<String>,
    /// What went wrong last, also if it was overcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureView>,
    /// Whether any call ever had an unknown outcome.
    pub ever_unknown: bool,
    /// When the event was accepted (RFC 3339).
    pub accepted_at: String,
    /// When the code became durable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<String>,
    /// When it was published or died.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// When it goes on by itself; absent if it is finished or needs a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<String>,
    /// Whether the store still holds the code.
    pub code_kept: bool,
    /// The events that asked for it; only where one invite is shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<EventView>,
}

/// A failure as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct FailureView {
    /// What it means for the invite.
    #[schema(example = "rejected")]
    pub class: &'static str,
    /// Which one it was.
    #[schema(example = "http_400.phone_number.invalid")]
    pub code: String,
}

/// What invites died of, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CauseView {
    /// Whose they are.
    #[schema(example = "default")]
    pub account: String,
    /// Class and code of the failure; equal for all that died of the same.
    #[schema(example = "rejected/http_400.phone_number.invalid")]
    pub cause: String,
    /// How many.
    pub count: u64,
    /// When the first of them died (RFC 3339).
    pub first: String,
    /// When the last of them died (RFC 3339).
    pub last: String,
}

impl From<&DeadCause> for CauseView {
    fn from(cause: &DeadCause) -> Self {
        Self {
            account: cause.account.to_string(),
            cause: cause_of(&cause.failure),
            count: cause.count,
            first: cause.first.to_string(),
            last: cause.last.to_string(),
        }
    }
}

/// An order that a person gave, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct OrderView {
    /// Its id.
    pub id: String,
    /// When it was given (RFC 3339).
    pub at: String,
    /// Who gave it.
    pub by: String,
    /// What was asked.
    pub kind: OrderKind,
    /// Of which invites.
    #[schema(example = "account=default cause=rejected")]
    pub target: String,
    /// Invites that it moved.
    pub count: u64,
}

impl From<&OrderRecord> for OrderView {
    fn from(order: &OrderRecord) -> Self {
        Self {
            id: order.id.to_string(),
            at: order.at.to_string(),
            by: order.by.as_str().to_owned(),
            kind: order.kind,
            target: order.target.clone(),
            count: order.count,
        }
    }
}

/// An accepted event as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct EventView {
    /// Its id.
    pub id: String,
    /// Its source.
    pub source: String,
    /// When it was accepted (RFC 3339).
    pub accepted_at: String,
}

impl From<&Invite> for InviteView {
    fn from(invite: &Invite) -> Self {
        let text = |at: Timestamp| at.to_string();
        let (ready_at, ended_at, code_kept) = match &invite.state {
            State::Ready { since, .. } => (Some(*since), None, true),
            State::Published { since, at, code, .. } => (Some(*since), Some(*at), code.is_some()),
            State::Dead { since, .. } => (None, Some(*since), false),
            State::Received { .. }
            | State::Calling { .. }
            | State::Waiting { .. }
            | State::Parked { .. }
            | State::Unknown { .. } => (None, None, false),
        };
        let failure = invite.last_failure.as_ref();
        Self {
            invite: invite.key.to_string(),
            state: invite.state.name().as_str(),
            generation: invite.generation.get(),
            attempts: invite.attempts,
            cause: failure.map(cause_of),
            failure: failure.map(|it| FailureView { class: it.class.as_str(), code: it.code.clone() }),
            ever_unknown: invite.ever_unknown,
            accepted_at: text(invite.accepted_at),
            ready_at: ready_at.map(text),
            ended_at: ended_at.map(text),
            next_at: invite.state.schedule().map(|(_, due)| text(due)),
            code_kept,
            events: Vec::new(),
        }
    }
}

impl From<&Story> for InviteView {
    fn from(story: &Story) -> Self {
        let events = story.events.iter().map(|event| EventView {
            id: event.id.clone(),
            source: event.source.clone(),
            accepted_at: event.accepted_at.to_string(),
        });
        Self { events: events.collect(), ..Self::from(&story.invite) }
    }
}
