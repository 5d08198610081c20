//! The API as clients see it: routes, the door, and what happens to a request that was let in.

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Request, StatusCode, Uri};
use serde::Deserialize;

use super::body;
use super::faults::{Effect, Fault, RetryAfter};
use super::handle::HoldAt;
use super::server::Context;
use super::state::{Ask, Plan, Refusal};
use super::wire::Outcome;

/// The path that the real API lives below.
pub(super) const BASE_PATH: &str = "/api/v4";

/// The largest body that is read; the API's own clients send `{}`.
const MAX_REQUEST_BODY: usize = 64 * 1024;

/// Where the fault `redirect` points: a name that resolves nowhere, by RFC 2606.
const ELSEWHERE: &str = "http://elsewhere.invalid";

/// The header of the reference's sample, beside the `Authorization` of its prose.
const AUTHENTICATION: HeaderName = HeaderName::from_static("authentication");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Generate(u64),
    Read(u64),
    List,
    Create,
    /// Django redirects a path without its last slash, and loses the body on the way.
    NoSlash,
    WrongMethod,
    Nowhere,
}

impl Route {
    fn of(method: &Method, path: &str) -> Self {
        let below = path.strip_prefix(BASE_PATH).and_then(|path| path.strip_prefix("/manager-truckers"));
        let Some(below) = below else { return Self::Nowhere };
        let segments: Vec<_> = below.split('/').collect();
        let with_pk =
            |pk: &str, route: fn(u64) -> Self| pk.parse().map_or(Self::Nowhere, |pk: u64| route(pk));
        match (method, segments.as_slice()) {
            (&Method::POST, ["", pk, "generate-invite-code", ""]) => with_pk(pk, Self::Generate),
            (&Method::GET, ["", pk, ""]) => with_pk(pk, Self::Read),
            (&Method::GET, ["", ""]) => Self::List,
            (&Method::POST, ["", ""]) => Self::Create,
            (_, ["", ""] | ["", _, ""] | ["", _, "generate-invite-code", ""]) => Self::WrongMethod,
            (_, [""] | ["", _] | ["", _, "generate-invite-code"]) => Self::NoSlash,
            _ => Self::Nowhere,
        }
    }

    fn ask(self) -> Option<Ask> {
        match self {
            Self::Generate(_) => Some(Ask::Post),
            Self::Read(_) | Self::List => Some(Ask::Get),
            Self::Create | Self::NoSlash | Self::WrongMethod | Self::Nowhere => None,
        }
    }

    fn pk(self) -> Option<u64> {
        match self {
            Self::Generate(pk) | Self::Read(pk) => Some(pk),
            Self::List | Self::Create | Self::NoSlash | Self::WrongMethod | Self::Nowhere => None,
        }
    }
}

/// A request that was let in and meets its fault.
#[derive(Clone, Copy)]
enum Errand {
    Generate(u64),
    Read(u64),
    List { page: usize },
}

/// Answers one request of the API.
pub(super) async fn answer(context: &Context, request: Request<Incoming>) -> Outcome {
    let (head, body) = request.into_parts();
    // Read to its end, or the connection could not be used again.
    let Ok(body) = read_body(body).await else {
        return Outcome::json(StatusCode::PAYLOAD_TOO_LARGE, r#"{"detail":"Request body is too large."}"#);
    };
    let route = Route::of(&head.method, head.uri.path());
    let visit = Visit::begin(context, route);
    let errand = match route {
        Route::Generate(pk) => Some(Errand::Generate(pk)),
        Route::Read(pk) => Some(Errand::Read(pk)),
        Route::List => Some(Errand::List { page: page_number(&head.uri) }),
        Route::Create | Route::NoSlash | Route::WrongMethod | Route::Nowhere => None,
    };
    let outcome = match (refuse(context, &head.headers, route), errand) {
        (Some(refused), _) => refused,
        (None, Some(errand)) => {
            let plan = context.shared.look().plan(errand_ask(errand), route.pk());
            let waits = !plan.latency.is_zero() || plan.hold.is_some();
            if !waits {
                return attend(context.clone(), plan, errand, visit).await;
            }
            // A server goes on working when its client hangs up; as part of the connection it would not.
            let work = attend(context.clone(), plan, errand, visit);
            return context.life.spawn_work(work).await.unwrap_or(Outcome::Close);
        }
        (None, None) => match route {
            Route::Create => create(context, &body),
            Route::NoSlash => {
                let path = format!("{}/", head.uri.path());
                Outcome::json(StatusCode::MOVED_PERMANENTLY, "").with(LOCATION, Some(path))
            }
            Route::WrongMethod => Outcome::json(StatusCode::METHOD_NOT_ALLOWED, body::WRONG_METHOD),
            _ => Outcome::html(StatusCode::NOT_FOUND, "<h1>Not Found</h1>"),
        },
    };
    visit.end(&outcome);
    outcome
}

/// The whole body, if it is of a sensible size and arrives.
pub(super) async fn read_body(body: Incoming) -> Result<Bytes, ()> {
    Limited::new(body, MAX_REQUEST_BODY)
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .map_err(|_| ())
}

fn errand_ask(errand: Errand) -> Ask {
    match errand {
        Errand::Generate(_) => Ask::Post,
        Errand::Read(_) | Errand::List { .. } => Ask::Get,
    }
}

/// The page asked for; 0, which never exists, for nonsense.
fn page_number(uri: &Uri) -> usize {
    let asked = uri
        .query()
        .into_iter()
        .flat_map(|query| query.split('&'))
        .find_map(|pair| pair.strip_prefix("page="));
    asked.map_or(1, |page| page.parse().unwrap_or(0))
}

/// `Authorization: Token <t>`, or the bare token of the sample's header.
fn token(headers: &HeaderMap) -> Option<&str> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    match text(AUTHORIZATION) {
        // Present in another form: a token that nobody has.
        Some(value) => Some(value.strip_prefix("Token ").unwrap_or_default()),
        None => text(AUTHENTICATION),
    }
}

/// Why a request is not let in, if so.
fn refuse(context: &Context, headers: &HeaderMap, route: Route) -> Option<Outcome> {
    if route == Route::Nowhere {
        return None;
    }
    let token = token(headers);
    let mut world = context.shared.look();
    let admitted = world.admit(token).and_then(|()| route.pk().map_or(Ok(()), |pk| world.find(pk)));
    let retry_after = if world.retry_after_on_limit { RetryAfter::Seconds(1) } else { RetryAfter::None };
    drop(world);
    admitted.err().map(|refusal| match refusal {
        Refusal::BadToken => {
            let text = if token.is_some() { body::BAD_TOKEN } else { body::NO_TOKEN };
            Outcome::json(StatusCode::UNAUTHORIZED, text).with(WWW_AUTHENTICATE, Some("Token".to_owned()))
        }
        Refusal::OverTheLimit => throttled(retry_after),
        Refusal::NoSuchTrucker => Outcome::json(StatusCode::NOT_FOUND, body::NOT_FOUND),
    })
}

fn throttled(retry_after: RetryAfter) -> Outcome {
    Outcome::json(StatusCode::TOO_MANY_REQUESTS, body::THROTTLED).with(RETRY_AFTER, retry_after.header())
}

/// Latency, hold, effect, hold, reply. The end of the drain's patience closes the connection instead.
async fn attend(context: Context, mut plan: Plan, errand: Errand, visit: Visit) -> Outcome {
    let outcome = match work(&context, &mut plan, errand).await {
        Some(outcome) => outcome,
        None => Outcome::Close,
    };
    visit.end(&outcome);
    outcome
}

/// `None` when the drain began first.
async fn work(context: &Context, plan: &mut Plan, errand: Errand) -> Option<Outcome> {
    if !plan.latency.is_zero() && !context.unless_draining(tokio::time::sleep(plan.latency)).await {
        return None;
    }
    wait_if_held(context, plan, HoldAt::BeforeEffect).await?;
    let text = match errand {
        Errand::Generate(pk) => context.shared.change(|world| {
            if plan.fault.effect() == Effect::Now {
                world.generate(pk, plan.fault);
            }
            world.object(pk, plan.fault)
        }),
        Errand::Read(pk) => context.shared.look().object(pk, plan.fault),
        Errand::List { page } => match list(context, page, plan.fault) {
            Some(text) => text,
            None => return Some(Outcome::json(StatusCode::NOT_FOUND, body::BAD_PAGE)),
        },
    };
    wait_if_held(context, plan, HoldAt::BeforeReply).await?;
    if let (Errand::Generate(pk), Effect::Late) = (errand, plan.fault.effect()) {
        apply_later(context, pk, plan);
    }
    Some(reply(context, plan, text))
}

async fn wait_if_held(context: &Context, plan: &mut Plan, at: HoldAt) -> Option<()> {
    let Some(hold) = plan.hold.take_if(|hold| hold.at == at) else { return Some(()) };
    context.unless_draining(hold.wait()).await.then_some(())
}

fn apply_later(context: &Context, pk: u64, plan: &Plan) {
    let (context, fault, delay) = (context.clone(), plan.fault, plan.late_effect);
    let life = context.life.clone();
    life.spawn_work(async move {
        if context.unless_draining(tokio::time::sleep(delay)).await {
            context.shared.change(|world| world.generate(pk, fault));
        }
    });
}

/// What the fault makes of the answer `text`.
fn reply(context: &Context, plan: &Plan, text: String) -> Outcome {
    let ok = StatusCode::OK;
    match plan.fault {
        Fault::None | Fault::NoCode | Fault::EmptyCode | Fault::OddCode => Outcome::json(ok, text),
        Fault::ErrorBefore | Fault::ErrorAfter => {
            Outcome::html(StatusCode::INTERNAL_SERVER_ERROR, body::SERVER_ERROR)
        }
        Fault::ReplyLost | Fault::LateEffect => Outcome::Close,
        Fault::Reset => Outcome::Reset,
        Fault::HalfBody => Outcome::half(ok, text),
        Fault::Drip => Outcome::drip(ok, text, plan.drip),
        Fault::Throttled => throttled(plan.retry_after),
        Fault::Unavailable => Outcome::json(StatusCode::SERVICE_UNAVAILABLE, body::UNAVAILABLE)
            .with(RETRY_AFTER, plan.retry_after.header()),
        Fault::Unauthorized => Outcome::json(StatusCode::UNAUTHORIZED, body::BAD_TOKEN),
        Fault::Forbidden => Outcome::json(StatusCode::FORBIDDEN, body::FORBIDDEN),
        Fault::Rejected => {
            let mut world = context.shared.look();
            let text = body::REJECTIONS[world.rejections % body::REJECTIONS.len()];
            world.rejections += 1;
            Outcome::json(StatusCode::BAD_REQUEST, text)
        }
        Fault::NotFound => Outcome::json(StatusCode::NOT_FOUND, body::NOT_FOUND),
        Fault::Redirect => Outcome::json(StatusCode::FOUND, "")
            .with(LOCATION, Some(format!("{ELSEWHERE}{BASE_PATH}/manager-truckers/"))),
        Fault::Garbage => Outcome::html(ok, body::GARBAGE),
        Fault::Oversized => Outcome::json(ok, body::oversized(&text)),
    }
}

fn list(context: &Context, page: usize, fault: Fault) -> Option<String> {
    let shared = &context.shared;
    let world = shared.look();
    let (objects, more) = world.page(page, shared.page_size, fault)?;
    let count = world.stats.truckers;
    drop(world);
    let link = |page: usize| format!("{}/manager-truckers/?page={page}", shared.link_base);
    let next = more.then(|| link(page + 1));
    let previous = (page > 1).then(|| link(page - 1));
    Some(body::page(count, next.as_deref(), previous.as_deref(), &objects))
}

/// What of a creation matters here; the real API takes the personal data too.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Creation {
    pk: Option<u64>,
    remote_id: Option<String>,
}

fn create(context: &Context, text: &Bytes) -> Outcome {
    let Ok(creation) = serde_json::from_slice::<Creation>(text) else {
        return Outcome::json(
            StatusCode::BAD_REQUEST,
            r#"{"detail":"JSON parse error.","code":"parse_error"}"#,
        );
    };
    let created = context.shared.change(|world| {
        let pk = world.create(creation.pk, creation.remote_id.as_deref())?;
        Ok::<_, &str>(world.object(pk, Fault::None))
    });
    match created {
        Ok(object) => Outcome::json(StatusCode::CREATED, object),
        Err(field) => {
            let text = format!(r#"{{"{field}":{{"detail":"This value is taken.","code":"unique"}}}}"#);
            Outcome::json(StatusCode::BAD_REQUEST, text)
        }
    }
}

/// A request while it is worked on; counted out when it ends or is dropped.
struct Visit {
    context: Context,
    route: Route,
    status: Option<StatusCode>,
}

impl Visit {
    fn begin(context: &Context, route: Route) -> Self {
        context.shared.change(|world| world.arrived(route.ask(), route.pk()));
        Self { context: context.clone(), route, status: None }
    }

    fn end(mut self, outcome: &Outcome) {
        self.status = outcome.status();
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Self { route, status, .. } = *self;
        self.context.shared.change(|world| world.left(route.ask(), route.pk(), status));
    }
}
