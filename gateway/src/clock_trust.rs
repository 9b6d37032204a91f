//! Whether the wall clock can be believed when something is to be deleted by its age. A clock that is
//! far ahead for once, after an empty battery or with a wrong date, must not cost anybody their
//! sessions, tokens and history.

use crate::clock;
use crate::store::{Store, StoreError};
use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Name under which the store keeps the latest time that was believed, seconds since 1970.
const LATEST: &str = "latest_time";
/// A clock this far beyond the latest time is doubted, in seconds.
const DOUBTED: i64 = 24 * 3600;
/// So long a doubted clock must go on as it is, before it is believed.
const HELD_FOR: Duration = Duration::from_secs(3600);
/// Between two times that are written down, in seconds: less would be a write a minute for nothing.
const STEP: i64 = 1800;

/// What is known of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Knowledge {
    /// Latest time that was believed; none before the first look.
    latest: Option<i64>,
    /// When the doubt began, and what the clock showed then.
    doubt: Option<(Instant, i64)>,
}

impl Knowledge {
    /// Looks at the clock. Returns what is known then; it is believed without a doubt.
    fn look(self, now: i64, at: Instant) -> Self {
        let Some(latest) = self.latest else {
            return Self {
                latest: Some(now),
                doubt: None,
            };
        };
        if now.saturating_sub(latest) <= DOUBTED {
            return Self {
                latest: Some(latest.max(now)),
                doubt: None,
            };
        }
        // A clock that jumps anew is doubted anew.
        let (since, shown) = match self.doubt {
            Some((since, shown)) if is_steady(since, shown, now, at) => (since, shown),
            _ => (at, now),
        };
        if at.saturating_duration_since(since) >= HELD_FOR {
            return Self {
                latest: Some(now),
                doubt: None,
            };
        }
        Self {
            latest: Some(latest),
            doubt: Some((since, shown)),
        }
    }
}

/// Whether the clock went on from `shown` as time did.
fn is_steady(since: Instant, shown: i64, now: i64, at: Instant) -> bool {
    let passed = i64::try_from(at.saturating_duration_since(since).as_secs()).unwrap_or(i64::MAX);
    let expected = shown.saturating_add(passed);
    now.saturating_sub(expected).saturating_abs() <= DOUBTED
}

/// The judgement of this gateway's clock.
#[derive(Debug)]
pub(crate) struct ClockTrust {
    knowledge: Mutex<Knowledge>,
    written: Mutex<Option<i64>>,
}

impl ClockTrust {
    /// Compares the clock with the latest time that an earlier run believed. Waits on this thread.
    pub(crate) fn open(store: &Store) -> Result<Self, StoreError> {
        let latest = store.fact(LATEST)?.and_then(|text| text.parse().ok());
        let trust = Self {
            knowledge: Mutex::new(Knowledge {
                latest,
                doubt: None,
            }),
            written: Mutex::new(latest),
        };
        trust.look(store);
        Ok(trust)
    }

    /// Looks at the clock; called now and then.
    pub(crate) fn look(&self, store: &Store) {
        let (before, now) = {
            let mut knowledge = self.knowledge.lock();
            let before = *knowledge;
            *knowledge = before.look(clock::now(), Instant::now());
            (before, *knowledge)
        };
        match (before.doubt, now.doubt) {
            (None, Some(_)) => tracing::warn!(
                "the clock is more than a day beyond the latest time that was seen; nothing is deleted by \
                 its age until the clock has gone on like this for an hour"
            ),
            (Some(_), None) => tracing::info!("the clock is believed again"),
            _ => {}
        }
        let mut written = self.written.lock();
        if let Some(latest) = now.latest
            && written.is_none_or(|written| latest >= written.saturating_add(STEP))
        {
            *written = Some(latest);
            store.set_fact(LATEST, &latest.to_string());
        }
    }

    /// Whether things may be deleted by their age.
    pub(crate) fn may_forget(&self) -> bool {
        self.knowledge.lock().doubt.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = DOUBTED;

    #[test]
    fn a_clock_that_jumps_ahead_is_doubted_until_it_has_held_for_an_hour() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let known = Knowledge {
            latest: Some(100 * DAY),
            doubt: None,
        };
        let is_doubted = |knowledge: Knowledge| knowledge.doubt.is_some();
        assert!(!is_doubted(known.look(100 * DAY + 60, start)));
        assert!(!is_doubted(known.look(101 * DAY, start)));
        assert!(!is_doubted(known.look(90 * DAY, start)), "it went back");
        assert_eq!(known.look(90 * DAY, start).latest, Some(100 * DAY));

        let ahead = known.look(200 * DAY, start);
        assert!(is_doubted(ahead) && ahead.latest == Some(100 * DAY));
        let later = ahead.look(200 * DAY + 3599, after(3599));
        assert!(is_doubted(later));
        let held = later.look(200 * DAY + 3600, after(3600));
        assert!(!is_doubted(held) && held.latest == Some(200 * DAY + 3600));

        let mended = later.look(100 * DAY + 3600, after(3600));
        assert!(!is_doubted(mended) && mended.latest == Some(100 * DAY + 3600));

        let anew = later.look(300 * DAY, after(3599));
        assert!(is_doubted(anew.look(300 * DAY + 1, after(3600))));

        let first = Knowledge {
            latest: None,
            doubt: None,
        };
        assert!(!is_doubted(first.look(5, start)));
    }
}
