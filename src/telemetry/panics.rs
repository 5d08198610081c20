//! Panics as log lines. Only the place is logged, and a message that is part of the program: one that was made at
//! run time may hold whatever was being worked on.

use std::panic::PanicHookInfo;

use tracing::error;

/// Replaces the standard hook, which writes messages as they are.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        error!(place, words = program_text(panic), "a task panicked");
    }));
}

fn program_text<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("(not shown: made at run time)")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_panic_shows_the_programs_own_words_and_nothing_made_at_run_time() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let standard = std::panic::take_hook();
        let note = move |panic: &PanicHookInfo<'_>| {
            noted.lock().unwrap().push(program_text(panic).to_owned());
        };
        std::panic::set_hook(Box::new(note));
        let code = String::from("K7Q2ZD");
        let _ = std::panic::catch_unwind(|| panic!("{code} was there"));
        let _ = std::panic::catch_unwind(|| panic!("an invariant broke"));
        std::panic::set_hook(standard);
        let seen = seen.lock().unwrap();
        assert!(seen.iter().any(|text| text == "an invariant broke"), "{seen:?}");
        assert!(seen.iter().all(|text| !text.contains("K7Q2ZD")), "{seen:?}");
    }
}
