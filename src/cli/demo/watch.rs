//! Follows the run: prints what happens, and knows when it is over.

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, MissedTickBehavior};

use super::book::Book;
use super::news::News;
use super::screen::{Context, Screen};
use crate::dashdoc::simulator::Handle;
use crate::invite::{Invite, StateName};
use crate::lifecycle::Lifecycle;
use crate::store::sqlite::Peek;
use crate::store::{self, Filter};

/// How often it is asked whether all is over, where no news tells.
const TICK: Duration = Duration::from_millis(100);
/// After so long without news a line says what is being waited for.
const QUIET: Duration = Duration::from_secs(5);

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Every event is ready or failed, and nothing is left to do.
    Over,
    /// A signal, or a part that died.
    Drained,
}

/// The demo's eyes.
pub(super) struct Watch<W> {
    /// Where it prints.
    pub(super) screen: Screen<W>,
    /// What it has seen.
    pub(super) book: Book,
    news: UnboundedReceiver<News>,
    api: Handle,
    store: Peek,
    n_events: usize,
    /// Whether codes may change after they were announced.
    late_effects: bool,
}

impl<W: Write> Watch<W> {
    /// Opens the store for reading, beside the relay.
    pub(super) fn open(
        screen: Screen<W>,
        news: UnboundedReceiver<News>,
        api: Handle,
        store: &Path,
        n_events: usize,
    ) -> Result<Self, store::Error> {
        let late_effects = api.faults().post.late_effect > 0.0;
        let store = Peek::open(store)?;
        Ok(Self { screen, book: Book::default(), news, api, store, n_events, late_effects })
    }

    /// Follows the run until it is over.
    pub(super) async fn until_over(&mut self, life: &Lifecycle, mend: &str) -> io::Result<Ended> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_news = Instant::now();
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                () = life.draining() => return Ok(Ended::Drained),
                Some(news) = self.news.recv() => {
                    self.take(news)?;
                    last_news = Instant::now();
                }
                _ = tick.tick() => {}
            }
            if self.all_ended() {
                if !self.late_effects || self.nothing_left() {
                    return Ok(Ended::Over);
                }
                if !std::mem::replace(&mut told, true) {
                    self.screen.note("invites with an unknown outcome are read back once more in 3 s")?;
                }
            } else if last_news.elapsed() >= QUIET {
                last_news = Instant::now();
                self.tell_what_waits(mend)?;
            }
        }
    }

    /// Prints what else happens, until the end.
    pub(super) async fn until_drained(&mut self, life: &Lifecycle) -> io::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = life.draining() => return Ok(()),
                Some(news) = self.news.recv() => self.take(news)?,
            }
        }
    }

    /// Prints what arrived during the drain.
    pub(super) fn last_news(&mut self) -> io::Result<()> {
        while let Ok(news) = self.news.try_recv() {
            self.take(news)?;
        }
        Ok(())
    }

    fn take(&mut self, news: News) -> io::Result<()> {
        match news {
            News::Sending { pk, at } => {
                self.book.sent(pk, at);
                Ok(())
            }
            News::NotSent { pk, why } => {
                self.book.n_not_sent += 1;
                self.screen.trouble(&format!("the event for trucker {pk} was not taken: {why}"))
            }
            News::Refused { why } => self.screen.trouble(&format!("an announcement was refused: {why}")),
            News::Announced { announced, .. } if self.book.knows(&announced) => Ok(()),
            News::Announced { announced, at } => {
                let story = self.store.show(&announced.key).ok().flatten();
                let context = Context {
                    waited: self.book.waited(announced.key.pk.get(), at),
                    report: self.api.trucker(announced.key.pk.get()),
                    trouble: story.and_then(|story| story.invite.last_failure),
                };
                self.screen.announced(&announced, &context)?;
                self.book.announced(announced, at);
                Ok(())
            }
        }
    }

    /// Whether every event has led to an announcement, or was refused.
    fn all_ended(&self) -> bool {
        self.book.n_ready() + self.book.n_failed() + self.book.n_not_sent >= self.n_events
    }

    /// Whether the relay owes nothing more, and all that it published was seen.
    fn nothing_left(&self) -> bool {
        self.invites().iter().all(|invite| {
            let seen = self.book.generation(invite.key.pk.get());
            invite.state.schedule().is_none() && seen == Some(invite.generation.get())
        })
    }

    fn tell_what_waits(&mut self, mend: &str) -> io::Result<()> {
        let invites = self.invites();
        let mut waiting: Vec<(StateName, usize)> = Vec::new();
        for state in StateName::ALL {
            let n = invites.iter().filter(|invite| invite.state.name() == state).count();
            if n > 0 && !matches!(state, StateName::Published | StateName::Dead) {
                waiting.push((state, n));
            }
        }
        let states: Vec<String> = waiting.iter().map(|(state, n)| format!("{n} {state}")).collect();
        self.screen.note(&format!("not ready yet, none is lost: {}", states.join(", ")))?;
        self.screen.note(mend)
    }

    /// All invites; none while the store can't be read.
    fn invites(&self) -> Vec<Invite> {
        let all = Filter { limit: usize::MAX, ..Filter::default() };
        self.store.list(&all).unwrap_or_default()
    }
}
