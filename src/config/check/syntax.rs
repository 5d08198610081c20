//! What a text must look like.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tracing_subscriber::EnvFilter;
use url::{Host, Url};

/// The mend for [`is_signing_secret`].
pub(super) const SIGNING_SECRET_MEND: &str =
    "write whsec_ and the base64 of 24 to 64 random bytes: echo \"whsec_$(openssl rand -base64 32)\"";

/// Whether `text` is a Standard Webhooks signing secret: `whsec_` and the base64 of 24 to 64 bytes (specification
/// 1.0.0).
pub(super) fn is_signing_secret(text: &str) -> bool {
    let key = text.strip_prefix("whsec_").and_then(|key| STANDARD.decode(key).ok());
    key.is_some_and(|key| (24..=64).contains(&key.len()))
}

/// Whether `text` is a JSON pointer (RFC 6901) to something below the root.
pub(super) fn is_pointer(text: &str) -> bool {
    let escapes_right = |part: &str| part.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    text.starts_with('/') && escapes_right(text)
}

/// Whether `text` is the path of one webhook, and no pattern.
pub(super) fn is_path(text: &str) -> bool {
    let plain = |part: &str| !part.starts_with([':', '*']);
    text.starts_with('/') && !text.contains(['?', '#', '{', '}', ' ']) && text.split('/').all(plain)
}

/// Whether there is a routing key that both patterns of a topic exchange fit: words between dots, `*` for any one
/// word, `#` for any number of words.
pub(super) fn topics_overlap(one: &str, other: &str) -> bool {
    fn overlap(one: &[&str], other: &[&str]) -> bool {
        match (one, other) {
            ([], []) => true,
            (["#", rest @ ..], all) | (all, ["#", rest @ ..]) => {
                (0..=all.len()).any(|n_skipped| overlap(rest, &all[n_skipped..]))
            }
            ([first, one @ ..], [second, other @ ..]) => {
                (first == second || *first == "*" || *second == "*") && overlap(one, other)
            }
            ([], _) | (_, []) => false,
        }
    }
    let (one, other): (Vec<_>, Vec<_>) = (one.split('.').collect(), other.split('.').collect());
    overlap(&one, &other)
}

/// Whether `text` can stand in a header.
pub(super) fn is_header_value(text: &str) -> bool {
    axum::http::HeaderValue::from_str(text).is_ok() && text.is_ascii()
}

/// Whether `text` is log directives with at least one level. A lone misspelt level such as `inof` would be taken as
/// the name of a module, and silence all others.
pub(super) fn are_log_directives(text: &str) -> bool {
    let is_level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| word.eq_ignore_ascii_case(level))
    };
    let has_level = |directive: &str| is_level(directive.rsplit('=').next().unwrap_or(directive).trim());
    text.split(',').any(has_level) && EnvFilter::try_new(text).is_ok()
}

/// Whether requests to `url` cross a network without TLS.
pub(super) fn leaves_the_machine_in_clear(url: &Url) -> bool {
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && !local
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signing_secret_has_its_prefix_and_24_to_64_bytes() {
        assert!(is_signing_secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"));
        for bad in ["", "whsec_", "whsec_YQ==", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_not base64"] {
            assert!(!is_signing_secret(bad), "{bad} was taken");
        }
    }

    #[test]
    fn a_pointer_begins_with_a_slash_and_escapes_its_tildes() {
        for (text, good) in
            [("/a", true), ("/a~0b/~1", true), ("", false), ("a", false), ("/a~", false), ("/~2", false)]
        {
            assert_eq!(is_pointer(text), good, "{text}");
        }
    }

    #[test]
    fn a_path_is_no_pattern() {
        for (text, good) in [
            ("/webhooks/acme", true),
            ("/a:b/c*", true),
            ("", false),
            ("a", false),
            ("/a b", false),
            ("/{account}", false),
            ("/:account", false),
            ("/a/*rest", false),
        ] {
            assert_eq!(is_path(text), good, "{text}");
        }
    }

    #[test]
    fn two_topics_overlap_when_one_event_can_fit_both() {
        for (one, other, overlap) in [
            ("trucker.created", "trucker.created", true),
            ("trucker.created", "trucker.created.acme", false),
            ("trucker.created.*", "trucker.created.acme", true),
            ("trucker.*", "trucker.created.acme", false),
            ("trucker.#", "trucker.created.acme", true),
            ("#", "anything.at.all", true),
            ("#.acme", "trucker.#", true),
            ("*.acme", "beta.*", true),
            ("a.#.z", "a.b.#", true),
            ("a.#.z", "b.#", false),
            ("trucker.created.acme", "trucker.created.beta", false),
            ("trucker.#", "trucker", true),
        ] {
            assert_eq!(topics_overlap(one, other), overlap, "{one} and {other}");
            assert_eq!(topics_overlap(other, one), overlap, "{other} and {one}");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_log_directive() {
        for (text, good) in [
            ("info", true),
            ("WARN,invite_relay::relay=debug", true),
            ("inof", false),
            ("", false),
            ("invite_relay=inof", false),
        ] {
            assert_eq!(are_log_directives(text), good, "{text}");
        }
    }

    #[test]
    fn only_plain_http_to_another_machine_travels_in_clear() {
        for (text, clear) in [
            ("http://api.example/", true),
            ("https://api.example/", false),
            ("http://127.0.0.1:81/", false),
            ("http://[::1]/", false),
            ("http://localhost/", false),
        ] {
            assert_eq!(leaves_the_machine_in_clear(&text.parse().unwrap()), clear, "{text}");
        }
    }
}
