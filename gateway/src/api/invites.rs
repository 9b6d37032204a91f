//! Invites, for admins.

use super::{Answer, Body, Done};
use crate::app::App;
use crate::auth::{Admin, NewInvite, make_invite};
use crate::clock::{self, rfc3339};
use crate::http::{ApiError, RequestContext};
use crate::store::AuditEvent;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use utoipa::ToSchema;

/// Longest life of an invite, hours.
const MAX_HOURS: u32 = 720;

/// An open invite, without its code.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InviteView {
    id: String,
    created_at: String,
    expires_at: String,
    /// Whether the guest becomes an admin.
    admin: bool,
    note: String,
    /// Always `null`: the code is shown once, when the invite is made.
    url: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InviteList {
    invites: Vec<InviteView>,
}

/// Invites that can be used.
#[utoipa::path(get, path = "/invites", tag = "people", responses((status = 200, body = InviteList), (status = 403)))]
pub(crate) async fn list(State(app): State<Arc<App>>, _admin: Admin) -> Answer<InviteList> {
    let invites = app.store.open_invites(clock::now()).await?;
    Ok(Json(InviteList {
        invites: invites
            .into_iter()
            .map(|invite| InviteView {
                id: invite.id,
                created_at: rfc3339(invite.created_at),
                expires_at: rfc3339(invite.expires_at),
                admin: invite.admin,
                note: invite.note,
                url: None,
            })
            .collect(),
    }))
}

#[derive(Deserialize, ToSchema)]
pub(crate) struct MakeInvite {
    /// 1 to 720.
    expire_hours: u32,
    /// Whether the guest becomes an admin.
    #[serde(default)]
    admin: bool,
    /// For whom.
    #[serde(default)]
    note: String,
}

/// An invite; its code is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeInvite {
    id: String,
    code: String,
    url: String,
    expires_at: String,
}

/// Makes an invite that lets one guest make his own account.
#[utoipa::path(post, path = "/invites", tag = "people", request_body = MakeInvite,
    responses((status = 201, body = MadeInvite), (status = 400), (status = 403), (status = 409)))]
pub(crate) async fn make(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(body): Body<MakeInvite>,
) -> Result<(StatusCode, Json<MadeInvite>), ApiError> {
    if !(1..=MAX_HOURS).contains(&body.expire_hours) {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_expire_hours",
            format!("expire_hours must be a whole number from 1 to {MAX_HOURS}."),
        )
        .with("field", "expire_hours"));
    }
    let new = NewInvite {
        life: Duration::from_secs(u64::from(body.expire_hours) * 3600),
        admin: body.admin,
        note: body.note.trim(),
        made_by: admin.name(),
    };
    let (invite, code) = make_invite(&app, new).await?;
    let role = if invite.admin { "admin" } else { "user" };
    app.audit(
        AuditEvent::InviteMade,
        Some(admin.name()),
        Some(context.caller.address),
        Some(&format!("{role}: {}", invite.note)),
    );
    Ok((
        StatusCode::CREATED,
        Json(MadeInvite {
            id: invite.id,
            url: format!("{}/join?code={code}", app.url_for_others(&context)),
            code,
            expires_at: rfc3339(invite.expires_at),
        }),
    ))
}

/// Withdraws an invite.
#[utoipa::path(delete, path = "/invites/{id}", tag = "people", params(("id" = String, Path)),
    responses((status = 204), (status = 403), (status = 404)))]
pub(crate) async fn withdraw(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(id): Path<String>,
) -> Done {
    if !app.store.end_invite(id, clock::now()).await? {
        return Err(ApiError::not_found());
    }
    app.audit(
        AuditEvent::InviteWithdrawn,
        Some(admin.name()),
        Some(context.caller.address),
        None,
    );
    Ok(StatusCode::NO_CONTENT)
}
