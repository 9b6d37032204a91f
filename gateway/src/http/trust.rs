//! `/trust`: helps a device to trust the certificate that was made here. Nothing on it is secret,
//! so it is public, and also told over plain HTTP while everything else is sent to HTTPS.

use super::context::RequestContext;
use super::error::{ApiError, chain};
use super::pages::{self, Page};
use crate::app::App;
use crate::auth::SignedIn;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// `GET /trust`.
pub(super) async fn page(
    State(app): State<Arc<App>>,
    context: RequestContext,
    headers: HeaderMap,
) -> Response {
    let certificate = app.tls.load_full().map_or(Value::Null, |tls| {
        let facts = tls.facts();
        json!({ "sha256": facts.sha256, "names": facts.names, "made": facts.is_made })
    });
    let signed_in = SignedIn::find(&app, &headers);
    let member = ("certificate", certificate);
    pages::show_with(&app, Page::Trust, &context, signed_in.as_ref(), member)
}

/// `GET /trust/certificate.crt`: our authority; phones and computers open this type with the dialog
/// that trusts it.
pub(super) async fn certificate(State(app): State<Arc<App>>) -> Result<Response, ApiError> {
    let Some(tls) = app.tls.load_full() else {
        return Err(ApiError::not_found());
    };
    match tls.authority() {
        Ok(Some(pem)) => Ok((
            [
                (CONTENT_TYPE, "application/x-x509-ca-cert"),
                (
                    CONTENT_DISPOSITION,
                    "attachment; filename=\"comfyui-sentinel.crt\"",
                ),
            ],
            pem,
        )
            .into_response()),
        Ok(None) => Err(ApiError::not_found()),
        Err(error) => {
            tracing::error!(error = %chain(&error), "the certificate authority cannot be read");
            Err(ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "Something went wrong in Sentinel; its log tells more.",
            ))
        }
    }
}
