//! The door: every request, upgrades included, passes all of it before any route is looked at.

use super::comfyui_form::in_comfyui_form;
use super::context::{RequestContext, WorkerContext};
use super::error::ApiError;
use super::written::Unflushed;
use super::{pages, refused};
use crate::access::origins::{Asked, BasePath, OriginTable, Refusal, Stripped, is_near};
use crate::access::{Caller, caller_of};
use crate::app::App;
use crate::auth::{self, SignedIn, accepts_html};
use crate::clock;
use crate::proxy;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Redirect, Response};
use futures_util::FutureExt as _;
use http::header::{ACCEPT, CONNECTION, HOST, LOCATION, UPGRADE};
use http::uri::Authority;
use http::{HeaderValue, Request, StatusCode, Uri};
use hyper::body::Incoming;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;
use tower::Service as _;

/// One connection's way in.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) app: Arc<App>,
    pub(super) router: Router,
    pub(super) worker: Arc<WorkerContext>,
    pub(super) peer: SocketAddr,
    pub(super) is_tls: bool,
    /// Plain HTTP gets a redirect to HTTPS and nothing else.
    pub(super) is_https_forced: bool,
    pub(super) unflushed: Unflushed,
}

impl Door {
    /// Answers a request; a panic of a handler is a 500 and ends nothing else.
    pub(super) async fn answer(
        self,
        mut request: Request<Incoming>,
    ) -> Result<Response, Infallible> {
        let started = Instant::now();
        let method = request.method().clone();
        let is_prompt = self.is_prompt(&request);
        if is_prompt {
            // Nobody reads a page there.
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(ACCEPT, json);
        }
        let response = AssertUnwindSafe(self.admit(request))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                tracing::error!("a handler panicked");
                ApiError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "internal",
                    "Something went wrong in Sentinel.",
                )
                .into_response()
            });
        tracing::debug!(
            %method,
            status = response.status().as_u16(),
            milliseconds = started.elapsed().as_secs_f64() * 1000.0,
            "answered"
        );
        Ok(if is_prompt {
            in_comfyui_form(response)
        } else {
            response
        })
    }

    /// Whether a request submits a job, also below a base path that a proxy has left on.
    fn is_prompt(&self, request: &Request<Incoming>) -> bool {
        let (method, uri) = (request.method(), request.uri());
        if proxy::is_prompt(method, uri.path()) {
            return true;
        }
        if !uri.path().ends_with("/prompt") {
            return false;
        }
        let live = self.app.live.load();
        let caller = caller_of(self.peer, request.headers(), &live.trusted_proxies);
        let below = live.origins.base_of(&caller).ok();
        match below.and_then(|base| base.strip(uri)) {
            Some(Stripped::Path(below)) => proxy::is_prompt(method, below.path()),
            Some(Stripped::LacksSlash) | None => false,
        }
    }

    async fn admit(mut self, request: Request<Incoming>) -> Response {
        let mut request = request.map(Body::new);
        if self.is_https_forced
            && !pages::is_told_in_clear(request.method(), request.uri())
            && let Some(response) = self.sent_to_https(&request)
        {
            return response;
        }
        let authority = request.uri().authority().cloned();
        match proxy::normalise(request.uri()) {
            Ok(None) => {}
            Ok(Some(normal)) => *request.uri_mut() = normal,
            Err(fault) => {
                tracing::debug!(%fault, "a path was refused");
                return ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "bad_path",
                    "The address is not valid.",
                )
                .into_response();
            }
        }
        let mut headers = std::mem::take(request.headers_mut());
        let sessions = &self.app.sessions;
        let ticket = auth::take_from_address(request.uri_mut(), &mut headers, |token| {
            sessions.knows(token)
        });
        *request.headers_mut() = headers;
        let live = self.app.live.load();
        let caller = caller_of(self.peer, request.headers(), &live.trusted_proxies);
        let verdict = self.app.lists.judge(&caller);
        if !verdict.lets_in() {
            tracing::debug!(?verdict, "an address was refused");
            return ApiError::new(
                StatusCode::FORBIDDEN,
                "address_refused",
                "This address may not connect.",
            )
            .into_response();
        }
        let base = match place(&live.origins, &caller, &mut request) {
            Ok(base) => base,
            Err(response) => return *response,
        };
        // Whose page it is does not matter to a ticket: whoever has it can use it, and no browser
        // sends it by itself.
        let has_live_ticket = ticket.as_ref().is_some_and(|ticket| {
            let path = request.uri().path();
            SignedIn::of_ticket(&self.app, ticket, request.method(), path).is_some()
        });
        let asked = Asked {
            method: request.method(),
            headers: request.headers(),
            authority: authority.as_ref(),
            peer: self.peer,
            caller: &caller,
            is_tls: self.is_tls,
            is_page_visit: pages::may_be_visited_from_elsewhere(request.uri().path()),
            is_for_any_page: has_live_ticket || pages::is_asset(request.uri().path()),
        };
        let wants_html = accepts_html(request.headers());
        let origins = match live.origins.admit(&asked, base) {
            Ok(origins) => origins,
            Err(refusal) => {
                self.note(&refusal, &asked);
                return refused::answer(&refusal, &asked, wants_html && !is_upgrade(&asked));
            }
        };
        drop(live);
        let context = RequestContext {
            caller,
            origins,
            worker: Arc::clone(&self.worker),
            unflushed: self.unflushed.clone(),
        };
        tracing::debug!(method = %request.method(), path = request.uri().path(), address = %context.caller.address, "request");
        let app = Arc::clone(&self.app);
        let shown = context.clone();
        request.extensions_mut().insert(context);
        if let Some(ticket) = ticket {
            request.extensions_mut().insert(ticket);
        }
        let Ok(response) = self.router.call(request).await;
        // Handlers answer in JSON; a person who opened the address in a browser gets a page.
        let mut response = if wants_html && pages::is_ours_to_explain(&response) {
            pages::explain(&app, &shown, response).await
        } else {
            response
        };
        shown.origins.translate(response.headers_mut());
        response
    }

    /// `force_https`: plain HTTP on the same port learns where to go (defect S49), unless a trusted
    /// proxy took the request over HTTPS.
    fn sent_to_https(&self, request: &Request<Body>) -> Option<Response> {
        let live = self.app.live.load();
        let caller = caller_of(self.peer, request.headers(), &live.trusted_proxies);
        if caller.forwarded_https == Some(true) {
            return None;
        }
        let asked = request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok());
        let location = caller
            .forwarded_host
            .as_deref()
            .or(asked)
            .filter(|host| {
                host.parse::<Authority>()
                    .is_ok_and(|host| !host.as_str().contains('@'))
            })
            .and_then(|host| {
                let base = live.origins.base_of(&caller).ok()?;
                let path = request
                    .uri()
                    .path_and_query()
                    .map_or("/", |path| path.as_str());
                let below = match base.strip(request.uri()) {
                    Some(_) => "",
                    None => base.as_str(),
                };
                HeaderValue::from_str(&format!("https://{host}{below}{path}")).ok()
            });
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::BAD_REQUEST;
        if let Some(location) = location {
            *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
            response.headers_mut().insert(LOCATION, location);
        }
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        Some(response)
    }

    /// Remembers a refusal for the owner, if somebody near or signed in was refused.
    fn note(&self, refusal: &Refusal, asked: &Asked<'_>) {
        let address = asked.caller.address;
        tracing::debug!(%refusal, %address, "a request was refused");
        let Some((key, value)) = refusal.remedy() else {
            return;
        };
        let may_be_meant_well =
            is_near(asked.caller, asked.headers) || self.app.sessions.is_signed_in_from(address);
        if may_be_meant_well && self.app.refused_names.note(refusal, address, clock::now()) {
            tracing::warn!(
                key = key.name(),
                value,
                %address,
                "a request was refused: {refusal}; the setting would let such requests in"
            );
            self.app.announcements.changed();
        }
    }
}

/// Brings the request's path into the form in which routes know it: without the base path, and with
/// files of `/userdata/` in one segment. Returns the base path.
fn place(
    origins: &OriginTable,
    caller: &Caller,
    request: &mut Request<Body>,
) -> Result<BasePath, Box<Response>> {
    let base = origins.base_of(caller).map_err(|fault| {
        tracing::debug!(%fault, "a base path was refused");
        let text = format!("The X-Forwarded-Prefix of the proxy {fault}.");
        Box::new(ApiError::new(StatusCode::BAD_REQUEST, "bad_prefix", text).into_response())
    })?;
    match base.strip(request.uri()) {
        None => {}
        Some(Stripped::Path(below)) => *request.uri_mut() = below,
        Some(Stripped::LacksSlash) => return Err(Box::new(with_slash(&base, request.uri()))),
    }
    if let Some(mended) = proxy::mend_userdata(request.method(), request.uri()) {
        *request.uri_mut() = mended;
    }
    Ok(base)
}

/// The base path alone leads to the page below it, whose addresses are relative to its folder.
fn with_slash(base: &BasePath, uri: &Uri) -> Response {
    let target = match uri.query() {
        Some(query) => format!("{base}/?{query}"),
        None => format!("{base}/"),
    };
    Redirect::temporary(&target).into_response()
}

fn is_upgrade(asked: &Asked<'_>) -> bool {
    asked.headers.contains_key(UPGRADE)
}
