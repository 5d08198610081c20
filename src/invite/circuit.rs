//! The circuit of an account: so many failures in a row mean an outage, not bad luck with single truckers.

use super::{Answer, Effect, FailureClass};

/// Counts failures in a row that look like an outage: nothing was reached, or nobody knows what came of it.
///
/// Calls and reads are counted apart. An API that reads well and fails every call would otherwise look healthy, because
/// each unknown call is followed by a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circuit {
    calls: u32,
    reads: u32,
}

impl Circuit {
    /// Notes the answer to `asked`; returns whether there were `threshold` failures of its kind in a row by now.
    ///
    /// An answer about the account (429, 401, a redirect) is neither: the gate draws its own conclusion from it.
    pub fn note(&mut self, asked: Effect, answer: &Answer, threshold: u32) -> bool {
        let count = match asked {
            Effect::Call => &mut self.calls,
            Effect::Read => &mut self.reads,
            Effect::Announce(_) => return false,
        };
        match answer {
            Answer::Code(_) | Answer::NoCode => *count = 0,
            Answer::Failed { failure, .. } => match failure.class {
                FailureClass::Transient | FailureClass::Unknown => *count = count.saturating_add(1),
                // It answered about this trucker, so it works. What it said in garbage counts as an answer too: one
                // trucker with a broken record must come to an end.
                FailureClass::NotFound | FailureClass::Rejected | FailureClass::Doubtful => *count = 0,
                FailureClass::Throttled
                | FailureClass::Credentials
                | FailureClass::Misconfigured
                | FailureClass::UnknownAccount => {}
            },
        }
        *count >= threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invite::testing::{code, failed};

    fn after(answers: &[(Effect, Answer)]) -> bool {
        let mut circuit = Circuit::default();
        answers.iter().fold(false, |_, (asked, answer)| circuit.note(*asked, answer, 3))
    }

    #[test]
    fn so_many_failures_in_a_row_are_an_outage_and_one_less_is_not() {
        for class in [FailureClass::Transient, FailureClass::Unknown] {
            let failing = (Effect::Call, failed(class));
            assert!(!after(&[failing.clone(), failing.clone()]));
            assert!(after(&[failing.clone(), failing.clone(), failing]));
        }
    }

    #[test]
    fn any_answer_about_a_trucker_begins_the_count_anew() {
        let failing = (Effect::Call, failed(FailureClass::Unknown));
        for good in [
            Answer::Code(code(1)),
            failed(FailureClass::NotFound),
            failed(FailureClass::Rejected),
            failed(FailureClass::Doubtful),
        ] {
            let between = (Effect::Call, good);
            assert!(!after(&[failing.clone(), failing.clone(), between, failing.clone()]));
        }
    }

    #[test]
    fn reads_that_work_do_not_hide_that_every_call_fails() {
        let (call, read) = ((Effect::Call, failed(FailureClass::Unknown)), (Effect::Read, Answer::NoCode));
        assert!(after(&[call.clone(), read.clone(), call.clone(), read, call]));
    }

    #[test]
    fn an_answer_about_the_account_counts_neither_way() {
        let failing = (Effect::Call, failed(FailureClass::Transient));
        for class in [FailureClass::Throttled, FailureClass::Credentials, FailureClass::Misconfigured] {
            let between = (Effect::Call, failed(class));
            assert!(after(&[failing.clone(), failing.clone(), between.clone(), failing.clone()]));
            assert!(!after(&[failing.clone(), between.clone(), between.clone(), between]));
        }
    }
}
