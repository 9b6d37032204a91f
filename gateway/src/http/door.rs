//! The door: every request, upgrades included, passes all of it before any route is looked at.

use super::comfyui_form::in_comfyui_form;
use super::context::{RequestContext, WorkerContext};
use super::error::ApiError;
use super::pages;
use super::written::Unflushed;
use crate::access::{caller_of, check_host, check_origin};
use crate::app::App;
use crate::auth::{self, SignedIn, accepts_html};
use crate::proxy;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt as _;
use http::header::ACCEPT;
use http::{HeaderValue, Request, StatusCode};
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
        let is_prompt = proxy::is_prompt(&method, request.uri().path());
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

    async fn admit(mut self, request: Request<Incoming>) -> Response {
        let mut request = request.map(Body::new);
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
        let is_https = self.is_tls || caller.forwarded_https == Some(true);
        let host = check_host(
            request.headers(),
            authority.as_ref(),
            caller.forwarded_host.as_deref(),
            &live.host_names,
        );
        // Whose page it is does not matter to a ticket: whoever has it can use it, and no browser
        // sends it by itself.
        let has_live_ticket = ticket.as_ref().is_some_and(|ticket| {
            let path = request.uri().path();
            SignedIn::of_ticket(&self.app, ticket, request.method(), path).is_some()
        });
        let guarded = host.and_then(|host| {
            if has_live_ticket {
                return Ok(host);
            }
            let is_page_visit = pages::may_be_visited_from_elsewhere(request.uri().path());
            check_origin(
                request.method(),
                request.headers(),
                &host,
                is_https,
                is_page_visit,
            )
            .map(|()| host)
        });
        let host = match guarded {
            Ok(host) => host,
            Err(fault) => {
                tracing::debug!(%fault, "a request was refused");
                return ApiError::new(
                    StatusCode::FORBIDDEN,
                    "foreign_origin",
                    "This request did not come from Sentinel's own page, or used a name that is not in allowed_hosts.",
                )
                .into_response();
            }
        };
        drop(live);
        let context = RequestContext {
            caller,
            host,
            is_https,
            worker: Arc::clone(&self.worker),
            unflushed: self.unflushed.clone(),
        };
        tracing::debug!(method = %request.method(), path = request.uri().path(), address = %context.caller.address, "request");
        let wants_html = accepts_html(request.headers());
        let app = Arc::clone(&self.app);
        let shown = context.clone();
        request.extensions_mut().insert(context);
        if let Some(ticket) = ticket {
            request.extensions_mut().insert(ticket);
        }
        let Ok(response) = self.router.call(request).await;
        // Handlers answer in JSON; a person who opened the address in a browser gets a page.
        if wants_html && pages::is_ours_to_explain(&response) {
            return pages::explain(&app, &shown, response).await;
        }
        response
    }
}
