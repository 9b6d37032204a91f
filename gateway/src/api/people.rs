//! Accounts, for admins.

use super::views::{SessionView, TokenView, UserView};
use super::{Answer, Body, Done};
use crate::accounts::{Account, AccountChange, UserId, UserName, check_password};
use crate::app::App;
use crate::auth::{Admin, SessionKind};
use crate::clock;
use crate::engine::FilesFate;
use crate::http::{ApiError, RequestContext, chain};
use crate::store::AuditEvent;
use axum::Json;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserList {
    users: Vec<UserView>,
}

fn user_id(text: &str) -> Result<UserId, ApiError> {
    UserId::parse(text).ok_or_else(ApiError::not_found)
}

fn account(app: &App, id: &str) -> Result<Arc<Account>, ApiError> {
    app.accounts
        .current()
        .get(&user_id(id)?)
        .cloned()
        .ok_or_else(ApiError::not_found)
}

fn note(app: &App, context: &RequestContext, admin: &Admin, event: AuditEvent, detail: &str) {
    app.audit(
        event,
        Some(admin.name()),
        Some(context.caller.address),
        Some(detail),
    );
}

/// All accounts.
#[utoipa::path(get, path = "/users", tag = "people", responses((status = 200, body = UserList), (status = 403)))]
pub(crate) async fn list(State(app): State<Arc<App>>, _admin: Admin) -> Json<UserList> {
    let storage = app.gallery.storage().await;
    let accounts = app.accounts.current();
    Json(UserList {
        users: accounts
            .iter()
            .map(|account| {
                let bytes = storage.get(&account.id).copied();
                UserView::of(account, &app.sessions).with_storage(bytes)
            })
            .collect(),
    })
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct AddUser {
    username: String,
    password: String,
    #[serde(default)]
    admin: bool,
}

/// Adds an account.
#[utoipa::path(post, path = "/users", tag = "people", request_body = AddUser,
    responses((status = 201, body = UserView), (status = 400), (status = 403)))]
pub(crate) async fn add(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(body): Body<AddUser>,
) -> Result<(StatusCode, Json<UserView>), ApiError> {
    let name = UserName::parse(&body.username)?;
    check_password(&body.password)?;
    let hash = app.hasher.hash(body.password).await?;
    let account = Account::new(&name, hash, body.admin, clock::now());
    let view = UserView::of(&account, &app.sessions);
    let id = account.id.clone();
    let is_first = app.accounts.awaits_first_account();
    app.accounts.add(account)?;
    if is_first && body.admin {
        app.engines.first_account_is_made(&id);
    }
    note(
        &app,
        &context,
        &admin,
        AuditEvent::Registered,
        name.as_str(),
    );
    Ok((StatusCode::CREATED, Json(view)))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ChangeUser {
    username: Option<String>,
    admin: Option<bool>,
    disabled: Option<bool>,
}

/// Renames, promotes, demotes, disables or enables an account. Disabling signs it out everywhere.
#[utoipa::path(patch, path = "/users/{id}", tag = "people", params(("id" = String, Path)), request_body = ChangeUser,
    responses((status = 200, body = UserView), (status = 400), (status = 403), (status = 404), (status = 409)))]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(id): Path<String>,
    Body(body): Body<ChangeUser>,
) -> Answer<UserView> {
    let id = user_id(&id)?;
    let username = body.username.as_deref().map(UserName::parse).transpose()?;
    let change = AccountChange {
        username,
        admin: body.admin,
        disabled: body.disabled,
        ..AccountChange::default()
    };
    let account = app.accounts.change(&id, change)?;
    if account.disabled {
        end_sessions(&app, &id).await;
    }
    let detail = format!(
        "{}: admin {}, disabled {}",
        account.username, account.admin, account.disabled
    );
    note(&app, &context, &admin, AuditEvent::AccountChanged, &detail);
    Ok(Json(UserView::of(&account, &app.sessions)))
}

/// What becomes of a deleted user's files.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Files {
    /// They stay on disk.
    #[default]
    Keep,
    /// They are deleted.
    Delete,
    /// `to` gets them.
    Give,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct DeleteQuery {
    /// `keep` (if not said), `delete`, or `give` to somebody else.
    #[serde(default)]
    #[param(inline)]
    files: Files,
    /// Id of the user who gets them.
    to: Option<String>,
}

fn fate(app: &App, leaver: &Account, query: &DeleteQuery) -> Result<FilesFate, ApiError> {
    Ok(match query.files {
        Files::Keep => FilesFate::Keep,
        Files::Delete => FilesFate::Delete,
        Files::Give => {
            let to = query
                .to
                .as_deref()
                .ok_or_else(|| ApiError::missing_field("to"))?;
            let heir = account(app, to)?;
            if heir.id == leaver.id {
                return Err(ApiError::new(
                    StatusCode::BAD_REQUEST,
                    "same_user",
                    "The files must go to somebody else.",
                ));
            }
            let to = app.engines.places_of(&heir.id).ok_or_else(|| {
                ApiError::new(
                    StatusCode::CONFLICT,
                    "engine_stopped",
                    "Start ComfyUI once, so that it is known where this user's files are.",
                )
            })?;
            FilesFate::Give {
                to,
                folder: leaver.username.clone(),
            }
        }
    })
}

/// Deletes an account, signs it out everywhere and ends its ComfyUI. Its files stay if nothing
/// else is said.
#[utoipa::path(delete, path = "/users/{id}", tag = "people", params(("id" = String, Path), DeleteQuery),
    responses((status = 204), (status = 400), (status = 403), (status = 404), (status = 409)))]
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(id): Path<String>,
    Query(query): Query<DeleteQuery>,
) -> Done {
    let account = account(&app, &id)?;
    let fate = fate(&app, &account, &query)?;
    delete_account(&app, &account.id).await?;
    end_sessions(&app, &account.id).await;
    let has_ended = app.engines.retire(&account.id).await;
    note(
        &app,
        &context,
        &admin,
        AuditEvent::AccountChanged,
        &format!("{}: deleted, files: {:?}", account.username, query.files),
    );
    if fate != FilesFate::Keep && !has_ended {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "engine_running",
            "The account is gone, but its ComfyUI has not ended yet. Its files stay where they are.",
        ));
    }
    app.engines.settle_files(&account.id, fate).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Ends the sessions of an account that the account file has ended already: no restart brings them back,
/// whether the database takes it now or later.
async fn end_sessions(app: &App, id: &UserId) {
    if let Err(error) = app.sessions.end_user(id, None).await {
        tracing::error!(error = %chain(&error), "ended sessions are not written down yet");
    }
}

/// Deletes the account itself. The deletion is written down first: without it, jobs and history of the
/// account would wait for ever for its return.
async fn delete_account(app: &App, id: &UserId) -> Result<(), ApiError> {
    app.store.note_deletion(id.clone(), clock::now()).await?;
    if let Err(error) = app.accounts.delete(id) {
        let taken_back = app.store.take_deletions_back(vec![id.clone()]).await;
        if let Err(error) = taken_back {
            // The next start sees that the account is there.
            tracing::error!(error = %chain(&error), "a refused deletion could not be taken back");
        }
        return Err(error.into());
    }
    // Once more: an account file that was read meanwhile has taken it back.
    app.store.note_deletion(id.clone(), clock::now()).await?;
    app.engines.account_is_deleted(id);
    app.jobs.look_soon();
    Ok(())
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ResetPassword {
    new_password: String,
}

/// Gives an account a new password and signs it out everywhere.
#[utoipa::path(post, path = "/users/{id}/password", tag = "people", params(("id" = String, Path)),
    request_body = ResetPassword, responses((status = 204), (status = 400), (status = 403), (status = 404)))]
pub(crate) async fn reset_password(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(id): Path<String>,
    Body(body): Body<ResetPassword>,
) -> Done {
    check_password(&body.new_password)?;
    let account = account(&app, &id)?;
    let hash = app.hasher.hash(body.new_password).await?;
    app.accounts.change(
        &account.id,
        AccountChange {
            password_hash: Some(hash),
            ..AccountChange::default()
        },
    )?;
    end_sessions(&app, &account.id).await;
    note(
        &app,
        &context,
        &admin,
        AuditEvent::PasswordChanged,
        &account.username,
    );
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserSessions {
    sessions: Vec<SessionView>,
    tokens: Vec<TokenView>,
}

/// Sign-ins and API tokens of an account.
#[utoipa::path(get, path = "/users/{id}/sessions", tag = "people", params(("id" = String, Path)),
    responses((status = 200, body = UserSessions), (status = 403), (status = 404)))]
pub(crate) async fn sessions(
    State(app): State<Arc<App>>,
    admin: Admin,
    Path(id): Path<String>,
) -> Answer<UserSessions> {
    let live = app.sessions.of_user(&account(&app, &id)?.id);
    let current = admin.session().map_or("", |session| &session.id);
    let of = |kind| live.iter().filter(move |session| session.kind == kind);
    Ok(Json(UserSessions {
        sessions: of(SessionKind::Browser)
            .map(|session| SessionView::of(session, current))
            .collect(),
        tokens: of(SessionKind::Token)
            .map(|session| TokenView::of(session, current))
            .collect(),
    }))
}

/// Ends all sign-ins and API tokens of an account.
#[utoipa::path(delete, path = "/users/{id}/sessions", tag = "people", params(("id" = String, Path)),
    responses((status = 204), (status = 403), (status = 404)))]
pub(crate) async fn sign_out_everywhere(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(id): Path<String>,
) -> Done {
    let account = account(&app, &id)?;
    app.accounts.change(
        &account.id,
        AccountChange {
            ends_sessions: true,
            ..AccountChange::default()
        },
    )?;
    end_sessions(&app, &account.id).await;
    note(
        &app,
        &context,
        &admin,
        AuditEvent::Revoked,
        &account.username,
    );
    Ok(StatusCode::NO_CONTENT)
}
