//! `/sentinel/api`: own account for everybody signed in, administration for admins. The routes are
//! listed once, here, and the OpenAPI document is made from that list.

mod access;
mod account;
mod config;
mod engine;
mod export;
mod gallery;
mod invites;
mod log;
mod notifications;
mod people;
mod queue;
mod setup;
mod sharing;
mod statistics;
mod status;
mod tickets;
mod usage;
mod views;

pub(crate) use queue::hold_jobs;
pub(crate) use status::health;
pub(crate) use usage::metrics;

use crate::app::App;
use crate::http::ApiError;
use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use http::StatusCode;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Largest body of an API request, bytes: an address list of many thousand lines.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// All routes below `/sentinel/api`.
pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(base_document())
        .routes(routes!(account::me))
        .routes(routes!(account::step_up))
        .routes(routes!(account::change_password))
        .routes(routes!(account::sessions))
        .routes(routes!(account::end_session))
        .routes(routes!(account::tokens, account::make_token))
        .routes(routes!(account::revoke_token))
        .routes(routes!(tickets::make))
        .routes(routes!(engine::status))
        .routes(routes!(engine::start))
        .routes(routes!(engine::stop))
        .routes(routes!(engine::restart))
        .routes(routes!(engine::free))
        .routes(routes!(engine::log))
        .routes(routes!(statistics::show))
        .routes(routes!(engine::list))
        .routes(routes!(engine::start_one))
        .routes(routes!(engine::stop_one))
        .routes(routes!(engine::restart_one))
        .routes(routes!(engine::log_of_one))
        .routes(routes!(people::list, people::add))
        .routes(routes!(people::change, people::delete))
        .routes(routes!(people::reset_password))
        .routes(routes!(people::sessions, people::sign_out_everywhere))
        .routes(routes!(invites::list, invites::make))
        .routes(routes!(invites::withdraw))
        .routes(routes!(sharing::show, sharing::change))
        .routes(routes!(sharing::examine))
        .routes(routes!(access::show))
        .routes(routes!(access::replace_list))
        .routes(routes!(access::lift_lockout))
        .routes(routes!(access::lift_ban))
        .routes(routes!(access::allow_refused, access::forget_refused))
        .routes(routes!(config::show, config::change))
        .routes(routes!(gallery::list, gallery::delete))
        .routes(routes!(gallery::file))
        .routes(routes!(gallery::thumbnail))
        .routes(routes!(config::keys))
        .routes(routes!(log::show))
        .routes(routes!(export::audit))
        .routes(routes!(setup::show))
        .routes(routes!(setup::installations))
        .routes(routes!(setup::check))
        .routes(routes!(setup::install))
        .routes(routes!(setup::job, setup::cancel))
        .routes(routes!(setup::finish))
        .routes(routes!(setup::set_admin))
        .routes(routes!(status::audit))
        .routes(routes!(status::show))
        .routes(routes!(status::openapi))
        .routes(routes!(queue::mine))
        .routes(routes!(queue::show))
        .routes(routes!(queue::pause))
        .routes(routes!(queue::resume))
        .routes(routes!(queue::cancel))
        .routes(routes!(queue::first))
        .routes(routes!(queue::last))
        .routes(routes!(usage::mine))
        .routes(routes!(usage::show))
        .routes(routes!(usage::table))
        .routes(routes!(notifications::show, notifications::change))
        .routes(routes!(notifications::test))
        .fallback(not_found)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY))
}

/// The OpenAPI document.
pub(crate) fn document() -> OpenApi {
    let mut document = OpenApiBuilder::new().info(base_document().info).build();
    document = document.nest("/sentinel/api", routes().into_openapi());
    let mut components = document.components.take().unwrap_or_default();
    let cookie = ApiKey::Cookie(ApiKeyValue::new(crate::auth::COOKIE_NAME));
    components.add_security_scheme("cookie", SecurityScheme::ApiKey(cookie));
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let api_key = ApiKey::Header(ApiKeyValue::new("X-API-Key"));
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(api_key));
    let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic).build();
    components.add_security_scheme("basic", SecurityScheme::Http(basic));
    document.components = Some(components);
    document
}

fn base_document() -> OpenApi {
    let info = InfoBuilder::new()
        .title("ComfyUI Sentinel")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Own account and administration. Sign in with POST /login (cookie jwt_token) or send an API token as \
             Authorization: Bearer, as X-API-Key, or as the password of HTTP Basic. Administration from a signed-in browser also needs the header X-Sentinel-Proof \
             from POST /sentinel/api/step-up.",
        ))
        .build();
    OpenApiBuilder::new().info(info).build()
}

/// Whatever else is asked for under our own prefix.
pub(crate) async fn not_found() -> ApiError {
    ApiError::not_found()
}

/// A JSON body; faults name the field.
pub(crate) struct Body<Content>(pub(crate) Content);

impl<State: Send + Sync, Content: DeserializeOwned> FromRequest<State> for Body<Content> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &State) -> Result<Self, ApiError> {
        let bytes =
            Bytes::from_request(request, state)
                .await
                .map_err(|rejection| match rejection.status() {
                    StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "too_large",
                        "The request is too large.",
                    ),
                    _ => ApiError::new(
                        StatusCode::BAD_REQUEST,
                        "bad_body",
                        "The request did not arrive whole.",
                    ),
                })?;
        // An empty body stands for an object with nothing in it.
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        match serde_json::from_slice(bytes) {
            Ok(content) => Ok(Self(content)),
            Err(error) => Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "bad_body",
                format!("Not as expected: {error}."),
            )),
        }
    }
}

/// Answer with a status and JSON.
pub(crate) type Answer<Content> = Result<Json<Content>, ApiError>;
/// Answer with no content.
pub(crate) type Done = Result<StatusCode, ApiError>;
