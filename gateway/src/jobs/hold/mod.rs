//! When jobs are held back: the owner needs his GPU, the settings name quiet hours, or another
//! program uses the GPU.

use super::other_programs::{self, OtherPrograms};
use super::queue::{Hold, HoldReason};
use super::quiet::{self, QuietHours};
use crate::app::App;
use crate::clock;
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Name under which the store keeps the owner's wish.
const FACT: &str = "owner_hold";
/// The owner counts as away after so long without a request, seconds.
const AWAY: i64 = 15 * 60;

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

    fn is_over(&self, now: i64, owner_used_at: i64) -> bool {
        let is_away = self.until_idle && now - owner_used_at.max(self.since) >= AWAY;
        is_away || self.until.is_some_and(|until| now >= until)
    }
}

/// What the looks of the past have found.
#[derive(Debug)]
pub(super) struct Watch {
    programs: OtherPrograms,
    quiet: (Vec<String>, QuietHours),
    quiet_since: Option<i64>,
    program_since: Option<i64>,
    has_freed: bool,
}

impl Watch {
    pub(super) fn new(app: &App) -> Self {
        let texts = app.config.current().queue.quiet_hours.clone();
        Self {
            programs: OtherPrograms::default(),
            quiet: (texts.clone(), QuietHours::parse(&texts).unwrap_or_default()),
            quiet_since: None,
            program_since: None,
            has_freed: false,
        }
    }

    /// What holds now.
    pub(super) async fn look(&mut self, app: &Arc<App>) -> Option<Hold> {
        let now = clock::now();
        let owner = app.jobs.owner_hold();
        if let Some(hold) = owner
            && hold.is_over(now, owner_used_at(app))
        {
            app.jobs.set_owner_hold(None);
        }
        let owner = app.jobs.owner_hold();
        self.free_memory_once(app, owner.is_some());
        if let Some(OwnerHold {
            since,
            until,
            until_idle,
        }) = owner
        {
            return Some(Hold {
                reason: HoldReason::Owner,
                since,
                until,
                until_idle,
            });
        }
        let config = app.config.current();
        if self.quiet.0 != config.queue.quiet_hours {
            let texts = config.queue.quiet_hours.clone();
            self.quiet = (texts.clone(), QuietHours::parse(&texts).unwrap_or_default());
        }
        if let Some(minutes) = quiet::now().and_then(|at| self.quiet.1.active_until(at)) {
            let since = *self.quiet_since.get_or_insert(now);
            return Some(Hold {
                reason: HoldReason::QuietHours,
                since,
                until: Some((now / 60 + i64::from(minutes)) * 60),
                until_idle: false,
            });
        }
        self.quiet_since = None;
        if config.queue.yield_to_programs && self.programs.look(&other_programs::seen(app).await) {
            let since = *self.program_since.get_or_insert(now);
            return Some(Hold {
                reason: HoldReason::OtherProgram,
                since,
                until: None,
                until_idle: false,
            });
        }
        self.program_since = None;
        None
    }

    /// Frees the GPU's memory when the last job of somebody else has ended.
    fn free_memory_once(&mut self, app: &App, is_held: bool) {
        if !is_held {
            self.has_freed = false;
        } else if !self.has_freed && app.jobs.running().is_empty() {
            self.has_freed = true;
            app.engines.free(true, true);
        }
    }
}

/// When the owner last did something here, seconds since 1970.
fn owner_used_at(app: &App) -> i64 {
    let Some(owner) = app.engines.owner() else {
        return 0;
    };
    let sessions = app.sessions.live();
    let own = sessions.iter().filter(|session| session.user == owner);
    own.filter_map(|session| session.last_used_at())
        .max()
        .unwrap_or(0)
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
