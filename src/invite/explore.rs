//! Every way that a small world can go, walked through with the real [`step`](super::step()).
//!
//! The world: one trucker, two events, two workers, a store that refuses a write by whoever saw an older row, the
//! API, the sinks. Between any two steps a worker may crash, stall until its lease has ended and come back, or be
//! overtaken; the API may answer anything, apply a call and lose the answer, or apply it after its answer; a sink
//! may refuse, be away, or deliver without confirming; a person may put a dead invite back to work or ask for a new code.
//! How often each of these happens is bounded, where and in
//! which order is not. Every world that can be reached is checked (`promises`), and from each of them there must be
//! a way to an end.
//!
//! The limits of what is shown:
//! * **A late effect comes before the second read-back.** A call that the API carries out only after the invite
//!   was read once more (`invite.verify_after` after publishing) makes a code that nobody looks for: the model lets
//!   that read wait until no call is on its way. The promise is one more look, not an eternal one.
//! * **A stalled worker may repeat an old announcement.** It can tell a sink of generation n again after n+1, never
//!   for the first time: the event carries its generation and its id for that.
//! * **A worker that is telling of a failure when a person redrives may finish telling it.** The failure can then arrive
//!   after the code. Waiting for every sink before a redrive would mean that a sink nobody listens to forbids it.
//! * A crash is one worker's, and its lease is over at once; time stands still, so age is tried by rules under
//!   which everything is too old already.

mod moves;
mod promises;
mod world;

use std::collections::HashMap;
use std::time::Duration;

use moves::{Label, Moves};
use promises::Broken;
use world::{Budget, Invites, World};

use super::testing::{RABBITMQ, WEBHOOK, rules};
use super::{Policy, Rules, Sinks};

/// Enough for any two things to go wrong at the same time, and for most threes.
const USUAL: Budget = Budget { api_faults: 2, late: 1, sink_faults: 1, crashes: 1, expiries: 1, orders: 0 };

/// Everything that was reached from one beginning.
struct Explored {
    invites: Invites,
    worlds: Vec<World>,
    /// How each world was reached first.
    from: Vec<Option<(usize, Label)>>,
    /// Every way from a world to another.
    ways: Vec<(usize, usize)>,
    ends: Vec<usize>,
}

impl Explored {
    fn explore(rules: Rules, beginning: World) -> Self {
        let mut explored = Self {
            invites: Invites::new(rules),
            worlds: vec![beginning],
            from: vec![None],
            ways: Vec::new(),
            ends: Vec::new(),
        };
        let mut seen = HashMap::from([(beginning, 0)]);
        let mut open = vec![0];
        while let Some(at) = open.pop() {
            for (label, mut world) in explored.after(at) {
                world.workers.sort_unstable();
                let fresh = explored.worlds.len();
                let to = *seen.entry(world).or_insert(fresh);
                explored.ways.push((at, to));
                if to == fresh {
                    explored.worlds.push(world);
                    explored.from.push(Some((at, label)));
                    explored.expect(to, promises::always(&world, &explored.invites));
                    open.push(to);
                }
            }
        }
        explored.expect_an_end_from_everywhere();
        explored
    }

    fn after(&mut self, at: usize) -> Vec<(Label, World)> {
        let world = self.worlds[at];
        let mut moves = Moves { world, invites: &mut self.invites, after: Vec::new() };
        let went = moves.run();
        let mut after = moves.after;
        if let Err((label, broken)) = went {
            self.fail(at, Some(label), broken);
        }
        if after.is_empty() {
            self.ends.push(at);
            self.expect(at, promises::at_the_end(&world, &self.invites));
        }
        after.extend(moves::used(&world).map(|next| ("the trucker uses its code", next)));
        after
    }

    /// A world from which no way leads to an end would turn in circles for ever.
    fn expect_an_end_from_everywhere(&self) {
        let mut before = vec![Vec::new(); self.worlds.len()];
        for (from, to) in &self.ways {
            before[*to].push(*from);
        }
        let mut ends = vec![false; self.worlds.len()];
        let mut open = self.ends.clone();
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut ends[at], true) {
                open.extend(&before[at]);
            }
        }
        if let Some(at) = ends.iter().position(|reached| !reached) {
            self.fail(at, None, "from everywhere a way leads to an end");
        }
    }

    fn expect(&self, at: usize, holds: Result<(), Broken>) {
        if let Err(broken) = holds {
            self.fail(at, None, broken);
        }
    }

    /// Panics with the story that led there.
    fn fail(&self, at: usize, last: Option<Label>, broken: Broken) -> ! {
        let mut story: Vec<String> = last.map(str::to_owned).into_iter().collect();
        let mut here = at;
        while let Some((before, label)) = self.from[here] {
            let row = self.worlds[here].row.map(|row| self.invites.get(row).state.name());
            story.push(format!("{label:60} {}", row.map_or("", super::StateName::as_str)));
            here = before;
        }
        story.reverse();
        panic!("broken: {broken}\n  {}\nin {:?}", story.join("\n  "), self.worlds[at]);
    }
}

/// Explores from a trucker without a code and from one with the code that Dashdoc made at its creation.
fn explore(what: &str, rules: &Rules, left: Budget) -> (usize, usize) {
    let (mut worlds, mut ways) = (0, 0);
    for valid in [None, Some(1)] {
        let explored = Explored::explore(rules.clone(), World::new(valid, left));
        println!(
            "{what}, {}: {} worlds, {} ways between them, {} ends, {} different invites",
            if valid.is_some() { "a code is there" } else { "no code yet" },
            explored.worlds.len(),
            explored.ways.len(),
            explored.ends.len(),
            explored.invites.count(),
        );
        worlds += explored.worlds.len();
        ways += explored.ways.len();
    }
    (worlds, ways)
}

fn small(policy: Policy, sinks: Sinks) -> Rules {
    Rules { policy, max_attempts: 2, sinks, ..rules() }
}

/// An exploration that reached much less than it does now would prove much less.
#[track_caller]
fn expect_at_least(worlds: usize, explored: (usize, usize)) {
    assert!(explored.0 >= worlds && explored.1 > explored.0, "{explored:?} is no exploration");
}

#[test]
fn no_way_breaks_a_promise_when_codes_are_generated() {
    expect_at_least(200_000, explore("generate", &small(Policy::Generate, RABBITMQ), USUAL));
}

#[test]
fn no_way_breaks_a_promise_when_codes_are_reused() {
    expect_at_least(100_000, explore("reuse", &small(Policy::Reuse, RABBITMQ), USUAL));
}

#[test]
fn no_way_breaks_a_promise_when_workers_crash_and_stall_again_and_again() {
    let left = Budget { api_faults: 1, late: 1, sink_faults: 1, crashes: 2, expiries: 2, orders: 0 };
    expect_at_least(100_000, explore("crashes", &small(Policy::Generate, RABBITMQ), left));
}

#[test]
fn no_way_breaks_a_promise_when_patience_is_at_its_end_from_the_start() {
    let rules =
        Rules { max_age: Duration::ZERO, not_found_for: Duration::ZERO, ..small(Policy::Generate, RABBITMQ) };
    expect_at_least(50_000, explore("no patience", &rules, USUAL));
}

#[test]
fn no_way_breaks_a_promise_when_a_person_redrives_and_reissues() {
    let left = Budget { api_faults: 2, late: 1, sink_faults: 0, crashes: 1, expiries: 0, orders: 2 };
    for policy in [Policy::Generate, Policy::Reuse] {
        expect_at_least(10_000, explore("a person", &small(policy, RABBITMQ), left));
    }
}

#[test]
fn no_way_breaks_a_promise_between_two_sinks() {
    let left = Budget { api_faults: 1, late: 1, sink_faults: 1, crashes: 1, expiries: 1, orders: 0 };
    expect_at_least(50_000, explore("two sinks", &small(Policy::Generate, RABBITMQ.or(WEBHOOK)), left));
}
