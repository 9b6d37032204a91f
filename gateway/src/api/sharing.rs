//! The LAN, for admins: what is shared where, and why somebody may not reach it.

use super::{Answer, Body};
use crate::app::App;
use crate::auth::Admin;
use crate::clock::rfc3339;
use crate::config::{ConfigFileError, Settings};
use crate::http::{ApiError, RequestContext};
use crate::server::PortTaken;
use crate::sharing::{Adapter, SharingState, doctor};
use crate::store::AuditEvent;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AddressView {
    address: String,
    interface: String,
    /// `ethernet`, `wifi`, `virtual` or `other`.
    kind: &'static str,
    url: String,
    /// The one to try first.
    preferred: bool,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MdnsView {
    name: String,
    /// `announced`, `off` or `failed`.
    state: &'static str,
    fault: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TlsView {
    enabled: bool,
    /// Whether plain HTTP is sent to HTTPS.
    forced: bool,
    /// Whether the certificate was made here.
    made: bool,
    /// Of what a device is told to trust.
    sha256: String,
    expires_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SharingView {
    enabled: bool,
    port: u16,
    name: String,
    addresses: Vec<AddressView>,
    /// For other devices, best first; none while it is not shared.
    urls: Vec<String>,
    mdns: MdnsView,
    tls: Option<TlsView>,
    /// Why it is not as the settings ask.
    fault: Option<String>,
    /// The port that the settings ask for, if another program holds it.
    port_taken: Option<PortTakenView>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PortTakenView {
    port: u16,
    /// Who holds it, where the system tells.
    program: Option<String>,
    process: Option<u32>,
    /// The next port that is free.
    next_free: Option<u16>,
}

impl PortTakenView {
    fn of(taken: PortTaken) -> Self {
        let (program, process) = match taken.holder {
            Some(holder) => (Some(holder.program), Some(holder.process)),
            None => (None, None),
        };
        Self {
            port: taken.address.port(),
            program,
            process,
            next_free: taken.next_free,
        }
    }
}

fn view(app: &App) -> SharingView {
    let state = SharingState {
        adapters: Adapter::list(),
        ..app.sharing.state()
    };
    let config = app.config.current();
    let is_listened_on = |adapter: &&Adapter| !state.is_shared() || state.listens_on(adapter);
    let addresses = state
        .adapters
        .iter()
        .filter(is_listened_on)
        .enumerate()
        .map(|(index, adapter)| AddressView {
            address: adapter.address.to_string(),
            interface: adapter.interface.clone(),
            kind: adapter.kind.name(),
            url: state.url_of(adapter),
            preferred: index == 0,
        })
        .collect();
    SharingView {
        enabled: state.is_shared(),
        port: state.port(),
        urls: state.urls(),
        mdns: MdnsView {
            name: format!("{}.local", state.name),
            state: state.mdns.state.name(),
            fault: state.mdns.fault.clone(),
        },
        tls: app.tls.load_full().map(|tls| {
            let facts = tls.facts();
            TlsView {
                enabled: true,
                forced: config.force_https,
                made: facts.is_made,
                sha256: facts.sha256,
                expires_at: rfc3339(facts.expires_at),
            }
        }),
        name: state.name,
        addresses,
        fault: state.fault,
        port_taken: state.taken.map(PortTakenView::of),
    }
}

/// How other devices reach this machine.
#[utoipa::path(get, path = "/sharing", tag = "sharing", responses((status = 200, body = SharingView), (status = 403)))]
pub(crate) async fn show(State(app): State<Arc<App>>, _admin: Admin) -> Json<SharingView> {
    Json(view(&app))
}

#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ChangeSharing {
    /// Reachable from the LAN.
    enabled: Option<bool>,
    port: Option<u32>,
    /// Without `.local`.
    name: Option<String>,
    /// Answer HTTPS; `false` ends `force_https` too.
    tls: Option<bool>,
    force_https: Option<bool>,
}

impl ChangeSharing {
    /// The same as settings, by path.
    fn settings(&self) -> Vec<(&'static str, Value)> {
        let force_https = match (self.tls, self.force_https) {
            (Some(false), None) => Some(false),
            (_, given) => given,
        };
        [
            ("sharing.enabled", self.enabled.map(Value::from)),
            ("sharing.port", self.port.map(Value::from)),
            ("sharing.name", self.name.clone().map(Value::from)),
            ("sharing.tls.enabled", self.tls.map(Value::from)),
            ("force_https", force_https.map(Value::from)),
        ]
        .into_iter()
        .filter_map(|(path, value)| Some((path, value?)))
        .collect()
    }
}

/// Changes how other devices reach this machine, at once and without a restart.
#[utoipa::path(put, path = "/sharing", tag = "sharing", request_body = ChangeSharing,
    responses((status = 200, body = SharingView), (status = 400), (status = 403), (status = 409)))]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(body): Body<ChangeSharing>,
) -> Answer<SharingView> {
    let current = serde_json::to_value(&*app.config.current()).unwrap_or_default();
    let wanted: Vec<_> = body
        .settings()
        .into_iter()
        .filter(|(path, value)| {
            current.pointer(&format!("/{}", path.replace('.', "/"))) != Some(value)
        })
        .collect();
    refuse_fixed(&app, &wanted)?;
    let mut members = Map::new();
    for (path, value) in &wanted {
        insert(&mut members, path, value.clone());
    }
    let settings = Settings::from_members(members).map_err(ConfigFileError::from)?;
    if !wanted.is_empty() {
        app.config.change(&settings)?;
        app.config_changed();
        let detail: Vec<_> = wanted
            .iter()
            .map(|(path, value)| format!("{path} = {value}"))
            .collect();
        app.audit(
            AuditEvent::SharingChanged,
            Some(admin.name()),
            Some(context.caller.address),
            Some(&detail.join(", ")),
        );
    }
    app.sharing.apply().await;
    Ok(Json(view(&app)))
}

/// What the command line says wins over what is written down: better to say so than to pretend.
fn refuse_fixed(app: &App, wanted: &[(&'static str, Value)]) -> Result<(), ApiError> {
    let is_about_listening =
        |path: &&'static str| matches!(*path, "sharing.enabled" | "sharing.port");
    let paths: Vec<_> = wanted.iter().map(|(path, _)| *path).collect();
    if let Some(listen) = app.sharing.listen()
        && paths.iter().any(is_about_listening)
    {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "listen_given",
            format!(
                "Sentinel was started with --listen {listen}, which wins over these settings. Start it without to change them here."
            ),
        )
        .with("listen", listen.to_string()));
    }
    let fixed: Vec<_> = paths
        .into_iter()
        .filter(|path| app.config.is_overridden(path))
        .collect();
    if fixed.is_empty() {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::CONFLICT,
        "set_on_command_line",
        format!(
            "Sentinel was started with --set {}, which wins over these settings. Start it without to change them here.",
            fixed.join(", ")
        ),
    )
    .with("keys", json!(fixed)))
}

fn insert(members: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            members.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let level = members
                .entry(first)
                .or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(level) = level {
                insert(level, rest, value);
            }
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CheckView {
    /// What was looked at.
    id: &'static str,
    /// `ok`, `warning`, `problem` or `unknown`.
    state: &'static str,
    title: &'static str,
    detail: String,
    /// What to do; empty when there is nothing to do.
    hint: String,
    /// What was found, for translation.
    code: &'static str,
    /// What belongs into the translated text.
    #[schema(value_type = Object)]
    values: Map<String, Value>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Diagnosis {
    checks: Vec<CheckView>,
}

/// Why another device may not reach this machine.
#[utoipa::path(get, path = "/sharing/doctor", tag = "sharing", responses((status = 200, body = Diagnosis), (status = 403)))]
pub(crate) async fn examine(State(app): State<Arc<App>>, _admin: Admin) -> Json<Diagnosis> {
    let checks = doctor::examine(&app).await;
    Json(Diagnosis {
        checks: checks
            .into_iter()
            .map(|check| CheckView {
                id: check.id,
                state: check.finding.name(),
                title: check.title,
                detail: check.detail,
                hint: check.hint,
                code: check.code,
                values: check.values,
            })
            .collect(),
    })
}
