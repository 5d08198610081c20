//! `Retry-After` (RFC 9110 §10.2.3): seconds or a date, read so that a wrong clock or a wild value does no harm.

use std::time::{Duration, SystemTime};

/// The longest wait that is taken over from the API. A longer one is cut to this, and reported: an operator
/// should know that the API asked for a day off.
pub const LONGEST: Duration = Duration::from_secs(3600);

/// What `Retry-After` asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// How long to wait, at most [`LONGEST`].
    pub wait: Duration,
    /// Whether the API asked for more than that.
    pub cut: bool,
}

/// Reads the header's value. `date` is the response's own `Date`: a date is read relative to it, so that a skew
/// between the clocks cancels out; `now` stands in where the response has none. `None` if it is neither form.
pub fn parse(value: &str, date: Option<&str>, now: SystemTime) -> Option<Asked> {
    let value = value.trim();
    let wait = seconds(value).or_else(|| {
        let until = httpdate::parse_http_date(value).ok()?;
        let from = date.and_then(|date| httpdate::parse_http_date(date).ok()).unwrap_or(now);
        Some(until.duration_since(from).unwrap_or_default())
    })?;
    Some(Asked { wait: wait.min(LONGEST), cut: wait > LONGEST })
}

/// Whole seconds by the standard; a fraction is rounded up, because some servers send one.
fn seconds(value: &str) -> Option<Duration> {
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    // More digits than fit is a very long wait, not nonsense.
    let seconds = whole.parse::<u64>().unwrap_or(u64::MAX / 2);
    let up = u64::from(fraction.bytes().any(|byte| byte != b'0'));
    Some(Duration::from_secs(seconds.saturating_add(up)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(date: &str) -> SystemTime {
        httpdate::parse_http_date(date).unwrap()
    }

    fn check(value: &str, date: Option<&str>, expected: Option<u64>) {
        let now = at("Wed, 21 Oct 2026 07:00:00 GMT");
        let wait = parse(value, date, now).map(|asked| asked.wait.as_secs());
        assert_eq!(wait, expected, "{value:?} with Date {date:?}");
    }

    #[test]
    fn both_forms_are_read() {
        check("30", None, Some(30));
        check(" 0 ", None, Some(0));
        check("1.2", None, Some(2));
        check("Wed, 21 Oct 2026 07:00:30 GMT", None, Some(30));
    }

    #[test]
    fn a_date_is_relative_to_the_responses_own_clock() {
        check("Wed, 21 Oct 2026 09:00:30 GMT", Some("Wed, 21 Oct 2026 09:00:00 GMT"), Some(30));
        check("Wed, 21 Oct 2026 06:00:00 GMT", None, Some(0));
        check("Wed, 21 Oct 2026 07:00:30 GMT", Some("nonsense"), Some(30));
    }

    #[test]
    fn nonsense_is_no_wait_at_all() {
        for value in ["", "soon", "-5", "1e9", "NaN", "1.x", ".5"] {
            check(value, None, None);
        }
    }

    #[test]
    fn a_wild_value_is_cut_and_says_so() {
        let now = at("Wed, 21 Oct 2026 07:00:00 GMT");
        for value in ["86400", "99999999999999999999999", "Wed, 21 Oct 2099 07:00:00 GMT"] {
            assert_eq!(parse(value, None, now), Some(Asked { wait: LONGEST, cut: true }), "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics_or_exceeds_the_longest_wait(value in ".*", date in proptest::option::of(".*")) {
            if let Some(asked) = parse(&value, date.as_deref(), SystemTime::UNIX_EPOCH) {
                prop_assert!(asked.wait <= LONGEST);
            }
        }
    }
}
