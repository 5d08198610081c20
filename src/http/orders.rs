//! What people ask for over the admin API: dead invites back to work, new codes. Every order names who gives it and is
//! recorded.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::api::{bad, unreadable};
use super::problem::{self, Problem};
use crate::invite::TruckerKey;
use crate::relay::Orders;
use crate::store::view::{CauseView, InviteView, OrderView};
use crate::store::{Operator, Reissued, Selection};

/// Orders in one answer, unless asked otherwise; and at most.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 1000;

/// How many orders.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct OrdersQuery {
    /// At most this many, up to 1000; 50 unless given.
    limit: Option<usize>,
}

/// Orders, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct OrderList {
    orders: Vec<OrderView>,
}

/// Dead invites to put back to work. One of `invite`, `cause`, `account` or `all` has to say which.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RedriveRequest {
    /// Who gives the order; recorded.
    by: String,
    /// This invite: `account/pk`.
    invite: Option<String>,
    /// Invites of this account.
    account: Option<String>,
    /// Invites that died of this: a class, a code, or `class/code`.
    cause: Option<String>,
    /// All dead invites.
    #[serde(default)]
    all: bool,
    /// Without it nothing is changed: the answer says what would be.
    #[serde(default)]
    apply: bool,
}

/// What a redrive did, or would do.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RedriveAnswer {
    /// Whether anything was changed.
    pub applied: bool,
    /// Invites that work again, or would.
    pub count: u64,
    /// What they died of, most first.
    pub causes: Vec<CauseView>,
}

/// A new code for a trucker whose code was published.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReissueRequest {
    /// Who gives the order; recorded.
    by: String,
}

/// Lists the orders that people gave, newest first
#[utoipa::path(get, path = "/api/v1/orders", params(OrdersQuery), responses(
    (status = 200, description = "The orders", body = OrderList),
    (status = 400, description = "A parameter is wrong", content_type = "application/problem+json"),
    (status = 503, description = "The store can't be read now", content_type = "application/problem+json"),
))]
pub(super) async fn list(
    State(desk): State<Orders>,
    query: Result<Query<OrdersQuery>, QueryRejection>,
) -> Result<Json<OrderList>, Problem> {
    let Query(query) = query.map_err(|_| bad("query", "the parameter is limit".to_owned()))?;
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(bad("limit", format!("must be from 1 to {LIMIT_MAX}")));
    }
    let orders = desk.store().orders(limit).await.map_err(|_| unreadable())?;
    Ok(Json(OrderList { orders: orders.iter().map(OrderView::from).collect() }))
}

/// Puts dead invites back to work
#[utoipa::path(post, path = "/api/v1/redrive", request_body = RedriveRequest, responses(
    (status = 200, description = "What was done, or would be", body = RedriveAnswer),
    (status = 400, description = "A member is wrong", content_type = "application/problem+json"),
    (status = 503, description = "The store can't be written now", content_type = "application/problem+json"),
))]
pub(super) async fn redrive(
    State(desk): State<Orders>,
    body: Result<Json<RedriveRequest>, JsonRejection>,
) -> Result<Json<RedriveAnswer>, Problem> {
    let Json(request) = body.map_err(|rejection| unreadable_body(&rejection))?;
    let by: Operator = request.by.parse().map_err(|error| bad("/by", format!("{error}")))?;
    let invite = request.invite.map(|id| id.parse().map_err(|error| bad("/invite", format!("{error}"))));
    let account =
        request.account.map(|name| name.parse().map_err(|error| bad("/account", format!("{error}"))));
    let which =
        Selection { invite: invite.transpose()?, account: account.transpose()?, cause: request.cause };
    if which == Selection::default() && !request.all {
        let detail = "say which: invite, account or cause; or \"all\": true";
        return Err(bad("/all", detail.to_owned()));
    }
    let causes = desk.store().causes(which.clone()).await.map_err(|_| unreadable())?;
    let mut count = causes.iter().map(|cause| cause.count).sum();
    if request.apply {
        count = desk.redrive(&which, &by).await.map_err(|_| unwritable())?;
    }
    let causes = causes.iter().map(CauseView::from).collect();
    Ok(Json(RedriveAnswer { applied: request.apply, count, causes }))
}

/// Asks for a new code for a trucker whose code was published
#[utoipa::path(post, path = "/api/v1/invites/{account}/{pk}/reissue", params(
    ("account" = String, Path, description = "The account's name", example = "default"),
    ("pk" = u64, Path, description = "Dashdoc's key of the trucker", example = 23498),
), request_body = ReissueRequest, responses(
    (status = 202, description = "The next generation begins", body = InviteView),
    (status = 400, description = "A member is wrong", content_type = "application/problem+json"),
    (status = 404, description = "There is no such invite", content_type = "application/problem+json"),
    (status = 409, description = "The invite is not published", content_type = "application/problem+json"),
    (status = 503, description = "The store can't be written now", content_type = "application/problem+json"),
))]
pub(super) async fn reissue(
    State(desk): State<Orders>,
    Path((account, pk)): Path<(String, String)>,
    body: Result<Json<ReissueRequest>, JsonRejection>,
) -> Result<(StatusCode, Json<InviteView>), Problem> {
    let unknown = || Problem::not_found().detail("there is no invite for this account and pk");
    let Json(request) = body.map_err(|rejection| unreadable_body(&rejection))?;
    let by: Operator = request.by.parse().map_err(|error| bad("/by", format!("{error}")))?;
    let key: TruckerKey = format!("{account}/{pk}").parse().map_err(|_| unknown())?;
    match desk.reissue(key, by).await.map_err(|_| unwritable())? {
        Reissued::Begun(invite) => Ok((StatusCode::ACCEPTED, Json(InviteView::from(&*invite)))),
        Reissued::NotPublished(state) => {
            let problem =
                Problem::new(StatusCode::CONFLICT, "not-published", "Only a published code can be replaced");
            Err(problem.detail(not_published(state)))
        }
        Reissued::Unknown => Err(unknown()),
    }
}

/// Why a code is not replaced, and what to do instead.
pub(crate) fn not_published(state: crate::invite::StateName) -> String {
    let mend = if state == crate::invite::StateName::Dead {
        "put it back to work by a redrive"
    } else {
        "it is being worked on; its code will be new"
    };
    format!("the invite is {state}: {mend}")
}

fn unreadable_body(rejection: &JsonRejection) -> Problem {
    let (status, detail) = match rejection {
        JsonRejection::MissingJsonContentType(_) => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "send content-type: application/json")
        }
        _ => (StatusCode::BAD_REQUEST, "the body is not the JSON object that /openapi.json describes"),
    };
    Problem::new(status, "invalid-body", "The body can't be used").detail(detail).field("body")
}

fn unwritable() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "The store can't be written now")
        .retry_after(problem::TRY_AGAIN_AFTER)
}
