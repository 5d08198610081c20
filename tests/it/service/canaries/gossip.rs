//! An API that tells everything it knows in every answer: the token it was given, a person, a code.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, LOCATION, RETRY_AFTER, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use invite_relay::http::serve;
use invite_relay::lifecycle::Lifecycle;
use serde_json::json;
use tokio::net::TcpListener;

/// A person as the API and the platform know her.
pub(super) const PERSON: [&str; 4] = ["Zélie", "Canarival", "zelie.canarival@example.org", "+33699990001"];

/// Accounts besides the default one, each with an answer that parks it.
pub(super) const PARKING: [&str; 3] = ["moved", "denied", "throttled"];

/// Truckers of the default account; each gets another answer.
pub(super) const TRUCKERS: std::ops::RangeInclusive<u64> = 1..=12;

/// The code in the answer for a trucker.
pub(super) fn code(pk: u64) -> String {
    format!("CNRY{pk:02}")
}

pub(super) struct Gossip {
    pub(super) address: SocketAddr,
    asked: Asked,
}

/// Accounts and truckers that were asked for.
type Asked = Arc<Mutex<BTreeSet<(String, u64)>>>;

impl Gossip {
    pub(super) async fn start(life: &Lifecycle) -> Self {
        let asked = Asked::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let path = "/{account}/manager-truckers/{pk}/";
        let router = Router::new()
            .route(path, any(answer))
            .route(&format!("{path}generate-invite-code/"), any(answer))
            .with_state(Arc::clone(&asked));
        life.spawn_long("gossip", serve::serve(listener, router, life.clone(), "gossip"));
        Self { address, asked }
    }

    pub(super) fn base_url(&self, account: &str) -> String {
        format!("http://{}/{account}", self.address)
    }

    pub(super) fn n_asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn answer(
    State(asked): State<Asked>,
    Path((account, pk)): Path<(String, u64)>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    asked.lock().unwrap().insert((account.clone(), pk));
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let [first_name, last_name, email, phone] = PERSON;
    let code = code(pk);
    let words = format!("{first_name} {last_name} ({phone}, {email}) has {code}, says {token}");
    let whole = json!({
        "pk": pk, "invite_code": code, "phone_number": phone,
        "user": { "email": email, "first_name": first_name, "last_name": last_name, "display_name": words },
    })
    .to_string();
    let error =
        json!({ email: [&words], "error": words, "code": phone, &code: { "detail": words, "code": code } });
    let (status, body) = match (account.as_str(), pk) {
        ("moved", _) => (302, words.clone()),
        ("denied", _) => (403, error.to_string()),
        ("throttled", _) => (429, error.to_string()),
        (_, 1) => (400, error.to_string()),
        (_, 2) => (404, format!("<html><title>{words}</title></html>")),
        (_, 3) => (422, json!([words, { "non_field_errors": [words] }]).to_string()),
        // In the middle of the code, and of a person.
        (_, 4) => (200, whole.split_once("user").unwrap().0.to_owned()),
        (_, 5) => (200, whole.replacen(&format!(r#""pk":{pk}"#), r#""pk":999"#, 1)),
        (_, 6) => (200, json!({ "pk": pk, "invite_code": words }).to_string()),
        (_, 7) => (500, error.to_string()),
        // An effect without an answer, then a trucker that has it.
        (_, 8) if method == Method::POST => (502, words.clone()),
        (_, 9) => (200, format!("{words}: {whole}")),
        (_, 10) => (418, words.clone()),
        (_, 11) => (200, json!({ "invite_code": { "code": code, "for": words } }).to_string()),
        _ => (200, whole),
    };
    let mut response = (StatusCode::from_u16(status).unwrap(), body).into_response();
    let header = |text: &str| HeaderValue::from_bytes(text.as_bytes()).unwrap();
    response.headers_mut().insert(SET_COOKIE, header(&words));
    response.headers_mut().insert(LOCATION, header(&format!("https://{phone}.example/?{email}&{code}")));
    if status == 429 {
        response.headers_mut().insert(RETRY_AFTER, header(&words));
    }
    response
}
