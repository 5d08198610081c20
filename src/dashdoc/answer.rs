//! What an answer of the API means: the table "Answers of the API", and nothing else.
//!
//! Bodies are full of personal data. Only what is needed is read out of them, and of an error only identifiers
//! are kept, never its prose.

use std::time::Duration;

use serde_json::Value;

use crate::invite::{Failure, FailureClass, InviteCode, TruckerPk};

/// Identifiers that are kept of one error body.
const IDENTIFIERS_MAX: usize = 3;
/// Longest identifier that is kept; Dashdoc's field names are shorter.
const IDENTIFIER_MAX: usize = 40;
/// How deep an error body is searched for identifiers.
const DEPTH_MAX: usize = 4;

/// What was asked of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// `POST …/generate-invite-code/`: has an effect, and a second one replaces the first.
    Generate,
    /// `GET …/{pk}/`: may be repeated.
    Read,
}

impl Operation {
    /// Both operations.
    pub const ALL: [Self; 2] = [Self::Generate, Self::Read];

    /// The word used in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generate => "generate",
            Self::Read => "read",
        }
    }

    /// The HTTP method.
    pub const fn method(self) -> &'static str {
        match self {
            Self::Generate => "POST",
            Self::Read => "GET",
        }
    }

    /// The path below the base URL, with the trucker's key as a placeholder. Dashdoc wants the trailing slash.
    pub const fn template(self) -> &'static str {
        match self {
            Self::Generate => "/manager-truckers/{pk}/generate-invite-code/",
            Self::Read => "/manager-truckers/{pk}/",
        }
    }
}

/// An answer, classified.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// There is a code.
    Code(InviteCode),
    /// The trucker is there and has no code (only for [`Operation::Read`]).
    NoCode,
    /// Anything else.
    Failed(Failure),
}

/// The parts of a response that matter.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// The status code.
    pub status: u16,
    /// What `Retry-After` asked for, if it was there and readable.
    pub retry_after: Option<Duration>,
    /// The body, or why there is none: it was cut off or too large.
    pub body: Result<&'a [u8], &'static str>,
}

/// Classifies a response to `operation` on the trucker `pk`.
pub fn classify(operation: Operation, pk: TruckerPk, response: Response<'_>) -> Verdict {
    let status = response.status;
    let failed =
        |class| Verdict::Failed(Failure::new(class, &error_code(status, response.body.unwrap_or_default())));
    match status {
        200..=299 => match response.body {
            Ok(body) => success(operation, pk, body),
            Err(why) => doubtful(why),
        },
        300..=399 => failed(FailureClass::Misconfigured),
        401 | 403 => failed(FailureClass::Credentials),
        404 => failed(FailureClass::NotFound),
        408 => failed(FailureClass::Unknown),
        429 => failed(FailureClass::Throttled),
        503 if response.retry_after.is_some() => failed(FailureClass::Throttled),
        400..=499 => failed(FailureClass::Rejected),
        // 5xx, and numbers that are no HTTP status: something happened, nobody knows what.
        _ => failed(FailureClass::Unknown),
    }
}

fn success(operation: Operation, pk: TruckerPk, body: &[u8]) -> Verdict {
    /// Every property is optional in Dashdoc's schema.
    #[derive(serde::Deserialize)]
    struct Trucker {
        #[serde(default)]
        pk: Option<Value>,
        #[serde(default)]
        invite_code: Option<Value>,
    }
    // An array would be read as a tuple of the fields.
    if !body.trim_ascii_start().starts_with(b"{") {
        return doubtful("unreadable_body");
    }
    let Ok(trucker) = serde_json::from_slice::<Trucker>(body) else { return doubtful("unreadable_body") };
    if trucker.pk.is_some_and(|found| !found.is_null() && found.as_u64() != Some(pk.get())) {
        return doubtful("another_trucker");
    }
    let code = match &trucker.invite_code {
        None | Some(Value::Null) => "",
        Some(Value::String(text)) => text.trim(),
        Some(_) => return doubtful("unreadable_code"),
    };
    match (code, operation) {
        ("", Operation::Read) => Verdict::NoCode,
        ("", Operation::Generate) => doubtful("no_code"),
        (text, _) => InviteCode::new(text).map_or_else(|| doubtful("unreadable_code"), Verdict::Code),
    }
}

fn doubtful(why: &str) -> Verdict {
    Verdict::Failed(Failure::new(FailureClass::Doubtful, why))
}

/// `http_400.phone_number.invalid`: the status, then the identifiers of the error, in the body's order.
fn error_code(status: u16, body: &[u8]) -> String {
    let mut code = format!("http_{status}");
    if let Ok(error) = serde_json::from_slice::<Value>(body) {
        let mut found = Vec::new();
        identifiers(&error, DEPTH_MAX, &mut found);
        for identifier in found.into_iter().take(IDENTIFIERS_MAX) {
            code.push('.');
            code.push_str(&identifier);
        }
    }
    code
}

/// Field names and `code`s of an error in any of the shapes that Django REST framework makes.
fn identifiers(error: &Value, depth: usize, found: &mut Vec<String>) {
    if depth == 0 || found.len() >= IDENTIFIERS_MAX {
        return;
    }
    match error {
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value) {
                    ("code" | "error", Value::String(code)) if is_identifier(code) => {
                        found.push(code.clone());
                    }
                    ("code" | "error" | "detail", Value::String(_)) => {}
                    (name, value) => {
                        if is_identifier(name) {
                            found.push(name.to_owned());
                        }
                        identifiers(value, depth - 1, found);
                    }
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| identifiers(item, depth - 1, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Lower-case letters and `_`: no digits, so that no phone number or code passes as a name.
fn is_identifier(text: &str) -> bool {
    (1..=IDENTIFIER_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pk() -> TruckerPk {
        TruckerPk::try_from(23498).unwrap()
    }

    fn answer(operation: Operation, status: u16, retry_after: Option<u64>, body: &str) -> Verdict {
        let retry_after = retry_after.map(Duration::from_secs);
        classify(operation, pk(), Response { status, retry_after, body: Ok(body.as_bytes()) })
    }

    fn failure(status: u16, retry_after: Option<u64>, body: &str) -> Failure {
        match answer(Operation::Generate, status, retry_after, body) {
            Verdict::Failed(failure) => failure,
            other => panic!("{status} {body} is {other:?}"),
        }
    }

    #[test]
    fn every_status_has_the_class_of_the_table() {
        use FailureClass::{Credentials, Misconfigured, NotFound, Rejected, Throttled, Unknown};
        let table: &[(&[u16], FailureClass)] = &[
            (&[301, 302, 303, 307, 308], Misconfigured),
            (&[401, 403], Credentials),
            (&[404], NotFound),
            (&[400, 402, 405, 406, 409, 410, 415, 418, 422, 451], Rejected),
            (&[408, 500, 501, 502, 503, 504, 599, 999], Unknown),
            (&[429], Throttled),
        ];
        for (statuses, expected) in table {
            for status in *statuses {
                assert_eq!(failure(*status, None, "").class, *expected, "{status}");
            }
        }
        assert_eq!(failure(503, Some(5), "").class, Throttled, "503 with Retry-After");
        assert_eq!(failure(500, Some(5), "").class, Unknown, "500 with Retry-After may have had its effect");
    }

    #[test]
    fn only_a_200_with_a_code_is_done() {
        let with = |body| answer(Operation::Generate, 200, None, body);
        let expected = Verdict::Code(InviteCode::new("K7Q2ZD").unwrap());
        assert_eq!(with(r#"{"pk":23498,"invite_code":"K7Q2ZD","user":null}"#), expected);
        assert_eq!(with(r#" {"invite_code":" K7Q2ZD\n"}"#), expected);
        for (body, why) in [
            (r#"{"pk":23498,"invite_code":null}"#, "no_code"),
            (r#"{"pk":23498,"invite_code":""}"#, "no_code"),
            (r#"{"pk":23498}"#, "no_code"),
            (r#"{"invite_code":123456}"#, "unreadable_code"),
            (r#"{"invite_code":"has blanks"}"#, "unreadable_code"),
            (r#"{"pk":1,"invite_code":"K7Q2ZD"}"#, "another_trucker"),
            ("<html>", "unreadable_body"),
            ("", "unreadable_body"),
            (r#"[23498,"K7Q2ZD"]"#, "unreadable_body"),
        ] {
            assert_eq!(with(body), doubtful(why), "{body}");
        }
    }

    #[test]
    fn what_is_not_needed_of_an_answer_may_be_out_of_order() {
        // Found by fuzzing: a number beyond every type and bytes that are no UTF-8, in members that nobody reads.
        let expected = Verdict::Code(InviteCode::new("K7Q2ZD").unwrap());
        let with = |body: &[u8]| {
            classify(Operation::Generate, pk(), Response { status: 200, retry_after: None, body: Ok(body) })
        };
        assert_eq!(with(br#"{"p.k":2E3498,"invite_code":"K7Q2ZD","1ser":null}"#), expected);
        assert_eq!(with(b"{\"invite_code\":\"K7Q2ZD\",\"user\":{\"first_name\":\"Ad\xe8le\"}}"), expected);
        // In what is read they are not overlooked.
        assert_eq!(with(br#"{"pk":2E3498,"invite_code":"K7Q2ZD"}"#), doubtful("unreadable_body"));
        assert_eq!(with(b"{\"invite_code\":\"K7\xe8ZD\"}"), doubtful("unreadable_body"));
    }

    #[test]
    fn a_read_of_a_trucker_without_a_code_says_so() {
        assert_eq!(answer(Operation::Read, 200, None, r#"{"pk":23498,"invite_code":null}"#), Verdict::NoCode);
        assert_eq!(answer(Operation::Read, 200, None, "nonsense"), doubtful("unreadable_body"));
    }

    #[test]
    fn a_body_that_was_cut_or_too_large_is_in_doubt() {
        for why in ["body_cut", "body_too_large"] {
            let response = Response { status: 200, retry_after: None, body: Err(why) };
            assert_eq!(classify(Operation::Generate, pk(), response), doubtful(why));
        }
    }

    #[test]
    fn an_error_keeps_its_identifiers_in_every_known_shape_and_no_prose() {
        for (body, expected) in [
            (
                r#"{"phone_number":{"detail":"Bad number 0601020304","code":"invalid"}}"#,
                "http_400.phone_number.invalid",
            ),
            (
                r#"{"user":{"email":[{"detail":"x@y.z is taken","code":"unique"}]}}"#,
                "http_400.user.email.unique",
            ),
            (r#"{"detail":"Not found.","code":"not_found"}"#, "http_400.not_found"),
            (r#"{"detail":"Adèle is disabled"}"#, "http_400"),
            (r#"{"phone_number":["0601020304 is no number"]}"#, "http_400.phone_number"),
            (r#"{"non_field_errors":["Adèle Bouvet exists"]}"#, "http_400.non_field_errors"),
            (r#"{"error":"quota_exceeded"}"#, "http_400.quota_exceeded"),
            (r#"{"error":"Adèle's phone is 0601020304"}"#, "http_400"),
            (r#"{"0601020304":"x"}"#, "http_400"),
            ("<html>Adèle</html>", "http_400"),
        ] {
            assert_eq!(failure(400, None, body).code, expected, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_panics(status in 100u16..1000, body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let response = Response { status, retry_after: None, body: Ok(&body) };
            let _ = classify(Operation::Generate, pk(), response);
        }
    }
}
