//! ComfyUI: its state for everybody, its switches and its log for admins.

use super::views::{EngineSightView, EngineView, LogLineView};
use super::{Answer, Body, Done};
use crate::app::App;
use crate::auth::{Actor, Admin};
use crate::engine::{Engine, EngineId};
use crate::http::{ApiError, RequestContext};
use crate::store::AuditEvent;
use axum::Json;
use axum::extract::{Path, Query, State};
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
    Json(match &actor {
        Actor::Account(signed_in) => {
            let lines = signed_in.has_admin_rights().then_some(STATUS_LINES);
            EngineView::of_user(&app, &signed_in.account.id, lines)
        }
        Actor::Machine => EngineView::primary(&app, STATUS_LINES),
    })
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
    command(&app, &context, &admin, "start", || app.engines.start())
}

/// Stops ComfyUI; asked again while it stops, it hurries.
#[utoipa::path(post, path = "/engine/stop", tag = "engine", responses((status = 202), (status = 403)))]
pub(crate) async fn stop(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
) -> StatusCode {
    command(&app, &context, &admin, "stop", || app.engines.stop())
}

/// Stops ComfyUI and starts it with the settings as they are now.
#[utoipa::path(post, path = "/engine/restart", tag = "engine", responses((status = 202), (status = 403)))]
pub(crate) async fn restart(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
) -> StatusCode {
    command(&app, &context, &admin, "restart", || app.engines.restart())
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
        app.engines.free(body.unload_models, body.free_memory)
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

/// What ComfyUI printed: the engine for all, or the owner's.
#[utoipa::path(get, path = "/engine/log", tag = "engine", params(LogQuery), responses((status = 200, body = Log), (status = 403)))]
pub(crate) async fn log(
    State(app): State<Arc<App>>,
    _admin: Admin,
    Query(query): Query<LogQuery>,
) -> Answer<Log> {
    Ok(Json(read_log(app.engines.primary().as_deref(), &query)))
}

fn read_log(engine: Option<&Engine>, query: &LogQuery) -> Log {
    let lines = query.lines.unwrap_or(200).min(MAX_LINES);
    let entries = engine.map_or_else(Vec::new, |engine| match query.after {
        Some(seq) => engine.log().after(seq, lines),
        None => engine.log().tail(lines),
    });
    let next = entries
        .last()
        .map_or(query.after.unwrap_or(0), |entry| entry.seq);
    Log {
        lines: entries.into_iter().map(LogLineView::from).collect(),
        next,
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EngineList {
    /// `shared`: one for all; `separate`: one for each user.
    mode: &'static str,
    /// How many may run at the same time.
    limit: u32,
    engines: Vec<EngineSightView>,
    /// Ids of those that wait for their start, first come first.
    waiting: Vec<String>,
}

/// All engines.
#[utoipa::path(get, path = "/engines", tag = "engine", responses((status = 200, body = EngineList), (status = 403)))]
pub(crate) async fn list(State(app): State<Arc<App>>, _admin: Admin) -> Json<EngineList> {
    let sights = app.engines.sights().await;
    let accounts = app.accounts.current();
    Json(EngineList {
        mode: if app.engines.is_separate() {
            "separate"
        } else {
            "shared"
        },
        limit: app.config.current().comfyui.max_engines,
        engines: sights
            .into_iter()
            .map(|sight| EngineSightView::of(sight, &accounts))
            .collect(),
        waiting: app.engines.line().iter().map(ToString::to_string).collect(),
    })
}

fn engine_id(app: &App, name: &str) -> Result<EngineId, ApiError> {
    app.engines.parse(name).ok_or_else(ApiError::not_found)
}

/// Starts one engine.
#[utoipa::path(post, path = "/engines/{id}/start", tag = "engine", params(("id" = String, Path)),
    responses((status = 202), (status = 403), (status = 404)))]
pub(crate) async fn start_one(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(id): Path<String>,
) -> Done {
    let engine = engine_id(&app, &id)?;
    Ok(command(
        &app,
        &context,
        &admin,
        &format!("start {id}"),
        || {
            app.engines.start_one(engine);
        },
    ))
}

/// Stops one engine.
#[utoipa::path(post, path = "/engines/{id}/stop", tag = "engine", params(("id" = String, Path)),
    responses((status = 202), (status = 403), (status = 404)))]
pub(crate) async fn stop_one(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(id): Path<String>,
) -> Done {
    let engine = engine_id(&app, &id)?;
    Ok(command(
        &app,
        &context,
        &admin,
        &format!("stop {id}"),
        || {
            app.engines.stop_one(engine);
        },
    ))
}

/// Stops and starts one engine, with the settings as they are now.
#[utoipa::path(post, path = "/engines/{id}/restart", tag = "engine", params(("id" = String, Path)),
    responses((status = 202), (status = 403), (status = 404)))]
pub(crate) async fn restart_one(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(id): Path<String>,
) -> Done {
    let engine = engine_id(&app, &id)?;
    Ok(command(
        &app,
        &context,
        &admin,
        &format!("restart {id}"),
        || {
            app.engines.restart_one(engine);
        },
    ))
}

/// What one engine printed.
#[utoipa::path(get, path = "/engines/{id}/log", tag = "engine", params(("id" = String, Path), LogQuery),
    responses((status = 200, body = Log), (status = 403), (status = 404)))]
pub(crate) async fn log_of_one(
    State(app): State<Arc<App>>,
    _admin: Admin,
    Path(id): Path<String>,
    Query(query): Query<LogQuery>,
) -> Answer<Log> {
    let engine = app.engines.get(&engine_id(&app, &id)?);
    Ok(Json(read_log(engine.as_deref(), &query)))
}
