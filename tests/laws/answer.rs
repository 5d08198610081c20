//! What may be concluded from an answer of the API.

use std::time::Duration;

use invite_relay::dashdoc::answer::{Operation, Response, Verdict, classify};
use invite_relay::invite::{FailureClass, TruckerPk};
use serde_json::Value;

/// All that may be said of a successful answer without a usable code.
const DOUBTS: [&str; 6] =
    ["body_cut", "body_too_large", "unreadable_body", "another_trucker", "unreadable_code", "no_code"];

/// Longest failure code.
const CODE_MAX: usize = 96;

/// What an answer says. The rest of it has to have the form of JSON; numbers that no type holds, nesting without end
/// and text in another encoding are the API's business there.
#[derive(serde::Deserialize)]
#[serde(default)]
struct Answer {
    pk: Value,
    invite_code: Value,
}

impl Default for Answer {
    fn default() -> Self {
        Self { pk: Value::Null, invite_code: Value::Null }
    }
}

impl Answer {
    fn read(body: &[u8]) -> Self {
        serde_json::from_str(&String::from_utf8_lossy(body)).expect("a verdict out of what is no JSON")
    }
}

/// For any answer to any question.
pub(crate) fn holds(
    operation: Operation,
    pk: TruckerPk,
    status: u16,
    retry_after: Option<Duration>,
    body: &[u8],
) {
    let verdict = classify(operation, pk, Response { status, retry_after, body: Ok(body) });
    let success = (200..300).contains(&status);
    match &verdict {
        Verdict::Code(code) => {
            assert!(success, "a code out of a {status}");
            assert_eq!(format!("{verdict:?}"), "Code(InviteCode(…))", "a code never shows");
            let Answer { pk: found, invite_code } = Answer::read(body);
            assert_eq!(invite_code.as_str().map(str::trim), Some(code.reveal()), "not the answer's code");
            assert!(found.is_null() || found.as_u64() == Some(pk.get()), "another trucker's code");
        }
        Verdict::NoCode => {
            assert!(success && operation == Operation::Read, "only a read can tell that there is no code");
            let Answer { invite_code, .. } = Answer::read(body);
            assert!(invite_code.as_str().unwrap_or_default().trim().is_empty(), "there is a code");
        }
        Verdict::Failed(failure) => {
            assert_eq!(success, failure.class == FailureClass::Doubtful, "{status} is {failure}");
            assert!(failure.code.len() <= CODE_MAX);
            if success {
                assert!(DOUBTS.contains(&failure.code.as_str()), "{failure}");
            } else {
                only_identifiers_are_kept(status, &failure.code);
            }
            let throttled = status == 429 || status == 503 && retry_after.is_some();
            assert_eq!(throttled, failure.class == FailureClass::Throttled, "{status} is {failure}");
            let spares = matches!(status, 401 | 403);
            assert_eq!(spares, failure.class == FailureClass::Credentials, "{status} is {failure}");
        }
    }
    // What could not be read to its end says nothing, whatever its beginning was.
    for why in ["body_cut", "body_too_large"] {
        let verdict = classify(operation, pk, Response { status, retry_after, body: Err(why) });
        let Verdict::Failed(failure) = verdict else {
            panic!("a verdict out of half an answer: {verdict:?}")
        };
        assert_eq!(success, failure.class == FailureClass::Doubtful);
        assert_eq!(success, failure.code == why);
    }
}

/// `http_` and the status, then words that hold neither digits nor capitals: no phone, no code, no address.
fn only_identifiers_are_kept(status: u16, code: &str) {
    let words =
        code.strip_prefix(&format!("http_{status}")).unwrap_or_else(|| panic!("{code} for a {status}"));
    assert!(words.is_empty() || words.starts_with('.'), "{code}");
    assert!(words.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.'), "{code}");
    assert!(words.matches('.').count() <= 3, "{code}");
}

/// A good answer with its code in it, cut anywhere or sent with any other status, gives no code.
pub(crate) fn only_the_whole_of_a_success_gives_a_code(
    pk: TruckerPk,
    code: &str,
    other_status: u16,
    cut: usize,
) {
    let body = serde_json::json!({ "pk": pk.get(), "invite_code": code }).to_string();
    let read = |status, body: &[u8]| {
        classify(Operation::Generate, pk, Response { status, retry_after: None, body: Ok(body) })
    };
    assert!(matches!(read(200, body.as_bytes()), Verdict::Code(found) if found.reveal() == code));
    let cut = cut % body.len();
    assert!(!matches!(read(200, &body.as_bytes()[..cut]), Verdict::Code(_)), "cut to {cut} bytes");
    for operation in Operation::ALL {
        holds(operation, pk, other_status, None, body.as_bytes());
    }
}
