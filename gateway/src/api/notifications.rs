//! Where somebody wants to be told that his jobs are done.

use super::{Answer, Body, Done};
use crate::app::App;
use crate::auth::SignedIn;
use crate::http::{ApiError, chain};
use crate::jobs::{NotifyError, Target, TargetError};
use crate::store::NotificationTarget;
use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Longest address, bytes.
const MAX_ADDRESS: usize = 2000;

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Notifications {
    /// `none`, `ntfy` or `webhook`.
    kind: String,
    /// Where to, `https://…`.
    #[serde(default)]
    address: String,
    #[serde(default)]
    failures_only: bool,
}

/// Where one is told.
#[utoipa::path(get, path = "/notifications", tag = "account", responses((status = 200, body = Notifications)))]
pub(crate) async fn show(
    State(app): State<Arc<App>>,
    signed_in: SignedIn,
) -> Answer<Notifications> {
    let target = app
        .store
        .notification_target(signed_in.account.id.clone())
        .await?;
    Ok(Json(target.map_or_else(
        || Notifications {
            kind: "none".to_owned(),
            address: String::new(),
            failures_only: false,
        },
        |target| Notifications {
            kind: target.kind,
            address: target.address,
            failures_only: target.failures_only,
        },
    )))
}

/// Changes it.
#[utoipa::path(put, path = "/notifications", tag = "account", request_body = Notifications,
    responses((status = 200, body = Notifications), (status = 400)))]
pub(crate) async fn change(
    State(app): State<Arc<App>>,
    signed_in: SignedIn,
    Body(wish): Body<Notifications>,
) -> Answer<Notifications> {
    let target = if wish.kind == "none" {
        None
    } else {
        if wish.address.len() > MAX_ADDRESS {
            return Err(bad_address("The address is too long."));
        }
        Target::parse(&wish.kind, &wish.address)?;
        Some(NotificationTarget {
            kind: wish.kind.clone(),
            address: wish.address.clone(),
            failures_only: wish.failures_only,
        })
    };
    app.store
        .set_notification_target(signed_in.account.id.clone(), target)
        .await?;
    Ok(Json(wish))
}

/// Sends a message to see whether it arrives.
#[utoipa::path(post, path = "/notifications/test", tag = "account", responses((status = 204), (status = 400), (status = 502)))]
pub(crate) async fn test(State(app): State<Arc<App>>, signed_in: SignedIn) -> Done {
    let target = app
        .store
        .notification_target(signed_in.account.id.clone())
        .await?
        .ok_or_else(|| bad_address("No address is set."))?;
    let target = Target::parse(&target.kind, &target.address)?;
    app.notifier.test(&target).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn bad_address(message: &str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "bad_address", message).with("field", "address")
}

impl From<TargetError> for ApiError {
    fn from(error: TargetError) -> Self {
        bad_address(&format!("{error}."))
    }
}

impl From<NotifyError> for ApiError {
    fn from(error: NotifyError) -> Self {
        tracing::debug!(error = %chain(&error), "a message for a user did not arrive");
        Self::new(
            StatusCode::BAD_GATEWAY,
            "not_delivered",
            format!("The message did not arrive: {error}."),
        )
    }
}
