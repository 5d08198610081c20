//! The admin API below `/api/v1` (what people ask *for* is in `orders`), and the documents that describe both faces of the service: `/openapi.json` for
//! what can be asked, `/asyncapi.json` for the events.

use axum::Json;
use axum::Router;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::orders;
use super::problem::{self, Problem};
use crate::event::schema;
use crate::invite::{StateName, TruckerKey};
use crate::relay::Orders;
use crate::store::view::{CauseView, InviteView};
use crate::store::{Filter, Selection};

/// Invites in one answer, unless asked otherwise; and at most.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 1000;

#[derive(OpenApi)]
#[openapi(info(
    title = "invite-relay admin API",
    description = "Looks at stored invites, puts dead ones back to work, asks for new codes. Codes are never part of an answer.",
    license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
))]
struct Described;

/// The routes of the API and the two documents.
pub fn router(desk: Orders) -> Router {
    let (router, described) = routes().with_state(desk).split_for_parts();
    let openapi = serde_json::to_value(described).expect("a document out of text keys always serialises");
    router
        .route("/openapi.json", get(move || async move { Json(openapi) }))
        .route("/asyncapi.json", get(|| async { Json(asyncapi()) }))
}

fn routes() -> OpenApiRouter<Orders> {
    OpenApiRouter::with_openapi(Described::openapi())
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(causes))
        .routes(routes!(orders::list))
        .routes(routes!(orders::redrive))
        .routes(routes!(orders::reissue))
}

/// Which invites to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListQuery {
    /// Only invites in this state.
    state: Option<String>,
    /// Only invites of this account.
    account: Option<String>,
    /// Only invites whose last failure is of this class, has this code, or both as `class/code`.
    cause: Option<String>,
    /// At most this many, up to 1000; 50 unless given.
    limit: Option<usize>,
}

/// Invites, newest first.
#[derive(Debug, Serialize, ToSchema)]
struct InviteList {
    invites: Vec<InviteView>,
}

/// Lists invites, newest first
#[utoipa::path(get, path = "/api/v1/invites", params(ListQuery), responses(
    (status = 200, description = "The invites", body = InviteList),
    (status = 400, description = "A parameter is wrong", content_type = "application/problem+json"),
    (status = 503, description = "The store can't be read now", content_type = "application/problem+json"),
))]
async fn list(
    State(desk): State<Orders>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<InviteList>, Problem> {
    let Query(query) =
        query.map_err(|_| bad("query", "the parameters are state, account, cause and limit".to_owned()))?;
    let state = query.state.map(|word| {
        let words = StateName::ALL.map(StateName::as_str).join(", ");
        StateName::from_stored(&word).ok_or_else(|| bad("state", format!("the states are {words}")))
    });
    let account = query.account.map(|name| name.parse().map_err(|error| bad("account", format!("{error}"))));
    let limit = query.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(bad("limit", format!("must be from 1 to {LIMIT_MAX}")));
    }
    let (state, account) = (state.transpose()?, account.transpose()?);
    let filter = Filter { state, account, cause: query.cause, limit };
    let invites = desk.store().list(filter).await.map_err(|_| unreadable())?;
    Ok(Json(InviteList { invites: invites.iter().map(InviteView::from).collect() }))
}

/// Shows one invite with the events that asked for it
#[utoipa::path(get, path = "/api/v1/invites/{account}/{pk}", params(
    ("account" = String, Path, description = "The account's name", example = "default"),
    ("pk" = u64, Path, description = "Dashdoc's key of the trucker", example = 23498),
), responses(
    (status = 200, description = "The invite", body = InviteView),
    (status = 404, description = "There is no such invite", content_type = "application/problem+json"),
    (status = 503, description = "The store can't be read now", content_type = "application/problem+json"),
))]
async fn show(
    State(desk): State<Orders>,
    Path((account, pk)): Path<(String, String)>,
) -> Result<Json<InviteView>, Problem> {
    let unknown = || Problem::not_found().detail("there is no invite for this account and pk");
    let key: TruckerKey = format!("{account}/{pk}").parse().map_err(|_| unknown())?;
    let found = desk.store().show(key).await.map_err(|_| unreadable())?;
    found.map(|found| Json(InviteView::from(&found))).ok_or_else(unknown)
}

/// Which dead invites.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct CausesQuery {
    /// Only invites of this account.
    account: Option<String>,
}

/// What dead invites died of, most first.
#[derive(Debug, Serialize, ToSchema)]
struct CauseList {
    causes: Vec<CauseView>,
}

/// Lists what the dead invites died of, most first
#[utoipa::path(get, path = "/api/v1/causes", params(CausesQuery), responses(
    (status = 200, description = "The causes", body = CauseList),
    (status = 400, description = "A parameter is wrong", content_type = "application/problem+json"),
    (status = 503, description = "The store can't be read now", content_type = "application/problem+json"),
))]
async fn causes(
    State(desk): State<Orders>,
    query: Result<Query<CausesQuery>, QueryRejection>,
) -> Result<Json<CauseList>, Problem> {
    let Query(query) = query.map_err(|_| bad("query", "the parameter is account".to_owned()))?;
    let account = query.account.map(|name| name.parse().map_err(|error| bad("account", format!("{error}"))));
    let which = Selection { account: account.transpose()?, ..Selection::default() };
    let causes = desk.store().causes(which).await.map_err(|_| unreadable())?;
    Ok(Json(CauseList { causes: causes.iter().map(CauseView::from).collect() }))
}

pub(super) fn bad(field: &str, detail: String) -> Problem {
    let problem = Problem::new(StatusCode::BAD_REQUEST, "invalid-parameter", "A parameter is wrong");
    problem.detail(detail).field(field)
}

pub(super) fn unreadable() -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", "The store can't be read now")
        .retry_after(problem::TRY_AGAIN_AFTER)
}

/// The events by `AsyncAPI` 3.0, with the shipped schemas as payloads.
fn asyncapi() -> serde_json::Value {
    // Each schema keeps its own `$id`, from which its inner references resolve.
    let payload = |text: &str| {
        let schema: serde_json::Value = serde_json::from_str(text).expect("the shipped schemas are JSON");
        serde_json::json!({ "schemaFormat": "application/schema+json;version=draft-2020-12", "schema": schema })
    };
    let channel = |address: &str, name: &str| {
        serde_json::json!({
            "address": address,
            "messages": { name: { "$ref": format!("#/components/messages/{name}") } },
            "bindings": { "amqp": { "is": "routingKey", "exchange": { "name": "trucker.events", "type": "topic" } } },
        })
    };
    let operation = |action: &str, channel: &str| serde_json::json!({ "action": action, "channel": { "$ref": format!("#/channels/{channel}") } });
    let message = |name: &str, text: &str| serde_json::json!({ "name": name, "contentType": "application/cloudevents+json", "payload": payload(text) });
    serde_json::json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "invite-relay events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Addresses are the defaults of the configuration.",
        },
        "channels": {
            "truckerCreated": channel("trucker.created", "truckerCreated"),
            "inviteReady": channel("invite.ready", "inviteReady"),
            "inviteFailed": channel("invite.failed", "inviteFailed"),
        },
        "operations": {
            "receiveTruckerCreated": operation("receive", "truckerCreated"),
            "sendInviteReady": operation("send", "inviteReady"),
            "sendInviteFailed": operation("send", "inviteFailed"),
        },
        "components": { "messages": {
            "truckerCreated": message("trucker.created", schema::TRUCKER_CREATED),
            "inviteReady": message("invite.ready", schema::INVITE_READY),
            "inviteFailed": message("invite.failed", schema::INVITE_FAILED),
        } },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_openapi_document_names_every_route_of_the_api() {
        let (_, described) = routes().split_for_parts();
        let paths: Vec<&String> = described.paths.paths.keys().collect();
        let expected = [
            "/api/v1/causes",
            "/api/v1/invites",
            "/api/v1/invites/{account}/{pk}",
            "/api/v1/invites/{account}/{pk}/reissue",
            "/api/v1/orders",
            "/api/v1/redrive",
        ];
        assert_eq!(paths, expected);
    }

    #[test]
    fn the_asyncapi_document_refers_only_to_what_it_holds() {
        let document = asyncapi();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap_or_default();
            let of_a_schema = pointer.starts_with("/$defs/");
            assert!(of_a_schema || document.pointer(pointer).is_some(), "{pointer} leads nowhere");
        }
    }
}
