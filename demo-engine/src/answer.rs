//! Answers in the form aiohttp gives them.

use crate::json::Json;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};

/// An answer in place of a result.
pub(crate) type Refusal = Box<Response>;

/// How an answer came about, which decides whether ComfyUI still adds caching headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Raised as an exception: nothing is added.
    Raised,
    /// A static file that turned out to be missing only while it was sent.
    MissingFile,
}

/// An answer without a body.
pub(crate) fn empty(status: StatusCode) -> Response {
    with_body(status, None, Bytes::new())
}

/// 200 with JSON.
pub(crate) fn json(value: &Json) -> Response {
    json_with(StatusCode::OK, value)
}

/// JSON with a status.
pub(crate) fn json_with(status: StatusCode, value: &Json) -> Response {
    with_body(
        status,
        Some("application/json; charset=utf-8"),
        value.dump().into(),
    )
}

/// `{"error": …}` with a status.
pub(crate) fn json_error(status: StatusCode, message: &str) -> Response {
    json_with(status, &crate::json::json!({ "error": message }))
}

/// Plain text with a status.
pub(crate) fn text(status: StatusCode, text: &str) -> Response {
    with_body(
        status,
        Some("text/plain; charset=utf-8"),
        Bytes::copy_from_slice(text.as_bytes()),
    )
}

/// The text aiohttp gives for an exception that nobody caught.
pub(crate) fn broken() -> Response {
    raised(text(
        StatusCode::INTERNAL_SERVER_ERROR,
        "500 Internal Server Error\n\nServer got itself in trouble",
    ))
}

/// The text aiohttp gives for one of its own errors, such as `404: Not Found`.
pub(crate) fn refused(status: StatusCode) -> Response {
    let reason = status.canonical_reason().unwrap_or_default();
    raised(text(status, &format!("{}: {reason}", status.as_u16())))
}

fn raised(mut response: Response) -> Response {
    response.extensions_mut().insert(Origin::Raised);
    response
}

/// What aiohttp's static files answer for a file that is not there: chunked and empty.
pub(crate) fn no_such_file() -> Response {
    let nothing = futures_util::stream::empty::<Result<Bytes, std::io::Error>>();
    let mut response = Response::new(Body::from_stream(nothing));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    response.extensions_mut().insert(Origin::MissingFile);
    response
}

/// 405 with the methods that would do.
pub(crate) fn wrong_method(allowed: &[&str]) -> Response {
    let mut sorted = allowed.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut response = refused(StatusCode::METHOD_NOT_ALLOWED);
    set(&mut response, header::ALLOW, &sorted.join(","));
    response
}

/// Any bytes.
pub(crate) fn with_body(status: StatusCode, kind: Option<&'static str>, body: Bytes) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    if let Some(kind) = kind {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    response
}

/// Sets a header; a value that cannot stand in a header is left away.
pub(crate) fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
        response.headers_mut().insert(name, value);
    }
}
