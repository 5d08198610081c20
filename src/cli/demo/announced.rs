//! An announcement as a consumer on the platform's side reads it. Shares no code with the writing side.

use serde::Deserialize;

use crate::invite::{InviteCode, TruckerKey};

/// What the service announced about one trucker.
#[derive(Debug)]
pub(super) struct Announced {
    /// The trucker.
    pub(super) key: TruckerKey,
    /// Which of the trucker's codes.
    pub(super) generation: u32,
    /// What became of it.
    pub(super) outcome: Outcome,
}

/// `invite.ready` or `invite.failed`.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The code, and how the service came by it.
    Ready { code: InviteCode, origin: String },
    /// Class and code of the failure, and how many attempts were spent.
    Failed { class: String, code: String, attempts: u32 },
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    type_: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    account: String,
    trucker: Trucker,
    generation: u32,
    invite_code: Option<String>,
    origin: Option<String>,
    failure: Option<Failure>,
    attempts: Option<u32>,
}

#[derive(Deserialize)]
struct Trucker {
    pk: u64,
}

#[derive(Deserialize)]
struct Failure {
    class: String,
    code: String,
}

impl Announced {
    /// Reads the body of an announcement; `None` if it is none.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let Event { type_, data } = serde_json::from_slice(body).ok()?;
        let outcome = match type_.as_str() {
            "invite.ready" => {
                Outcome::Ready { code: InviteCode::new(&data.invite_code?)?, origin: data.origin? }
            }
            "invite.failed" => {
                let Failure { class, code } = data.failure?;
                Outcome::Failed { class, code, attempts: data.attempts? }
            }
            _ => return None,
        };
        let key = TruckerKey { account: data.account.parse().ok()?, pk: data.trucker.pk.try_into().ok()? };
        Some(Self { key, generation: data.generation, outcome })
    }
}
