//! Own account: who am I, password, sign-ins, API tokens.

use super::views::{SessionView, TokenView};
use super::{Answer, Body, Done};
use crate::accounts::{AccountChange, check_password};
use crate::app::App;
use crate::auth::{
    self, Actor, Claim, NewSession, PROOF_LIFE, SessionKind, SignedIn, authenticate,
};
use crate::clock::rfc3339;
use crate::http::{ApiError, RequestContext};
use crate::store::AuditEvent;
use axum::Json;
use axum::extract::{Path, State};
use http::header::USER_AGENT;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    /// `null` for the machine's owner, who has no account.
    id: Option<String>,
    username: String,
    admin: bool,
    /// `session`, `token`, or `machine` for the owner at the machine's own window.
    via: &'static str,
    expires_at: Option<String>,
    /// Whether admin acts are possible after the password was given again.
    can_step_up: bool,
    /// Whether this sign-in or token can do an admin's work, the proof aside.
    admin_rights: bool,
}

/// Who is signed in.
#[utoipa::path(get, path = "/me", tag = "own account", responses((status = 200, body = Me)))]
pub(crate) async fn me(actor: Actor) -> Json<Me> {
    let Actor::Account(signed_in) = &actor else {
        return Json(Me {
            id: None,
            username: actor.name().to_owned(),
            admin: true,
            via: "machine",
            expires_at: None,
            can_step_up: false,
            admin_rights: true,
        });
    };
    let is_browser = signed_in.session.kind == SessionKind::Browser;
    Json(Me {
        id: Some(signed_in.account.id.to_string()),
        username: signed_in.account.username.clone(),
        admin: signed_in.account.admin,
        via: if is_browser { "session" } else { "token" },
        expires_at: Some(rfc3339(signed_in.session.expires_at)),
        can_step_up: signed_in.account.admin && is_browser,
        admin_rights: signed_in.has_admin_rights(),
    })
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct StepUp {
    password: String,
}

/// Proof that the password was given again.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Proof {
    /// Value for the header `X-Sentinel-Proof`.
    proof: String,
    /// Seconds.
    expires_in: u64,
}

/// Gives the password again, for admin acts during the next ten minutes.
#[utoipa::path(post, path = "/step-up", tag = "own account", request_body = StepUp,
    responses((status = 200, body = Proof), (status = 401), (status = 403)))]
pub(crate) async fn step_up(
    State(app): State<Arc<App>>,
    context: RequestContext,
    signed_in: SignedIn,
    Body(body): Body<StepUp>,
) -> Answer<Proof> {
    if signed_in.session.kind != SessionKind::Browser {
        return Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "session_required",
            "An API token cannot do this.",
        ));
    }
    authenticate(
        &app,
        &context.caller,
        Claim::Session(&signed_in),
        body.password,
    )
    .await?;
    Ok(Json(Proof {
        proof: signed_in.session.prove(),
        expires_in: PROOF_LIFE.as_secs(),
    }))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ChangePassword {
    current_password: String,
    new_password: String,
}

/// Changes the own password; all other sign-ins and all API tokens end.
#[utoipa::path(post, path = "/password", tag = "own account", request_body = ChangePassword,
    responses((status = 204), (status = 400), (status = 401), (status = 403)))]
pub(crate) async fn change_password(
    State(app): State<Arc<App>>,
    context: RequestContext,
    signed_in: SignedIn,
    Body(body): Body<ChangePassword>,
) -> Done {
    check_password(&body.new_password)?;
    let account = authenticate(
        &app,
        &context.caller,
        Claim::Session(&signed_in),
        body.current_password,
    )
    .await?;
    let hash = app.hasher.hash(body.new_password).await?;
    let own = &signed_in.session.id;
    let (from, to) = (account.binding(), account.binding_with(&hash));
    let kept = app
        .sessions
        .carry_over(&account.id, from, to, |session| session.id == *own);
    let change = AccountChange {
        password_hash: Some(hash),
        only_while: Some(from),
        ..AccountChange::default()
    };
    app.accounts.change(&account.id, change)?;
    app.sessions.settle(kept).await?;
    app.sessions.end_user(&account.id, Some(own)).await?;
    app.audit(
        AuditEvent::PasswordChanged,
        Some(&account.username),
        Some(context.caller.address),
        None,
    );
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SessionList {
    sessions: Vec<SessionView>,
}

/// Own sign-ins.
#[utoipa::path(get, path = "/sessions", tag = "own account", responses((status = 200, body = SessionList)))]
pub(crate) async fn sessions(
    State(app): State<Arc<App>>,
    signed_in: SignedIn,
) -> Json<SessionList> {
    let live = app.sessions.of_user(&signed_in.account.id);
    let browsers = live
        .iter()
        .filter(|session| session.kind == SessionKind::Browser);
    Json(SessionList {
        sessions: browsers
            .map(|session| SessionView::of(session, &signed_in.session.id))
            .collect(),
    })
}

/// Ends an own sign-in.
#[utoipa::path(delete, path = "/sessions/{id}", tag = "own account", params(("id" = String, Path)),
    responses((status = 204), (status = 404)))]
pub(crate) async fn end_session(
    State(app): State<Arc<App>>,
    context: RequestContext,
    signed_in: SignedIn,
    Path(id): Path<String>,
) -> Done {
    end_own(&app, &context, &signed_in, &id, SessionKind::Browser).await
}

async fn end_own(
    app: &App,
    context: &RequestContext,
    signed_in: &SignedIn,
    id: &str,
    kind: SessionKind,
) -> Done {
    let own = app.sessions.of_user(&signed_in.account.id);
    if !own
        .iter()
        .any(|session| session.id == id && session.kind == kind)
    {
        return Err(ApiError::not_found());
    }
    app.sessions.end(id).await?;
    app.audit(
        AuditEvent::Revoked,
        Some(&signed_in.account.username),
        Some(context.caller.address),
        None,
    );
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenList {
    tokens: Vec<TokenView>,
}

/// Own API tokens.
#[utoipa::path(get, path = "/tokens", tag = "own account", responses((status = 200, body = TokenList)))]
pub(crate) async fn tokens(State(app): State<Arc<App>>, signed_in: SignedIn) -> Json<TokenList> {
    let live = app.sessions.of_user(&signed_in.account.id);
    let tokens = live
        .iter()
        .filter(|session| session.kind == SessionKind::Token);
    Json(TokenList {
        tokens: tokens
            .map(|session| TokenView::of(session, &signed_in.session.id))
            .collect(),
    })
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct MakeToken {
    name: String,
    expire_hours: u32,
    password: String,
    /// With admin rights; only an admin can.
    #[serde(default)]
    admin: bool,
}

/// An API token; shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeToken {
    id: String,
    jwt_token: String,
    expires_at: String,
}

/// Makes an API token; the password is asked again, because a script of ComfyUI's page could ask
/// otherwise.
#[utoipa::path(post, path = "/tokens", tag = "own account", request_body = MakeToken,
    responses((status = 200, body = MadeToken), (status = 400), (status = 401), (status = 403), (status = 409)))]
pub(crate) async fn make_token(
    State(app): State<Arc<App>>,
    context: RequestContext,
    headers: HeaderMap,
    signed_in: SignedIn,
    Body(body): Body<MakeToken>,
) -> Answer<MadeToken> {
    let life = auth::token_life(&app.config.current(), &body.expire_hours.to_string())?;
    if body.name.trim().is_empty() {
        return Err(ApiError::missing_field("name"));
    }
    let account = authenticate(
        &app,
        &context.caller,
        Claim::Session(&signed_in),
        body.password,
    )
    .await?;
    if body.admin && !account.admin {
        return Err(ApiError::admin_required());
    }
    let new = NewSession {
        kind: SessionKind::Token,
        name: body.name.trim(),
        admin: body.admin,
        life,
        address: context.caller.address,
        user_agent: auth::text_of(&headers, &USER_AGENT),
    };
    let (jwt_token, session) = auth::issue(&app, &account, new).await?;
    app.audit(
        AuditEvent::TokenMade,
        Some(&account.username),
        Some(context.caller.address),
        Some(&session.name),
    );
    Ok(Json(MadeToken {
        id: session.id.clone(),
        jwt_token,
        expires_at: rfc3339(session.expires_at),
    }))
}

/// Revokes an own API token.
#[utoipa::path(delete, path = "/tokens/{id}", tag = "own account", params(("id" = String, Path)),
    responses((status = 204), (status = 404)))]
pub(crate) async fn revoke_token(
    State(app): State<Arc<App>>,
    context: RequestContext,
    signed_in: SignedIn,
    Path(id): Path<String>,
) -> Done {
    end_own(&app, &context, &signed_in, &id, SessionKind::Token).await
}
