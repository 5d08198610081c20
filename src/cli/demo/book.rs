//! The demo's own books: what was sent, what was announced, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::announced::{Announced, Outcome};
use crate::invite::InviteCode;

/// Every trucker that was heard of.
#[derive(Default)]
pub(super) struct Book {
    truckers: BTreeMap<u64, Page>,
    /// Events that were refused at the door.
    pub(super) n_not_sent: usize,
}

#[derive(Default)]
struct Page {
    sent: Option<Instant>,
    /// From sending to the first announcement.
    waited: Option<Duration>,
    /// The newest announcement.
    last: Option<(u32, Outcome)>,
}

impl Book {
    /// An event was sent. To be noted before it leaves, as the answer may be quick.
    pub(super) fn sent(&mut self, pk: u64, at: Instant) {
        self.truckers.entry(pk).or_default().sent = Some(at);
    }

    /// How long a trucker's event has been under way, if the demo sent it.
    pub(super) fn waited(&self, pk: u64, at: Instant) -> Option<Duration> {
        self.truckers.get(&pk)?.sent.map(|sent| at - sent)
    }

    /// An announcement has arrived.
    pub(super) fn announced(&mut self, announced: Announced, at: Instant) {
        let page = self.truckers.entry(announced.key.pk.get()).or_default();
        page.waited = page.waited.or(page.sent.map(|sent| at - sent));
        // A consumer keeps the highest generation.
        if page.last.as_ref().is_none_or(|(generation, _)| *generation <= announced.generation) {
            page.last = Some((announced.generation, announced.outcome));
        }
    }

    /// Whether this announcement is known: the service may repeat one after a crash, under the same id.
    pub(super) fn knows(&self, announced: &Announced) -> bool {
        self.generation(announced.key.pk.get()).is_some_and(|known| known >= announced.generation)
    }

    /// The newest generation that was announced for a trucker.
    pub(super) fn generation(&self, pk: u64) -> Option<u32> {
        self.truckers.get(&pk)?.last.as_ref().map(|(generation, _)| *generation)
    }

    /// Events of the demo that were taken.
    pub(super) fn n_sent(&self) -> usize {
        self.own().count() - self.n_not_sent
    }

    /// Truckers of the demo whose code is there.
    pub(super) fn n_ready(&self) -> usize {
        self.own().filter(|(_, page)| page.code().is_some()).count()
    }

    /// Truckers of the demo that need a person.
    pub(super) fn n_failed(&self) -> usize {
        self.own().filter(|(_, page)| matches!(page.last, Some((_, Outcome::Failed { .. })))).count()
    }

    /// Codes that were announced to the demo's truckers, newest generation each.
    pub(super) fn codes(&self) -> impl Iterator<Item = (u64, &InviteCode)> {
        self.own().filter_map(|(pk, page)| Some((pk, page.code()?)))
    }

    /// The time within which this share of the invites was ready, by the nearest rank.
    pub(super) fn time_to_ready(&self, percent: usize) -> Option<Duration> {
        let ready = self.own().filter(|(_, page)| page.code().is_some());
        let mut waited: Vec<Duration> = ready.filter_map(|(_, page)| page.waited).collect();
        waited.sort_unstable();
        let rank = (waited.len() * percent).div_ceil(100);
        waited.get(rank.saturating_sub(1)).copied()
    }

    fn own(&self) -> impl Iterator<Item = (u64, &Page)> {
        self.truckers.iter().filter(|(_, page)| page.sent.is_some()).map(|(&pk, page)| (pk, page))
    }
}

impl Page {
    fn code(&self) -> Option<&InviteCode> {
        match &self.last {
            Some((_, Outcome::Ready { code, .. })) => Some(code),
            Some((_, Outcome::Failed { .. })) | None => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(pk: u64, generation: u32, code: &str) -> Announced {
        let outcome = Outcome::Ready { code: InviteCode::new(code).unwrap(), origin: "generated".into() };
        Announced { key: format!("default/{pk}").parse().unwrap(), generation, outcome }
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let start = Instant::now();
        let mut book = Book::default();
        assert_eq!(book.time_to_ready(50), None);
        for n in 1..=20 {
            book.sent(n, start);
            book.announced(ready(n, 1, "K7Q2ZD"), start + Duration::from_millis(n));
        }
        let percentile = |percent| book.time_to_ready(percent).unwrap().as_millis();
        assert_eq!((percentile(50), percentile(95), percentile(100)), (10, 19, 20));
    }

    #[test]
    fn the_highest_generation_counts_and_a_repetition_is_known() {
        let start = Instant::now();
        let mut book = Book::default();
        book.sent(1, start);
        book.announced(ready(1, 2, "NEW222"), start);
        assert!(book.knows(&ready(1, 2, "NEW222")) && book.knows(&ready(1, 1, "OLD111")));
        book.announced(ready(1, 1, "OLD111"), start);
        let codes: Vec<_> = book.codes().map(|(pk, code)| (pk, code.reveal())).collect();
        assert_eq!(codes, [(1, "NEW222")]);
    }

    #[test]
    fn a_trucker_of_somebody_else_is_not_counted() {
        let mut book = Book::default();
        let now = Instant::now();
        book.announced(ready(9, 1, "K7Q2ZD"), now);
        assert_eq!((book.waited(9, now), book.n_ready(), book.n_sent()), (None, 0, 0));
    }
}
