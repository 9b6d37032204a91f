//! Address lists and lock-outs, for admins.

use super::{Answer, Body, Done};
use crate::access::origins::{RefusalKey, RefusedName};
use crate::access::{AttemptKind, ListKind};
use crate::app::App;
use crate::auth::Admin;
use crate::clock::rfc3339;
use crate::config::{ConfigFileError, Settings};
use crate::http::{ApiError, RequestContext};
use crate::store::AuditEvent;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use std::sync::Arc;
use std::time::Instant;
use utoipa::ToSchema;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ListShown {
    text: String,
    /// Addresses and ranges in force.
    entries: usize,
    /// Why the file on disk is not what is in force.
    error: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BanShown {
    address: String,
    reason: String,
    /// `null` where an earlier version wrote the line.
    since: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LockoutShown {
    /// `address` or `account`.
    kind: &'static str,
    key: String,
    failed_attempts: u32,
    remaining_seconds: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Access {
    whitelist: ListShown,
    blacklist: ListShown,
    bans: Vec<BanShown>,
    lockouts: Vec<LockoutShown>,
    trusted_proxies: Vec<String>,
    /// Names and proxies that were refused and may be meant well, the last one first.
    refused_names: Vec<RefusedShown>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RefusedShown {
    /// The setting that would let such requests in: `allowed_hosts` or `trusted_proxies`.
    key: &'static str,
    /// What belongs into it.
    value: String,
    /// Who asked last.
    address: String,
    at: String,
    count: u64,
    /// A name of the public internet rather than of this network: to be allowed only by who knows it.
    public: bool,
}

impl RefusedShown {
    fn of(refused: RefusedName) -> Self {
        Self {
            key: refused.key.name(),
            public: refused.is_public_name(),
            value: refused.value,
            address: refused.address.to_string(),
            at: rfc3339(refused.at),
            count: refused.count,
        }
    }
}

fn shown(app: &App, kind: ListKind) -> Result<ListShown, ApiError> {
    let view = app.lists.view(kind)?;
    Ok(ListShown {
        text: view.text,
        entries: view.entries,
        error: view.fault,
    })
}

/// Both lists, bans, lock-outs.
#[utoipa::path(get, path = "/access", tag = "access", responses((status = 200, body = Access), (status = 403)))]
pub(crate) async fn show(State(app): State<Arc<App>>, _admin: Admin) -> Answer<Access> {
    let bans = app.lists.bans()?;
    let lockouts = app.attempts.lockouts(Instant::now());
    Ok(Json(Access {
        whitelist: shown(&app, ListKind::Allow)?,
        blacklist: shown(&app, ListKind::Deny)?,
        bans: bans
            .into_iter()
            .map(|ban| BanShown {
                address: ban.address,
                reason: ban.reason,
                since: ban.since,
            })
            .collect(),
        lockouts: lockouts
            .into_iter()
            .map(|view| LockoutShown {
                kind: match view.kind {
                    AttemptKind::Address => "address",
                    AttemptKind::Account => "account",
                },
                key: view.key,
                failed_attempts: view.lockout.failed_attempts,
                remaining_seconds: view.lockout.remaining.as_secs() + 1,
            })
            .collect(),
        trusted_proxies: app
            .config
            .current()
            .trusted_proxies
            .iter()
            .map(ToString::to_string)
            .collect(),
        refused_names: app
            .refused_names
            .list()
            .into_iter()
            .map(RefusedShown::of)
            .collect(),
    }))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct ReplaceList {
    text: String,
}

/// Replaces `whitelist` or `blacklist`; a bad line is refused and named. Open connections of
/// addresses that are denied now end.
#[utoipa::path(put, path = "/access/{list}", tag = "access", params(("list" = String, Path)), request_body = ReplaceList,
    responses((status = 204), (status = 400), (status = 403), (status = 404)))]
pub(crate) async fn replace_list(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(list): Path<String>,
    Body(body): Body<ReplaceList>,
) -> Done {
    let kind = match list.as_str() {
        "whitelist" => ListKind::Allow,
        "blacklist" => ListKind::Deny,
        _ => return Err(ApiError::not_found()),
    };
    app.lists.replace(kind, &body.text)?;
    app.end_denied_connections();
    app.audit(
        AuditEvent::AccessChanged,
        Some(admin.name()),
        Some(context.caller.address),
        Some(&list),
    );
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct LiftLockout {
    /// `address` or `account`.
    kind: String,
    key: String,
}

/// Lifts a lock-out.
#[utoipa::path(delete, path = "/access/lockouts", tag = "access", request_body = LiftLockout,
    responses((status = 204), (status = 403), (status = 404)))]
pub(crate) async fn lift_lockout(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(body): Body<LiftLockout>,
) -> Done {
    let kind = match body.kind.as_str() {
        "address" => AttemptKind::Address,
        "account" => AttemptKind::Account,
        _ => return Err(ApiError::not_found()),
    };
    if !app.attempts.lift(kind, &body.key) {
        return Err(ApiError::not_found());
    }
    let detail = format!("lock-out of {} lifted", body.key);
    app.audit(
        AuditEvent::AccessChanged,
        Some(admin.name()),
        Some(context.caller.address),
        Some(&detail),
    );
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct LiftBan {
    address: String,
}

/// Takes a banned address off the deny list, and forgets its failures, so that the next one does not
/// ban it again.
#[utoipa::path(delete, path = "/access/bans", tag = "access", request_body = LiftBan,
    responses((status = 204), (status = 403), (status = 404)))]
pub(crate) async fn lift_ban(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(body): Body<LiftBan>,
) -> Done {
    if !app.lists.unban(&body.address)? {
        return Err(ApiError::not_found());
    }
    app.attempts.lift(AttemptKind::Address, &body.address);
    app.audit(
        AuditEvent::AccessChanged,
        Some(admin.name()),
        Some(context.caller.address),
        Some(&format!("ban of {} lifted", body.address)),
    );
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct AnswerRefused {
    /// `allowed_hosts` or `trusted_proxies`.
    key: String,
    value: String,
}

/// Allows a name or trusts a proxy that was refused lately: adds it to the setting. Nothing that was
/// not asked for can be allowed here, so a page cannot make an admin allow what it likes.
#[utoipa::path(post, path = "/access/refused-names", tag = "access", request_body = AnswerRefused,
    responses((status = 204), (status = 403), (status = 404), (status = 409)))]
pub(crate) async fn allow_refused(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(body): Body<AnswerRefused>,
) -> Done {
    if app.config.is_overridden(&body.key) {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "set_on_command_line",
            format!(
                "Sentinel was started with --set {}, which wins over this setting. Start it without to change it here.",
                body.key
            ),
        )
        .with("keys", json!([body.key])));
    }
    let Some(refused) = app.refused_names.take(&body.key, &body.value) else {
        return Err(ApiError::not_found());
    };
    let config = app.config.current();
    let mut values: Vec<String> = match refused.key {
        RefusalKey::AllowedHosts => config.allowed_hosts.clone(),
        RefusalKey::TrustedProxies => config
            .trusted_proxies
            .iter()
            .map(ToString::to_string)
            .collect(),
    };
    if !values.contains(&refused.value) {
        values.push(refused.value.clone());
    }
    let members = Map::from_iter([(refused.key.name().to_owned(), json!(values))]);
    let settings = Settings::from_members(members).map_err(ConfigFileError::from)?;
    app.config.change(&settings)?;
    app.config_changed();
    app.audit(
        AuditEvent::AccessChanged,
        Some(admin.name()),
        Some(context.caller.address),
        Some(&format!(
            "{} added to {}",
            refused.value,
            refused.key.name()
        )),
    );
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a refused name or proxy off the list; it stays refused.
#[utoipa::path(delete, path = "/access/refused-names", tag = "access", request_body = AnswerRefused,
    responses((status = 204), (status = 403), (status = 404)))]
pub(crate) async fn forget_refused(
    State(app): State<Arc<App>>,
    _admin: Admin,
    Body(body): Body<AnswerRefused>,
) -> Done {
    match app.refused_names.take(&body.key, &body.value) {
        Some(_) => Ok(StatusCode::NO_CONTENT),
        None => Err(ApiError::not_found()),
    }
}
