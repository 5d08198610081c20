//! The control endpoints: the simulator's state and faults, for people with curl. They need no token, and are
//! neither counted nor limited.

use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::api::read_body;
use super::body::json_string;
use super::faults::{Fault, Faults, FaultsError, field};
use super::handle::Handle;
use super::server::Context;
use super::wire::Outcome;

/// The path that the control endpoints live below.
pub(super) const BASE_PATH: &str = "/_simulator/";

/// What the answer to a mistaken path lists.
const ENDPOINTS: &str = "GET stats; GET truckers; POST truckers {pk, remote_id}; GET truckers/{pk}; \
    POST truckers/{pk}/script {posts, gets}; POST truckers/{pk}/use {code}; \
    GET faults; PUT faults {…} or {profile}; PUT tokens {tokens}";

/// Why a control request is not carried out.
enum Refused {
    /// The body is wrong; says which field.
    Field(FaultsError),
    NoSuchTrucker,
    NoSuchEndpoint,
}

impl From<FaultsError> for Refused {
    fn from(error: FaultsError) -> Self {
        Self::Field(error)
    }
}

/// Answers one control request.
pub(super) async fn answer(context: &Context, request: Request<Incoming>) -> Outcome {
    let (head, body) = request.into_parts();
    let Ok(body) = read_body(body).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "body", "the body is too large");
    };
    let handle = Handle { shared: context.shared.clone() };
    let path = head.uri.path().strip_prefix(BASE_PATH).unwrap_or_default().trim_end_matches('/');
    let segments: Vec<_> = path.split('/').collect();
    match carry_out(&handle, &head.method, &segments, &body) {
        Ok(outcome) => outcome,
        Err(Refused::Field(error)) => refusal(StatusCode::BAD_REQUEST, &error.field, &error.message),
        Err(Refused::NoSuchTrucker) => {
            refusal(StatusCode::NOT_FOUND, "pk", "this trucker was never asked for nor created")
        }
        Err(Refused::NoSuchEndpoint) => refusal(StatusCode::NOT_FOUND, "path", ENDPOINTS),
    }
}

fn carry_out(handle: &Handle, method: &Method, segments: &[&str], body: &Bytes) -> Result<Outcome, Refused> {
    match (method, segments) {
        (&Method::GET, ["stats"]) => Ok(shown(&handle.stats())),
        (&Method::GET, ["truckers"]) => Ok(shown(&handle.truckers())),
        (&Method::POST, ["truckers"]) => create(handle, &read(body)?),
        (&Method::GET, ["truckers", pk]) => {
            Ok(shown(&handle.trucker(number(pk)?).ok_or(Refused::NoSuchTrucker)?))
        }
        (&Method::POST, ["truckers", pk, "script"]) => {
            let (pk, script) = (number(pk)?, read::<Script>(body)?);
            handle.script_posts(pk, script.posts);
            handle.script_gets(pk, script.gets);
            Ok(done())
        }
        (&Method::POST, ["truckers", pk, "use"]) => {
            let (pk, code) = (number(pk)?, read::<Use>(body)?.code);
            if handle.shared.change(|world| world.use_code(pk, code.as_deref())) {
                return Ok(done());
            }
            Err(FaultsError::new("code", "this is not the trucker's valid code").into())
        }
        (&Method::GET, ["faults"]) => Ok(shown(&handle.faults())),
        (&Method::PUT, ["faults"]) => {
            let faults = faults(read(body)?)?;
            handle.set_faults(faults);
            Ok(shown(&handle.faults()))
        }
        (&Method::PUT, ["tokens"]) => {
            handle.set_tokens(read::<Tokens>(body)?.tokens);
            Ok(done())
        }
        _ => Err(Refused::NoSuchEndpoint),
    }
}

/// The outcomes that are forced on the next requests for a trucker.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
#[derive(Default)]
struct Script {
    posts: Vec<Fault>,
    gets: Vec<Fault>,
}

/// The code that a driver signs in with; without one, whatever is valid.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Use {
    code: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tokens {
    tokens: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Creation {
    pk: Option<u64>,
    remote_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    profile: String,
}

fn create(handle: &Handle, creation: &Creation) -> Result<Outcome, Refused> {
    let created = handle.shared.change(|world| {
        let pk = world.create(creation.pk, creation.remote_id.as_deref())?;
        Ok::<_, &str>(world.truckers.get(&pk).map(|trucker| trucker.report(pk)))
    });
    match created {
        Ok(report) => Ok(json(StatusCode::CREATED, &report)),
        Err(field) => Err(FaultsError::new(field, "this value is taken").into()),
    }
}

/// A profile by its name, or all the faults.
fn faults(value: Value) -> Result<Faults, FaultsError> {
    if value.get("profile").is_none() {
        return Faults::from_value(value);
    }
    let Named { profile } = field(("", value))?;
    Faults::profile(&profile).ok_or_else(|| {
        let names: Vec<_> = Faults::PROFILES.iter().map(|(name, _)| *name).collect();
        FaultsError::new("profile", format!("there is no such profile; there are {}", names.join(", ")))
    })
}

/// An empty body is an empty object.
fn read<T: DeserializeOwned>(body: &Bytes) -> Result<T, FaultsError> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    let value: Value =
        serde_json::from_slice(text).map_err(|error| FaultsError::new("body", error.to_string()))?;
    field(("", value))
}

fn number(pk: &str) -> Result<u64, FaultsError> {
    pk.parse().map_err(|_| FaultsError::new("pk", "a whole number is expected"))
}

fn shown(value: &impl Serialize) -> Outcome {
    json(StatusCode::OK, value)
}

fn json(status: StatusCode, value: &impl Serialize) -> Outcome {
    let text = serde_json::to_string_pretty(value).expect("reports have string keys only");
    Outcome::json(status, text + "\n")
}

fn done() -> Outcome {
    Outcome::json(StatusCode::OK, "{\"done\":true}\n")
}

fn refusal(status: StatusCode, field: &str, message: &str) -> Outcome {
    let (field, message) = (json_string(field), json_string(message));
    Outcome::json(status, format!("{{\"field\":{field},\"error\":{message}}}\n"))
}
