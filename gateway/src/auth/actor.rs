//! Who acts on the API: an account that is signed in, or the machine's owner.

use super::{Session, SessionKind, SignedIn};
use crate::app::App;
use crate::http::{ApiError, RequestContext};
use crate::store::AuditEvent;
use axum::extract::FromRequestParts;
use http::StatusCode;
use http::header::HeaderName;
use http::request::Parts;
use std::sync::Arc;

/// Header with the proof of [`Session::prove`].
pub(crate) const PROOF_HEADER: HeaderName = HeaderName::from_static("x-sentinel-proof");
/// Name of the machine's owner in the audit log; no account can have it.
const MACHINE: &str = "this machine";

/// Marks a request that was made in this process by the machine's owner. It travels beside the
/// request, where nothing that comes from the network is ever put.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MachineOwner;

/// Whoever may use the API.
#[derive(Clone, Debug)]
pub enum Actor {
    /// Somebody is signed in.
    Account(SignedIn),
    /// The machine's owner, at its own window: it is his machine, so he needs no password.
    Machine,
}

impl Actor {
    /// Name for the audit log.
    pub fn name(&self) -> &str {
        match self {
            Self::Account(signed_in) => &signed_in.account.username,
            Self::Machine => MACHINE,
        }
    }

    /// The session, if there is one.
    pub fn session(&self) -> Option<&Session> {
        match self {
            Self::Account(signed_in) => Some(&signed_in.session),
            Self::Machine => None,
        }
    }

    /// Whether an admin's work may be done, the proof aside.
    pub fn has_admin_rights(&self) -> bool {
        match self {
            Self::Account(signed_in) => signed_in.has_admin_rights(),
            Self::Machine => true,
        }
    }
}

impl<State: Send + Sync> FromRequestParts<State> for Actor {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, ApiError> {
        if parts.extensions.get::<MachineOwner>().is_some() {
            return Ok(Self::Machine);
        }
        SignedIn::from_request_parts(parts, state)
            .await
            .map(Self::Account)
    }
}

/// Somebody who may administer now: an admin who has given his password again within the last
/// minutes, an API token that was made with admin rights, or the machine's owner. ComfyUI's page
/// runs third-party script with the admin's cookie; it has no proof.
#[derive(Clone, Debug)]
pub struct Admin(Actor);

impl Admin {
    /// Name for the audit log.
    pub fn name(&self) -> &str {
        self.0.name()
    }

    /// The session, if there is one.
    pub fn session(&self) -> Option<&Session> {
        self.0.session()
    }

    /// Whether it is the machine's owner, who has no account.
    pub fn is_machine_owner(&self) -> bool {
        matches!(self.0, Actor::Machine)
    }
}

impl FromRequestParts<Arc<App>> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let actor = Actor::from_request_parts(parts, app).await?;
        let Actor::Account(signed_in) = &actor else {
            return Ok(Self(actor));
        };
        if !signed_in.has_admin_rights() {
            let address = parts
                .extensions
                .get::<RequestContext>()
                .map(|context| context.caller.address);
            app.audit(
                AuditEvent::Refused,
                Some(&signed_in.account.username),
                address,
                Some(parts.uri.path()),
            );
            return Err(ApiError::admin_required());
        }
        let is_proven = match signed_in.session.kind {
            SessionKind::Token => true,
            SessionKind::Browser => parts
                .headers
                .get(PROOF_HEADER)
                .and_then(|proof| proof.to_str().ok())
                .is_some_and(|proof| signed_in.session.is_proven_by(proof)),
        };
        if is_proven {
            Ok(Self(actor))
        } else {
            Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "step_up_required",
                "Please give your password again to do this.",
            ))
        }
    }
}
