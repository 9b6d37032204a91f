//! When jobs of everybody but the owner are held back: he needs his GPU, the settings name quiet
//! hours, or another program uses the GPU. [`Watch`] looks at all three.

mod other_programs;
mod quiet_hours;
mod watch;

pub(crate) use quiet_hours::QuietHours;
pub(super) use watch::Watch;

use crate::store::Store;
use serde::{Deserialize, Serialize};

/// Name under which the store keeps the owner's wish.
const FACT: &str = "owner_hold";
/// The owner counts as away after so long without a request or, where the desktop app can see them,
/// a key or a movement of the mouse, seconds.
const AWAY: i64 = 15 * 60;

/// Why jobs are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldReason {
    /// The owner needs his GPU.
    Owner,
    /// The settings name this time of the day.
    QuietHours,
    /// Another program uses the GPU.
    OtherProgram,
}

impl HoldReason {
    /// Name in our API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::QuietHours => "quiet_hours",
            Self::OtherProgram => "other_program",
        }
    }
}

/// Jobs of everybody but the owner are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) reason: HoldReason,
    /// Seconds since 1970.
    pub(crate) since: i64,
    /// When it ends by itself, seconds since 1970.
    pub(crate) until: Option<i64>,
    /// It ends when the owner is away for a while.
    pub(crate) until_idle: bool,
}

/// The owner's wish, as it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OwnerHold {
    /// Seconds since 1970.
    pub(crate) since: i64,
    /// Seconds since 1970.
    pub(crate) until: Option<i64>,
    /// Ends when the owner is away.
    pub(crate) until_idle: bool,
}

impl OwnerHold {
    /// What an earlier run was told. Waits on this thread: for the start.
    pub(crate) fn read(store: &Store) -> Option<Self> {
        let text = store.fact(FACT).ok()??;
        serde_json::from_str(&text).ok()?
    }

    /// Keeps a wish for later runs, or that there is none.
    pub(crate) fn keep(store: &Store, hold: Option<&Self>) {
        store.set_fact(FACT, &serde_json::json!(hold).to_string());
    }

    /// Whether it has ended by itself, `owner_used_at` being when he last did something here.
    fn is_over(&self, now: i64, owner_used_at: i64) -> bool {
        let is_away = self.until_idle && now - owner_used_at.max(self.since) >= AWAY;
        is_away || self.until.is_some_and(|until| now >= until)
    }
}

impl From<OwnerHold> for Hold {
    fn from(wish: OwnerHold) -> Self {
        Self {
            reason: HoldReason::Owner,
            since: wish.since,
            until: wish.until,
            until_idle: wish.until_idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_ends_at_its_time_or_when_the_owner_is_away() {
        let hold = |until, until_idle| OwnerHold {
            since: 1000,
            until,
            until_idle,
        };
        let table = [
            (hold(None, false), 1_000_000, 0, false),
            (hold(Some(2000), false), 1999, 0, false),
            (hold(Some(2000), false), 2000, 0, true),
            (hold(None, true), 1000 + AWAY - 1, 0, false),
            (hold(None, true), 1000 + AWAY, 0, true),
            (hold(None, true), 1000 + AWAY, 1500, false),
        ];
        for (hold, now, used, expected) in table {
            assert_eq!(hold.is_over(now, used), expected, "{hold:?} {now} {used}");
        }
    }
}
