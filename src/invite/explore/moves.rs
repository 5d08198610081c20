//! Everything that may happen next in a [`World`].

use super::promises::{self, Broken};
use super::world::{Heard, Invites, Reply, Round, Stage, Worker, World, code_in};
use crate::invite::{Effect, FailureClass, Sink, Sinks, State};

use FailureClass::{Doubtful, NotFound, Rejected, Throttled, Transient, Unknown};

/// Events for the trucker.
pub(super) const EVENTS: u8 = 2;

/// What happened, for the story that leads to a broken promise.
pub(super) type Label = &'static str;

/// The worlds after `world`; or the promise that one of the ways breaks.
pub(super) struct Moves<'a> {
    pub(super) world: World,
    pub(super) invites: &'a mut Invites,
    pub(super) after: Vec<(Label, World)>,
}

impl Moves<'_> {
    /// Works out what may happen; [`Moves::after`] holds it then.
    pub(super) fn run(&mut self) -> Result<(), (Label, Broken)> {
        self.intake();
        self.order()?;
        for at in 0..self.world.workers.len() {
            match self.world.workers[at] {
                Worker::Idle => self.take(at)?,
                Worker::Busy { stage, .. } => {
                    self.crash(at, stage);
                    match stage {
                        Stage::Call => self.call(at),
                        Stage::Read => self.read(at),
                        Stage::Announce => self.announce(at)?,
                        Stage::Heard(heard) => {
                            self.advance("an outcome is recorded", self.world, at, heard)?;
                        }
                    }
                }
            }
        }
        self.late_effects();
        Ok(())
    }

    fn then(&mut self, label: Label, world: World) {
        self.after.push((label, world));
    }

    /// The first event becomes a row, a second one joins it at any time.
    fn intake(&mut self) {
        let mut next = self.world;
        if next.accepted == EVENTS {
            return;
        }
        next.accepted += 1;
        if next.row.is_some() {
            self.then("another event joins", next);
        } else {
            let row = self.invites.received();
            next.commit(row);
            self.then("an event is accepted", next);
        }
    }

    /// A person puts a dead invite back to work, or asks for a new code. Nobody needs this to happen.
    fn order(&mut self) -> Result<(), (Label, Broken)> {
        let mut next = self.world;
        let (Some(row), Some(left)) = (next.row, next.left.orders.checked_sub(1)) else { return Ok(()) };
        let (label, heard) = match self.invites.get(row).state {
            State::Dead { .. } => ("a person puts it back to work", Heard::Redrive),
            State::Published { .. } => ("a person asks for a new code", Heard::Reissue),
            _ => return Ok(()),
        };
        next.left.orders = left;
        if heard == Heard::Redrive {
            // They know of the failure; one that follows has to be told again.
            next.told.iter_mut().for_each(|told| told.failed = false);
            next.redriven = true;
        }
        let (after, effect) = self.invites.step(row, heard);
        let states = (self.invites.get(row), self.invites.get(after));
        promises::committed(&mut next, self.invites.rules(), heard, states, effect)
            .map_err(|broken| (label, broken))?;
        next.commit(after);
        self.then(label, next);
        Ok(())
    }

    /// Work that nobody holds is taken up when it is due; held work only when its lease has ended.
    fn take(&mut self, at: usize) -> Result<(), (Label, Broken)> {
        let mut next = self.world;
        let Some(row) = next.row else { return Ok(()) };
        if self.invites.get(row).state.schedule().is_none() {
            return Ok(());
        }
        let mut label = "due work is taken up";
        if next.held() {
            if next.left.expiries == 0 {
                return Ok(());
            }
            next.left.expiries -= 1;
            label = "a lease ends under a living worker, and the work is taken up";
        }
        self.advance(label, next, at, Heard::Take)
    }

    /// A worker dies; what it has sent may still have its effect.
    fn crash(&mut self, at: usize, stage: Stage) {
        let mut next = self.world;
        if next.left.crashes == 0 {
            return;
        }
        next.left.crashes -= 1;
        next.workers[at] = Worker::Idle;
        self.then("a worker crashes", next);
        if stage == Stage::Call && next.left.late > 0 {
            next.left.late -= 1;
            next.api.late += 1;
            self.then("a worker crashes, its call is on the way", next);
        }
    }

    /// A worker has its answer. Without authority all it will learn is that its lease was lost.
    fn hear(&mut self, label: Label, mut next: World, at: usize, heard: Heard) {
        match &mut next.workers[at] {
            Worker::Busy { current: true, stage, .. } => *stage = Stage::Heard(heard),
            overtaken => *overtaken = Worker::Idle,
        }
        self.then(label, next);
    }

    fn call(&mut self, at: usize) {
        let mut applied = self.world;
        let made = applied.make_code();
        self.hear("a call makes a code", applied, at, Heard::Called(Reply::Code(made)));
        let Some(left) = self.world.left.api_faults.checked_sub(1) else { return };
        applied.left.api_faults = left;
        for class in [Unknown, Doubtful] {
            let heard = Heard::Called(Reply::Failed(class));
            self.hear("a call makes a code, its answer is lost", applied, at, heard);
        }
        let heard = Heard::Called(Reply::Outage(Unknown));
        self.hear("a call makes a code in an outage", applied, at, heard);
        let mut without = self.world;
        without.left.api_faults = left;
        self.hear("a call does not leave", without, at, Heard::Unsent);
        for class in [Unknown, Transient, Throttled, NotFound, Rejected] {
            self.hear("a call fails", without, at, Heard::Called(Reply::Failed(class)));
        }
        for class in [Unknown, Transient] {
            self.hear("a call fails in an outage", without, at, Heard::Called(Reply::Outage(class)));
        }
        if without.left.late > 0 {
            without.left.late -= 1;
            without.api.late += 1;
            let heard = Heard::Called(Reply::Failed(Unknown));
            self.hear("a call will have its effect after its answer", without, at, heard);
        }
    }

    fn read(&mut self, at: usize) {
        let Worker::Busy { invite, .. } = self.world.workers[at] else { return };
        let verifying = matches!(self.invites.get(invite).state, State::Published { .. });
        // The one assumption about time: see the module's documentation.
        if verifying && self.world.call_on_its_way() {
            return;
        }
        let mut next = self.world;
        let truth = next.api.valid.map_or(Reply::NoCode, Reply::Code);
        self.hear("a read answers", next, at, Heard::Read(truth));
        let Some(left) = next.left.api_faults.checked_sub(1) else { return };
        next.left.api_faults = left;
        self.hear("a read does not leave", next, at, Heard::Unsent);
        for class in [Unknown, Throttled, NotFound, Rejected] {
            self.hear("a read fails", next, at, Heard::Read(Reply::Failed(class)));
        }
        self.hear("a read fails in an outage", next, at, Heard::Read(Reply::Outage(Unknown)));
    }

    /// One sink after the other; what went wrong is recorded at the end of the round.
    fn announce(&mut self, at: usize) -> Result<(), (Label, Broken)> {
        let mut next = self.world;
        let Worker::Busy { invite, round, .. } = &mut next.workers[at] else { return Ok(()) };
        let Some(sink) = Sinks::from_bits(round.todo).iter().next() else {
            let heard = Heard::Unconfirmed { refused: round.refused == Some(true) };
            self.hear("a round of announcing ends", next, at, heard);
            return Ok(());
        };
        round.todo = Sinks::from_bits(round.todo).without(sink).bits();
        let invite = *invite;
        let mut delivered = next;
        let label = "an announcement is delivered and confirmed";
        promises::told(&mut delivered, sink, self.invites.get(invite)).map_err(|broken| (label, broken))?;
        self.hear(label, delivered, at, Heard::Confirmed(sink));
        let Some(left) = next.left.sink_faults.checked_sub(1) else { return Ok(()) };
        for (label, mut next, refuses) in [
            ("an announcement is delivered, its confirmation is lost", delivered, true),
            ("an announcement is refused", next, true),
            ("a sink is away", next, false),
        ] {
            next.left.sink_faults = left;
            if let Worker::Busy { round, .. } = &mut next.workers[at] {
                round.refused = Some(refuses || round.refused == Some(true));
            }
            self.then(label, next);
        }
        Ok(())
    }

    /// Runs the real `step`, commits what it says, and hands its effect to the worker.
    fn advance(
        &mut self,
        label: Label,
        mut next: World,
        at: usize,
        heard: Heard,
    ) -> Result<(), (Label, Broken)> {
        let (seen, round) = match next.workers[at] {
            Worker::Busy { invite, round, .. } => (invite, round),
            Worker::Idle => (next.row.expect("only a row is taken up"), Round::default()),
        };
        let (row, effect) = self.invites.step(seen, heard);
        let (before, after) = (self.invites.get(seen), self.invites.get(row));
        promises::settle(&mut next, before, heard);
        promises::committed(&mut next, self.invites.rules(), heard, (before, after), effect)
            .map_err(|broken| (label, broken))?;
        next.commit(row);
        let busy = |stage, round| Worker::Busy { invite: row, current: true, stage, round };
        next.workers[at] = match effect {
            Some(Effect::Call) => busy(Stage::Call, Round::default()),
            Some(Effect::Read) => busy(Stage::Read, Round::default()),
            Some(Effect::Announce(sinks)) => {
                busy(Stage::Announce, Round { todo: sinks.bits(), refused: None })
            }
            // The publisher goes on with the other sinks, or ends its round.
            None if matches!(heard, Heard::Confirmed(_)) && round != Round::default() => {
                busy(Stage::Announce, round)
            }
            None => Worker::Idle,
        };
        self.then(label, next);
        Ok(())
    }

    fn late_effects(&mut self) {
        let mut next = self.world;
        if next.api.late > 0 {
            next.api.late -= 1;
            next.make_code();
            self.then("a late call makes a code", next);
        }
    }
}

/// The trucker uses the code that it was told. Nobody needs this to happen, so it is no way on.
pub(super) fn used(world: &World) -> Option<World> {
    let api = world.api;
    let told = api.valid.is_some() && api.valid == world.last_told() && !api.used;
    told.then(|| {
        let mut next = *world;
        next.api.valid = None;
        next.api.used = true;
        next
    })
}

/// The announcement of an invite: its generation, and its code if it is ready.
pub(super) fn announcement(invite: &crate::invite::Invite) -> (usize, Option<u8>) {
    (invite.generation.get() as usize, code_in(invite))
}

/// The sinks that every announcement has to reach.
pub(super) fn sinks(invites: &Invites) -> impl Iterator<Item = Sink> {
    invites.rules().sinks.iter()
}
