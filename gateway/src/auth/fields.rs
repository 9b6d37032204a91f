//! Fields of a sign-in form: JSON, urlencoded and multipart bodies, as the original promised
//! (defect S44), of bounded size, read nowhere else before sign-in (defect S46).

use crate::http::ApiError;
use axum::Form;
use axum::extract::{FromRequest, Multipart, Request};
use axum::response::IntoResponse;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Limited};
use std::collections::HashMap;
use std::time::Duration;

/// Largest form.
const MAX_BYTES: usize = 16 * 1024;
/// Time to send it.
const TIME_LIMIT: Duration = Duration::from_secs(10);

/// The fields of a form by name.
#[derive(Debug, Default)]
pub(crate) struct Fields(HashMap<String, String>);

impl Fields {
    /// A field that must be there (defect S45: a missing one is a 400 that names it).
    pub(crate) fn require(&mut self, name: &str) -> Result<String, ApiError> {
        self.0
            .remove(name)
            .ok_or_else(|| ApiError::missing_field(name))
    }

    /// A field that may be there and is not empty.
    pub(crate) fn optional(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).filter(|value| !value.is_empty())
    }
}

fn bad(message: &'static str) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, "bad_body", message)
}

impl<State: Send + Sync> FromRequest<State> for Fields {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &State) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let collected =
            tokio::time::timeout(TIME_LIMIT, Limited::new(body, MAX_BYTES).collect()).await;
        let Ok(collected) = collected else {
            return Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "too_slow",
                "The form took too long to arrive.",
            ));
        };
        let collected = collected.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                ApiError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "too_large",
                    "The form is too large.",
                )
            } else {
                bad("The form did not arrive whole.")
            }
        })?;
        let bytes = collected.to_bytes();
        let kind = parts
            .headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        let kind = kind
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let request = Request::from_parts(parts, axum::body::Body::from(bytes.clone()));
        match kind.as_str() {
            "application/x-www-form-urlencoded" => {
                let Form(fields) = Form::<Vec<(String, String)>>::from_request(request, state)
                    .await
                    .map_err(|_| bad("The form cannot be read."))?;
                Ok(Self(fields.into_iter().collect()))
            }
            "multipart/form-data" => {
                let mut multipart = Multipart::from_request(request, state)
                    .await
                    .map_err(|error| {
                        tracing::debug!(status = %error.into_response().status(), "unreadable multipart form");
                        bad("The form cannot be read.")
                    })?;
                let mut fields = HashMap::new();
                while let Some(field) = multipart
                    .next_field()
                    .await
                    .map_err(|_| bad("The form cannot be read."))?
                {
                    let name = field.name().unwrap_or_default().to_owned();
                    let value = field
                        .text()
                        .await
                        .map_err(|_| bad("The form cannot be read."))?;
                    fields.insert(name, value);
                }
                Ok(Self(fields))
            }
            // Scripts often forget the type; the original's own examples do.
            _ => {
                let members: serde_json::Map<String, serde_json::Value> =
                    serde_json::from_slice(&bytes)
                        .map_err(|_| bad("The body must be a JSON object or a form."))?;
                let fields = members.into_iter().filter_map(|(name, value)| {
                    let text = match value {
                        serde_json::Value::String(text) => text,
                        serde_json::Value::Number(number) => number.to_string(),
                        serde_json::Value::Bool(flag) => flag.to_string(),
                        _ => return None,
                    };
                    Some((name, text))
                });
                Ok(Self(fields.collect()))
            }
        }
    }
}
