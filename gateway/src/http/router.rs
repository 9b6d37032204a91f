//! The one list of routes.

use super::{pages, trust};
use crate::api;
use crate::app::App;
use crate::auth;
use crate::proxy;
use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::response::Response;
use axum::routing::get;
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use std::sync::Arc;

/// What is answered without a session, and nothing else; a test walks the router against it.
pub const PUBLIC_PATHS: [&str; 10] = [
    "/login",
    "/register",
    "/generate_token",
    "/logout",
    "/join",
    "/enter",
    "/trust",
    "/trust/certificate.crt",
    "/sentinel/health",
    "/sentinel/assets/{*path}",
];

/// All routes. The protected router gets its fallback first and its session layer last; a layer
/// added before the fallback, or a `route_layer`, would leave ComfyUI open.
pub fn router(app: &Arc<App>) -> Router {
    public().merge(protected(app)).with_state(Arc::clone(app))
}

fn public() -> Router<Arc<App>> {
    Router::new()
        .route("/login", get(auth::sign_in_page).post(auth::login))
        .route("/register", get(auth::register_page).post(auth::register))
        .route(
            "/generate_token",
            get(auth::token_page).post(auth::generate_token),
        )
        .route("/logout", get(auth::logout))
        .route("/join", get(auth::join_page).post(auth::join))
        .route("/trust", get(trust::page))
        .route("/trust/certificate.crt", get(trust::certificate))
        .route("/enter", get(auth::enter))
        .route("/sentinel/health", get(api::health))
        .layer(map_response(never_stored))
        .route("/sentinel/assets/{*path}", get(pages::asset))
        .layer(map_response(ours))
}

fn protected(app: &Arc<App>) -> Router<Arc<App>> {
    let (api, _) = api::routes().split_for_parts();
    let own = Router::new()
        .nest("/sentinel/api", api)
        .route("/sentinel/", get(pages::management))
        .route("/sentinel/account", get(pages::account))
        .route("/sentinel/gallery", get(pages::gallery))
        .route("/sentinel/metrics", get(api::metrics))
        .layer(map_response(never_stored))
        .route("/sentinel/{*rest}", axum::routing::any(api::not_found))
        .layer(map_response(ours));
    own.fallback(proxy::forward)
        .layer(from_fn_with_state(Arc::clone(app), auth::require_session))
}

/// The OpenAPI document of the routes under `/sentinel/api`.
pub fn api_document() -> utoipa::openapi::OpenApi {
    api::document()
}

async fn never_stored(mut response: Response) -> Response {
    response
        .headers_mut()
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Refusals of our own handlers may be explained on a page.
async fn ours(mut response: Response) -> Response {
    response.extensions_mut().insert(pages::Refusal);
    response
}
