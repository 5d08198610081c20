//! The texts of the API: the trucker object with made-up personal data, and the shapes of its errors.

use std::fmt::Write as _;

/// What of a trucker is not derived from its pk.
pub(super) struct Person<'a> {
    pub(super) pk: u64,
    pub(super) remote_id: Option<&'a str>,
    /// `None` writes `null`.
    pub(super) invite_code: Option<&'a str>,
}

const FIRST_NAMES: [&str; 8] = ["Adèle", "Bastien", "Chloé", "Driss", "Elena", "Femke", "Goran", "Héloïse"];

/// The whole trucker, in the shape of the sample of Dashdoc's reference. The pk is in every personal field,
/// so that a leak into a log shows whose it is.
pub(super) fn trucker(person: &Person<'_>) -> String {
    let &Person { pk, remote_id, invite_code } = person;
    let first = FIRST_NAMES[usize::try_from(pk % 8).expect("below 8")];
    let remote_id = match remote_id {
        Some(given) => json_string(given),
        None => format!("\"remote-{pk}\""),
    };
    let invite_code = invite_code.map_or_else(|| "null".to_owned(), |code| format!("\"{code}\""));
    format!(
        r#"{{"pk":{pk},"user":{{"pk":{user},"username":"simulated-user-{pk}","display_name":"{first} Simulated-{pk}","email":"trucker-{pk}@example.com","date_joined":"2025-07-11T18:55:08.628Z","last_login":"2025-07-11T18:55:08.628Z","has_usable_password":true,"first_name":"{first}","last_name":"Simulated-{pk}"}},"phone_number":"+33600{pk:06}","invite_code":{invite_code},"app_version":180,"readable_app_version":"2.7.7","platform":"ios","remote_id":{remote_id},"carrier":{{"pk":928,"remote_id":"carrier-928","name":"Transport Bouvet","phone_number":"0601020304","country":"FR","primary_address":{{"pk":"4711","city":"Nantes","postcode":"44000","country":"FR"}},"managers":[{{"pk":928,"display_name":"Manager of Simulated-{pk}","role":"admin"}}],"has_loggable_managers":true}},"is_rented":false,"phone_number_personal":"+33700{pk:06}","address":"{pk} Simulated Street","postcode":"44000","city":"Nantes","country_code":"FR","driving_license_number":"SIM-{pk}","driving_license_deadline":"2030-12-22T15:31:39.26167Z","new_app_update_available":true,"unavailability":[{{"id":{pk},"start_date":"2020-07-30T21:10:06.44551Z","unavailability_type":"paid_vacation"}}],"events":[{{}}],"tags":[{{"pk":23498,"name":"Remorque"}}]}}"#,
        user = pk.wrapping_add(500_000_000),
    )
}

/// One page of the list.
pub(super) fn page(count: u64, next: Option<&str>, previous: Option<&str>, results: &[String]) -> String {
    let link = |link: Option<&str>| link.map_or_else(|| "null".to_owned(), json_string);
    let mut text = String::with_capacity(200 + results.iter().map(|result| result.len() + 1).sum::<usize>());
    let (next, previous) = (link(next), link(previous));
    let _ = write!(text, r#"{{"count":{count},"next":{next},"previous":{previous},"results":["#);
    text.push_str(&results.join(","));
    text.push_str("]}");
    text
}

/// A string as JSON writes it.
pub(super) fn json_string(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

pub(super) const NO_TOKEN: &str =
    r#"{"detail":"Authentication credentials were not provided.","code":"not_authenticated"}"#;
pub(super) const BAD_TOKEN: &str = r#"{"detail":"Invalid token.","code":"authentication_failed"}"#;
pub(super) const FORBIDDEN: &str =
    r#"{"detail":"You do not have permission to perform this action.","code":"permission_denied"}"#;
pub(super) const NOT_FOUND: &str =
    r#"{"detail":"No ManagerTrucker matches the given query.","code":"not_found"}"#;
pub(super) const BAD_PAGE: &str = r#"{"detail":"Invalid page.","code":"not_found"}"#;
pub(super) const WRONG_METHOD: &str = r#"{"detail":"Method not allowed.","code":"method_not_allowed"}"#;
pub(super) const THROTTLED: &str =
    r#"{"detail":"Request was throttled. Expected available in 1 second.","code":"throttled"}"#;
pub(super) const UNAVAILABLE: &str = r#"{"detail":"Service temporarily unavailable, try again later."}"#;
pub(super) const SERVER_ERROR: &str =
    "<!doctype html><html lang=\"en\"><head><title>Server Error (500)</title></head><body></body></html>";
pub(super) const GARBAGE: &str =
    "<!doctype html><html><body><h1>We'll be back soon</h1><p>invite_code</p></body></html>";

/// The shapes in which the API is known or thought to refuse a request.
pub(super) const REJECTIONS: [&str; 6] = [
    r#"{"phone_number":{"detail":"This phone number is not valid.","code":"invalid"}}"#,
    r#"{"detail":"This trucker is disabled.","code":"trucker_disabled"}"#,
    r#"{"detail":"This trucker is disabled."}"#,
    r#"{"carrier":[{"managers":["This field is required."]}]}"#,
    r#"{"non_field_errors":["This trucker is rented."]}"#,
    r#"{"error":"This trucker cannot be invited."}"#,
];

/// Size of the filler of an oversized answer.
const OVERSIZED: usize = 4 * 1024 * 1024;

/// The object with a first field of 4 MiB; it is still JSON.
pub(super) fn oversized(object: &str) -> String {
    let rest = object.strip_prefix('{').unwrap_or(object);
    format!("{{\"padding\":\"{}\",{rest}", "x".repeat(OVERSIZED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trucker_is_json_whatever_its_remote_id() {
        let person = Person { pk: 7, remote_id: Some("a \"quoted\"\n id"), invite_code: Some("K7Q2ZD") };
        for text in [trucker(&person), oversized(&trucker(&person))] {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value["remote_id"], "a \"quoted\"\n id");
            assert_eq!(value["invite_code"], "K7Q2ZD");
            assert_eq!(value["user"]["email"], "trucker-7@example.com");
        }
    }

    #[test]
    fn every_rejection_is_json() {
        for text in REJECTIONS {
            assert!(serde_json::from_str::<serde_json::Value>(text).unwrap().is_object());
        }
    }
}
