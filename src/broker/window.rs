//! Messages on their way on one channel, and the proof that each one was routed.
//!
//! A message that no queue wants comes back (`basic.return`) *before* its confirm, and the confirm is positive.
//! The client hands a return to whichever confirm it completes next, in any order within a bundle, so an empty
//! confirm proves nothing by itself. What does: the broker handles a channel's messages in order and confirms a
//! returned message right after returning it, and the client's queue of returns is first in, first out. Hence,
//! once a message **and all earlier ones** are confirmed, its return, if there was one, has been handed to a
//! confirm that is already completed, and has rung its [`Bell`]: the client completes one after the other. So: release
//! results in order, and before releasing any, look at every confirm that has rung. A message that was overdue is left
//! out of "all earlier ones": it was not confirmed, so it was not returned either.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::future::BoxFuture;
use futures_util::task::AtomicWaker;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Error, Message, PublishError};

/// Who waits for the result.
pub(super) type Reply = oneshot::Sender<Result<(), PublishError>>;

/// The messages on their way, oldest first.
pub(super) struct Window {
    entries: VecDeque<Entry>,
    /// The number of the first entry; the others follow.
    first: u64,
    rung: Arc<Rung>,
}

/// The numbers of the entries whose confirms want to be looked at.
#[derive(Default)]
struct Rung {
    numbers: Mutex<Vec<u64>>,
    /// The task that polls the window.
    listener: AtomicWaker,
}

/// What a confirm rings when it is completed.
struct Bell {
    number: u64,
    rung: Arc<Rung>,
}

struct Entry {
    identity: Identity,
    waker: Waker,
    /// `None` once completed.
    confirm: Option<Sending>,
    outcome: Outcome,
    /// `None` once answered; the entry then only waits for its late confirm.
    reply: Option<Reply>,
    deadline: Instant,
}

type Sending = BoxFuture<'static, Result<Confirm, Error>>;

/// A confirm as the client completes it: the return it carries may belong to another message.
struct Confirm {
    is_ack: bool,
    returned: Option<Identity>,
}

/// What a returned message is recognised by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    exchange: String,
    routing_key: String,
    message_id: String,
}

/// What is known of a message.
#[derive(PartialEq, Eq)]
enum Outcome {
    Pending,
    Acked,
    Nacked,
    /// Came back; its confirm, positive as it is, does not count.
    Returned,
    /// The channel died.
    Lost(Error),
}

/// What [`Window::poll`] answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Released {
    pub(super) n_confirmed: usize,
    pub(super) n_returned: usize,
    pub(super) n_nacked: usize,
    /// Why the channel died, if it did; the messages it took along are answered.
    pub(super) lost: Option<Error>,
}

impl Window {
    pub(super) fn new() -> Self {
        Self { entries: VecDeque::new(), first: 0, rung: Arc::default() }
    }

    /// Messages on their way, overdue ones included.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Hands `message` to the client. Its frames are queued before this returns, so that the order of entries is
    /// the order on the wire; therefore there is one window, and one task, per channel.
    pub(super) fn push(&mut self, channel: &Arc<Channel>, message: Message, reply: Reply, deadline: Instant) {
        match sending(channel, &message) {
            Ok(sending) => {
                let Message { exchange, routing_key, message_id, .. } = message;
                self.enter(sending, Identity { exchange, routing_key, message_id }, reply, deadline);
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn enter(&mut self, sending: Sending, identity: Identity, reply: Reply, deadline: Instant) {
        let number = self.first + self.entries.len() as u64;
        let bell = Bell { number, rung: Arc::clone(&self.rung) };
        let mut entry = Entry {
            identity,
            waker: Arc::new(bell).into(),
            confirm: Some(sending),
            outcome: Outcome::Pending,
            reply: Some(reply),
            deadline,
        };
        // The first look queues the frames. If the broker is faster than we are, it even finds the confirm.
        let returned = entry.look();
        self.entries.push_back(entry);
        if let Some(message) = returned {
            self.mark_returned(&message);
        }
    }

    /// Answers every message whose result is proven. Pending while there is none.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Released> {
        self.rung.listener.register(cx.waker());
        loop {
            let rung = self.rung.take();
            if rung.is_empty() {
                break;
            }
            for number in rung {
                if let Some(message) = self.entry(number).and_then(Entry::look) {
                    self.mark_returned(&message);
                }
            }
        }
        let mut released = Released::default();
        while let Some(entry) = self.entries.front_mut().filter(|entry| !entry.is_pending()) {
            entry.answer(&mut released);
            self.entries.pop_front();
            self.first += 1;
        }
        // What is overdue is answered already, and holds nobody up.
        let proven = |entry: &&mut Entry| !entry.is_pending() || entry.reply.is_none();
        self.entries.iter_mut().take_while(proven).for_each(|entry| entry.answer(&mut released));
        if released == Released::default() { Poll::Pending } else { Poll::Ready(released) }
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(index)
    }

    /// When the next message becomes overdue.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.entries.iter().find(|entry| entry.reply.is_some()).map(|entry| entry.deadline)
    }

    /// Answers the overdue messages; returns how many. Their late confirms are still awaited.
    pub(super) fn expire(&mut self, now: Instant) -> usize {
        let overdue = self.entries.iter_mut().take_while(|entry| entry.deadline <= now);
        overdue
            .filter_map(|entry| entry.reply.take())
            .map(|reply| answer(reply, Err(PublishError::Unconfirmed)))
            .count()
    }

    /// The deadline of the oldest message whose confirm is still to come.
    pub(super) fn oldest_deadline(&self) -> Option<Instant> {
        self.entries.iter().find(|entry| entry.is_pending()).map(|entry| entry.deadline)
    }

    /// The channel is gone: answers everything.
    pub(super) fn fail_all(&mut self) {
        for reply in self.entries.drain(..).filter_map(|entry| entry.reply) {
            answer(reply, Err(PublishError::Disconnected));
        }
    }

    fn mark_returned(&mut self, message: &Identity) {
        for entry in &mut self.entries {
            if entry.identity == *message {
                entry.outcome = Outcome::Returned;
            }
        }
    }
}

impl Rung {
    fn take(&self) -> Vec<u64> {
        mem::take(&mut *self.numbers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.numbers.lock().unwrap_or_else(PoisonError::into_inner).push(self.number);
        self.rung.listener.wake();
    }
}

impl Entry {
    fn is_pending(&self) -> bool {
        self.confirm.is_some()
    }

    /// Looks at the confirm once. A returned message that it carries may be any message's.
    fn look(&mut self) -> Option<Identity> {
        let mut cx = Context::from_waker(&self.waker);
        let Poll::Ready(confirm) = self.confirm.as_mut()?.as_mut().poll(&mut cx) else { return None };
        self.confirm = None;
        let (outcome, returned) = match confirm {
            Ok(Confirm { is_ack: true, returned }) => (Outcome::Acked, returned),
            Ok(Confirm { is_ack: false, returned }) => (Outcome::Nacked, returned),
            Err(error) => (Outcome::Lost(error), None),
        };
        if self.outcome == Outcome::Pending {
            self.outcome = outcome;
        }
        returned
    }

    fn answer(&mut self, released: &mut Released) {
        let Some(reply) = self.reply.take() else { return };
        let result = match &self.outcome {
            Outcome::Acked => {
                released.n_confirmed += 1;
                Ok(())
            }
            Outcome::Returned => {
                released.n_returned += 1;
                Err(PublishError::Unroutable)
            }
            Outcome::Nacked => {
                released.n_nacked += 1;
                Err(PublishError::Nacked)
            }
            Outcome::Lost(error) => {
                released.lost.get_or_insert_with(|| error.clone());
                Err(PublishError::Disconnected)
            }
            // Not reached: only completed entries are answered here.
            Outcome::Pending => Err(PublishError::Unconfirmed),
        };
        answer(reply, result);
    }
}

/// Everything from queueing the frames to the confirm, as one future.
fn sending(channel: &Arc<Channel>, message: &Message) -> Result<Sending, PublishError> {
    let properties = message.properties()?;
    let short = |text: &str| ShortString::try_new(text).map_err(|_| PublishError::TooLong);
    let (exchange, routing_key) = (short(&message.exchange)?, short(&message.routing_key)?);
    let (channel, body) = (Arc::clone(channel), message.body.clone());
    Ok(Box::pin(async move {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        match channel.basic_publish(exchange, routing_key, options, &body, properties).await?.await? {
            Confirmation::Ack(returned) => {
                Ok(Confirm { is_ack: true, returned: returned.map(Identity::from) })
            }
            Confirmation::Nack(returned) => {
                Ok(Confirm { is_ack: false, returned: returned.map(Identity::from) })
            }
            // The channel is put into confirm mode, and that is checked, before a window is opened on it.
            Confirmation::NotRequested => Err(Error::NotTaken("confirms are off")),
        }
    }))
}

impl From<BasicReturnMessage> for Identity {
    fn from(message: BasicReturnMessage) -> Self {
        Self {
            exchange: message.exchange.to_string(),
            routing_key: message.routing_key.to_string(),
            message_id: message.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

fn answer(reply: Reply, result: Result<(), PublishError>) {
    // Nobody waits any more: the caller was dropped, and will publish again from its store.
    let _ = reply.send(result);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The broker and the client as the module doc describes them, for messages that are numbers.
    struct Model {
        window: Window,
        /// For each message: its confirm, until completed.
        confirms: Vec<Option<oneshot::Sender<Confirm>>>,
        results: Vec<oneshot::Receiver<Result<(), PublishError>>>,
        /// The client's queue of returned messages.
        returned: VecDeque<Identity>,
    }

    fn identity(number: usize) -> Identity {
        Identity { exchange: String::new(), routing_key: "key".into(), message_id: number.to_string() }
    }

    impl Model {
        fn new(n_messages: usize) -> Self {
            let mut model =
                Self { window: Window::new(), confirms: vec![], results: vec![], returned: VecDeque::new() };
            for number in 0..n_messages {
                let (confirm, confirmed) = oneshot::channel();
                let (reply, result) = oneshot::channel();
                model.confirms.push(Some(confirm));
                model.results.push(result);
                let sending = async move { confirmed.await.map_err(|_| Error::NotTaken("the channel died")) };
                model.window.enter(Box::pin(sending), identity(number), reply, Instant::now());
            }
            model
        }

        fn confirm(&mut self, number: usize) {
            let confirm = Confirm { is_ack: true, returned: self.returned.pop_front() };
            assert!(self.confirms[number].take().unwrap().send(confirm).is_ok());
        }

        fn poll(&mut self) {
            let _ = self.window.poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    proptest! {
        /// Messages are handled in order; returned ones are confirmed in the next bundle, others at any later
        /// time; a bundle is completed in any order, and we may look at any moment.
        #[test]
        fn every_message_gets_its_own_result(
            is_routed in prop::collection::vec(any::<bool>(), 1..60),
            seed in prop::collection::vec(any::<prop::sample::Index>(), 400),
        ) {
            let mut dice = seed.iter().cycle();
            let mut roll = |n: usize| dice.next().expect("a cycle").index(n);
            let mut model = Model::new(is_routed.len());
            let mut next = 0;
            let mut pending: Vec<usize> = Vec::new();
            while next < is_routed.len() || !pending.is_empty() {
                let mut bundle = Vec::new();
                for _ in 0..roll(8) {
                    if next < is_routed.len() {
                        if is_routed[next] {
                            pending.push(next);
                        } else {
                            model.returned.push_back(identity(next));
                            bundle.push(next);
                        }
                        next += 1;
                    }
                }
                for _ in 0..roll(8).min(pending.len()) {
                    bundle.push(pending.swap_remove(roll(pending.len())));
                }
                while !bundle.is_empty() {
                    model.confirm(bundle.swap_remove(roll(bundle.len())));
                    if roll(3) == 0 {
                        model.poll();
                    }
                }
            }
            model.poll();
            for (number, result) in model.results.iter_mut().enumerate() {
                let expected = if is_routed[number] { Ok(()) } else { Err(PublishError::Unroutable) };
                prop_assert_eq!(result.try_recv(), Ok(expected), "message {}", number);
            }
            prop_assert_eq!(model.window.len(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_overdue_message_is_answered_and_holds_nobody_up() {
        let mut model = Model::new(3);
        assert_eq!(model.window.expire(Instant::now()), 3);
        let (reply, mut result) = oneshot::channel();
        let sending = async { Ok(Confirm { is_ack: true, returned: None }) };
        model.window.enter(Box::pin(sending), identity(3), reply, Instant::now());
        model.poll();
        assert_eq!(result.try_recv(), Ok(Ok(())));
        for result in &mut model.results {
            assert_eq!(result.try_recv(), Ok(Err(PublishError::Unconfirmed)));
        }
        assert_eq!(model.window.len(), 4, "late confirms are awaited");
        (0..3).for_each(|number| model.confirm(number));
        model.poll();
        assert_eq!(model.window.len(), 0);
    }

    #[test]
    fn a_channel_that_dies_answers_everything() {
        let mut model = Model::new(3);
        model.confirms.clear();
        model.poll();
        for result in &mut model.results {
            assert_eq!(result.try_recv(), Ok(Err(PublishError::Disconnected)));
        }
    }
}
