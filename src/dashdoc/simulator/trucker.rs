//! One trucker of the simulated company: its codes, its counts, and what is in store for its next requests.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::faults::Fault;
use super::handle::Hold;
use super::report::{End, IssuedCode, TruckerReport};

/// A trucker that was asked for or created; it exists once it has a first code.
#[derive(Default)]
pub(super) struct Trucker {
    pub(super) remote_id: Option<Box<str>>,
    pub(super) posts: u64,
    pub(super) gets: u64,
    pub(super) effects: u64,
    pub(super) posts_in_flight: u64,
    pub(super) peak_posts_in_flight: u64,
    pub(super) post_answers: Vec<Option<u16>>,
    pub(super) codes: Vec<IssuedCode>,
    pub(super) first_asked: Option<Instant>,
    pub(super) post_script: VecDeque<Fault>,
    pub(super) get_script: VecDeque<Fault>,
    pub(super) post_holds: VecDeque<Hold>,
    pub(super) get_holds: VecDeque<Hold>,
}

impl Trucker {
    pub(super) fn exists(&self) -> bool {
        !self.codes.is_empty()
    }

    /// The code that a driver could use now.
    pub(super) fn code(&self) -> Option<&str> {
        self.codes.last().filter(|last| last.end.is_none()).map(|last| last.code.as_str())
    }

    /// Ends the valid code, if there is one.
    pub(super) fn end_code(&mut self, end: End) {
        if let Some(last) = self.codes.last_mut()
            && last.end.is_none()
        {
            last.end = Some(end);
        }
    }

    pub(super) fn report(&self, pk: u64) -> TruckerReport {
        TruckerReport {
            pk,
            exists: self.exists(),
            remote_id: self.remote_id.as_deref().map(str::to_owned),
            posts: self.posts,
            gets: self.gets,
            effects: self.effects,
            peak_posts_in_flight: self.peak_posts_in_flight,
            post_answers: self.post_answers.clone(),
            code: self.code().map(str::to_owned),
            codes: self.codes.clone(),
        }
    }
}
