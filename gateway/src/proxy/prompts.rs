//! `POST /prompt`: read once, checked, held until it is its engine's turn on the GPU, and passed on
//! byte for byte.

use super::{Failure, ProxyError, Way, exchange};
use crate::auth::SignedIn;
use crate::http::ApiError;
use crate::jobs::{MAX_PROMPT, NodePolicy, Prompt, PromptFault, TurnFault};
use crate::store::AuditEvent;
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use std::time::Duration;
use tokio::time::timeout;

/// Time for a client to send its prompt.
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// How long a prompt is held while others use the GPU. Browsers give up after five minutes.
const TURN_LIMIT: Duration = Duration::from_secs(280);
/// Prompts longer than this are read on a thread of their own, so that nobody else waits.
const LONG: usize = 256 * 1024;

/// Passes a prompt on, or refuses it in ComfyUI's form.
pub(super) async fn pass(way: &Way<'_>, request: Request) -> Result<Response, Failure> {
    let (mut parts, body) = request.into_parts();
    check_encoding(&parts.headers)?;
    let bytes = read(body).await?;
    check(way, &bytes).await?;
    let waited = timeout(TURN_LIMIT, way.app.engines.wait_for_turn(way.engine)).await;
    let mut turn = match waited {
        Ok(Ok(turn)) => turn,
        Ok(Err(TurnFault::Full)) => {
            return Err(refused(
                StatusCode::TOO_MANY_REQUESTS,
                "queue_full",
                "You have too many prompts waiting for the GPU.",
            ));
        }
        Ok(Err(TurnFault::Closed)) | Err(_) => {
            return Err(refused(
                StatusCode::SERVICE_UNAVAILABLE,
                "gpu_busy",
                "Other users keep the GPU busy. Please try again in a few minutes.",
            ));
        }
    };
    let address = way.engine.address().ok_or_else(gone)?;
    parts.headers.remove(CONTENT_LENGTH);
    parts
        .headers
        .insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    let request = Request::from_parts(parts, Body::from(bytes));
    if let Some(turn) = &mut turn {
        turn.use_it();
    }
    let answer = exchange(way, address, request).await;
    way.engine.prompt_was_passed();
    drop(turn);
    Ok(answer?)
}

fn gone() -> Failure {
    Failure::Proxy(ProxyError::Silent)
}

/// ComfyUI undoes compression and obeys the charset; what it would read then is not what was
/// checked here.
fn check_encoding(headers: &HeaderMap) -> Result<(), Failure> {
    let is_plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|value| value.as_bytes().eq_ignore_ascii_case(b"identity"));
    let charsets = headers
        .get_all(CONTENT_TYPE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';').skip(1))
        .filter_map(|parameter| parameter.split_once('='))
        .filter(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    let mut charsets =
        charsets.map(|(_, value)| value.trim().trim_matches('"').to_ascii_lowercase());
    let is_readable = headers
        .get_all(CONTENT_TYPE)
        .iter()
        .all(|value| value.to_str().is_ok_and(|value| !value.contains('*')));
    if is_plain && is_readable && charsets.all(|charset| charset == "utf-8" || charset == "utf8") {
        Ok(())
    } else {
        Err(refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_encoding",
            "Send the prompt as plain UTF-8 JSON, without compression.",
        ))
    }
}

async fn read(body: Body) -> Result<Bytes, Failure> {
    match timeout(SEND_LIMIT, Limited::new(body, MAX_PROMPT).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(refused(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            "The prompt is too large.",
        )),
        Ok(Err(_)) => Err(refused(
            StatusCode::BAD_REQUEST,
            "bad_body",
            "The prompt did not arrive whole.",
        )),
        Err(_) => Err(refused(
            StatusCode::REQUEST_TIMEOUT,
            "too_slow",
            "The prompt took too long to arrive.",
        )),
    }
}

async fn check(way: &Way<'_>, bytes: &Bytes) -> Result<(), Failure> {
    let parsed = if bytes.len() > LONG {
        let bytes = bytes.clone();
        tokio::task::spawn_blocking(move || Prompt::parse(&bytes))
            .await
            .map_err(|_| gone())?
    } else {
        Prompt::parse(bytes)
    };
    let prompt = parsed.map_err(|fault: PromptFault| in_comfyui_form(fault.body()))?;
    if let Some(chosen) = &prompt.chosen
        && !way.engine.activity().is_new_choice(chosen)
    {
        let fault = PromptFault::Type {
            member: "prompt_id".to_owned(),
            expected: "new when number is given",
        };
        return Err(in_comfyui_form(fault.body()));
    }
    let live = way.app.live.load();
    if let Err(nodes) = policy(&live, way.signed_in).check(&prompt) {
        way.app.audit(
            AuditEvent::Refused,
            Some(&way.signed_in.account.username),
            Some(way.context.caller.address),
            Some(&format!("nodes: {}", nodes.names())),
        );
        return Err(in_comfyui_form(nodes.body()));
    }
    Ok(())
}

fn policy<'live>(live: &'live crate::app::Live, signed_in: &SignedIn) -> &'live NodePolicy {
    if signed_in.has_admin_rights() {
        &live.admin_nodes
    } else {
        &live.user_nodes
    }
}

fn in_comfyui_form(body: Value) -> Failure {
    Failure::Refused(Box::new(
        (StatusCode::BAD_REQUEST, Json(body)).into_response(),
    ))
}

fn refused(status: StatusCode, code: &'static str, message: &'static str) -> Failure {
    Failure::Refused(Box::new(
        ApiError::new(status, code, message).into_response(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_utf_8_is_read() {
        let table = [
            (CONTENT_TYPE, "application/json", true),
            (CONTENT_TYPE, "text/plain; charset=UTF-8", true),
            (CONTENT_TYPE, "application/json; charset=\"utf-8\"", true),
            (CONTENT_TYPE, "application/json; charset=utf-16", false),
            (CONTENT_TYPE, "application/json; Charset = utf-7", false),
            (CONTENT_TYPE, "application/json; charset*=utf-16", false),
            (CONTENT_ENCODING, "identity", true),
            (CONTENT_ENCODING, "gzip", false),
            (CONTENT_ENCODING, "deflate", false),
        ];
        for (name, value, expected) in table {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(value))]);
            assert_eq!(check_encoding(&headers).is_ok(), expected, "{value}");
        }
    }
}
