//! Invites: a code that lets a guest make his own account, once; and `/join`, where he does.

use super::begin::{answer_sign_in, begin_session};
use super::codes;
use super::fields::Fields;
use super::sign_in::{MAX_WAITING_PER_ADDRESS, refuse_guess};
use crate::access::Verdict;
use crate::accounts::{Account, HashError, UserName, check_password};
use crate::app::App;
use crate::clock::{self, rfc3339};
use crate::http::pages::{self, Page};
use crate::http::{ApiError, RequestContext};
use crate::store::{AuditEvent, Invite, StoreError};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// 32^16: nobody guesses one of a few hundred.
const LENGTH: usize = 16;
/// Invites that can be open at once.
const MAX_OPEN: u32 = 500;
/// Characters of a note.
const MAX_NOTE: usize = 200;
/// What the audit log calls a guess.
const GUESS: &str = "invite code";

/// What an invite is made from.
#[derive(Debug)]
pub(crate) struct NewInvite<'request> {
    pub(crate) life: Duration,
    pub(crate) admin: bool,
    pub(crate) note: &'request str,
    pub(crate) made_by: &'request str,
}

/// Makes an invite; its code, which is not kept, and when it ends.
pub(crate) async fn make_invite(
    app: &App,
    new: NewInvite<'_>,
) -> Result<(Invite, String), ApiError> {
    if app.accounts.current().owner().is_none() {
        // A guest who is no admin must not be the first account.
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "no_admin",
            "Make the admin's account first.",
        ));
    }
    let code = codes::random::<LENGTH>();
    let now = clock::now();
    let life = i64::try_from(new.life.as_secs()).unwrap_or_default();
    let invite = Invite {
        id: uuid::Uuid::new_v4().to_string(),
        code: digest(&code),
        created_at: now,
        expires_at: now + life,
        admin: new.admin,
        note: new
            .note
            .chars()
            .filter(|character| !character.is_control())
            .take(MAX_NOTE)
            .collect(),
        made_by: new.made_by.to_owned(),
        ended_at: None,
    };
    if app.store.add_invite(invite.clone(), MAX_OPEN).await? {
        Ok((invite, codes::with_dashes(&code)))
    } else {
        Err(ApiError::new(
            StatusCode::CONFLICT,
            "too_many_invites",
            "There are too many open invites. Withdraw some that are no longer needed.",
        ))
    }
}

fn digest(code: &str) -> [u8; 32] {
    Sha256::digest(code.as_bytes()).into()
}

async fn find(app: &App, given: &str) -> Result<Option<Invite>, StoreError> {
    let code = codes::typed(given, LENGTH);
    if code.len() != LENGTH {
        return Ok(None);
    }
    app.store.find_invite(digest(&code)).await
}

fn invalid() -> ApiError {
    ApiError::new(
        StatusCode::FORBIDDEN,
        "invite_invalid",
        "This invite is not valid, has been used, or has run out. Ask for a new one.",
    )
}

/// Refuses addresses that guessed too often; those on the allow list are spared.
fn not_locked_out(app: &App, context: &RequestContext) -> Result<(), ApiError> {
    if app.lists.judge(&context.caller) == Verdict::Allowed {
        return Ok(());
    }
    match app
        .attempts
        .address_lockout(context.caller.address, Instant::now())
    {
        Some(lockout) => Err(ApiError::locked_out(lockout)),
        None => Ok(()),
    }
}

/// Query of `GET /join`.
#[derive(Debug, Deserialize)]
pub(crate) struct JoinQuery {
    code: Option<String>,
}

/// `GET /join?code=…`: the page where a guest chooses name and password. Looking uses nothing up:
/// programs that preview links look too. A code that never was is a guess and counts as one.
pub(crate) async fn join_page(
    State(app): State<Arc<App>>,
    context: RequestContext,
    query: Result<Query<JoinQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let code = query.ok().and_then(|Query(query)| query.code);
    let shown = match code.filter(|code| !code.is_empty()) {
        None => Value::Null,
        Some(code) => {
            not_locked_out(&app, &context)?;
            match find(&app, &code).await? {
                Some(invite) => json!({
                    "valid": invite.is_open(clock::now()),
                    "expires_at": rfc3339(invite.expires_at),
                    "role": if invite.admin { "admin" } else { "user" },
                }),
                None => {
                    refuse_guess(&app, &context.caller, GUESS);
                    json!({ "valid": false, "expires_at": null, "role": "user" })
                }
            }
        }
    };
    let signed_in = super::SignedIn::find(&app, &headers);
    let member = ("invite", shown);
    Ok(pages::show_with(
        &app,
        Page::Join,
        &context,
        signed_in.as_ref(),
        member,
    ))
}

/// `POST /join`: makes the guest's account and signs him in. The invite is taken before the account
/// is made, so that it counts once, and given back when the account could not be made.
pub(crate) async fn join(
    State(app): State<Arc<App>>,
    context: RequestContext,
    headers: HeaderMap,
    mut fields: Fields,
) -> Result<Response, ApiError> {
    let code = fields.require("code")?;
    let name = UserName::parse(&fields.require("username")?)?;
    let password = fields.require("password")?;
    check_password(&password)?;
    let Some(_place) = app
        .waiting_sign_ins
        .enter(context.caller.address.origin(), MAX_WAITING_PER_ADDRESS)
    else {
        return Err(HashError::Busy.into());
    };
    not_locked_out(&app, &context)?;
    let Some(invite) = find(&app, &code).await? else {
        refuse_guess(&app, &context.caller, GUESS);
        return Err(invalid());
    };
    if !invite.is_open(clock::now()) {
        return Err(invalid());
    }
    // Checked before the hash, which costs more than the answer.
    if app.accounts.current().find(name.as_str()).is_some() {
        return Err(crate::accounts::AccountsError::NameTaken.into());
    }
    let hash = app.hasher.hash(password).await?;
    let account = Account::new(&name, hash, invite.admin, clock::now());
    if !app
        .store
        .end_invite(invite.id.clone(), clock::now())
        .await?
    {
        return Err(invalid());
    }
    if let Err(error) = app.accounts.add(account.clone()) {
        app.store.reopen_invite(invite.id).await?;
        return Err(error.into());
    }
    tracing::info!(user = %name, "an account was created by invite");
    let detail = format!("invite of {}", invite.made_by);
    for event in [AuditEvent::InviteUsed, AuditEvent::Registered] {
        app.audit(
            event,
            Some(name.as_str()),
            Some(context.caller.address),
            Some(&detail),
        );
    }
    let begun = begin_session(&app, &context, &headers, &account, Some("invite")).await?;
    let body = json!({ "message": format!("The account {name} has been created.") });
    Ok(answer_sign_in(&headers, begun, body))
}
