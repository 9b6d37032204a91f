//! The types by which handlers say who may call them.

use super::actor::MachineOwner;
use super::{Session, SessionKind};
use crate::accounts::Account;
use crate::app::App;
use crate::http::{ApiError, pages};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{ACCEPT, AUTHORIZATION, COOKIE};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use std::sync::Arc;

/// Name of the cookie, the original's.
pub(crate) const COOKIE_NAME: &str = "jwt_token";
/// Cookies of our name that are looked at: another program on this host may set one too.
const MAX_COOKIES: usize = 4;

/// Somebody is signed in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session.
    pub session: Arc<Session>,
    /// The account, as it is now.
    pub account: Arc<Account>,
}

impl SignedIn {
    /// Finds who sent these headers. A Bearer token that does not count is an error, not a reason
    /// to look at the cookie (defect U2).
    pub(crate) fn find(app: &App, headers: &HeaderMap) -> Option<Self> {
        let session = match bearer(headers) {
            Some(token) => app.sessions.verify(token?)?,
            None => cookies(headers)
                .take(MAX_COOKIES)
                .find_map(|token| app.sessions.verify(token))?,
        };
        let account = app
            .accounts
            .peek()
            .get(&session.user)
            .filter(|account| !account.disabled)
            .cloned()?;
        Some(Self { session, account })
    }

    /// Whether this session may do an admin's work, the proof aside.
    pub fn has_admin_rights(&self) -> bool {
        self.account.admin && (self.session.kind == SessionKind::Browser || self.session.admin)
    }
}

/// `None`: no such header; `Some(None)`: one that holds no token.
fn bearer(headers: &HeaderMap) -> Option<Option<&str>> {
    let value = headers.get(AUTHORIZATION)?;
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    Some(token)
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, token)| token)
}

impl<State: Send + Sync> FromRequestParts<State> for SignedIn {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &State) -> Result<Self, ApiError> {
        if parts.extensions.get::<MachineOwner>().is_some() {
            return Err(ApiError::no_account());
        }
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(ApiError::sign_in_required)
    }
}

/// The layer of the protected router: nothing behind it is reached without a session.
pub async fn require_session(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(signed_in) = SignedIn::find(&app, request.headers()) {
        request.extensions_mut().insert(signed_in);
        return next.run(request).await;
    }
    if accepts_html(request.headers()) {
        let target = if app.accounts.awaits_first_account() {
            "/register"
        } else {
            "/login"
        };
        let mut response = Redirect::to(&pages::with_next(target, request.uri())).into_response();
        *response.status_mut() = StatusCode::FOUND;
        response
    } else {
        ApiError::sign_in_required().into_response()
    }
}

/// Whether the client is a browser that shows a page.
pub(crate) fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/html"))
    })
}
