//! Settings, for admins.

use super::{Answer, Body};
use crate::app::App;
use crate::auth::Admin;
use crate::config::{Config, ConfigFile, ConfigFileError, KEYS, Kind, Settings};
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
    app.sharing.apply().await;
    app.audit(
        AuditEvent::ConfigChanged,
        Some(admin.name()),
        Some(context.caller.address),
        Some(&keys.join(", ")),
    );
    Ok(Json(shown(&app)))
}

/// A setting, for a form.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyShown {
    /// Name, with dots between levels.
    path: &'static str,
    /// `boolean`, `integer`, `text`, `name`, `host_label`, `url`, `choice`, `choices`, `texts`,
    /// `networks`, `host_names`, `node_names`, `routes`, `paths`, `ports`,
    /// `numerals` or `quiet_hours`.
    kind: &'static str,
    /// Of a number.
    min: Option<u64>,
    /// Of a number.
    max: Option<u64>,
    /// Words to choose from.
    choices: Option<&'static [&'static str]>,
    /// What it does.
    meaning: &'static str,
    #[schema(value_type = Object)]
    default: Value,
    /// Whether a change waits for the next start of Sentinel or ComfyUI.
    needs_restart: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    keys: Vec<KeyShown>,
}

/// What each setting is, its bounds and its default.
#[utoipa::path(get, path = "/config/keys", tag = "settings", responses((status = 200, body = KeyList), (status = 403)))]
pub(crate) async fn keys(_admin: Admin) -> Json<KeyList> {
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    let keys = KEYS.iter().map(|key| {
        let (kind, choices) = match key.kind {
            Kind::Boolean => ("boolean", None),
            Kind::Integer { .. } => ("integer", None),
            Kind::Text => ("text", None),
            Kind::Name => ("name", None),
            Kind::HostLabel => ("host_label", None),
            Kind::BasePath => ("base_path", None),
            Kind::UrlOrEmpty => ("url", None),
            Kind::Choice(words) => ("choice", Some(words)),
            Kind::Choices(words) => ("choices", Some(words)),
            Kind::Texts => ("texts", None),
            Kind::Networks => ("networks", None),
            Kind::HostNames => ("host_names", None),
            Kind::NodeNames => ("node_names", None),
            Kind::Routes => ("routes", None),
            Kind::Paths => ("paths", None),
            Kind::Ports => ("ports", None),
            Kind::Numerals => ("numerals", None),
            Kind::QuietHours => ("quiet_hours", None),
        };
        let (min, max) = match key.kind {
            Kind::Integer { min, max } => (Some(min), Some(max)),
            _ => (None, None),
        };
        let pointer = format!("/{}", key.path.replace('.', "/"));
        KeyShown {
            path: key.path,
            kind,
            min,
            max,
            choices,
            meaning: key.meaning,
            default: defaults.pointer(&pointer).cloned().unwrap_or_default(),
            needs_restart: key.needs_restart,
        }
    });
    Json(KeyList {
        keys: keys.collect(),
    })
}
