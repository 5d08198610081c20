//! Moves poison to the dead-letter queue, on a connection of its own that is opened when it is first needed.
//!
//! Not on the consumer's connection: a broker that blocks publishers would stop its acknowledgements too.

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use tokio::sync::Mutex;

use super::connection::{Connection, REQUEST_TIMEOUT, connect, within};
use super::message::{Kept, short};
use super::{Address, Error, Topology};
use crate::crash::{self, Point};

/// Most dead letters on their way at once.
const PORTION_MAX: usize = 64;
/// Most bytes of them, where there is more than one.
const PORTION_BYTES_MAX: usize = 1 << 20;

/// The way to the dead-letter queue.
pub(super) struct DeadLetters {
    address: Address,
    topology: Topology,
    line: Mutex<Option<Line>>,
    /// Whether the last try failed, so that an outage is logged once.
    in_trouble: AtomicBool,
}

struct Line {
    channel: Channel,
    _connection: Connection,
}

/// A delivery that will never be accepted.
#[derive(Clone)]
pub(super) struct Condemned {
    pub(super) kept: Kept,
    pub(super) reason_code: String,
    pub(super) reason: String,
}

impl DeadLetters {
    pub(super) fn new(address: Address, topology: Topology) -> Self {
        Self { address, topology, line: Mutex::new(None), in_trouble: AtomicBool::new(false) }
    }

    /// Publishes all of `batch` and returns once each is confirmed and none came back.
    ///
    /// All or nothing: with every confirm in hand, every return is too, whichever confirm carries it (see
    /// [`super::window`]). After an error the batch may be in the queue in part; repeating it makes copies,
    /// which in a dead-letter queue are harmless.
    pub(super) async fn bury(&self, batch: &[Condemned]) -> Result<(), Error> {
        let mut line = self.line.lock().await;
        let open = match line.take() {
            Some(open) => open,
            None => self.open().await?,
        };
        within(REQUEST_TIMEOUT, "dead-lettering", self.publish(&open.channel, batch)).await??;
        // Kept only after a success: after anything else, the next try begins with a new connection.
        *line = Some(open);
        Ok(())
    }

    /// Notes a failure; whether it is the first in a row.
    pub(super) fn begin_trouble(&self) -> bool {
        !self.in_trouble.swap(true, Ordering::Relaxed)
    }

    /// Notes a success; whether it ends a row of failures.
    pub(super) fn end_trouble(&self) -> bool {
        self.in_trouble.swap(false, Ordering::Relaxed)
    }

    async fn open(&self) -> Result<Line, Error> {
        let connection = connect(&self.address.current(), "dead-letter").await?;
        self.topology.apply_dead_queue(&connection).await?;
        let channel = connection.channel().await?;
        let selecting = channel.confirm_select(ConfirmSelectOptions::default());
        within(REQUEST_TIMEOUT, "turning confirms on", selecting).await?;
        Ok(Line { channel, _connection: connection })
    }

    async fn publish(&self, channel: &Channel, batch: &[Condemned]) -> lapin::Result<Result<(), Error>> {
        let queue = match short(&self.topology.dead_queue(), "the dead-letter queue's name") {
            Ok(queue) => queue,
            Err(error) => return Ok(Err(error)),
        };
        let now = crate::time::now();
        crash::pass(Point::BurySend);
        let confirms =
            batch.iter().map(|condemned| {
                let Condemned { kept, reason_code, reason } = condemned;
                let properties = kept.dead_letter(&self.topology.queue, reason_code, reason, now);
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let queue = queue.clone();
                async move {
                    channel.basic_publish("".into(), queue, options, kept.body(), properties).await?.await
                }
            });
        for confirmation in join_all(confirms).await {
            match confirmation? {
                Confirmation::Ack(None) => {}
                Confirmation::Ack(Some(_)) => {
                    return Ok(Err(Error::NotTaken("there is no dead-letter queue")));
                }
                Confirmation::Nack(_) => return Ok(Err(Error::NotTaken("it was refused"))),
                Confirmation::NotRequested => return Ok(Err(Error::NotTaken("confirms are off"))),
            }
        }
        crash::pass(Point::BuryConfirmed);
        Ok(Ok(()))
    }
}

/// Cuts `condemned` into what is published at once.
pub(super) fn portions(condemned: Vec<Condemned>) -> Vec<Vec<Condemned>> {
    let mut portions: Vec<Vec<Condemned>> = Vec::new();
    let mut n_bytes = 0;
    for one in condemned {
        let size = one.kept.body().len();
        match portions.last_mut() {
            Some(last) if last.len() < PORTION_MAX && n_bytes + size <= PORTION_BYTES_MAX => {
                n_bytes += size;
                last.push(one);
            }
            Some(_) | None => {
                n_bytes = size;
                portions.push(vec![one]);
            }
        }
    }
    portions
}
