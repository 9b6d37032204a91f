//! Wall-clock time in the one form that is stored.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Seconds since 1970, UTC.
pub(crate) fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

/// RFC 3339 text of a stored time.
pub(crate) fn rfc3339(seconds: i64) -> String {
    OffsetDateTime::from_unix_timestamp(seconds)
        .ok()
        .and_then(|at| at.format(&Rfc3339).ok())
        .unwrap_or_default()
}
