//! Answers with an open file: in parts, and only when it has changed.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::fs::File;
use std::io;
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

/// Bytes read at once.
const PIECE: usize = 64 * 1024;

/// Answers with the part of `file` that the request asks for. `modified` is in nanoseconds since
/// 1970. The caller adds what the content is and how it may be used.
pub(crate) async fn answer(
    request: &HeaderMap,
    file: File,
    bytes: u64,
    modified: u64,
) -> io::Result<Response> {
    let tag = format!("\"{modified:x}-{bytes:x}\"");
    let written = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_nanos(modified));
    let mut response = if is_fresh(request, &tag, modified) {
        bare(StatusCode::NOT_MODIFIED)
    } else {
        let range = text(request, &RANGE).filter(|_| may_be_part(request, &tag, &written));
        match part(range, bytes) {
            Part::Whole => content(file, 0, bytes, StatusCode::OK).await?,
            Part::Of { first, length } => {
                let mut response =
                    content(file, first, length, StatusCode::PARTIAL_CONTENT).await?;
                let last = first + length - 1;
                put(
                    &mut response,
                    CONTENT_RANGE,
                    &format!("bytes {first}-{last}/{bytes}"),
                );
                response
            }
            Part::None => {
                let mut response = bare(StatusCode::RANGE_NOT_SATISFIABLE);
                put(&mut response, CONTENT_RANGE, &format!("bytes */{bytes}"));
                response
            }
        }
    };
    put(&mut response, ETAG, &tag);
    put(&mut response, LAST_MODIFIED, &written);
    put(&mut response, ACCEPT_RANGES, "bytes");
    Ok(response)
}

/// Whether the client names this very state of the content.
pub(crate) fn names_tag(request: &HeaderMap, tag: &str) -> bool {
    request.get_all(IF_NONE_MATCH).iter().any(|line| {
        line.to_str().is_ok_and(|line| {
            line.split(',')
                .map(|known| known.trim().trim_start_matches("W/"))
                .any(|known| known == "*" || known == tag)
        })
    })
}

fn is_fresh(request: &HeaderMap, tag: &str, modified: u64) -> bool {
    if request.contains_key(IF_NONE_MATCH) {
        return names_tag(request, tag);
    }
    text(request, &IF_MODIFIED_SINCE)
        .and_then(|since| httpdate::parse_http_date(since).ok())
        .and_then(|since| since.duration_since(UNIX_EPOCH).ok())
        .is_some_and(|since| Duration::from_nanos(modified).as_secs() <= since.as_secs())
}

/// `If-Range`: a part is only of use to a client that has the rest of the same content.
fn may_be_part(request: &HeaderMap, tag: &str, written: &str) -> bool {
    text(request, &IF_RANGE).is_none_or(|known| known == tag || known == written)
}

fn text<'headers>(request: &'headers HeaderMap, name: &HeaderName) -> Option<&'headers str> {
    request.get(name)?.to_str().ok()
}

fn put(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

fn bare(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

async fn content(file: File, first: u64, length: u64, status: StatusCode) -> io::Result<Response> {
    let mut file = tokio::fs::File::from_std(file);
    if first > 0 {
        file.seek(io::SeekFrom::Start(first)).await?;
    }
    let pieces = ReaderStream::with_capacity(file.take(length), PIECE);
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = status;
    put(&mut response, CONTENT_LENGTH, &length.to_string());
    Ok(response)
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Of { first: u64, length: u64 },
    None,
}

/// What a `Range` header asks for. What is not understood, and several parts at once, give the
/// whole, as the standard allows.
fn part(range: Option<&str>, bytes: u64) -> Part {
    let Some((first, last)) = range
        .and_then(|range| range.trim().strip_prefix("bytes="))
        .and_then(|range| range.split_once('-'))
    else {
        return Part::Whole;
    };
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    let (first, last) = (first.trim(), last.trim());
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Part::Whole,
        (Some(first), _) if first >= bytes && (last.is_empty() || number(last).is_some()) => {
            Part::None
        }
        (Some(first), Some(last)) => Part::Of {
            first,
            length: last.min(bytes - 1) - first + 1,
        },
        (Some(first), None) if last.is_empty() => Part::Of {
            first,
            length: bytes - first,
        },
        (None, Some(0)) if first.is_empty() => Part::None,
        (None, Some(_)) if first.is_empty() && bytes == 0 => Part::None,
        (None, Some(count)) if first.is_empty() => {
            let length = count.min(bytes);
            Part::Of {
                first: bytes - length,
                length,
            }
        }
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts() {
        let of = |first, length| Part::Of { first, length };
        for (range, bytes, expected) in [
            ("bytes=0-0", 10, of(0, 1)),
            ("bytes=2-5", 10, of(2, 4)),
            ("bytes=2-", 10, of(2, 8)),
            ("bytes=2-100", 10, of(2, 8)),
            ("bytes=-3", 10, of(7, 3)),
            ("bytes=-30", 10, of(0, 10)),
            ("bytes=10-", 10, Part::None),
            ("bytes=-0", 10, Part::None),
            ("bytes=0-", 0, Part::None),
            ("bytes=-1", 0, Part::None),
            ("bytes=99999999999999999999999-", 10, Part::None),
            ("bytes=5-2", 10, Part::Whole),
            ("bytes=0-1,3-4", 10, Part::Whole),
            ("bytes=-", 10, Part::Whole),
            ("bytes=a-b", 10, Part::Whole),
            ("bytes=+1-2", 10, Part::Whole),
            ("lines=1-2", 10, Part::Whole),
            ("", 10, Part::Whole),
        ] {
            assert_eq!(part(Some(range), bytes), expected, "{range} of {bytes}");
        }
        assert_eq!(part(None, 10), Part::Whole);
    }

    proptest! {
        #[test]
        fn a_part_lies_within(range in "bytes=[0-9]{0,21}-[0-9]{0,21}", bytes in 0_u64..100) {
            if let Part::Of { first, length } = part(Some(&range), bytes) {
                prop_assert!(length > 0 && first + length <= bytes);
            }
        }
    }

    #[test]
    fn tags() {
        let mut request = HeaderMap::new();
        request.insert(IF_NONE_MATCH, HeaderValue::from_static("\"a\", W/\"b\""));
        assert!(names_tag(&request, "\"a\"") && names_tag(&request, "\"b\""));
        assert!(!names_tag(&request, "\"c\""));
    }
}
