//! Wall-clock time in the one form that is stored, and minutes as the settings count them.

use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Names how many milliseconds a minute of the settings takes, so that tests need not wait for
/// whole ones. Programs that are shipped do not read it.
#[cfg(debug_assertions)]
const TEST_MINUTE: &str = "SENTINEL_TEST_MINUTE_MS";

/// A number of minutes from the settings, at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Minutes(u32);

impl Minutes {
    /// A limit of the settings, where 0 stands for none.
    pub(crate) fn limit(count: u32) -> Option<Self> {
        (count > 0).then_some(Self(count))
    }

    /// A fixed number.
    pub(crate) const fn fixed(count: u32) -> Self {
        Self(count)
    }

    /// As it is written in the settings.
    pub(crate) fn count(self) -> u32 {
        self.0
    }

    /// How long they take.
    pub(crate) fn duration(self) -> Duration {
        minute().saturating_mul(self.0)
    }
}

fn minute() -> Duration {
    #[cfg(debug_assertions)]
    {
        use std::sync::LazyLock;
        static SHORT: LazyLock<Option<Duration>> = LazyLock::new(|| {
            let milliseconds = std::env::var(TEST_MINUTE).ok()?.parse().ok()?;
            Some(Duration::from_millis(milliseconds))
        });
        if let Some(short) = *SHORT {
            return short;
        }
    }
    Duration::from_secs(60)
}

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

/// Milliseconds since 1970, UTC.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(OffsetDateTime::now_utc().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// Today by this machine's clock, `YYYY-MM-DD`.
pub(crate) fn local_day() -> String {
    jiff::ZonedDateTime::now().strftime("%Y-%m-%d").to_string()
}

/// The day so many days before today, `YYYY-MM-DD`.
pub(crate) fn local_day_before(days: u32) -> String {
    let today = jiff::ZonedDateTime::now();
    let span = jiff::Span::new().days(i64::from(days.min(100_000)));
    today
        .checked_sub(span)
        .unwrap_or(today)
        .strftime("%Y-%m-%d")
        .to_string()
}

/// The next midnight by this machine's clock, RFC 3339.
pub(crate) fn next_local_midnight() -> String {
    rfc3339(now() + seconds_to_local_midnight().cast_signed())
}

/// Seconds until then.
pub(crate) fn seconds_to_local_midnight() -> u64 {
    let now = jiff::ZonedDateTime::now();
    let next = now
        .tomorrow()
        .and_then(|tomorrow| tomorrow.start_of_day())
        .map_or(24 * 3600, |midnight| {
            midnight.timestamp().as_second() - now.timestamp().as_second()
        });
    u64::try_from(next).unwrap_or(0)
}
