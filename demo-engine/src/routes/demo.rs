//! Routes for tests of whatever stands in front of the engine. There only with `--fault routes`.

use super::Asked;
use crate::answer;
use crate::files::{Range, parse_range};
use crate::json::{Json, json};
use crate::state::Engine;
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::io;
use std::time::Duration;

const CHUNK: u64 = 256 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// `?bytes=`: that many bytes with Content-Length, ranges taken.
    Huge,
    /// `?seconds=`: answers after that time.
    Slow,
    /// `?bytes=&chunk=&milliseconds=`: a chunk every so often.
    Drip,
    /// What arrived: method, path, query, headers, length and hash of the body.
    Echo,
    EchoSocket,
    Frames,
}

pub(super) async fn answer(engine: &Engine, route: Route, asked: &Asked, body: Body) -> Response {
    let number = |name: &str| asked.query(name).and_then(|text| text.parse::<u64>().ok());
    match route {
        Route::Huge => huge(asked, number("bytes").unwrap_or(engine.options.faults.huge)),
        Route::Slow => {
            let seconds = asked
                .query("seconds")
                .and_then(|text| text.parse::<f64>().ok())
                .unwrap_or(1.0);
            tokio::time::sleep(Duration::try_from_secs_f64(seconds).unwrap_or_default()).await;
            answer::json(&json!({ "slept": seconds }))
        }
        Route::Drip => drip(
            number("bytes").unwrap_or(1024),
            number("chunk").unwrap_or(64).max(1),
            Duration::from_millis(number("milliseconds").unwrap_or(100)),
        ),
        Route::Echo => echo(asked, body).await,
        Route::EchoSocket | Route::Frames => super::no_upgrade(asked),
    }
}

fn huge(asked: &Asked, size: u64) -> Response {
    let range = asked
        .headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok());
    let (status, start, end) = match range.map_or(Range::Whole, |range| parse_range(range, size)) {
        Range::Whole => (StatusCode::OK, 0, size),
        Range::Part(first, last) => (StatusCode::PARTIAL_CONTENT, first, last + 1),
        Range::Impossible => {
            let mut response = answer::empty(StatusCode::RANGE_NOT_SATISFIABLE);
            answer::set(
                &mut response,
                header::CONTENT_RANGE,
                &format!("bytes */{size}"),
            );
            return response;
        }
    };
    let mut response = if asked.method == Method::HEAD {
        Response::new(Body::empty())
    } else {
        Response::new(pattern(start, end))
    };
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    answer::set(
        &mut response,
        header::CONTENT_LENGTH,
        &(end - start).to_string(),
    );
    if status == StatusCode::PARTIAL_CONTENT {
        answer::set(
            &mut response,
            header::CONTENT_RANGE,
            &format!("bytes {start}-{}/{size}", end - 1),
        );
    }
    response
}

/// Bytes that say where they stand: each is its position modulo 251.
fn pattern(start: u64, end: u64) -> Body {
    // 251 does not divide a chunk, so one block a little longer serves every start by slicing.
    let block: Vec<u8> = (0..CHUNK + 251)
        .map(|at| u8::try_from(at % 251).unwrap_or(0))
        .collect();
    let block = Bytes::from(block);
    Body::from_stream(stream::unfold(start, move |at| {
        let block = block.clone();
        async move {
            let length = CHUNK.min(end.saturating_sub(at));
            let from = usize::try_from(at % 251).unwrap_or(0);
            let piece = block.slice(from..from + usize::try_from(length).unwrap_or(0));
            (length > 0).then(|| (Ok::<_, io::Error>(piece), at + length))
        }
    }))
}

fn drip(size: u64, chunk: u64, pause: Duration) -> Response {
    let stream = stream::unfold(0, move |at| async move {
        let length = chunk.min(size - at);
        if length == 0 {
            return None;
        }
        if at > 0 {
            tokio::time::sleep(pause).await;
        }
        let piece = Bytes::from(vec![b'.'; usize::try_from(length).unwrap_or(1)]);
        Some((Ok::<_, io::Error>(piece), at + length))
    });
    let mut response = Response::new(Body::from_stream(stream));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

async fn echo(asked: &Asked, mut body: Body) -> Response {
    let mut hash = Sha256::new();
    let mut length = 0_u64;
    let mut trailers = json!({});
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return answer::refused(StatusCode::BAD_REQUEST);
        };
        match frame.into_data() {
            Ok(data) => {
                length += data.len() as u64;
                hash.update(&data);
            }
            Err(other) => {
                for (name, value) in other.trailers_ref().into_iter().flatten() {
                    trailers.set(
                        name.as_str(),
                        String::from_utf8_lossy(value.as_bytes()).into_owned(),
                    );
                }
            }
        }
    }
    let mut digest = String::new();
    for byte in hash.finalize() {
        let _ = write!(digest, "{byte:02x}");
    }
    let headers: Vec<Json> = asked
        .headers
        .iter()
        .map(|(name, value)| {
            vec![
                name.as_str().to_owned(),
                String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ]
            .into()
        })
        .collect();
    let mut shown =
        json!({ "method": asked.method.as_str(), "path": asked.path, "query": asked.raw_query });
    shown.set("headers", headers);
    shown.set("trailers", trailers);
    shown.set("body_length", length);
    shown.set("body_sha256", digest);
    answer::json(&shown)
}
