//! The types by which handlers say who may call them.

use super::actor::MachineOwner;
use super::credentials::{Credential, CredentialKind};
use super::tickets::PresentedTicket;
use super::{Session, SessionKind};
use crate::accounts::Account;
use crate::app::App;
use crate::http::{ApiError, pages};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{ACCEPT, CONNECTION, HeaderName, REFERRER_POLICY, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use std::sync::Arc;
use std::time::Instant;

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Somebody is signed in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The session.
    pub session: Arc<Session>,
    /// The account, as it is now.
    pub account: Arc<Account>,
    /// What the request showed of it.
    pub(crate) credential: CredentialKind,
}

impl SignedIn {
    /// Finds who sent these headers. A token that does not count is an error, not a reason to look
    /// at the cookie (defect U2); what is not ours is no token.
    pub(crate) fn find(app: &App, headers: &HeaderMap) -> Option<Self> {
        match Credential::parse(headers) {
            Credential::Nothing | Credential::Invalid => None,
            Credential::Token { token, kind } => {
                let session = app.sessions.verify(&token)?;
                if kind.is_for_api_tokens() && session.kind != SessionKind::Token {
                    return None;
                }
                Self::of_session(app, session, kind)
            }
            Credential::Cookies(tokens) => tokens.into_iter().find_map(|token| {
                Self::of_session(app, app.sessions.verify(token)?, CredentialKind::Cookie)
            }),
        }
    }

    /// Finds who sent a request. A ticket decides alone.
    fn of_request(app: &App, request: &Request) -> Option<Self> {
        match request.extensions().get::<PresentedTicket>() {
            Some(ticket) => Self::of_ticket(app, ticket, request.method(), request.uri().path()),
            None => Self::find(app, request.headers()),
        }
    }

    /// Finds who made a ticket, when the ticket covers the request.
    pub(crate) fn of_ticket(
        app: &App,
        ticket: &PresentedTicket,
        method: &Method,
        path: &str,
    ) -> Option<Self> {
        let session = app.tickets.session(ticket, method, path, Instant::now())?;
        let session = app.sessions.noted(session)?;
        Self::of_session(app, session, CredentialKind::Ticket)
    }

    fn of_session(app: &App, session: Arc<Session>, credential: CredentialKind) -> Option<Self> {
        let account = app
            .accounts
            .peek()
            .get(&session.user)
            .filter(|account| !account.disabled && session.is_bound_to(account))
            .cloned()?;
        Some(Self {
            session,
            account,
            credential,
        })
    }

    /// Whether this session may do an admin's work, the proof aside.
    pub fn has_admin_rights(&self) -> bool {
        self.account.admin
            && self.credential.may_carry_admin_rights()
            && (self.session.kind == SessionKind::Browser || self.session.admin)
    }
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
    if let Some(signed_in) = SignedIn::of_request(&app, &request) {
        let is_by_ticket = signed_in.credential == CredentialKind::Ticket;
        request.extensions_mut().insert(signed_in);
        let mut response = next.run(request).await;
        if is_by_ticket {
            // What is shown must not tell other sites the address it came from.
            response
                .headers_mut()
                .insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        }
        return response;
    }
    if !is_visit_of_a_page(&request) {
        return ApiError::sign_in_required().into_response();
    }
    let target = if app.accounts.awaits_first_account() {
        "/register"
    } else {
        "/login"
    };
    let mut response = Redirect::to(&pages::with_next(target, request.uri())).into_response();
    *response.status_mut() = StatusCode::FOUND;
    response
}

/// Whether a person has opened a page in a browser, and so is to see the sign-in page. A program
/// that is redirected, or gets a page, does not learn that it lacks a credential.
fn is_visit_of_a_page(request: &Request) -> bool {
    let headers = request.headers();
    let says = |name: &HeaderName, word: &str| headers.get(name).map(|value| value == word);
    let is_upgrade = [&UPGRADE, &SEC_WEBSOCKET_KEY]
        .into_iter()
        .any(|name| headers.contains_key(name))
        || headers.get_all(CONNECTION).iter().any(|value| {
            let value = value.as_bytes().to_ascii_lowercase();
            value.windows(7).any(|word| word == b"upgrade")
        });
    let navigates = says(&SEC_FETCH_MODE, "navigate");
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    is_read
        && !is_upgrade
        && accepts_html(headers)
        && navigates != Some(false)
        && says(&SEC_FETCH_DEST, "document") != Some(false)
        && pages::is_page(request.uri().path(), navigates == Some(true))
}

/// Whether the client is a browser that shows a page.
pub(crate) fn accepts_html(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/html"))
    })
}
