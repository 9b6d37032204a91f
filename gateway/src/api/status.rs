//! Health for anybody; the whole picture, the audit log and the API's description.

use super::Answer;
use super::views::EngineView;
use crate::app::App;
use crate::auth::{Actor, Admin, SessionKind};
use crate::clock::rfc3339;
use axum::Json;
use axum::extract::{Query, State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::openapi::OpenApi;
use utoipa::{IntoParams, ToSchema};

/// Rows of the audit log in one answer.
const MAX_ROWS: u32 = 1000;

/// `GET /sentinel/health`: that it lives, and nothing else.
pub(crate) async fn health() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Present {
    username: String,
    address: String,
    last_used_at: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusShown {
    engine: EngineView,
    /// Addresses that are listened on.
    listening: Vec<String>,
    /// Open connections and WebSockets.
    connections: usize,
    signed_in: Vec<Present>,
    /// Weak settings and damaged files, in plain words.
    warnings: Vec<String>,
}

/// The whole picture.
#[utoipa::path(get, path = "/status", tag = "status", responses((status = 200, body = StatusShown), (status = 403)))]
pub(crate) async fn show(State(app): State<Arc<App>>, _admin: Admin) -> Json<StatusShown> {
    let accounts = app.accounts.current();
    let mut live = app.sessions.live();
    live.sort_by_key(|session| std::cmp::Reverse(session.last_used_at()));
    let signed_in = live
        .iter()
        .filter(|session| session.kind == SessionKind::Browser)
        .filter_map(|session| {
            Some(Present {
                username: accounts.get(&session.user)?.username.clone(),
                address: session.address.clone(),
                last_used_at: session.last_used_at().map(rfc3339),
            })
        })
        .collect();
    let sharing = app.sharing.state();
    let scheme = if sharing.is_https { "https" } else { "http" };
    Json(StatusShown {
        engine: EngineView::primary(&app, 0),
        listening: sharing
            .listening
            .iter()
            .map(|address| format!("{scheme}://{address}"))
            .collect(),
        connections: app.connections.len(),
        signed_in,
        warnings: app.warnings(),
    })
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct AuditQuery {
    /// At most so many rows, 100 if not said.
    limit: Option<u32>,
    /// Only rows older than this number.
    before: Option<i64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditRow {
    id: i64,
    at: String,
    event: String,
    user: Option<String>,
    address: Option<String>,
    detail: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Audit {
    /// Newest first.
    entries: Vec<AuditRow>,
    /// Number for `before` to get the next page.
    next: Option<i64>,
}

/// Sign-ins, refusals, admin acts.
#[utoipa::path(get, path = "/audit", tag = "status", params(AuditQuery),
    responses((status = 200, body = Audit), (status = 403)))]
pub(crate) async fn audit(
    State(app): State<Arc<App>>,
    _admin: Admin,
    Query(query): Query<AuditQuery>,
) -> Answer<Audit> {
    let limit = query.limit.unwrap_or(100).clamp(1, MAX_ROWS);
    let rows = app.store.audit_entries(query.before, limit).await?;
    let is_full = u32::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().filter(|_| is_full).map(|row| row.id);
    let entries = rows
        .into_iter()
        .map(|row| AuditRow {
            id: row.id,
            at: rfc3339(row.at),
            event: row.event,
            user: row.user,
            address: row.address,
            detail: row.detail,
        })
        .collect();
    Ok(Json(Audit { entries, next }))
}

/// This API's description.
#[utoipa::path(get, path = "/openapi.json", tag = "status", responses((status = 200, body = Object)))]
pub(crate) async fn openapi(_actor: Actor) -> Json<OpenApi> {
    Json(super::document())
}
