//! How large a request may be. Files that are uploaded have no limit but the disk's: Sentinel starts
//! ComfyUI without its own (`--max-upload-size`). Whatever else is sent to ComfyUI's own addresses is
//! kept whole in its memory, so there its usual limit stays, here.

use super::rules::Meaning;
use crate::comfyui::{set_upload_size, sets_upload_size};
use crate::config::Config;
use crate::http::ApiError;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

/// Largest body that ComfyUI takes by itself, bytes.
const USUAL: u64 = 100 * 1024 * 1024;
/// Longest refusal of ComfyUI that is read, bytes.
const MAX_REFUSAL: usize = 16 * 1024;

/// The limit of a request. `None`: ComfyUI's own counts, if it has one.
pub(super) fn limit(means: &Meaning, config: &Config) -> Option<u64> {
    let arguments = &config.comfyui.args;
    match means {
        Meaning::Known | Meaning::Job(_) | Meaning::Layout if !sets_upload_size(arguments) => {
            Some(USUAL)
        }
        // ComfyUI would break the exchange off, and its refusal be lost in that.
        Meaning::Files => set_upload_size(arguments),
        _ => None,
    }
}

/// Whether a body turned out to be too large on its way.
#[derive(Clone, Debug, Default)]
pub(super) struct Measured(Arc<AtomicBool>);

impl Measured {
    /// The refusal, if it was.
    pub(super) fn refusal(&self, limit: u64) -> Option<ApiError> {
        self.0
            .load(Ordering::Relaxed)
            .then(|| too_large(Some(limit)))
    }
}

/// Holds a request to a limit: refused at once where it tells its length, else when it passes it.
pub(super) fn measured(request: Request, limit: u64) -> Result<(Request, Measured), ApiError> {
    let told = request.headers().get(CONTENT_LENGTH);
    let told: Option<u64> = told.and_then(|length| length.to_str().ok()?.parse().ok());
    if told.is_some_and(|length| length > limit) {
        return Err(too_large(Some(limit)));
    }
    let measured = Measured::default();
    let request = request.map(|inner| {
        if inner.is_end_stream() {
            return inner;
        }
        Body::new(MeasuredBody {
            inner,
            left: limit,
            measured: measured.clone(),
        })
    });
    Ok((request, measured))
}

/// ComfyUI's bare "413" becomes a sentence with the limit and the key that changes it. What a custom
/// node words by itself stays.
pub(super) async fn explained(response: Response) -> Response {
    let kind = response.headers().get(CONTENT_TYPE);
    let is_bare = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if response.status() != StatusCode::PAYLOAD_TOO_LARGE || !is_bare {
        return response;
    }
    let body = Limited::new(response.into_body(), MAX_REFUSAL)
        .collect()
        .await;
    let text = body.map(|body| body.to_bytes()).unwrap_or_default();
    too_large(told_limit(&String::from_utf8_lossy(&text))).into_response()
}

/// `Maximum request body size 104857600 exceeded, actual body size 104857601`.
fn told_limit(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("body size ")?;
    rest.split_whitespace().next()?.parse().ok()
}

fn too_large(limit: Option<u64>) -> ApiError {
    let most = limit.map_or_else(String::new, |bytes| format!(" ({} MB)", bytes >> 20));
    let error = ApiError::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        format!(
            "This is larger than ComfyUI takes{most}. An admin can allow more: --max-upload-size MB in comfyui.args."
        ),
    )
    .with("key", "comfyui.args");
    match limit {
        Some(bytes) => error.with("limit_bytes", bytes),
        None => error,
    }
}

/// A body that fails when it passes a limit.
#[derive(Debug)]
struct MeasuredBody {
    inner: Body,
    left: u64,
    measured: Measured,
}

impl HttpBody for MeasuredBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            let length = frame.data_ref().map_or(0, Bytes::len);
            let length = u64::try_from(length).unwrap_or(u64::MAX);
            match self.left.checked_sub(length) {
                Some(left) => self.left = left,
                None => {
                    self.measured.0.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err("the request is too large".into())));
                }
            }
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use std::convert::Infallible;

    fn request(pieces: &'static [&'static [u8]]) -> Request {
        let pieces = pieces
            .iter()
            .map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece)));
        Request::new(Body::from_stream(stream::iter(pieces)))
    }

    #[tokio::test]
    async fn bodies_end_at_their_limit() {
        let (whole, seen) = measured(request(&[b"abc", b"de"]), 5).unwrap();
        let body = whole.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "abcde");
        assert!(seen.refusal(5).is_none());
        let (long, seen) = measured(request(&[b"abc", b"def"]), 5).unwrap();
        assert!(long.into_body().collect().await.is_err());
        assert_eq!(
            seen.refusal(5).unwrap().status(),
            StatusCode::PAYLOAD_TOO_LARGE
        );
        let mut told = Request::new(Body::from("abcdef"));
        told.headers_mut().insert(CONTENT_LENGTH, 6.into());
        assert!(measured(told, 5).is_err());
    }

    #[test]
    fn what_is_kept_whole_has_a_limit_unless_the_owner_has_set_one() {
        let mut config = Config::default();
        for (means, expected) in [
            (Meaning::Known, Some(USUAL)),
            (Meaning::Files, None),
            (Meaning::Unknown, None),
            (Meaning::Manager, None),
        ] {
            assert_eq!(limit(&means, &config), expected, "{means:?}");
        }
        config.comfyui.args = vec!["--max-upload-size=5".to_owned()];
        assert_eq!(limit(&Meaning::Known, &config), None);
        assert_eq!(limit(&Meaning::Files, &config), Some(5 << 20));
    }

    #[tokio::test]
    async fn a_bare_413_becomes_a_sentence() {
        let answer = |kind: &'static str, text: &'static str| {
            (StatusCode::PAYLOAD_TOO_LARGE, [(CONTENT_TYPE, kind)], text).into_response()
        };
        let text = "Maximum request body size 209715200 exceeded, actual body size 209715201";
        let response = explained(answer("text/plain; charset=utf-8", text)).await;
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["limit_bytes"], 209_715_200);
        assert_eq!(body["key"], "comfyui.args");
        assert!(
            body["error"].as_str().unwrap().contains("(200 MB)"),
            "{body}"
        );
        let response = explained(answer("application/json", "{}")).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "{}");
    }
}
