//! Whose token it is, asked for before the door opens: a token with an admin's rights is refused,
//! because every program of this computer could use it.

use super::token::Token;
use super::upstream::{Upstream, UpstreamError};
use axum::body::Body;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Time for the gateway to say whose the token is.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Largest answer, bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Longest sentence of the gateway that is shown, characters.
const MAX_SHOWN: usize = 300;

/// Why the door does not open.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    /// No answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// 401.
    #[error(
        "Sentinel does not accept the token: it has ended or was taken back. Make a new one on Sentinel's account page"
    )]
    Token,
    /// It could administer.
    #[error(
        "this token has an admin's rights, and every program of this computer could use them. Make one without on Sentinel's account page"
    )]
    Admin,
    /// Only HTTPS is served there.
    #[error("Sentinel asks for an encrypted connection: begin its address with https://")]
    Secure,
    /// Another refusal.
    #[error("Sentinel refuses with status {status}: {message}")]
    Refused {
        /// Status.
        status: StatusCode,
        /// Its own words.
        message: String,
    },
    /// Something else answers at this address.
    #[error("what answers at this address is no Sentinel (status {0})")]
    NotSentinel(StatusCode),
}

/// What is read of the answer to `/sentinel/api/me`.
#[derive(Debug, Deserialize)]
struct Me {
    username: String,
    /// Missing in what does not know the distinction: then nothing is known.
    admin_rights: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    error: String,
}

/// Asks whose token it is.
pub(super) async fn name_of(
    upstream: &Arc<Upstream>,
    token: &Token,
) -> Result<String, AccountError> {
    let asked = async {
        let target = upstream.target();
        let mut request = Request::new(Body::empty());
        let path = format!("{}/sentinel/api/me", target.prefix);
        *request.uri_mut() = path
            .parse()
            .map_err(|_| super::target::TargetError::Address)
            .map_err(UpstreamError::from)?;
        let headers = request.headers_mut();
        headers.insert(HOST, target.authority.clone());
        headers.insert(AUTHORIZATION, token.header());
        headers.insert(ACCEPT, http::HeaderValue::from_static("application/json"));
        let response = upstream.send(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        Ok::<_, UpstreamError>((status, body))
    };
    let (status, body) = timeout(TIME_LIMIT, asked)
        .await
        .map_err(|_| UpstreamError::Silent)??;
    read(status, &body)
}

/// What an answer means.
fn read(status: StatusCode, body: &[u8]) -> Result<String, AccountError> {
    match status {
        StatusCode::OK => match serde_json::from_slice::<Me>(body) {
            Ok(me) if me.admin_rights == Some(false) => Ok(me.username),
            Ok(_) => Err(AccountError::Admin),
            Err(_) => Err(AccountError::NotSentinel(status)),
        },
        StatusCode::UNAUTHORIZED => Err(AccountError::Token),
        StatusCode::PERMANENT_REDIRECT => Err(AccountError::Secure),
        _ => match serde_json::from_slice::<Refusal>(body) {
            Ok(refusal) => Err(AccountError::Refused {
                status,
                message: printable(&refusal.error),
            }),
            Err(_) => Err(AccountError::NotSentinel(status)),
        },
    }
}

/// A sentence of the other side, without what would act on a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(MAX_SHOWN)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(status: u16, body: &str) -> String {
        let read = read(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        read.unwrap_or_else(|error| format!("{error:?}"))
    }

    #[test]
    fn only_a_token_without_an_admins_rights_opens_the_door() {
        let me = |rights: &str| format!(r#"{{"username": "bob", "admin": true{rights}}}"#);
        let table = [
            (200, me(r#", "admin_rights": false"#), "bob"),
            (200, me(r#", "admin_rights": true"#), "Admin"),
            (200, me(r#", "admin_rights": null"#), "Admin"),
            (200, me(""), "Admin"),
            (200, "<html>".to_owned(), "NotSentinel(200)"),
            (200, "{}".to_owned(), "NotSentinel(200)"),
            (401, "{}".to_owned(), "Token"),
            (308, String::new(), "Secure"),
            (404, "404: Not Found".to_owned(), "NotSentinel(404)"),
            (
                403,
                "{\"error\": \"No \\u001b[31mway.\"}".to_owned(),
                "Refused { status: 403, message: \"No [31mway.\" }",
            ),
        ];
        for (status, body, expected) in table {
            assert_eq!(text(status, &body), expected, "{status} {body}");
        }
    }
}
