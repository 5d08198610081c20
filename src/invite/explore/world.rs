//! The world around one trucker: what the store, two workers, the API and the sinks know.

use std::collections::HashMap;

use crate::invite::testing::{NOW, code, failed, failed_in, invite, moment, received};
use crate::invite::{Answer, Effect, FailureClass, Input, Invite, Rules, Setback, Sink, State, Step, step};

/// Generations that a bounded world can reach, and one to spare.
pub(super) const GENERATIONS: usize = 6;

/// A moment of the world. Small and comparable, so that a moment that was seen is not walked through again.
///
/// There is no clock in it: whatever is due may be taken up now or later, and a lease may end whenever the budget
/// allows. That covers every clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// Events for the trucker that were accepted: one makes the row, the other joins it.
    pub(super) accepted: u8,
    /// The committed row.
    pub(super) row: Option<InviteId>,
    /// In no particular order: they are alike.
    pub(super) workers: [Worker; 2],
    pub(super) api: Api,
    pub(super) told: [Told; Sink::ALL.len()],
    /// The codes that were ever committed, one bit each.
    pub(super) durable: u16,
    /// A call was committed, and no answer has settled yet whether it had its effect.
    pub(super) call_open: bool,
    /// The second read-back failed too often and is not tried again.
    pub(super) given_up: bool,
    /// A person has put it back to work: a worker that stalled may still tell of the failure before.
    pub(super) redriven: bool,
    /// What may still go wrong.
    pub(super) left: Budget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Worker {
    Idle,
    /// It has `invite` in hand as it was committed.
    Busy {
        invite: InviteId,
        /// Whether the row still has the fence that this worker saw.
        current: bool,
        stage: Stage,
        /// Sinks that this round of announcing still has to try, and how the others went.
        round: Round,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Committed, not carried out.
    Call,
    Read,
    Announce,
    /// Carried out, not recorded.
    Heard(Heard),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Round {
    pub(super) todo: u8,
    /// Whether a sink that failed refused it; nothing if none failed.
    pub(super) refused: Option<bool>,
}

/// An input of `step`, as far as the model tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Heard {
    Take,
    Called(Reply),
    Read(Reply),
    Unsent,
    Confirmed(Sink),
    Unconfirmed { refused: bool },
    Redrive,
    Reissue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Reply {
    Code(u8),
    NoCode,
    Failed(FailureClass),
    /// The same while the circuit is open.
    Outage(FailureClass),
}

/// The trucker at the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Api {
    pub(super) valid: Option<u8>,
    /// Codes made so far; the next one is a new one.
    pub(super) made: u8,
    /// Calls that it will carry out later. (Never is the same as failing at once.)
    pub(super) late: u8,
    /// The trucker has used a code.
    pub(super) used: bool,
}

/// What one sink has been told: the code of each generation, and of a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Told {
    pub(super) ready: [Option<u8>; GENERATIONS],
    pub(super) failed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    /// Answers of the API other than the plain truth, and requests that don't leave.
    pub(super) api_faults: u8,
    /// Of these, calls that have their effect after their answer.
    pub(super) late: u8,
    /// Announcements that are refused, not possible, or delivered without a confirmation.
    pub(super) sink_faults: u8,
    /// Workers that die with work in hand.
    pub(super) crashes: u8,
    /// Leases that end although their worker lives.
    pub(super) expiries: u8,
    /// What a person asks for: a dead invite back to work, or a new code.
    pub(super) orders: u8,
}

impl World {
    pub(super) fn new(valid: Option<u8>, left: Budget) -> Self {
        Self {
            accepted: 0,
            row: None,
            workers: [Worker::Idle; 2],
            api: Api { valid, made: u8::from(valid.is_some()), late: 0, used: false },
            told: [Told::default(); Sink::ALL.len()],
            durable: 0,
            call_open: false,
            given_up: false,
            redriven: false,
            left,
        }
    }

    /// The newest code that any sink was told.
    pub(super) fn last_told(&self) -> Option<u8> {
        (0..GENERATIONS).rev().find_map(|generation| self.told.iter().find_map(|told| told.ready[generation]))
    }

    /// Whether somebody alive has the row in hand with authority.
    pub(super) fn held(&self) -> bool {
        self.workers.iter().any(|worker| matches!(worker, Worker::Busy { current: true, .. }))
    }

    /// Whether a call is still to have its effect, by a worker or by the API.
    pub(super) fn call_on_its_way(&self) -> bool {
        let sending = |worker: &Worker| matches!(worker, Worker::Busy { stage: Stage::Call, .. });
        self.api.late > 0 || self.workers.iter().any(sending)
    }

    /// Every write moves the fence: whoever saw the row before has no authority any more. Of such a worker only
    /// what it may still send counts; its answers and its reads would be refused by the store.
    pub(super) fn commit(&mut self, row: InviteId) {
        for worker in &mut self.workers {
            if let Worker::Busy { current, stage, .. } = worker {
                *current = false;
                if matches!(stage, Stage::Read | Stage::Heard(_)) {
                    *worker = Worker::Idle;
                }
            }
        }
        self.row = Some(row);
    }

    pub(super) fn make_code(&mut self) -> u8 {
        self.api.made += 1;
        self.api.valid = Some(self.api.made);
        self.api.made
    }
}

/// Stands for an invite in [`Invites`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct InviteId(u16);

/// Every distinct invite that came up, and what the real [`step`] made of it.
pub(super) struct Invites {
    rules: Rules,
    known: Vec<Invite>,
    ids: HashMap<String, InviteId>,
    steps: HashMap<(InviteId, Heard), (InviteId, Option<Effect>)>,
}

impl Invites {
    pub(super) fn new(rules: Rules) -> Self {
        Self { rules, known: Vec::new(), ids: HashMap::new(), steps: HashMap::new() }
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) fn count(&self) -> usize {
        self.known.len()
    }

    pub(super) fn received(&mut self) -> InviteId {
        self.id_of(invite(received()))
    }

    pub(super) fn get(&self, id: InviteId) -> &Invite {
        &self.known[usize::from(id.0)]
    }

    pub(super) fn step(&mut self, id: InviteId, heard: Heard) -> (InviteId, Option<Effect>) {
        if let Some(done) = self.steps.get(&(id, heard)) {
            return *done;
        }
        let Step { next, effect } = step(self.get(id).clone(), heard.into_input(), &self.rules, moment());
        let done = (self.id_of(next), effect);
        self.steps.insert((id, heard), done);
        done
    }

    /// The text form leaves nothing out that decides: a code is masked in it, but its fingerprint is not.
    fn id_of(&mut self, invite: Invite) -> InviteId {
        let next = InviteId(u16::try_from(self.known.len()).unwrap());
        let id = *self.ids.entry(format!("{invite:?}")).or_insert(next);
        if id == next {
            self.known.push(invite);
        }
        id
    }
}

impl Heard {
    fn into_input(self) -> Input {
        match self {
            Self::Take => Input::Take,
            Self::Called(reply) => Input::Called(reply.into_answer()),
            Self::Read(reply) => Input::Read(reply.into_answer()),
            Self::Unsent => Input::Unsent,
            Self::Confirmed(sink) => Input::Confirmed(sink),
            Self::Unconfirmed { refused: true } => Input::Unconfirmed(Setback::Refused),
            Self::Unconfirmed { refused: false } => Input::Unconfirmed(Setback::Away),
            Self::Redrive => Input::Redrive { due: NOW },
            Self::Reissue => Input::Reissue,
        }
    }
}

impl Reply {
    fn into_answer(self) -> Answer {
        match self {
            Self::Code(n) => Answer::Code(code(n)),
            Self::NoCode => Answer::NoCode,
            Self::Failed(class) => failed(class),
            Self::Outage(class) => failed_in(class, true),
        }
    }
}

/// The number of the code that an invite holds or has published.
pub(super) fn code_in(invite: &Invite) -> Option<u8> {
    match &invite.state {
        State::Ready { issued, .. } => Some(issued.fingerprint.0[0]),
        State::Published { fingerprint, .. } => Some(fingerprint.0[0]),
        State::Received { .. }
        | State::Calling { .. }
        | State::Waiting { .. }
        | State::Parked { .. }
        | State::Unknown { .. }
        | State::Dead { .. } => None,
    }
}
