//! Tables `usage` and `notification_targets`: what each user used by day, and where he wants to be
//! told that a job is done.

use super::jobs::{FinishedJob, JobState};
use super::{Store, StoreError};
use crate::accounts::UserId;
use rusqlite::{OptionalExtension as _, Transaction, params};

/// What a user used on one day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UsageRow {
    /// `YYYY-MM-DD`, local time.
    pub(crate) day: String,
    pub(crate) user: String,
    pub(crate) gpu_ms: i64,
    pub(crate) jobs: i64,
    pub(crate) failed: i64,
    pub(crate) waiting_ms: i64,
}

/// Where somebody wants to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotificationTarget {
    /// `ntfy` or `webhook`.
    pub(crate) kind: String,
    pub(crate) address: String,
    pub(crate) failures_only: bool,
}

/// Sums stay below this, milliseconds: a sum beyond 2^63 could not be written.
const MOST: i64 = 1 << 52;

pub(super) fn count(
    transaction: &Transaction<'_>,
    day: &str,
    job: &FinishedJob,
) -> rusqlite::Result<()> {
    transaction
        .execute(
            "INSERT INTO usage (day, user_id, gpu_ms, jobs, failed, waiting_ms) VALUES (?1, ?2, ?3, 1, ?4, ?5)
             ON CONFLICT (day, user_id) DO UPDATE SET gpu_ms = min(gpu_ms, ?6 - excluded.gpu_ms) + excluded.gpu_ms, jobs = jobs + 1,
                failed = failed + excluded.failed, waiting_ms = min(waiting_ms, ?6 - excluded.waiting_ms) + excluded.waiting_ms",
            params![
                day,
                job.user.as_str(),
                job.gpu_ms.clamp(0, MOST),
                i64::from(job.outcome.state == JobState::Failed),
                job.waiting_ms.clamp(0, MOST),
                MOST,
            ],
        )
        .map(|_| ())
}

impl Store {
    /// Rows from `first_day` on; of one user, or of all.
    pub(crate) async fn usage(
        &self,
        first_day: String,
        user: Option<UserId>,
    ) -> Result<Vec<UsageRow>, StoreError> {
        self.call(move |connection| {
            let mut rows = connection.prepare(
                "SELECT day, user_id, gpu_ms, jobs, failed, waiting_ms FROM usage
                 WHERE day >= ?1 AND (?2 IS NULL OR user_id = ?2) ORDER BY day, user_id",
            )?;
            let user = user.as_ref().map(UserId::as_str);
            let rows = rows.query_map(params![first_day, user], |row| {
                Ok(UsageRow {
                    day: row.get(0)?,
                    user: row.get(1)?,
                    gpu_ms: row.get(2)?,
                    jobs: row.get(3)?,
                    failed: row.get(4)?,
                    waiting_ms: row.get(5)?,
                })
            })?;
            rows.collect()
        })
        .await
    }

    /// GPU time of everybody on one day, ms. Waits on this thread: for the start.
    pub(crate) fn gpu_time_on(&self, day: String) -> Result<Vec<(UserId, u64)>, StoreError> {
        self.call_blocking(move |connection| {
            let mut rows =
                connection.prepare("SELECT user_id, gpu_ms FROM usage WHERE day = ?1")?;
            let rows = rows.query_map([day], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
            })?;
            Ok(rows
                .filter_map(Result::ok)
                .filter_map(|(user, time)| {
                    Some((UserId::parse(&user)?, u64::try_from(time).unwrap_or(0)))
                })
                .collect())
        })
    }

    /// Where a user wants to be told.
    pub(crate) async fn notification_target(
        &self,
        user: UserId,
    ) -> Result<Option<NotificationTarget>, StoreError> {
        self.call(move |connection| {
            connection
                .query_row(
                    "SELECT kind, address, failures_only FROM notification_targets WHERE user_id = ?1",
                    [user.as_str()],
                    |row| {
                        Ok(NotificationTarget {
                            kind: row.get(0)?,
                            address: row.get(1)?,
                            failures_only: row.get(2)?,
                        })
                    },
                )
                .optional()
        })
        .await
    }

    /// Changes it; `None`: nowhere.
    pub(crate) async fn set_notification_target(
        &self,
        user: UserId,
        target: Option<NotificationTarget>,
    ) -> Result<(), StoreError> {
        self.call(move |connection| {
            match target {
                None => connection.execute(
                    "DELETE FROM notification_targets WHERE user_id = ?1",
                    [user.as_str()],
                ),
                Some(target) => connection.execute(
                    "INSERT INTO notification_targets (user_id, kind, address, failures_only)
                     VALUES (?1, ?2, ?3, ?4) ON CONFLICT (user_id) DO UPDATE SET kind = excluded.kind,
                        address = excluded.address, failures_only = excluded.failures_only",
                    params![user.as_str(), target.kind, target.address, target.failures_only],
                ),
            }
            .map(|_| ())
        })
        .await
    }
}
