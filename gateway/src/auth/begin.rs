//! What follows when somebody has shown who he is: the session, its cookie, and who gets to know.

use super::browser::Browser;
use super::credentials::COOKIE_NAME;
use super::signed_in::accepts_html;
use super::{NewSession, Session, SessionKind};
use crate::accounts::Account;
use crate::app::App;
use crate::clock;
use crate::control::Event;
use crate::http::{ApiError, RequestContext, chain};
use crate::store::{AuditEvent, Device};
use axum::Json;
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use http::header::{CONTENT_TYPE, ORIGIN, SET_COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A session of a browser that has begun.
pub(super) struct Begun {
    /// The session's token.
    pub(super) token: String,
    /// The cookie that holds it, and the one by which the browser is known again.
    pub(super) cookies: AppendHeaders<Vec<(HeaderName, HeaderValue)>>,
}

/// Makes a session, and looks at the account once more when it is there: a password that was changed
/// meanwhile ends what was being made by the old one. Earlier than that nobody else could end it.
pub(crate) async fn issue(
    app: &App,
    account: &Account,
    new: NewSession<'_>,
) -> Result<(String, Arc<Session>), ApiError> {
    let (token, session) = app.sessions.issue(account, new).await?;
    let still_counts = app
        .accounts
        .peek()
        .get(&account.id)
        .is_some_and(|now| !now.disabled && session.is_bound_to(now));
    if still_counts {
        return Ok((token, session));
    }
    app.sessions.end(&session.id).await?;
    Err(ApiError::wrong_credentials())
}

/// Begins a session, writes it down, and tells when an admin comes from a new device.
pub(super) async fn begin_session(
    app: &App,
    context: &RequestContext,
    headers: &HeaderMap,
    account: &Account,
    way: Option<&str>,
) -> Result<Begun, ApiError> {
    let life = hours(app.config.current().access_token_expiration_hours);
    let new = NewSession {
        kind: SessionKind::Browser,
        name: "",
        admin: false,
        life,
        address: context.caller.address,
        user_agent: text_of(headers, &USER_AGENT),
    };
    let (token, session) = issue(app, account, new).await?;
    app.audit(
        AuditEvent::SignedIn,
        Some(&account.username),
        Some(context.caller.address),
        way,
    );
    let device = Device {
        user_id: account.id.to_string(),
        address: session.address.clone(),
        user_agent: session.user_agent.clone(),
    };
    match app.store.remember_device(device, clock::now()).await {
        Ok(true) if account.admin && !context.caller.is_local => {
            app.announcements.happened(Event::AdminFromNewDevice {
                username: account.username.clone(),
                address: session.address.clone(),
            });
        }
        Ok(_) => {}
        Err(error) => {
            tracing::error!(error = %chain(&error), "a device could not be written down");
        }
    }
    let browser = browser_of(headers);
    if let Some(browser) = &browser {
        let user_id = account.id.to_string();
        let remembered = app
            .store
            .remember_browser(user_id, browser.digest(), clock::now());
        if let Err(error) = remembered.await {
            tracing::error!(error = %chain(&error), "a browser could not be written down");
        }
    }
    let cookies = std::iter::once(cookie(&token, Some(life), context.origins.is_https()))
        .chain(browser.map(|browser| browser.cookie(context.origins.is_https())))
        .map(|cookie| (SET_COOKIE, cookie))
        .collect();
    let cookies = AppendHeaders(cookies);
    Ok(Begun { token, cookies })
}

/// The browser that signs in, known or not. A program keeps no cookies: one that signs in often
/// would push everybody's browsers out of those that are known.
fn browser_of(headers: &HeaderMap) -> Option<Browser> {
    let is_browser = headers.contains_key(ORIGIN) || accepts_html(headers);
    Browser::of(headers).or_else(|| is_browser.then(Browser::new))
}

/// Answers a sign-in: JSON for scripts, the way to ComfyUI for a plain HTML form, which has none.
pub(super) fn answer_sign_in(headers: &HeaderMap, begun: Begun, body: Value) -> Response {
    let is_plain_form = accepts_html(headers) && !text_of(headers, &CONTENT_TYPE).contains("json");
    if is_plain_form {
        return (begun.cookies, found("/")).into_response();
    }
    (begun.cookies, Json(body)).into_response()
}

/// The cookie with its attributes; without a life it is deleted.
pub(super) fn cookie(token: &str, life: Option<Duration>, is_https: bool) -> HeaderValue {
    let seconds = life.map_or(0, |life| life.as_secs());
    let secure = if is_https { "; Secure" } else { "" };
    let text = format!(
        "{COOKIE_NAME}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}"
    );
    HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

pub(super) fn found(target: &str) -> Response {
    let mut response = Redirect::to(target).into_response();
    *response.status_mut() = StatusCode::FOUND;
    response
}

pub(super) fn hours(number: u32) -> Duration {
    Duration::from_secs(u64::from(number) * 3600)
}

pub(crate) fn text_of<'headers>(headers: &'headers HeaderMap, name: &HeaderName) -> &'headers str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}
