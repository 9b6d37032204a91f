//! What the door itself answers: refusals in the form of ComfyUI, so that its clients can read them.

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;

/// An error with a type for programs and a message for people.
pub(super) fn refusal(status: StatusCode, kind: &str, message: &str) -> Response<Body> {
    let body = json!({
        "error": { "type": kind, "message": message, "details": "", "extra_info": {} },
        "node_errors": {},
    });
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
