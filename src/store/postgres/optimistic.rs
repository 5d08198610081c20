//! A group as one transaction in a single round trip, for what needs no look beforehand: events of truckers that are
//! not known, and results of work in hand.
//!
//! It is decided as if nothing had to be read, by what the server's clock should show, and the server checks both while
//! it writes. A result whose row has moved on is not written; of the new events, none is if one of their truckers is
//! known; and nothing is if the clock is another. Those commands are run again with a look ([`super::group`]).

use std::collections::HashSet;

use deadpool_postgres::ClientWrapper;
use futures_util::future::{join, join3};

use super::clock::since_boot;
use super::connect::{is_read_only, unavailable};
use super::group::{self, Bench, Expected, Failed, Found, Outcome};
use super::limits;
use super::rows::key_of;
use super::writer::Command;
use super::writes;
use crate::crash;
use crate::invite::TruckerKey;
use crate::store::{Error, Receipt};
use crate::time::Timestamp;

/// Whether nothing that is stored has to be read for these commands, as far as can be told.
pub(super) fn suits(commands: &[Command]) -> bool {
    let mut keys = HashSet::new();
    commands.iter().all(|command| match command {
        Command::Accept { arrivals, .. } => arrivals.iter().all(|arrival| keys.insert(&arrival.key)),
        Command::Advance { .. } => true,
        Command::Take { .. } => false,
    })
}

/// Runs the commands as one transaction. Those without an outcome have changed nothing.
pub(super) async fn run(bench: &Bench<'_>, commands: &[Command]) -> Result<Vec<Option<Outcome>>, Failed> {
    let (client, statements) = (bench.client, bench.statements);
    let now = bench.clock.at_least();
    let plan = group::decide(bench, commands, Found::nothing(now));
    let clock = writes::ExpectedClock::about(now);
    // A statement alone is a transaction.
    let several = !plan.updates.is_empty() && !plan.inserts.is_empty();
    group::points(commands).for_each(|(before, _)| crash::pass(before));
    let asked = since_boot();
    // Futures are first polled in this order, and sent to the server in it.
    let writing = join3(
        only_if(several, client, "BEGIN"),
        join(
            writes::updates(client, &statements.update, &plan.updates, Some(clock)),
            writes::inserts_unseen(client, statements, &plan.inserts, clock),
        ),
        only_if(several, client, "COMMIT"),
    );
    let Ok((begun, (updated, inserted), ended)) = tokio::time::timeout(limits::ROUND, writing).await else {
        return Err(group::doubtful(group::silent(), plan));
    };
    let written = (|| {
        begun?;
        let written = (updated?, inserted?);
        ended?;
        Ok(written)
    })();
    let (updated, inserted) = match written {
        Ok(written) => written,
        Err(error) if !several && is_read_only(&error) => return Err(Failed::Lost(unavailable(&error))),
        Err(error) if !several && group::is_refusal(&error) => {
            return Err(Failed::Refused(unavailable(&error)));
        }
        Err(error) => return Err(group::not_committed(client, &error, plan).await),
    };
    group::points(commands).for_each(|(_, after)| crash::pass(after));
    if let Some(row) = updated.first().or(inserted.first()) {
        bench.clock.look(Timestamp::from_millis(row.get(2)), asked, since_boot());
    }
    let updated: HashSet<TruckerKey> = updated.iter().filter_map(key_of).collect();
    let all_new = inserted.len() == plan.inserts.len();
    let outcomes = plan.expected.into_iter().map(|expected| match expected {
        Expected::Accepted(admitted) if all_new => {
            let receipts = admitted.into_iter().map(|one| match one.what {
                Ok(work) => Receipt::New(work),
                Err(state) => Receipt::Duplicate(state),
            });
            Some(Outcome::Accepted(receipts.collect()))
        }
        Expected::Advanced(_, work) if updated.contains(&work.invite.key) => {
            Some(Outcome::Advanced(Box::new(Ok(*work))))
        }
        Expected::Overtaken => Some(Outcome::Advanced(Box::new(Err(Error::Lost)))),
        Expected::Accepted(_) | Expected::Advanced(..) | Expected::Taken { .. } => None,
    });
    Ok(outcomes.collect())
}

async fn only_if(condition: bool, client: &ClientWrapper, sql: &str) -> Result<(), tokio_postgres::Error> {
    if condition { client.batch_execute(sql).await } else { Ok(()) }
}
