//! The original's four addresses: `/register`, `/login`, `/generate_token`, `/logout`.

use super::begin::{answer_sign_in, begin_session, cookie, found, hours, issue, text_of};
use super::enter::is_own_path;
use super::fields::Fields;
use super::sign_in::refuse_guess;
use super::{Claim, NewSession, SessionKind, SignedIn, authenticate};
use crate::accounts::{Account, UserName, check_password};
use crate::app::App;
use crate::clock;
use crate::config::Config;
use crate::http::pages::{self, Page};
use crate::http::{ApiError, RequestContext};
use crate::store::AuditEvent;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::header::{SET_COOKIE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const CLEAR_SITE_DATA: HeaderName = HeaderName::from_static("clear-site-data");

/// Query of the pages that lead to where a visitor wanted to go.
#[derive(Debug, Deserialize)]
pub(crate) struct NextQuery {
    next: Option<String>,
}

impl NextQuery {
    fn member(query: Result<Query<Self>, QueryRejection>) -> (&'static str, Value) {
        let next = query.ok().and_then(|Query(query)| query.next);
        let next = next.filter(|next| is_own_path(next));
        ("next", next.map_or(Value::Null, Value::from))
    }
}

/// `GET /login`.
pub(crate) async fn sign_in_page(
    State(app): State<Arc<App>>,
    context: RequestContext,
    query: Result<Query<NextQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    if app.accounts.awaits_first_account() {
        return found("/register");
    }
    pages::show_with(
        &app,
        Page::Login,
        &context,
        SignedIn::find(&app, &headers).as_ref(),
        NextQuery::member(query),
    )
}

/// `GET /register`.
pub(crate) async fn register_page(
    State(app): State<Arc<App>>,
    context: RequestContext,
    query: Result<Query<NextQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    pages::show_with(
        &app,
        Page::Register,
        &context,
        SignedIn::find(&app, &headers).as_ref(),
        NextQuery::member(query),
    )
}

/// `GET /generate_token`.
pub(crate) async fn token_page(
    State(app): State<Arc<App>>,
    context: RequestContext,
    headers: HeaderMap,
) -> Response {
    if app.accounts.awaits_first_account() {
        return found("/register");
    }
    pages::show(
        &app,
        Page::GenerateToken,
        &context,
        SignedIn::find(&app, &headers).as_ref(),
    )
}

/// `POST /register`.
pub(crate) async fn register(
    State(app): State<Arc<App>>,
    context: RequestContext,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let name = UserName::parse(&fields.require("new_user_username")?)?;
    let password = fields.require("new_user_password")?;
    check_password(&password)?;
    let message = format!("The account {name} has been created.");
    if app.accounts.awaits_first_account() {
        may_be_first(&app, &context, fields.optional("setup_code").as_deref())?;
        let hash = app.hasher.hash(password).await?;
        let account = Account::new(&name, hash, true, clock::now());
        let id = account.id.clone();
        app.accounts.add_first(account)?;
        app.engines.first_account_is_made(&id);
        app.setup_code.spend();
    } else {
        let username = fields.require("username")?;
        let admin = authenticate(
            &app,
            &context.caller,
            Claim::Name(&username, &headers),
            fields.require("password")?,
        )
        .await
        .map_err(|error| {
            let error = ApiError::from(error);
            if error.status() == StatusCode::UNAUTHORIZED {
                ApiError::new(
                    StatusCode::FORBIDDEN,
                    "wrong_credentials",
                    "The admin's user name or password is wrong.",
                )
            } else {
                error
            }
        })?;
        if !admin.admin {
            app.audit(
                AuditEvent::Refused,
                Some(&admin.username),
                Some(context.caller.address),
                Some("/register"),
            );
            return Err(ApiError::admin_required());
        }
        let hash = app.hasher.hash(password).await?;
        app.accounts
            .add(Account::new(&name, hash, false, clock::now()))?;
    }
    tracing::info!(user = %name, "an account was created");
    app.audit(
        AuditEvent::Registered,
        Some(name.as_str()),
        Some(context.caller.address),
        None,
    );
    Ok(Json(json!({ "message": message })).into_response())
}

/// The first admin is made at the machine itself or with the set-up code, never by the first
/// stranger on the LAN (defect S39).
fn may_be_first(app: &App, context: &RequestContext, code: Option<&str>) -> Result<(), ApiError> {
    if context.caller.is_local {
        return Ok(());
    }
    let Some(code) = code else {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "setup_code_required",
            "The first account needs the set-up code that Sentinel shows on its own machine.",
        ));
    };
    let now = std::time::Instant::now();
    if let Some(lockout) = app.attempts.address_lockout(context.caller.address, now) {
        return Err(ApiError::locked_out(lockout));
    }
    if app.setup_code.matches(code) {
        return Ok(());
    }
    refuse_guess(app, &context.caller, "set-up code");
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "wrong_setup_code",
        "The set-up code is wrong.",
    ))
}

/// `POST /login`.
pub(crate) async fn login(
    State(app): State<Arc<App>>,
    context: RequestContext,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let username = fields.require("username")?;
    let password = fields.require("password")?;
    let claim = Claim::Name(&username, &headers);
    let account = authenticate(&app, &context.caller, claim, password).await?;
    let begun = begin_session(&app, &context, &headers, &account, None).await?;
    let body = json!({ "message": "Login successful", "jwt_token": begun.token });
    Ok(answer_sign_in(&headers, begun, body))
}

/// `POST /generate_token`. The cookie stays as it is (defect S51).
pub(crate) async fn generate_token(
    State(app): State<Arc<App>>,
    context: RequestContext,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let username = fields.require("username")?;
    let password = fields.require("password")?;
    let life = token_life(&app.config.current(), &fields.require("expire_hours")?)?;
    let name = fields
        .optional("name")
        .unwrap_or_else(|| "Token".to_owned());
    let claim = Claim::Name(&username, &headers);
    let account = authenticate(&app, &context.caller, claim, password).await?;
    let new = NewSession {
        kind: SessionKind::Token,
        name: &name,
        admin: false,
        life,
        address: context.caller.address,
        user_agent: text_of(&headers, &USER_AGENT),
    };
    let (token, _) = issue(&app, &account, new).await?;
    app.audit(
        AuditEvent::TokenMade,
        Some(&account.username),
        Some(context.caller.address),
        Some(&name),
    );
    Ok(Json(json!({ "message": "Token generated", "jwt_token": token })).into_response())
}

/// Life of an API token, checked against the configured maximum.
pub(crate) fn token_life(config: &Config, text: &str) -> Result<Duration, ApiError> {
    let max = config.max_access_token_expiration_hours;
    match text.trim().parse::<u32>() {
        Ok(given) if (1..=max).contains(&given) => Ok(hours(given)),
        _ => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_expire_hours",
            format!("expire_hours must be a whole number from 1 to {max}."),
        )
        .with("field", "expire_hours")),
    }
}

/// Query of `GET /logout`, the original's.
#[derive(Debug, Deserialize)]
pub(crate) struct LogoutQuery {
    free_memory: Option<bool>,
    unload_models: Option<bool>,
}

/// `GET /logout`: ends the session, and clears what the browser keeps of this site, so that the
/// next person at that browser does not find the last one's workflow.
pub(crate) async fn logout(
    State(app): State<Arc<App>>,
    context: RequestContext,
    query: Result<Query<LogoutQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let signed_in =
        SignedIn::find(&app, &headers).filter(|signed_in| signed_in.credential.may_sign_out());
    if let Some(signed_in) = signed_in {
        app.sessions.end(&signed_in.session.id).await?;
        app.audit(
            AuditEvent::LoggedOut,
            Some(&signed_in.account.username),
            Some(context.caller.address),
            None,
        );
        if app.config.current().free_memory_on_logout {
            let wish = query.ok().map(|Query(query)| query);
            let free_memory = wish
                .as_ref()
                .and_then(|wish| wish.free_memory)
                .unwrap_or(true);
            let unload_models = wish
                .as_ref()
                .and_then(|wish| wish.unload_models)
                .unwrap_or(true);
            if let Some(engine) = app.engines.of(&signed_in.account.id) {
                engine.free(unload_models, free_memory);
            }
        }
    }
    let mut response = found("/login");
    let headers = response.headers_mut();
    headers.insert(SET_COOKIE, cookie("", None, context.origins.is_https()));
    headers.insert(
        CLEAR_SITE_DATA,
        HeaderValue::from_static("\"cache\", \"cookies\", \"storage\""),
    );
    Ok(response)
}
