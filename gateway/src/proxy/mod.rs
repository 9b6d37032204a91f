//! The way from a signed-in request to the user's engine and back. Streams both ways; nothing is
//! parsed but ComfyUI's page, which gets the overlay script.

mod headers;
mod idle;
mod overlay;
mod path;
mod pool;
mod tunnel;

pub(crate) use idle::StallGuard;
pub use path::{PathFault, is_manager_path, normalise};
pub(crate) use pool::{CONNECTION_BUFFER, Pool};

use crate::app::App;
use crate::auth::SignedIn;
use crate::http::{ApiError, RequestContext, chain, pages};
use crate::store::AuditEvent;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use idle::IdleBody;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Longest silence of an engine, and of a client that uploads.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Why a request did not get its answer.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The engine does not accept connections.
    #[error("cannot connect to ComfyUI")]
    Connect(#[source] std::io::Error),
    /// The engine does not accept connections in time.
    #[error("ComfyUI did not accept the connection in time")]
    ConnectTimeout,
    /// The engine broke the exchange off.
    #[error("ComfyUI broke the exchange off")]
    Upstream(#[source] hyper::Error),
    /// The engine was silent for too long.
    #[error("ComfyUI was silent for too long")]
    Silent,
}

impl From<ProxyError> for ApiError {
    fn from(error: ProxyError) -> Self {
        tracing::debug!(error = %chain(&error), "a request was not answered by its engine");
        match error {
            ProxyError::Connect(_) | ProxyError::ConnectTimeout | ProxyError::Upstream(_) => {
                Self::new(
                    StatusCode::BAD_GATEWAY,
                    "engine_unreachable",
                    "ComfyUI did not answer. It may just be restarting.",
                )
                .retry_after(2)
            }
            ProxyError::Silent => Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "engine_silent",
                "ComfyUI did not answer in time.",
            ),
        }
    }
}

/// The fallback of the protected router.
pub async fn forward(
    State(app): State<Arc<App>>,
    context: RequestContext,
    signed_in: SignedIn,
    request: Request,
) -> Response {
    let wants_html = crate::auth::accepts_html(request.headers());
    if app.config.current().manager_admin_only
        && !signed_in.has_admin_rights()
        && is_manager_path(request.uri().path())
    {
        let account = &signed_in.account.username;
        app.audit(
            AuditEvent::Refused,
            Some(account),
            Some(context.caller.address),
            Some(request.uri().path()),
        );
        return refusal(&app, &context, wants_html, ApiError::admin_required());
    }
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        let error = ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "This method is not served.",
        );
        return refusal(&app, &context, wants_html, error);
    }
    let Some(address) = app.engine.address() else {
        return pages::engine_not_ready(&app, &context, &signed_in, wants_html);
    };
    match exchange(&app, &context, &signed_in, address, request).await {
        Ok(response) => response,
        Err(_) if app.engine.address() != Some(address) => {
            pages::engine_not_ready(&app, &context, &signed_in, wants_html)
        }
        Err(error) => refusal(&app, &context, wants_html, error.into()),
    }
}

fn refusal(app: &App, context: &RequestContext, wants_html: bool, error: ApiError) -> Response {
    if wants_html {
        pages::message(app, context, &error)
    } else {
        error.into_response()
    }
}

async fn exchange(
    app: &Arc<App>,
    context: &RequestContext,
    signed_in: &SignedIn,
    address: SocketAddr,
    mut request: Request,
) -> Result<Response, ProxyError> {
    let method = request.method().clone();
    let path_and_query = request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"));
    let engine = engine_host(address);
    let upgrade = headers::clean_request(request.headers_mut(), &engine);
    let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    if let Some(protocol) = upgrade {
        add_upgrade(request.headers_mut(), protocol);
    }
    let is_page = overlay::is_page(&method, path_and_query.path());
    if is_page {
        overlay::prepare_request(request.headers_mut());
    }
    *request.uri_mut() = Uri::from(path_and_query.clone());
    *request.version_mut() = Version::HTTP_11;
    request.extensions_mut().clear();
    let request = request.map(|body| {
        use http_body::Body as _;
        if body.is_end_stream() {
            body
        } else {
            Body::new(IdleBody::new(body, IDLE_TIMEOUT))
        }
    });

    let answered = timeout(IDLE_TIMEOUT, context.pool().send(address, request)).await;
    let mut response = answered.map_err(|_| ProxyError::Silent)??;

    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client_side) = client_side else {
            return Err(ProxyError::Silent);
        };
        let engine_side = hyper::upgrade::on(&mut response);
        let protocol = response.headers().get(UPGRADE).cloned();
        headers::clean_response(response.headers_mut(), path_and_query.path());
        if let Some(protocol) = protocol {
            add_upgrade(response.headers_mut(), protocol);
        }
        let tunnel = tunnel::run(
            Arc::clone(app),
            context.caller.address,
            Arc::clone(&signed_in.session),
            client_side,
            engine_side,
        );
        context.tasks().spawn(tunnel);
        return Ok(response.map(|_| Body::empty()));
    }
    headers::clean_response(response.headers_mut(), path_and_query.path());
    if is_page {
        return Ok(overlay::add_script(response, &method).await);
    }
    Ok(response.map(|body| Body::new(IdleBody::new(body, IDLE_TIMEOUT))))
}

fn add_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Host header for an engine: ComfyUI compares it with the Origin when it names a loopback address.
fn engine_host(address: SocketAddr) -> HeaderValue {
    HeaderValue::from_str(&address.to_string())
        .unwrap_or_else(|_| HeaderValue::from_static("127.0.0.1"))
}
