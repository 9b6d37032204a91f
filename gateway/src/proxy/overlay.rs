//! The script tag in ComfyUI's page that brings the user button.

use super::pool::PooledBody;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt, Limited};

/// Largest page that is changed.
const MAX_PAGE: usize = 4 * 1024 * 1024;
/// Path of the script.
pub(super) const SCRIPT: &str = "/sentinel/assets/overlay.js";

/// Whether this request asks for ComfyUI's page.
pub(super) fn is_page(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && matches!(path, "/" | "/index.html" | "/api/")
}

/// Asks for the page whole and readable.
pub(super) fn prepare_request(headers: &mut HeaderMap) {
    for name in [IF_NONE_MATCH, IF_MODIFIED_SINCE, RANGE] {
        headers.remove(name);
    }
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}

/// Adds the script of this address to the page; anything that is not such a page passes unchanged.
pub(super) async fn add_script(
    response: Response<PooledBody>,
    method: &Method,
    script: &str,
) -> Response<Body> {
    let headers = response.headers();
    let is_html = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if response.status() != StatusCode::OK || !is_html || headers.contains_key(CONTENT_ENCODING) {
        return response.map(Body::new);
    }
    let (mut parts, body) = response.into_parts();
    for name in [CONTENT_LENGTH, ETAG, LAST_MODIFIED] {
        parts.headers.remove(name);
    }
    // Beside ComfyUI's own, if it sends one (--disable-api-nodes, --offline): all policies count.
    parts.headers.append(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("frame-ancestors 'self'"),
    );
    if method == Method::HEAD {
        return Response::from_parts(parts, Body::empty());
    }
    match Limited::new(body, MAX_PAGE).collect().await {
        Ok(page) => Response::from_parts(parts, Body::from(with_script(&page.to_bytes(), script))),
        Err(error) => {
            tracing::warn!(%error, "ComfyUI's page could not be read whole");
            let mut response = Response::new(Body::from("ComfyUI's page could not be read."));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

fn with_script(page: &Bytes, script: &str) -> Bytes {
    let tag = format!("<script src=\"{script}\" defer></script>");
    let lower = page.to_ascii_lowercase();
    let find = |tag: &[u8]| lower.windows(tag.len()).position(|window| window == tag);
    let at = find(b"</head>")
        .or_else(|| find(b"<body"))
        .unwrap_or(page.len());
    let mut changed = BytesMut::with_capacity(page.len() + tag.len());
    changed.extend_from_slice(&page[..at]);
    changed.extend_from_slice(tag.as_bytes());
    changed.extend_from_slice(&page[at..]);
    changed.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_goes_into_the_head() {
        let script = "<script src=\"/ai/sentinel/assets/overlay.js\" defer></script>";
        for (page, expected) in [
            (
                "<HEAD><title>x</title></HEAD><body>",
                format!("<HEAD><title>x</title>{script}</HEAD><body>"),
            ),
            ("<body class=a>", format!("{script}<body class=a>")),
            ("x", format!("x{script}")),
        ] {
            assert_eq!(
                with_script(&Bytes::from(page), "/ai/sentinel/assets/overlay.js"),
                expected
            );
        }
    }
}
