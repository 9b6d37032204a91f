//! `/enter`: from the window into the browser of the same machine, signed in, by a link that
//! counts once.

use super::begin::{begin_session, found};
use crate::app::App;
use crate::http::{ApiError, RequestContext};
use crate::store::AuditEvent;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Instant;

/// Query of `GET /enter`.
#[derive(Debug, Deserialize)]
pub(crate) struct EnterQuery {
    code: Option<String>,
    next: Option<String>,
}

/// `GET /enter?code=…`: signs the machine's owner in as the first admin.
pub(crate) async fn enter(
    State(app): State<Arc<App>>,
    context: RequestContext,
    query: Result<Query<EnterQuery>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let refused = || {
        // Nobody elsewhere shall fill the audit log with what cannot succeed.
        if context.caller.is_local {
            app.audit(
                AuditEvent::SignInFailed,
                None,
                Some(context.caller.address),
                Some("one-time link"),
            );
        }
        ApiError::new(
            StatusCode::FORBIDDEN,
            "link_invalid",
            "This link counts once, for a minute, and on Sentinel's own machine only. Open ComfyUI from Sentinel's window again.",
        )
    };
    let Ok(Query(query)) = query else {
        return Err(refused());
    };
    let code = query.code.unwrap_or_default();
    // Somebody elsewhere must not even be able to use a link up.
    if !context.caller.is_local || !app.links.take(&code, Instant::now()) {
        return Err(refused());
    }
    let accounts = app.accounts.current();
    let Some(account) = accounts.owner() else {
        return Err(refused());
    };
    let begun = begin_session(&app, &context, &headers, account, Some("one-time link")).await?;
    let target = query.next.filter(|next| is_own_path(next));
    let target = target.as_deref().unwrap_or("/");
    Ok((begun.cookies, found(target)).into_response())
}

/// A path on this server: browsers take `//host` and `/\host` for another one.
pub(super) fn is_own_path(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|rest| {
        !rest.starts_with(['/', '\\']) && rest.bytes().all(|byte| byte.is_ascii_graphic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_leads_nowhere_else() {
        for own in ["/", "/sentinel/", "/sentinel/#/users", "/view?a=//b"] {
            assert!(is_own_path(own), "{own}");
        }
        let foreign = [
            "",
            "//evil.example",
            "/\\evil.example",
            "http://evil.example",
            "/a\r\nb",
            "/ä",
        ];
        for foreign in foreign {
            assert!(!is_own_path(foreign), "{foreign}");
        }
    }
}
