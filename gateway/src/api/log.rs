//! Sentinel's own log, for admins.

use super::Answer;
use crate::auth::Admin;
use crate::clock::rfc3339;
use crate::http::ApiError;
use crate::log;
use axum::Json;
use axum::extract::Query;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use tracing::Level;
use utoipa::{IntoParams, ToSchema};

/// Lines of one answer, if not said.
const LINES: usize = 200;
/// Lines of one answer at most.
const MAX_LINES: usize = 2000;

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct OwnLogQuery {
    /// At most so many lines, 200 if not said.
    lines: Option<usize>,
    /// Only lines after this number.
    after: Option<u64>,
    /// Only lines of this level or worse: `debug`, `info`, `warning` or `error`.
    level: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnLogLine {
    seq: u64,
    at: String,
    /// `debug`, `info`, `warning` or `error`.
    level: &'static str,
    /// Part of the program.
    target: String,
    text: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OwnLog {
    lines: Vec<OwnLogLine>,
    /// Number to ask after next time.
    next: u64,
}

/// What Sentinel wrote to its log, without secrets.
#[utoipa::path(get, path = "/log", tag = "status", params(OwnLogQuery),
    responses((status = 200, body = OwnLog), (status = 400), (status = 403)))]
pub(crate) async fn show(_admin: Admin, Query(query): Query<OwnLogQuery>) -> Answer<OwnLog> {
    let level = match query.level.as_deref() {
        None | Some("" | "debug") => Level::DEBUG,
        Some("info") => Level::INFO,
        Some("warning" | "warn") => Level::WARN,
        Some("error") => Level::ERROR,
        Some(_) => {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "bad_level",
                "The level must be debug, info, warning or error.",
            ));
        }
    };
    let limit = query.lines.unwrap_or(LINES).clamp(1, MAX_LINES);
    let ring = log::ring();
    let (lines, next) = match query.after {
        Some(seq) => ring.after(seq, limit, level),
        None => ring.tail(limit, level),
    };
    let lines = lines
        .into_iter()
        .map(|line| OwnLogLine {
            seq: line.seq,
            at: rfc3339(line.at.unix_timestamp()),
            level: match line.level {
                Level::ERROR => "error",
                Level::WARN => "warning",
                Level::INFO => "info",
                _ => "debug",
            },
            target: line.target,
            text: line.text,
        })
        .collect();
    Ok(Json(OwnLog { lines, next }))
}
