//! What a start needs to know of earlier runs. All of it waits on the calling thread.

use super::JobRow;
use super::columns::user;
use crate::accounts::UserId;
use crate::store::{Store, StoreError};
use rusqlite::Row;

impl Store {
    /// Jobs that are not finished, in order of arrival.
    pub(crate) fn unfinished_jobs(&self) -> Result<Vec<JobRow>, StoreError> {
        self.call_blocking(|connection| {
            let mut rows = connection.prepare(
                "SELECT id, user_id, seq, number, urgency, state, attempts, created_at, client_id, workflow_id, model, handed_at
                 FROM jobs WHERE state IN ('waiting', 'running') ORDER BY seq",
            )?;
            let rows = rows.query_map([], row)?;
            // One unreadable row must not hold up all others.
            Ok(rows.filter_map(Result::ok).collect())
        })
    }

    /// Highest number of arrival so far.
    pub(crate) fn last_job(&self) -> Result<i64, StoreError> {
        self.call_blocking(|connection| {
            connection.query_row("SELECT coalesce(max(seq), 0) FROM jobs", [], |row| {
                row.get(0)
            })
        })
    }

    /// Last number that was given to each user's jobs, those aside that clients chose far off.
    pub(crate) fn last_numbers(&self) -> Result<Vec<(UserId, i64)>, StoreError> {
        self.call_blocking(|connection| {
            let mut rows = connection.prepare(
                "SELECT user_id, cast(max(abs(number)) AS INTEGER) FROM jobs
                 WHERE abs(number) < 1e12 GROUP BY user_id",
            )?;
            let rows = rows.query_map([], |row| Ok((user(row, 0)?, row.get(1)?)))?;
            Ok(rows.filter_map(Result::ok).collect())
        })
    }
}

fn row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        id: row.get(0)?,
        user: user(row, 1)?,
        seq: row.get(2)?,
        number: row.get(3)?,
        urgency: row.get(4)?,
        state: row.get(5)?,
        attempts: row.get(6)?,
        created_at: row.get(7)?,
        client_id: row.get(8)?,
        workflow_id: row.get(9)?,
        model: row.get::<_, Option<i64>>(10)?.map(i64::cast_unsigned),
        handed_at: row.get(11)?,
    })
}
