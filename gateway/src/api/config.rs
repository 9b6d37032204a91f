//! Settings, for admins.

use super::{Answer, Body};
use crate::app::App;
use crate::auth::Admin;
use crate::config::{ConfigFile, ConfigFileError, Settings};
use crate::http::{ApiError, RequestContext};
use crate::store::AuditEvent;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConfigShown {
    /// All keys.
    #[schema(value_type = Object)]
    config: Value,
    /// Keys whose change waits for a restart.
    restart_required: Vec<&'static str>,
}

fn shown(app: &App) -> ConfigShown {
    let current = app.config.current();
    ConfigShown {
        config: serde_json::to_value(&*current).unwrap_or_default(),
        restart_required: ConfigFile::waiting_for_restart(&app.started_with, &current),
    }
}

/// All settings.
#[utoipa::path(get, path = "/config", tag = "settings", responses((status = 200, body = ConfigShown), (status = 403)))]
pub(crate) async fn show(State(app): State<Arc<App>>, _admin: Admin) -> Json<ConfigShown> {
    Json(shown(&app))
}

/// Changes some settings; all faults are reported at once and nothing is written then.
#[utoipa::path(put, path = "/config", tag = "settings", request_body = Object,
    responses((status = 200, body = ConfigShown), (status = 400), (status = 403)))]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(changes): Body<Map<String, Value>>,
) -> Answer<ConfigShown> {
    let keys: Vec<_> = changes.keys().cloned().collect();
    let changes = Settings::from_members(changes)
        .map_err(|errors| ApiError::from(ConfigFileError::from(errors)))?;
    app.config.change(&changes)?;
    app.config_changed();
    app.audit(
        AuditEvent::ConfigChanged,
        Some(admin.name()),
        Some(context.caller.address),
        Some(&keys.join(", ")),
    );
    Ok(Json(shown(&app)))
}
