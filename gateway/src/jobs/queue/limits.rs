//! What a user's role may have, and what he has had today.

use super::milliseconds;
use crate::accounts::UserId;
use crate::clock::Minutes;
use crate::config::Config;
use std::collections::HashMap;

/// What a role may have; `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoleLimits {
    /// Share of the GPU against others.
    pub(crate) weight: u32,
    pub(crate) jobs_waiting: Option<usize>,
    /// Time on the GPU in one day.
    pub(crate) gpu_a_day: Option<Minutes>,
    pub(crate) longest_job: Option<Minutes>,
}

impl RoleLimits {
    /// From the settings, where 0 is without limit.
    pub(in crate::jobs) fn of(config: &Config, is_admin: bool) -> Self {
        let queue = &config.queue;
        let count = |count: u32| usize::try_from(count).ok().filter(|count| *count > 0);
        if is_admin {
            Self {
                weight: queue.weight_admins,
                jobs_waiting: count(queue.jobs_waiting_admins),
                gpu_a_day: Minutes::limit(queue.gpu_minutes_a_day_admins),
                longest_job: Minutes::limit(queue.longest_job_minutes_admins),
            }
        } else {
            Self {
                weight: queue.weight_users,
                jobs_waiting: count(queue.jobs_waiting_users),
                gpu_a_day: Minutes::limit(queue.gpu_minutes_a_day_users),
                longest_job: Minutes::limit(queue.longest_job_minutes_users),
            }
        }
    }

    /// Whether one more job may wait beside so many.
    pub(super) fn check_waiting(&self, waiting: usize) -> Result<(), LimitFault> {
        match self.jobs_waiting {
            Some(most) if waiting >= most => Err(LimitFault::JobsWaiting(most)),
            _ => Ok(()),
        }
    }

    /// Whether a job may begin after so many milliseconds on the GPU today.
    pub(super) fn check_day(&self, used_ms: u64) -> Result<(), LimitFault> {
        match self.gpu_a_day {
            Some(most) if used_ms >= milliseconds(most.duration()) => {
                Err(LimitFault::GpuMinutes(most.count()))
            }
            _ => Ok(()),
        }
    }
}

/// Why a job is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitFault {
    /// Own jobs.
    #[error("You have {0} jobs waiting, and no more are allowed. Wait until some are done.")]
    JobsWaiting(usize),
    /// Own GPU time of the day.
    #[error("You have used up your GPU time for today ({0} min). It begins anew at midnight.")]
    GpuMinutes(u32),
    /// A job of the same id is on its way.
    #[error("A job of this prompt_id is on its way already.")]
    SameId,
    /// The gateway as a whole.
    #[error("Too many jobs are waiting. Please try again later.")]
    Full,
}

/// Everybody's time on the GPU in one day.
#[derive(Debug)]
pub(super) struct DayUse {
    /// `YYYY-MM-DD`.
    day: String,
    /// Milliseconds.
    used: HashMap<UserId, u64>,
}

impl DayUse {
    pub(super) fn new(day: String, used: impl IntoIterator<Item = (UserId, u64)>) -> Self {
        Self {
            day,
            used: used.into_iter().collect(),
        }
    }

    /// A later day begins everybody's time anew; a clock that goes back hands no time out twice.
    pub(super) fn turn_to(&mut self, day: &str) {
        if *self.day < *day {
            day.clone_into(&mut self.day);
            self.used.clear();
        }
    }

    pub(super) fn add(&mut self, user: &UserId, milliseconds: u64) {
        let used = self.used.entry(user.clone()).or_default();
        *used = used.saturating_add(milliseconds);
    }

    /// Milliseconds.
    pub(super) fn of(&self, user: &UserId) -> u64 {
        self.used.get(user).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_up_is_refused() {
        let limits = |jobs_waiting, minutes| RoleLimits {
            jobs_waiting,
            gpu_a_day: Minutes::limit(minutes),
            ..RoleLimits::default()
        };
        let table = [
            (limits(None, 0), usize::MAX, u64::MAX, Ok(()), Ok(())),
            (limits(Some(2), 5), 1, 299_999, Ok(()), Ok(())),
            (
                limits(Some(2), 5),
                2,
                300_000,
                Err(LimitFault::JobsWaiting(2)),
                Err(LimitFault::GpuMinutes(5)),
            ),
        ];
        for (limits, waiting, used_ms, by_count, by_day) in table {
            assert_eq!(limits.check_waiting(waiting), by_count, "{limits:?}");
            assert_eq!(limits.check_day(used_ms), by_day, "{limits:?}");
        }
    }

    #[test]
    fn a_role_without_limit_has_zero_in_the_settings() {
        let mut config = Config::default();
        config.queue.jobs_waiting_users = 3;
        config.queue.gpu_minutes_a_day_users = 0;
        config.queue.longest_job_minutes_users = 2;
        config.queue.jobs_waiting_admins = 0;
        let users = RoleLimits::of(&config, false);
        assert_eq!(users.jobs_waiting, Some(3));
        assert_eq!(users.gpu_a_day, None);
        assert_eq!(users.longest_job, Minutes::limit(2));
        assert_eq!(RoleLimits::of(&config, true).jobs_waiting, None);
    }

    #[test]
    fn a_new_day_begins_anew() {
        let (anna, bert) = (
            UserId::parse("anna").unwrap(),
            UserId::parse("bert").unwrap(),
        );
        let mut day = DayUse::new("2026-01-31".to_owned(), [(anna.clone(), 5)]);
        day.add(&anna, 7);
        day.turn_to("2026-01-31");
        assert_eq!((day.of(&anna), day.of(&bert)), (12, 0));
        day.turn_to("2026-01-30");
        assert_eq!(day.of(&anna), 12, "the clock went back");
        day.turn_to("2026-02-01");
        assert_eq!(day.of(&anna), 0);
    }
}
