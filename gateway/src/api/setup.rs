//! The first steps: finding, trying and installing ComfyUI, the first admin.

use super::{Answer, Body, Done};
use crate::app::App;
use crate::auth::Admin;
use crate::comfyui::{self, Installation, InstallationKind, SearchPlaces};
use crate::http::{ApiError, RequestContext};
use crate::setup::{self, Finish, GpuKind, JobSight, Order};
use crate::store::AuditEvent;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use utoipa::ToSchema;

/// How long looking for ComfyUI may take; a sleeping disk takes its time.
const SEARCH_LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SetupShown {
    /// Whether there is an admin, and a ComfyUI that was named or found.
    finished: bool,
    has_admin: bool,
    /// As the settings name it.
    comfyui_dir: String,
}

/// How far the set-up is.
#[utoipa::path(get, path = "/setup", tag = "set-up", responses((status = 200, body = SetupShown), (status = 403)))]
pub(crate) async fn show(State(app): State<Arc<App>>, _admin: Admin) -> Json<SetupShown> {
    Json(SetupShown {
        finished: app.setup_is_finished(),
        has_admin: app.accounts.current().owner().is_some(),
        comfyui_dir: app.config.current().comfyui.dir.clone(),
    })
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InstallationView {
    /// `configured`, `git`, `portable`, `desktop` or `stability_matrix`.
    #[schema(value_type = String)]
    kind: InstallationKind,
    directory: String,
    python: Option<String>,
    version: Option<String>,
}

impl From<Installation> for InstallationView {
    fn from(found: Installation) -> Self {
        Self {
            kind: found.kind,
            directory: found.directory.to_string_lossy().into_owned(),
            python: found.python.map(|path| path.to_string_lossy().into_owned()),
            version: found.version,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Installations {
    installations: Vec<InstallationView>,
    /// Graphics cards that ComfyUI can be installed for, the likeliest of this machine first.
    gpus: Vec<GpuKind>,
}

/// The ComfyUIs found in the usual places.
#[utoipa::path(get, path = "/setup/installations", tag = "set-up",
    responses((status = 200, body = Installations), (status = 403), (status = 503)))]
pub(crate) async fn installations(
    State(app): State<Arc<App>>,
    _admin: Admin,
) -> Answer<Installations> {
    let configured = app.config.current().comfyui.dir.clone();
    let search = tokio::task::spawn_blocking(move || {
        let mut places = SearchPlaces::of_this_machine();
        if !configured.is_empty() {
            places.named.insert(0, PathBuf::from(configured));
        }
        comfyui::find_installations(&places)
    });
    let (found, gpus) = tokio::join!(timeout(SEARCH_LIMIT, search), setup::gpu_choices());
    let found = match found {
        Ok(found) => found.unwrap_or_default(),
        Err(_) => {
            return Err(ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "The disk does not answer. Please try again.",
            )
            .retry_after(5));
        }
    };
    Ok(Json(Installations {
        installations: found.into_iter().map(InstallationView::from).collect(),
        gpus,
    }))
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Begun {
    /// Id of the job.
    job: String,
}

fn begin(
    app: &App,
    context: &RequestContext,
    admin: &Admin,
    order: Order,
    detail: &str,
) -> Result<(StatusCode, Json<Begun>), ApiError> {
    let job = app.setup.begin(order)?;
    app.audit(
        AuditEvent::EngineCommand,
        Some(admin.name()),
        Some(context.caller.address),
        Some(detail),
    );
    Ok((StatusCode::ACCEPTED, Json(Begun { job })))
}

fn directory(text: &str) -> Result<(), ApiError> {
    let is_absolute = std::path::Path::new(text).is_absolute();
    if !text.contains('\0') && is_absolute {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::BAD_REQUEST,
        "bad_directory",
        "Please give the folder with its whole path.",
    )
    .with("field", "directory"))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct Check {
    /// ComfyUI's folder, or `demo`.
    directory: String,
    /// Program; looked for when not given.
    python: Option<String>,
}

/// Really starts a ComfyUI, beside the one that may run, and stops it again.
#[utoipa::path(post, path = "/setup/check", tag = "set-up", request_body = Check,
    responses((status = 202, body = Begun), (status = 400), (status = 403), (status = 409)))]
pub(crate) async fn check(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(body): Body<Check>,
) -> Result<(StatusCode, Json<Begun>), ApiError> {
    if body.directory != crate::engine::DEMO {
        directory(&body.directory)?;
    }
    let detail = format!("check {}", body.directory);
    let order = Order::Check {
        directory: body.directory,
        python: body
            .python
            .filter(|python| !python.is_empty())
            .map(PathBuf::from),
    };
    begin(&app, &context, &admin, order, &detail)
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct Install {
    /// An empty or new folder.
    directory: String,
    gpu: GpuKind,
}

/// Installs ComfyUI with comfy-cli in an environment of its own.
#[utoipa::path(post, path = "/setup/install", tag = "set-up", request_body = Install,
    responses((status = 202, body = Begun), (status = 400), (status = 403), (status = 409)))]
pub(crate) async fn install(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(body): Body<Install>,
) -> Result<(StatusCode, Json<Begun>), ApiError> {
    directory(&body.directory)?;
    let detail = format!("install ComfyUI in {}", body.directory);
    let order = Order::Install {
        directory: PathBuf::from(body.directory),
        gpu: body.gpu,
    };
    begin(&app, &context, &admin, order, &detail)
}

/// A job that runs or ended within the last hour.
#[utoipa::path(get, path = "/setup/jobs/{job}", tag = "set-up", params(("job" = String, Path)),
    responses((status = 200, body = JobSight), (status = 403), (status = 404)))]
pub(crate) async fn job(
    State(app): State<Arc<App>>,
    _admin: Admin,
    Path(job): Path<String>,
) -> Answer<JobSight> {
    let job = app.setup.job(&job).ok_or_else(ApiError::not_found)?;
    Ok(Json(job.sight()))
}

/// Cancels a job; all that it started ends.
#[utoipa::path(delete, path = "/setup/jobs/{job}", tag = "set-up", params(("job" = String, Path)),
    responses((status = 204), (status = 403), (status = 404)))]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    _admin: Admin,
    Path(job): Path<String>,
) -> Done {
    app.setup
        .job(&job)
        .ok_or_else(ApiError::not_found)?
        .cancel();
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ChosenComfyUi {
    /// Its folder, `demo`, or empty to look for it.
    #[serde(default)]
    dir: String,
    /// Program, or empty to look for it.
    #[serde(default)]
    python: Option<String>,
    /// Arguments; as they are when not given.
    args: Option<Vec<String>>,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct Credentials {
    username: String,
    password: String,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ChosenSharing {
    enabled: bool,
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct FinishSetup {
    comfyui: ChosenComfyUi,
    /// The first admin; null when there is one.
    admin: Option<Credentials>,
    sharing: ChosenSharing,
    separate_users: bool,
    manager_admin_only: bool,
}

/// Writes the settings and makes the first admin, both or neither; then ComfyUI starts anew. The
/// first admin is made by the machine's owner alone.
#[utoipa::path(post, path = "/setup/finish", tag = "set-up", request_body = FinishSetup,
    responses((status = 200, body = SetupShown), (status = 400), (status = 403), (status = 409)))]
pub(crate) async fn finish(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(body): Body<FinishSetup>,
) -> Answer<SetupShown> {
    if body.admin.is_some() && !admin.is_machine_owner() {
        return Err(ApiError::machine_owner_required());
    }
    let chosen = Finish {
        directory: body.comfyui.dir,
        python: body.comfyui.python.unwrap_or_default(),
        arguments: body.comfyui.args,
        admin: body.admin.map(|admin| (admin.username, admin.password)),
        is_shared: body.sharing.enabled,
        separate_users: body.separate_users,
        manager_admin_only: body.manager_admin_only,
    };
    let made = setup::finish(&app, chosen).await?;
    let address = Some(context.caller.address);
    if let Some(name) = made {
        app.audit(AuditEvent::Registered, Some(name.as_str()), address, None);
    }
    app.audit(
        AuditEvent::ConfigChanged,
        Some(admin.name()),
        address,
        Some("set-up finished"),
    );
    Ok(show(State(app), admin).await)
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AdminSet {
    username: String,
    /// Whether the account is new.
    created: bool,
}

/// Makes an account an admin with this password: the way back in for the machine's owner when
/// nobody remembers one.
#[utoipa::path(post, path = "/setup/admin", tag = "set-up", request_body = Credentials,
    responses((status = 200, body = AdminSet), (status = 400), (status = 403)))]
pub(crate) async fn set_admin(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(body): Body<Credentials>,
) -> Answer<AdminSet> {
    if !admin.is_machine_owner() {
        return Err(ApiError::machine_owner_required());
    }
    let created = setup::set_admin(&app, &body.username, body.password).await?;
    let event = if created {
        AuditEvent::Registered
    } else {
        AuditEvent::PasswordChanged
    };
    app.audit(
        event,
        Some(admin.name()),
        Some(context.caller.address),
        Some(&body.username),
    );
    Ok(Json(AdminSet {
        username: body.username,
        created,
    }))
}
