//! Publishing: persistent, mandatory, confirmed, many messages in flight, one task and one channel.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::connection::{Change, Connection, REQUEST_TIMEOUT, within};
use super::link::Link;
use super::topology::report;
use super::window::{Released, Reply, Window};
use super::{
    Address, BrokerEvent, BrokerState, Difference, Error, Message, Observer, PublishError, SinkTopology,
};
use crate::lifecycle::Lifecycle;

/// How a [`Publisher`] works.
#[derive(Clone, Debug)]
pub struct PublisherOptions {
    /// The broker.
    pub address: Address,
    /// Applied with every new session.
    pub topology: SinkTopology,
    /// Most messages in flight; further ones wait their turn.
    pub window: usize,
    /// Counted for each message from the moment it is handed to the connection.
    pub confirm_timeout: Duration,
}

impl PublisherOptions {
    /// 1024 messages in flight: enough to keep a broker busy at 100 ms round trip and 10,000 messages a second.
    /// Ten seconds to confirm: a healthy broker takes milliseconds, one that syncs a slow disk a second.
    pub fn new(address: impl Into<Address>, topology: SinkTopology) -> Self {
        Self { address: address.into(), topology, window: 1024, confirm_timeout: Duration::from_secs(10) }
    }
}

/// Hands messages to the publishing task. Cheap to clone; the task ends when all handles are dropped.
#[derive(Clone)]
pub struct Publisher {
    jobs: mpsc::Sender<Job>,
    state: watch::Receiver<BrokerState>,
}

struct Job {
    message: Message,
    reply: Reply,
}

impl Publisher {
    /// Starts the publishing task. It outlives the drain, so that work in hand can still be announced, and ends
    /// when all handles are dropped or the process aborts.
    pub fn start(options: PublisherOptions, observer: Observer, life: &Lifecycle) -> Self {
        let (jobs, queue) = mpsc::channel(options.window);
        let link = Link::new(options.address.clone(), "publish", observer.clone());
        let state = link.subscribe();
        let task = Task { options, observer, link, queue, differences: Vec::new() };
        let aborting = life.clone();
        life.spawn_long("publisher", async move {
            tokio::select! {
                () = task.run() => {}
                () = aborting.aborted() => {}
            }
        });
        Self { jobs, state }
    }

    /// Publishes one message and waits for the proof that it is in a queue.
    ///
    /// Fails at once while the broker is down or blocks publishers: the work belongs in the store, not in our
    /// memory. After any error, publish again with the same message id; the broker may have the message.
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        match *self.state.borrow() {
            BrokerState::Up => {}
            BrokerState::Blocked { .. } => return Err(PublishError::Blocked),
            BrokerState::Connecting | BrokerState::Waiting { .. } | BrokerState::Down { .. } => {
                return Err(PublishError::Disconnected);
            }
        }
        let (reply, result) = oneshot::channel();
        let job = Job { message, reply };
        self.jobs.send(job).await.map_err(|_| PublishError::Disconnected)?;
        result.await.unwrap_or(Err(PublishError::Disconnected))
    }

    /// Waits until publishing makes sense. Never returns if the process ends first.
    pub async fn ready(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|state| *state == BrokerState::Up).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The state of the connection, for readiness and waking.
    pub fn state(&self) -> watch::Receiver<BrokerState> {
        self.state.clone()
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("state", &*self.state.borrow()).finish_non_exhaustive()
    }
}

struct Task {
    options: PublisherOptions,
    observer: Observer,
    link: Link,
    queue: mpsc::Receiver<Job>,
    /// Reported already, so that a reconnect does not repeat them.
    differences: Vec<Difference>,
}

/// Why a session ended.
enum End {
    /// All handles are dropped and everything is answered.
    Finished,
    Fault(BrokerEvent, Error),
}

impl Task {
    async fn run(mut self) {
        loop {
            let connection = tokio::select! {
                biased;
                () = refuse(&mut self.queue) => return,
                connection = self.link.connect() => connection,
            };
            let end = match self.open(&connection).await {
                Ok(channel) => self.session(connection, &channel).await,
                Err(error) => End::Fault(BrokerEvent::AttemptFailed, error),
            };
            match end {
                End::Finished => return,
                End::Fault(event, error) => self.link.down(event, &error),
            }
        }
    }

    /// Topology, then a channel in confirm mode; without it every publish would look like a success.
    async fn open(&mut self, connection: &Connection) -> Result<Arc<Channel>, Error> {
        let differences = self.options.topology.apply(connection, &self.observer).await?;
        report(&differences, &self.differences);
        self.differences = differences;
        let channel = connection.channel().await?;
        let selecting = channel.confirm_select(ConfirmSelectOptions::default());
        within(REQUEST_TIMEOUT, "turning confirms on", selecting).await?;
        if !channel.status().confirm() {
            return Err(Error::Lost("the channel is not in confirm mode".into()));
        }
        Ok(Arc::new(channel))
    }

    async fn session(&mut self, mut connection: Connection, channel: &Arc<Channel>) -> End {
        self.link.up();
        let mut window = Window::new();
        let mut jobs = Vec::new();
        let mut open = true;
        let mut blocked = false;
        let mut moving_since = Instant::now();
        let end = loop {
            let room = self.options.window.saturating_sub(window.len());
            let deadline = window.next_deadline();
            // The oldest confirm is overdue twice over, although the broker reads from us: start afresh.
            let stuck_at =
                window.oldest_deadline().map(|due| due.max(moving_since) + self.options.confirm_timeout);
            tokio::select! {
                biased;
                change = connection.next_change() => match change {
                    Change::Died(error) => break End::Fault(BrokerEvent::Disconnected, error),
                    Change::Blocked(reason) => {
                        blocked = true;
                        self.link.blocked(reason);
                    }
                    Change::Unblocked => {
                        blocked = false;
                        moving_since = Instant::now();
                        self.link.unblocked();
                    }
                },
                released = poll_fn(|cx| window.poll(cx)) => {
                    self.count(&released);
                    if let Some(error) = released.lost {
                        break End::Fault(connection.event_of_loss(), error);
                    }
                }
                () = sleep_until(deadline.unwrap_or(moving_since)), if deadline.is_some() => {
                    for _ in 0..window.expire(Instant::now()) {
                        self.observer.tell(BrokerEvent::ConfirmTimeout);
                    }
                }
                () = sleep_until(stuck_at.unwrap_or(moving_since)), if stuck_at.is_some() && !blocked => {
                    let error = Error::NotTaken("confirms have stopped coming");
                    break End::Fault(BrokerEvent::ChannelDied, error);
                }
                n_jobs = self.queue.recv_many(&mut jobs, room), if open && room > 0 => {
                    open = n_jobs > 0;
                    let deadline = Instant::now() + self.options.confirm_timeout;
                    for Job { message, reply } in jobs.drain(..) {
                        if blocked {
                            let _ = reply.send(Err(PublishError::Blocked));
                        } else {
                            window.push(channel, message, reply, deadline);
                        }
                    }
                }
            }
            if !open && window.next_deadline().is_none() {
                break End::Finished;
            }
        };
        window.fail_all();
        if matches!(end, End::Finished) {
            connection.close().await;
        }
        end
    }

    fn count(&mut self, released: &Released) {
        if released.n_confirmed > 0 {
            self.link.worked();
        }
        for _ in 0..released.n_returned {
            self.observer.tell(BrokerEvent::Returned);
        }
        for _ in 0..released.n_nacked {
            self.observer.tell(BrokerEvent::Nacked);
        }
    }
}

/// Answers whatever is queued while there is no session. Returns when all handles are dropped.
async fn refuse(queue: &mut mpsc::Receiver<Job>) {
    while let Some(job) = queue.recv().await {
        let _ = job.reply.send(Err(PublishError::Disconnected));
    }
}
