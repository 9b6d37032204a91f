//! The way from a signed-in request to the user's engine and back. Streams both ways; nothing is
//! parsed but ComfyUI's page, which gets the overlay script.

mod assets;
mod client_id;
mod frames;
mod headers;
mod idle;
mod jobs;
mod overlay;
mod path;
mod pings;
mod pool;
mod prompts;
mod rules;
mod size;
mod tunnel;
mod uploads;

pub(crate) use headers::{remove_hop_by_hop, wanted_upgrade};
pub(crate) use idle::{IdleBody, StallGuard};
pub(crate) use path::mend_userdata;
pub use path::{PathFault, is_manager_path, normalise};
pub(crate) use pool::{CONNECTION_BUFFER, Pool};

use crate::app::App;
use crate::auth::{SessionKind, SignedIn};
use crate::comfyui::event::{self, End, Event};
use crate::engine::{Engine, EngineId, Visit};
use crate::http::{ApiError, RequestContext, chain, pages};
use crate::jobs::{Passage, RunNumber, Verdict, with_count};
use crate::store::{AuditEvent, StoreError};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use parking_lot::Mutex;
use rules::{Meaning, meaning};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Whether a path in its one form belongs to a custom node and not to ComfyUI or its API.
pub(crate) fn is_of_custom_node(normal_path: &str) -> bool {
    let is_api = normal_path == "/api" || normal_path.starts_with("/api/");
    let is_own = normal_path == "/sentinel" || normal_path.starts_with("/sentinel/");
    !is_api && !is_own && meaning(&Method::GET, normal_path) == Meaning::Unknown
}

/// Whether a request is ComfyUI's `POST /prompt`, in any spelling that ComfyUI takes.
pub(crate) fn is_prompt(method: &Method, path: &str) -> bool {
    *method == Method::POST && meaning(method, path) == Meaning::Prompt
}

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
    let means = meaning(request.method(), request.uri().path());
    match allowed(&app, &context, &signed_in, &means, &request) {
        Ok(()) => {}
        Err(Denial::Absent) => return absent(),
        Err(Denial::Refused(error)) => return refusal(&app, &context, wants_html, error),
    }
    let user = &signed_in.account.id;
    let request = match &means {
        Meaning::Job(route) => {
            // Whoever looks at his queue will want his engine.
            app.engines
                .visit(user, visit_of(&signed_in, &request, wants_html));
            let way = Way {
                app: &app,
                context: &context,
                signed_in: &signed_in,
            };
            match jobs::answer(&way, route, request).await {
                Ok(response) => return response,
                Err(Failure::Foreign(request)) => *request,
                Err(Failure::Refused(response)) => return *response,
                Err(Failure::Proxy(error)) => {
                    return refusal(&app, &context, wants_html, error.into());
                }
            }
        }
        _ => request,
    };
    let mut engine = app.engines.of(user);
    let mut address = engine.as_ref().and_then(|engine| engine.address());
    if address.is_none() {
        let visit = visit_of(&signed_in, &request, wants_html);
        app.engines.visit(user, visit);
        if visit != Visit::Background && !wants_html {
            let seconds = app.config.current().comfyui.start_wait_seconds;
            let limit = Duration::from_secs(u64::from(seconds));
            app.engines.wait_until_ready(user, limit).await;
            engine = app.engines.of(user);
            address = engine.as_ref().and_then(|engine| engine.address());
        }
    }
    let (Some(engine), Some(address)) = (engine, address) else {
        return pages::engine_not_ready(&app, &context, &signed_in, wants_html);
    };
    let way = Way {
        app: &app,
        context: &context,
        signed_in: &signed_in,
    };
    let answered = match means {
        Meaning::Prompt => prompts::pass(&way, &engine, request).await,
        Meaning::Upload(form) if !signed_in.has_admin_rights() => {
            let (request, verdict) = uploads::checked(request, form, context.tasks());
            let answered = exchange(&way, &engine, address, request).await;
            match verdict.refusal() {
                Some(refusal) => Ok(refusal.into_response()),
                None => answered.map_err(Into::into),
            }
        }
        Meaning::AssetFile(id) if !signed_in.has_admin_rights() => {
            match assets::judge(&way, address, &id).await {
                Ok(()) => exchange(&way, &engine, address, request)
                    .await
                    .map_err(Into::into),
                Err(error) => Err(Failure::Refused(Box::new(error.into_response()))),
            }
        }
        means => pass_on(&way, &engine, address, request, &means).await,
    };
    match answered {
        Ok(response) => response,
        Err(Failure::Proxy(_)) if engine.address() != Some(address) => {
            pages::engine_not_ready(&app, &context, &signed_in, wants_html)
        }
        Err(Failure::Proxy(error)) => refusal(&app, &context, wants_html, error.into()),
        Err(Failure::Refused(response)) => *response,
        Err(Failure::Foreign(_)) => refusal(&app, &context, wants_html, ApiError::not_found()),
    }
}

/// One request on its way.
struct Way<'request> {
    app: &'request Arc<App>,
    context: &'request RequestContext,
    signed_in: &'request SignedIn,
}

/// Why a request has no answer of its engine.
enum Failure {
    Proxy(ProxyError),
    Refused(Box<Response>),
    /// It is the engine's to answer.
    Foreign(Box<Request>),
}

impl From<ProxyError> for Failure {
    fn from(error: ProxyError) -> Self {
        Self::Proxy(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Refused(Box::new(ApiError::from(error).into_response()))
    }
}

/// Who comes: a page that asks by itself does not start an engine that was stopped on purpose.
fn visit_of(signed_in: &SignedIn, request: &Request, wants_html: bool) -> Visit {
    if signed_in.session.kind == SessionKind::Token {
        Visit::Program
    } else if wants_html || !matches!(*request.method(), Method::GET | Method::HEAD) {
        Visit::Person
    } else {
        Visit::Background
    }
}

/// Why a request goes no further.
enum Denial {
    /// There is no such thing, for anybody.
    Absent,
    /// It is not for this user.
    Refused(ApiError),
}

/// Applies the rights of roles to what a path means.
fn allowed(
    app: &App,
    context: &RequestContext,
    signed_in: &SignedIn,
    means: &Meaning,
    request: &Request,
) -> Result<(), Denial> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(Denial::Refused(ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "This method is not served.",
        )));
    }
    if *means == Meaning::Absent {
        return Err(Denial::Absent);
    }
    let config = app.config.current();
    let path = request.uri().path();
    let is_refused = !signed_in.has_admin_rights()
        && match means {
            Meaning::Manager => config.manager_admin_only,
            Meaning::Install | Meaning::Layout => true,
            Meaning::OwnEngine | Meaning::Scan => !app.engines.is_separate(),
            Meaning::Unknown => !app.custom_routes_are_open(&config, &signed_in.account.id, path),
            Meaning::Known
            | Meaning::Prompt
            | Meaning::Job(_)
            | Meaning::Events
            | Meaning::Upload(_)
            | Meaning::Files
            | Meaning::AssetFile(_)
            | Meaning::Absent => false,
        };
    if !is_refused {
        return Ok(());
    }
    match means {
        // ComfyUI's page asks by itself: no news.
        Meaning::Unknown if rules::is_clouds(path) => return Err(Denial::Absent),
        Meaning::Scan => {}
        _ => app.audit(
            AuditEvent::Refused,
            Some(&signed_in.account.username),
            Some(context.caller.address),
            Some(path),
        ),
    }
    Err(Denial::Refused(if *means == Meaning::Unknown {
        ApiError::new(
            StatusCode::FORBIDDEN,
            "route_not_allowed",
            "This address belongs to a custom node and is open to admins only. An admin can allow it in the settings (allowed_routes).",
        )
    } else {
        ApiError::admin_required()
    }))
}

/// What ComfyUI says of an address that it does not have.
fn absent() -> Response {
    (StatusCode::NOT_FOUND, "404: Not Found").into_response()
}

fn refused(status: StatusCode, code: &'static str, message: &'static str) -> Failure {
    Failure::Refused(Box::new(
        ApiError::new(status, code, message).into_response(),
    ))
}

fn refusal(app: &App, context: &RequestContext, wants_html: bool, error: ApiError) -> Response {
    if wants_html {
        pages::message(app, context, &error)
    } else {
        error.into_response()
    }
}

/// Passes a request on, held to the size that ComfyUI takes of such.
async fn pass_on(
    way: &Way<'_>,
    engine: &Arc<Engine>,
    address: SocketAddr,
    request: Request,
    means: &Meaning,
) -> Result<Response, Failure> {
    let Some(limit) = size::limit(means, &way.app.config.current()) else {
        return Ok(exchange(way, engine, address, request).await?);
    };
    let (request, measured) = size::measured(request, limit)
        .map_err(|error| Failure::Refused(Box::new(error.into_response())))?;
    let answered = exchange(way, engine, address, request).await;
    match measured.refusal(limit) {
        Some(refusal) => Ok(refusal.into_response()),
        None => Ok(answered?),
    }
}

async fn exchange(
    way: &Way<'_>,
    target: &Arc<Engine>,
    address: SocketAddr,
    mut request: Request,
) -> Result<Response, ProxyError> {
    let Way {
        app,
        context,
        signed_in,
    } = *way;
    let method = request.method().clone();
    let mut path_and_query = request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or(PathAndQuery::from_static("/"));
    let means = meaning(&method, path_and_query.path());
    let mut page_name = client_id::of_query(path_and_query.query());
    if *target.id() == EngineId::Shared && means == Meaning::Events {
        let own = client_id::own(&signed_in.account.id, page_name.as_deref());
        if let Some(rewritten) = client_id::rewrite(request.uri(), &own) {
            path_and_query = rewritten;
        }
        page_name = Some(own);
    }
    let engine = engine_host(address);
    let upgrade = headers::clean_request(request.headers_mut(), &engine);
    let in_use = target.activity().begin(upgrade.is_some());
    let is_separate = *target.id() != EngineId::Shared;
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

    let sent = context.pool().send(address, request);
    let mut response = match silence(&means, None) {
        Some(limit) => timeout(limit, sent).await.map_err(|_| ProxyError::Silent)?,
        None => sent.await,
    }?;

    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(client_side) = client_side else {
            return Err(ProxyError::Silent);
        };
        let engine_side = hyper::upgrade::on(&mut response);
        let protocol = response.headers().get(UPGRADE).cloned();
        headers::clean_response(response.headers_mut(), path_and_query.path(), is_separate);
        let is_websocket = protocol
            .as_ref()
            .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if let Some(protocol) = protocol {
            add_upgrade(response.headers_mut(), protocol);
        }
        let is_events = means == Meaning::Events;
        let feed = is_events.then(|| feed(way, target, page_name));
        let sides = tunnel::Sides {
            client: client_side,
            engine: engine_side,
            is_websocket,
        };
        let tunnel = tunnel::run(
            Arc::clone(app),
            context.caller.address,
            Arc::clone(&signed_in.session),
            sides,
            in_use,
            feed,
        );
        context.tasks().spawn(tunnel);
        return Ok(response.map(|_| Body::empty()));
    }
    headers::clean_response(response.headers_mut(), path_and_query.path(), is_separate);
    if is_page {
        let address = context.origins.address(overlay::SCRIPT);
        return Ok(overlay::add_script(response, &method, &address).await);
    }
    let is_too_large = response.status() == StatusCode::PAYLOAD_TOO_LARGE;
    let limit = silence(&means, response.headers().get(CONTENT_TYPE));
    let response = response.map(|body| {
        let body = IdleBody::new(body, limit).using(in_use);
        match limit {
            Some(_) => Body::new(body),
            None => Body::new(body.until_end_of(&signed_in.session)),
        }
    });
    if is_too_large {
        return Ok(size::explained(response).await);
    }
    Ok(response)
}

/// How long an engine may be silent before it begins to answer, and later in an answer of this kind.
/// Custom nodes take the time they need, and an event stream may have nothing to tell for hours:
/// those last as long as both ends do (TCP keep-alive tells of ends that are gone).
fn silence(means: &Meaning, kind: Option<&HeaderValue>) -> Option<Duration> {
    let is_event_stream = kind.is_some_and(|kind| {
        let kind = kind.as_bytes().to_ascii_lowercase();
        kind.starts_with(b"text/event-stream")
    });
    let is_ones_own_affair = matches!(means, Meaning::Unknown | Meaning::Manager);
    (!is_event_stream && !is_ones_own_affair).then_some(IDLE_TIMEOUT)
}

/// What ComfyUI's events become on their way to a page: the counts are its user's own, and what the
/// gateway has to tell comes with them.
fn feed(way: &Way<'_>, target: &Engine, page_name: Option<String>) -> frames::Feed {
    let user = way.signed_in.account.id.clone();
    let gate = Arc::clone(&way.app.jobs.gate);
    // The run that the page has seen begin and not end.
    let begun: Arc<Mutex<Option<(String, RunNumber)>>> = Arc::default();
    let remaining = {
        let (app, user) = (Arc::clone(way.app), user.clone());
        move || app.jobs.remaining(&user)
    };
    let is_told_soon = {
        let (gate, begun) = (Arc::clone(&gate), Arc::clone(&begun));
        move || {
            let begun = begun.lock();
            begun
                .as_ref()
                .is_some_and(|(id, run)| gate.is_over(id, *run))
        }
    };
    let sockets = &way.app.jobs.sockets;
    let (open, messages) = sockets.open(&user, page_name, remaining, is_told_soon);
    let judge = {
        let (app, user, gate) = (Arc::clone(way.app), user.clone(), Arc::clone(&gate));
        // Forgotten with the socket.
        let open = open;
        move |text: &[u8], is_whole: bool| match event::read(text) {
            Some(Event::Status) if is_whole => {
                let remaining = app.jobs.remaining(&user);
                Passage::Now(match with_count(text, remaining) {
                    Some(changed) if open.note_count(remaining) => Verdict::Replace(changed.into()),
                    Some(_) => Verdict::LeaveOut,
                    None => Verdict::Pass,
                })
            }
            Some(Event::Start(id)) => {
                let (passage, number) = gate.start(id);
                *begun.lock() = number.map(|number| (id.to_owned(), number));
                passage
            }
            Some(Event::End(id, end)) => {
                let mut begun = begun.lock();
                let run = begun.as_ref().filter(|(begun, _)| begun == id);
                let number = run.map(|(_, number)| *number);
                if end == End::Left && number.is_some() {
                    *begun = None;
                }
                gate.end(id, number, end == End::Interrupted)
            }
            _ => Passage::Now(Verdict::Pass),
        }
    };
    let is_shared = *target.id() == EngineId::Shared;
    let app = Arc::clone(way.app);
    frames::Feed {
        judge: Box::new(judge),
        gate,
        hears_text: Arc::new(move || !is_shared || app.jobs.only_runner().as_ref() == Some(&user)),
        messages,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r33_custom_nodes_and_event_streams_may_be_silent() {
        let kind = |text| Some(HeaderValue::from_static(text));
        for (means, kind, expected) in [
            (Meaning::Known, None, Some(IDLE_TIMEOUT)),
            (Meaning::Known, kind("text/plain"), Some(IDLE_TIMEOUT)),
            (Meaning::Known, kind("text/event-stream"), None),
            (
                Meaning::Known,
                kind("Text/Event-Stream; charset=utf-8"),
                None,
            ),
            (Meaning::Unknown, None, None),
            (Meaning::Unknown, kind("application/json"), None),
            (Meaning::Manager, None, None),
        ] {
            assert_eq!(
                silence(&means, kind.as_ref()),
                expected,
                "{means:?} {kind:?}"
            );
        }
    }
}
