//! Looks every few seconds whether jobs are to be held back.

use super::other_programs::{self, OtherPrograms};
use super::quiet_hours::{self, QuietHours};
use super::{Hold, HoldReason, OwnerHold};
use crate::app::App;
use crate::clock;
use std::sync::atomic::Ordering;

/// What the looks of the past have found.
#[derive(Debug)]
pub(in crate::jobs) struct Watch {
    programs: OtherPrograms,
    /// As they stand in the settings, and what they mean.
    quiet: (Vec<String>, QuietHours),
    /// Seconds since 1970.
    quiet_since: Option<i64>,
    /// Seconds since 1970.
    program_since: Option<i64>,
    /// Whether memory was freed for the owner's wish that is in force.
    has_freed: bool,
}

impl Watch {
    pub(in crate::jobs) fn new(app: &App) -> Self {
        Self {
            programs: OtherPrograms::default(),
            quiet: read(&app.config.current().queue.quiet_hours),
            quiet_since: None,
            program_since: None,
            has_freed: false,
        }
    }

    /// What holds now; the owner's wish comes first.
    pub(in crate::jobs) async fn look(&mut self, app: &App) -> Option<Hold> {
        let now = clock::now();
        let wish = owner_wish(app, now);
        self.free_memory_once(app, wish.is_some());
        if let Some(wish) = wish {
            return Some(wish.into());
        }
        if let Some(hold) = self.quiet_hours(app, now) {
            return Some(hold);
        }
        self.other_program(app, now).await
    }

    fn quiet_hours(&mut self, app: &App, now: i64) -> Option<Hold> {
        let config = app.config.current();
        if self.quiet.0 != config.queue.quiet_hours {
            self.quiet = read(&config.queue.quiet_hours);
        }
        let minutes = quiet_hours::now().and_then(|at| self.quiet.1.active_until(at));
        let Some(minutes) = minutes else {
            self.quiet_since = None;
            return None;
        };
        Some(Hold {
            reason: HoldReason::QuietHours,
            since: *self.quiet_since.get_or_insert(now),
            until: Some((now / 60 + i64::from(minutes)) * 60),
            until_idle: false,
        })
    }

    async fn other_program(&mut self, app: &App, now: i64) -> Option<Hold> {
        let is_asked_for = app.config.current().queue.yield_to_programs;
        if !is_asked_for || !self.programs.look(&other_programs::seen(app).await) {
            self.program_since = None;
            return None;
        }
        Some(Hold {
            reason: HoldReason::OtherProgram,
            since: *self.program_since.get_or_insert(now),
            until: None,
            until_idle: false,
        })
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

/// The owner's wish, if it has not ended by itself.
fn owner_wish(app: &App, now: i64) -> Option<OwnerHold> {
    if app.jobs.owner_hold()?.is_over(now, owner_used_at(app)) {
        app.jobs.set_owner_hold(None);
    }
    app.jobs.owner_hold()
}

/// The texts have passed the settings' own check.
fn read(texts: &[String]) -> (Vec<String>, QuietHours) {
    let hours = QuietHours::parse(texts).unwrap_or_default();
    (texts.to_vec(), hours)
}

/// When the owner last did something here, seconds since 1970. Who sits at this machine is the owner.
fn owner_used_at(app: &App) -> i64 {
    let present_at = app.owner_present_at.load(Ordering::Relaxed);
    let Some(owner) = app.engines.owner() else {
        return present_at;
    };
    let sessions = app.sessions.live();
    let own = sessions.iter().filter(|session| session.user == owner);
    own.filter_map(|session| session.last_used_at())
        .fold(present_at, i64::max)
}
