//! ComfyUI: its state for everybody, its switches and its log for admins.

use super::views::{EngineView, LogLineView};
use super::{Answer, Body, Done};
use crate::app::App;
use crate::auth::{Actor, Admin};
use crate::http::RequestContext;
use crate::store::AuditEvent;
use axum::Json;
use axum::extract::{Query, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

/// Log lines beside the state.
const STATUS_LINES: usize = 40;
/// Log lines of one answer at most.
const MAX_LINES: usize = 2000;

/// ComfyUI's state; with the last log lines for admins.
#[utoipa::path(get, path = "/engine", tag = "engine", responses((status = 200, body = EngineView)))]
pub(crate) async fn status(State(app): State<Arc<App>>, actor: Actor) -> Json<EngineView> {
    let lines = actor.has_admin_rights().then_some(STATUS_LINES);
    Json(EngineView::of(&app.engine, lines))
}

fn command(
    app: &App,
    context: &RequestContext,
    admin: &Admin,
    name: &str,
    act: impl FnOnce(),
) -> StatusCode {
    act();
    app.audit(
        AuditEvent::EngineCommand,
        Some(admin.name()),
        Some(context.caller.address),
        Some(name),
    );
    StatusCode::ACCEPTED
}

/// Starts ComfyUI.
#[utoipa::path(post, path = "/engine/start", tag = "engine", responses((status = 202), (status = 403)))]
pub(crate) async fn start(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
) -> StatusCode {
    command(&app, &context, &admin, "start", || app.engine.start())
}

/// Stops ComfyUI; asked again while it stops, it hurries.
#[utoipa::path(post, path = "/engine/stop", tag = "engine", responses((status = 202), (status = 403)))]
pub(crate) async fn stop(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
) -> StatusCode {
    command(&app, &context, &admin, "stop", || app.engine.stop())
}

/// Stops ComfyUI and starts it with the settings as they are now.
#[utoipa::path(post, path = "/engine/restart", tag = "engine", responses((status = 202), (status = 403)))]
pub(crate) async fn restart(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
) -> StatusCode {
    command(&app, &context, &admin, "restart", || app.engine.restart())
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct Free {
    #[serde(default = "yes")]
    unload_models: bool,
    #[serde(default = "yes")]
    free_memory: bool,
}

fn yes() -> bool {
    true
}

/// Unloads models and frees memory.
#[utoipa::path(post, path = "/engine/free", tag = "engine", request_body = Free, responses((status = 204), (status = 403)))]
pub(crate) async fn free(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(body): Body<Free>,
) -> Done {
    command(&app, &context, &admin, "free", || {
        app.engine.free(body.unload_models, body.free_memory)
    });
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct LogQuery {
    /// At most so many lines, 200 if not said.
    lines: Option<usize>,
    /// Only lines after this number.
    after: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Log {
    lines: Vec<LogLineView>,
    /// Number to ask after next time.
    next: u64,
}

/// What ComfyUI printed.
#[utoipa::path(get, path = "/engine/log", tag = "engine", params(LogQuery), responses((status = 200, body = Log), (status = 403)))]
pub(crate) async fn log(
    State(app): State<Arc<App>>,
    _admin: Admin,
    Query(query): Query<LogQuery>,
) -> Answer<Log> {
    let lines = query.lines.unwrap_or(200).min(MAX_LINES);
    let ring = app.engine.log();
    let entries = match query.after {
        Some(seq) => ring.after(seq, lines),
        None => ring.tail(lines),
    };
    let next = entries
        .last()
        .map_or(query.after.unwrap_or(0), |entry| entry.seq);
    Ok(Json(Log {
        lines: entries.into_iter().map(LogLineView::from).collect(),
        next,
    }))
}
