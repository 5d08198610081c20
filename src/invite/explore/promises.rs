//! What must hold in every world, on every way, and at the end.

use super::moves::{EVENTS, announcement, sinks};
use super::world::{GENERATIONS, Heard, Invites, Reply, Stage, Worker, World, code_in};
use crate::invite::{Effect, FailureClass, Invite, Rules, Sink, State, StateName};

/// The promise that was broken.
pub(super) type Broken = &'static str;

fn keep(holds: bool, promise: Broken) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(promise) }
}

/// An announcement reaches a sink.
pub(super) fn told(world: &mut World, sink: Sink, invite: &Invite) -> Result<(), Broken> {
    let (generation, code) = announcement(invite);
    let (durable, redriven) = (world.durable, world.redriven);
    let others: Vec<_> = world.told.iter().map(|told| told.ready[generation]).collect();
    let told = &mut world.told[sink as usize];
    let Some(code) = code else {
        keep(told.ready[generation].is_none() || redriven, "what was ready never fails afterwards")?;
        told.failed = true;
        return Ok(());
    };
    keep(!told.failed || redriven, "what failed is not ready afterwards, without a person")?;
    keep(durable & (1 << code) != 0, "a code is durable before it is published")?;
    keep(others.iter().flatten().all(|other| *other == code), "one event id always carries one code")?;
    if told.ready[generation].is_none() {
        let newer = told.ready[generation + 1..].iter().any(Option::is_some);
        keep(!newer, "generation n is never first published after n+1")?;
        told.ready[generation] = Some(code);
    }
    Ok(())
}

/// Notes whether an answer settles what became of the call.
pub(super) fn settle(world: &mut World, before: &Invite, heard: Heard) {
    let settled = match (before.state.name(), heard) {
        (StateName::Calling, Heard::Called(Reply::Failed(class) | Reply::Outage(class))) => {
            !matches!(class, FailureClass::Unknown | FailureClass::Doubtful)
        }
        (StateName::Calling, Heard::Called(Reply::Code(_)) | Heard::Unsent)
        | (StateName::Unknown, Heard::Read(Reply::Code(_) | Reply::NoCode)) => true,
        _ => false,
    };
    world.call_open &= !settled;
}

/// A write is about to be committed, and `effect` to be carried out after it.
pub(super) fn committed(
    world: &mut World,
    rules: &Rules,
    heard: Heard,
    (before, after): (&Invite, &Invite),
    effect: Option<Effect>,
) -> Result<(), Broken> {
    keep(after.generation >= before.generation, "a generation never goes back")?;
    let known = (after.generation.get() as usize) < GENERATIONS;
    keep(known, "a new generation needs a new code, and only so many are made")?;
    if let Some(code) = code_in(after) {
        world.durable |= 1 << code;
    }
    let verify = |invite: &Invite| match invite.state {
        State::Published { verify, .. } => verify,
        _ => None,
    };
    if let (Some(owed), None, Heard::Read(Reply::Failed(_))) = (verify(before), verify(after), heard) {
        keep(owed.reads + 1 >= rules.max_attempts, "one failing read is no reason to stop looking")?;
        world.given_up = true;
    }
    if effect == Some(Effect::Call) {
        keep(after.attempts == before.attempts + 1, "every call is counted")?;
        keep(!world.call_open, "no call leaves while another may still have its effect unread")?;
        keep(after.state.name() == StateName::Calling, "a call is durable before it leaves")?;
        world.call_open = true;
        // A missing trucker has its patience in time.
        let missing = before.not_found_since.is_some();
        keep(after.attempts <= rules.max_attempts || missing, "no more tries than allowed")?;
    }
    Ok(())
}

/// In every world.
pub(super) fn always(world: &World, invites: &Invites) -> Result<(), Broken> {
    let with_authority = |stage: Stage| {
        let has = |worker: &&Worker| matches!(worker, Worker::Busy { current: true, stage: at, .. } if *at == stage);
        world.workers.iter().filter(has).count()
    };
    keep(with_authority(Stage::Call) <= 1, "one call at a time per trucker")?;
    let accepted = world.accepted > 0;
    keep(accepted == world.row.is_some(), "what was accepted is in the store, and nothing else is")?;
    let Some(row) = world.row.map(|row| invites.get(row)) else { return Ok(()) };
    let over =
        matches!(row.state, State::Published { verify: None, .. } | State::Dead { announce: None, .. });
    keep(over == row.state.schedule().is_none(), "no state without a way on")
}

/// In a world in which nothing has to happen any more.
pub(super) fn at_the_end(world: &World, invites: &Invites) -> Result<(), Broken> {
    keep(world.accepted == EVENTS, "every event is accepted")?;
    keep(world.workers == [Worker::Idle; 2], "no worker is left with work in hand")?;
    let row = invites.get(world.row.ok_or("every event has an invite")?);
    match row.state {
        State::Published { verify: None, .. } => {
            let told = |sink: Sink| world.told[sink as usize].ready[row.generation.get() as usize];
            keep(sinks(invites).all(|sink| told(sink) == code_in(row)), "every sink was told")?;
            let api = world.api;
            keep(api.valid.is_some() || api.used, "a code was made")?;
            keep(
                api.valid.is_none() || api.valid == world.last_told() || world.given_up,
                "the last published code is the one valid at the API",
            )
        }
        State::Dead { announce: None, .. } => {
            keep(row.last_failure.is_some(), "dead has a cause")?;
            keep(sinks(invites).all(|sink| world.told[sink as usize].failed), "every sink was told of it")
        }
        _ => Err("it ends published or dead, and announced"),
    }
}
