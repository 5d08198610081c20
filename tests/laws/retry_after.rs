//! What `Retry-After` may do to a wait.

use std::time::{Duration, SystemTime};

use invite_relay::dashdoc::retry_after::{Asked, LONGEST, parse};

/// For any header, any `Date` beside it and any moment.
pub(crate) fn holds(value: &str, date: Option<&str>, now: SystemTime) {
    let asked = parse(value, date, now);
    assert_eq!(asked, parse(&format!("\t{value} "), date, now), "blanks around it mean nothing");
    let Some(asked) = asked else { return };

    assert!(asked.wait <= LONGEST, "never longer than the cap");
    assert!(!asked.cut || asked.wait == LONGEST, "only what is longer is cut");
    if !asked.cut {
        let seconds = asked.wait.as_secs().to_string();
        let again = parse(&seconds, None, now).expect("whole seconds are read");
        assert_eq!(again.wait.as_secs(), asked.wait.as_secs(), "the same wait in the other form");
    }
    // Not just "a number within bounds": the number that was asked for.
    let value = value.trim();
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        let seconds = value.parse::<u64>().unwrap_or(u64::MAX);
        let longest = LONGEST.as_secs();
        assert_eq!(
            asked,
            Asked { wait: Duration::from_secs(seconds.min(longest)), cut: seconds > longest },
            "digits are seconds, and no clock changes that"
        );
    }
    if let Ok(until) = httpdate::parse_http_date(value) {
        let from = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
        assert!(from + asked.wait <= until.max(from), "never later than the date");
        assert!(asked.cut || from + asked.wait == until.max(from), "and not earlier either");
    }
}

/// The date form, made of a moment and a wait: a clock that is off on both sides changes nothing.
pub(crate) fn skew_cancels_out(wait: Duration, server_now: SystemTime, our_now: SystemTime) {
    let until = httpdate::fmt_http_date(server_now + wait);
    let asked = parse(&until, Some(&httpdate::fmt_http_date(server_now)), our_now).expect("a date");
    assert_eq!(asked.wait.as_secs(), wait.as_secs().min(LONGEST.as_secs()));
}
