//! Which deliveries of one channel are settled, so that acknowledgements can be bundled safely.
//!
//! `basic.ack` with `multiple` acknowledges *everything* up to its tag. The ledger allows it only over a gapless
//! run of tags of which each was handed to us and settled by us; anything else is acknowledged one by one.

use std::collections::VecDeque;

/// One entry for each delivery tag from the lowest unsettled one on.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Tag of the first entry.
    first: u64,
    settled: VecDeque<bool>,
}

/// Acknowledgements to send.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acks {
    /// Acknowledge everything up to this tag.
    pub(super) up_to: Option<u64>,
    /// Acknowledge these alone.
    pub(super) single: Vec<u64>,
}

impl Ledger {
    /// The ledger of a new channel; tags count from 1.
    pub(super) fn new() -> Self {
        Self { first: 1, settled: VecDeque::new() }
    }

    /// Notes a delivery. Tags that were skipped stay unsettled for ever, and so end the bundling.
    pub(super) fn receive(&mut self, tag: u64) {
        while self.first + self.settled.len() as u64 <= tag {
            self.settled.push_back(false);
        }
    }

    /// Notes that these deliveries are settled and says how to tell the broker. Each tag is settled once.
    pub(super) fn settle(&mut self, tags: impl IntoIterator<Item = u64>) -> Acks {
        let mut news: Vec<u64> = tags.into_iter().collect();
        for &tag in &news {
            let entry = tag.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
            if let Some(settled) = entry.and_then(|index| self.settled.get_mut(index)) {
                *settled = true;
            }
        }
        while self.settled.front() == Some(&true) {
            self.settled.pop_front();
            self.first += 1;
        }
        // The tag of a bundle must itself be unacknowledged yet, hence one of the new ones.
        let bundled = news.extract_if(.., |tag| *tag < self.first).max();
        Acks { up_to: bundled, single: news }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gapless_run_is_acknowledged_at_once_and_what_lies_beyond_a_gap_alone() {
        let mut ledger = Ledger::new();
        (1..=6).for_each(|tag| ledger.receive(tag));
        assert_eq!(ledger.settle([2, 3]), Acks { up_to: None, single: vec![2, 3] });
        assert_eq!(ledger.settle([1, 4, 6]), Acks { up_to: Some(4), single: vec![6] });
        assert_eq!(ledger.settle([5]), Acks { up_to: Some(5), single: vec![] });
    }

    #[test]
    fn a_tag_that_was_never_handed_to_us_is_never_acknowledged() {
        let mut ledger = Ledger::new();
        for tag in [1, 3] {
            ledger.receive(tag);
        }
        assert_eq!(ledger.settle([1, 3]), Acks { up_to: Some(1), single: vec![3] });
    }

    proptest! {
        /// Against a model of the broker: whatever the order and grouping, acknowledged is exactly what was settled.
        #[test]
        fn acknowledged_is_exactly_what_was_settled(
            order in Just((1..=40u64).collect::<Vec<_>>()).prop_shuffle(),
            groups in prop::collection::vec(1..6usize, 1..20),
        ) {
            let mut ledger = Ledger::new();
            (1..=40).for_each(|tag| ledger.receive(tag));
            let mut unacked: std::collections::BTreeSet<u64> = (1..=40).collect();
            let mut unsettled = unacked.clone();
            let mut rest = order.as_slice();
            for size in groups {
                let (now, later) = rest.split_at(size.min(rest.len()));
                rest = later;
                unsettled.retain(|tag| !now.contains(tag));
                let acks = ledger.settle(now.iter().copied());
                if let Some(tag) = acks.up_to {
                    prop_assert!(unacked.contains(&tag), "the broker would close the channel over tag {tag}");
                    unacked.retain(|other| *other > tag);
                }
                for tag in acks.single {
                    prop_assert!(unacked.remove(&tag), "the broker would close the channel over tag {tag}");
                }
                prop_assert_eq!(&unacked, &unsettled);
            }
        }
    }
}
