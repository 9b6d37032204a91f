//! Paths as Python's `os.path` sees them, and files answered as aiohttp answers them.

use crate::answer;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

const CHUNK: usize = 128 * 1024;
const HTTP_DATE: &[BorrowedFormatItem<'static>] = format_description!(
    "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
);

/// `os.path.normpath`: dots are resolved by text alone, links are not followed.
pub(crate) fn normalise(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                let can_go_up = matches!(out.components().next_back(), Some(Component::Normal(_)));
                if can_go_up {
                    out.pop();
                } else if !out.has_root() {
                    out.push("..");
                }
            }
            other => out.push(other),
        }
    }
    if out.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        out
    }
}

/// `os.path.abspath(os.path.join(…))` for a path that begins with an absolute one.
pub(crate) fn join(base: &Path, rest: &str) -> PathBuf {
    normalise(&base.join(rest))
}

/// Whether a path leads to a place inside of a directory when all links are followed. A NUL leads nowhere.
pub(crate) fn is_within(directory: &Path, path: &Path) -> bool {
    let has_nul = path.as_os_str().as_encoded_bytes().contains(&0);
    !has_nul && real_path(path).starts_with(real_path(directory))
}

/// `os.path.realpath`: links are followed as far as there are files.
fn real_path(path: &Path) -> PathBuf {
    let path = normalise(path);
    let mut rest = Vec::new();
    let mut known = path.as_path();
    loop {
        if let Ok(real) = std::fs::canonicalize(known) {
            return rest.iter().rev().fold(real, |real, part| real.join(part));
        }
        let (Some(parent), Some(name)) = (known.parent(), known.file_name()) else {
            return path;
        };
        rest.push(name);
        known = parent;
    }
}

/// `os.path.basename`. On Windows a drive ends a folder too, else `C:\x` would lead away.
pub(crate) fn base_name(name: &str) -> &str {
    let ends_folder = |letter: char| letter == '/' || cfg!(windows) && matches!(letter, '\\' | ':');
    name.rsplit(ends_folder).next().unwrap_or_default()
}

/// Seconds since 1970 with fractions, as `os.path.getmtime`.
pub(crate) fn seconds(time: io::Result<SystemTime>) -> f64 {
    time.ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map_or(0.0, |span| span.as_secs_f64())
}

/// The type Python's `mimetypes` guesses by the name.
pub(crate) fn kind(path: &Path) -> Option<&'static str> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    Some(match extension.as_str() {
        "apng" => "image/apng",
        "avif" => "image/avif",
        "bmp" => "image/bmp",
        "css" => "text/css",
        "csv" => "text/csv",
        "flac" => "audio/flac",
        "gif" => "image/gif",
        "glb" => "model/gltf-binary",
        "gltf" => "model/gltf+json",
        "htm" | "html" => "text/html",
        "ico" => "image/vnd.microsoft.icon",
        "jpeg" | "jpg" => "image/jpeg",
        "js" | "mjs" => "application/javascript",
        "json" => "application/json",
        "md" => "text/markdown",
        "mp3" => "audio/mpeg",
        "mp4" => "video/mp4",
        "ogg" => "audio/ogg",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "svg" => "image/svg+xml",
        "ttf" => "font/ttf",
        "txt" => "text/plain",
        "wasm" => "application/wasm",
        "wav" => "audio/x-wav",
        "webm" => "video/webm",
        "webp" => "image/webp",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "xhtml" => "application/xhtml+xml",
        "mht" | "mhtml" => "message/rfc822",
        "xml" => "text/xml",
        "zip" => "application/zip",
        _ => return None,
    })
}

/// Whether a browser may run or lay out a type: pages, scripts, styles and everything made of XML.
pub(crate) fn is_active(kind: &str) -> bool {
    matches!(
        kind,
        "text/html"
            | "application/xhtml+xml"
            | "text/javascript"
            | "application/javascript"
            | "text/css"
            | "message/rfc822"
    ) || kind.ends_with("+xml")
        || kind.ends_with("/xml")
}

/// Where an answer's bytes come from.
#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    File(&'a Path),
    Memory(&'static [u8]),
}

/// Answers a file with conditional requests and ranges.
pub(crate) async fn serve(
    path: &Path,
    method: &Method,
    headers: &HeaderMap,
    named: Option<&str>,
) -> Response {
    let Ok(metadata) = tokio::fs::metadata(path).await else {
        return answer::no_such_file();
    };
    if !metadata.is_file() {
        return answer::no_such_file();
    }
    let kind = named
        .or_else(|| kind(path))
        .unwrap_or("application/octet-stream");
    let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
    respond(
        Source::File(path),
        metadata.len(),
        modified,
        kind,
        method,
        headers,
    )
    .await
}

/// Answers bytes that are part of the program as if they were a file.
pub(crate) async fn serve_memory(
    bytes: &'static [u8],
    kind: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    static STARTED: std::sync::OnceLock<SystemTime> = std::sync::OnceLock::new();
    let modified = *STARTED.get_or_init(SystemTime::now);
    respond(
        Source::Memory(bytes),
        bytes.len() as u64,
        modified,
        kind,
        method,
        headers,
    )
    .await
}

async fn respond(
    source: Source<'_>,
    size: u64,
    modified: SystemTime,
    kind: &str,
    method: &Method,
    headers: &HeaderMap,
) -> Response {
    let nanoseconds = modified
        .duration_since(UNIX_EPOCH)
        .map_or(0, |span| span.as_nanos());
    let etag = format!("\"{nanoseconds:x}-{size:x}\"");
    let date = http_date(modified);
    let mut response = match judge(headers, &etag, modified) {
        Some(status) => answer::empty(status),
        None => match range(headers, &etag, modified, size) {
            Range::Whole => content(source, method, 0, size).await,
            Range::Part(start, end) => {
                let mut response = content(source, method, start, end - start + 1).await;
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                answer::set(
                    &mut response,
                    header::CONTENT_RANGE,
                    &format!("bytes {start}-{end}/{size}"),
                );
                response
            }
            Range::Impossible => {
                let mut response = answer::empty(StatusCode::RANGE_NOT_SATISFIABLE);
                answer::set(
                    &mut response,
                    header::CONTENT_RANGE,
                    &format!("bytes */{size}"),
                );
                return response;
            }
        },
    };
    if response.status() == StatusCode::PRECONDITION_FAILED {
        return response;
    }
    answer::set(&mut response, header::ETAG, &etag);
    answer::set(&mut response, header::LAST_MODIFIED, &date);
    if response.status() != StatusCode::NOT_MODIFIED {
        answer::set(&mut response, header::CONTENT_TYPE, kind);
        response
            .headers_mut()
            .insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    response
}

fn http_date(time: SystemTime) -> String {
    OffsetDateTime::from(time)
        .format(HTTP_DATE)
        .unwrap_or_default()
}

fn parse_date(text: &str) -> Option<OffsetDateTime> {
    time::PrimitiveDateTime::parse(text, HTTP_DATE)
        .ok()
        .map(time::PrimitiveDateTime::assume_utc)
}

fn whole_seconds(time: SystemTime) -> OffsetDateTime {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time)
}

/// The status that a conditional header asks for instead of the file.
fn judge(headers: &HeaderMap, etag: &str, modified: SystemTime) -> Option<StatusCode> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let matches = |list: &str| {
        list.split(',')
            .map(str::trim)
            .any(|tag| tag == "*" || tag.trim_start_matches("W/") == etag)
    };
    if let Some(list) = text(header::IF_MATCH) {
        if !matches(list) {
            return Some(StatusCode::PRECONDITION_FAILED);
        }
    } else if let Some(date) = text(header::IF_UNMODIFIED_SINCE).and_then(parse_date)
        && whole_seconds(modified) > date
    {
        return Some(StatusCode::PRECONDITION_FAILED);
    }
    if let Some(list) = text(header::IF_NONE_MATCH) {
        return matches(list).then_some(StatusCode::NOT_MODIFIED);
    }
    let date = text(header::IF_MODIFIED_SINCE).and_then(parse_date)?;
    (whole_seconds(modified) <= date).then_some(StatusCode::NOT_MODIFIED)
}

/// Which bytes are wanted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Range {
    Whole,
    /// First and last byte.
    Part(u64, u64),
    Impossible,
}

fn range(headers: &HeaderMap, etag: &str, modified: SystemTime, size: u64) -> Range {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    if let Some(condition) = text(header::IF_RANGE) {
        let same = condition == etag
            || parse_date(condition).is_some_and(|date| whole_seconds(modified) <= date);
        if !same {
            return Range::Whole;
        }
    }
    text(header::RANGE).map_or(Range::Whole, |value| parse_range(value, size))
}

/// Reads a single byte range; lists of ranges are refused, as aiohttp does.
pub(crate) fn parse_range(value: &str, size: u64) -> Range {
    let parsed = value
        .strip_prefix("bytes=")
        .and_then(|rest| rest.split_once('-'));
    let Some((first, last)) = parsed else {
        return Range::Impossible;
    };
    match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last && first < size => {
            Range::Part(first, last.min(size - 1))
        }
        (Ok(first), Err(_)) if last.is_empty() && first < size => Range::Part(first, size - 1),
        (Err(_), Ok(count)) if first.is_empty() && count > 0 && size > 0 => {
            Range::Part(size - count.min(size), size - 1)
        }
        _ => Range::Impossible,
    }
}

async fn content(source: Source<'_>, method: &Method, start: u64, length: u64) -> Response {
    let mut response = if method == Method::HEAD {
        Response::new(Body::empty())
    } else {
        let path = match source {
            Source::File(path) => path,
            Source::Memory(bytes) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
                return Response::new(Body::from(&bytes[place(start)..place(start + length)]));
            }
        };
        let file = match tokio::fs::File::open(path).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return answer::refused(StatusCode::FORBIDDEN);
            }
            Err(_) => return answer::no_such_file(),
        };
        match part(file, start, length).await {
            Ok(body) => Response::new(body),
            Err(_) => return answer::broken(),
        }
    };
    answer::set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    response
}

async fn part(mut file: tokio::fs::File, start: u64, length: u64) -> io::Result<Body> {
    if start > 0 {
        file.seek(io::SeekFrom::Start(start)).await?;
    }
    let chunk = usize::try_from(length).unwrap_or(CHUNK).clamp(1, CHUNK);
    Ok(Body::from_stream(ReaderStream::with_capacity(
        file.take(length),
        chunk,
    )))
}

#[cfg(test)]
mod tests {
    use super::{Range, base_name, normalise, parse_range};
    use std::path::Path;

    #[test]
    fn normalises_as_python() {
        for (path, expected) in [
            ("/a/./b//c/../d", "/a/b/d"),
            ("/../x", "/x"),
            ("a/../../b", "../b"),
            ("", "."),
            ("/a/", "/a"),
        ] {
            assert_eq!(normalise(Path::new(path)), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn base_names_lead_nowhere() {
        for (name, expected) in [("a.png", "a.png"), ("a/b.png", "b.png"), ("a/", "")] {
            assert_eq!(base_name(name), expected, "{name}");
        }
        for name in [r"C:\data\secret.key", r"a\b", "C:x"] {
            let base = Path::new(base_name(name));
            assert_eq!(
                Path::new("/output").join(base).parent(),
                Some(Path::new("/output"))
            );
        }
    }

    #[test]
    fn reads_ranges() {
        for (value, expected) in [
            ("bytes=0-7", Range::Part(0, 7)),
            ("bytes=5-", Range::Part(5, 9)),
            ("bytes=-3", Range::Part(7, 9)),
            ("bytes=-30", Range::Part(0, 9)),
            ("bytes=2-99", Range::Part(2, 9)),
            ("bytes=10-", Range::Impossible),
            ("bytes=4-2", Range::Impossible),
            ("bytes=0-1,3-4", Range::Impossible),
            ("lines=0-1", Range::Impossible),
        ] {
            assert_eq!(parse_range(value, 10), expected, "{value}");
        }
    }
}
