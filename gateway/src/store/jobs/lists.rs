//! What users see of their jobs. Nobody's is in reach but the named user's.

use super::columns::user;
use super::{FinishedOutputs, JobDetails, JobState, JobSummary, Ordering, Selection};
use crate::accounts::UserId;
use crate::jobs::{JobId, number_text};
use crate::store::{Store, StoreError};
use rusqlite::{OptionalExtension as _, Row, params};

const SUMMARY_COLUMNS: &str = "id, number, state, created_at, workflow_id, summary";

impl Store {
    /// One user's list, and how many there are without limit and offset.
    pub(crate) async fn list_jobs(
        &self,
        user: UserId,
        selection: Selection,
    ) -> Result<(Vec<JobSummary>, i64), StoreError> {
        self.call(move |connection| {
            let states: Vec<&str> = selection.states.iter().map(|state| state.name()).collect();
            let states = serde_json::to_string(&states).unwrap_or_default();
            let filter =
                "user_id = ?1 AND (?2 = '[]' OR state IN (SELECT value FROM json_each(?2)))
                 AND (?3 IS NULL OR workflow_id = ?3)";
            let total = connection.query_row(
                &format!("SELECT count(*) FROM jobs WHERE {filter}"),
                params![user.as_str(), states, selection.workflow_id],
                |row| row.get(0),
            )?;
            let key = match selection.ordering {
                Ordering::Created => "created_at",
                Ordering::Duration => "coalesce(ended_at - started_at, 0)",
            };
            let direction = if selection.is_ascending {
                "ASC"
            } else {
                "DESC"
            };
            let mut rows = connection.prepare_cached(&format!(
                "SELECT {SUMMARY_COLUMNS} FROM jobs WHERE {filter}
                 ORDER BY {key} {direction}, seq {direction} LIMIT ?4 OFFSET ?5"
            ))?;
            let rows = rows.query_map(
                params![
                    user.as_str(),
                    states,
                    selection.workflow_id,
                    selection.limit.unwrap_or(-1),
                    selection.offset
                ],
                summary,
            )?;
            Ok((rows.filter_map(Result::ok).collect(), total))
        })
        .await
    }

    /// One job of a user with its contents.
    pub(crate) async fn job(
        &self,
        user: UserId,
        id: JobId,
    ) -> Result<Option<JobDetails>, StoreError> {
        self.call(move |connection| {
            connection
                .query_row(
                    &format!(
                        "SELECT {SUMMARY_COLUMNS}, prompt, extra, outputs, status
                         FROM jobs JOIN job_texts USING (id) WHERE id = ?1 AND user_id = ?2"
                    ),
                    params![id, user.as_str()],
                    |row| {
                        Ok(JobDetails {
                            summary: summary(row)?,
                            prompt: row.get(6)?,
                            extra: row.get(7)?,
                            outputs: row.get(8)?,
                            status: row.get(9)?,
                        })
                    },
                )
                .optional()
        })
        .await
    }

    /// ComfyUI's tuples of a user's jobs in a state, in own order: JSON texts. They are put together
    /// on the store's thread.
    pub(crate) async fn queue_items(
        &self,
        user: UserId,
        state: JobState,
    ) -> Result<Vec<String>, StoreError> {
        self.call(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT number, id, prompt, extra, execute FROM jobs JOIN job_texts USING (id)
                 WHERE user_id = ?1 AND state = ?2 ORDER BY urgency, number, seq",
            )?;
            let rows = rows.query_map(params![user.as_str(), state], item)?;
            rows.collect()
        })
        .await
    }

    /// Finished jobs of a user, oldest first: id and entry of ComfyUI's history, as JSON texts.
    /// `limit` alone: so many of the newest; `offset` counts from the oldest.
    pub(crate) async fn history(
        &self,
        user: UserId,
        limit: Option<i64>,
        offset: Option<i64>,
    ) -> Result<Vec<(String, String)>, StoreError> {
        self.call(move |connection| {
            let finished = "user_id = ?1 AND state NOT IN ('waiting', 'running')";
            let offset = match (offset, limit) {
                (Some(offset), _) if offset >= 0 => offset,
                (_, Some(limit)) => {
                    let count: i64 = connection.query_row(
                        &format!("SELECT count(*) FROM jobs WHERE {finished}"),
                        [user.as_str()],
                        |row| row.get(0),
                    )?;
                    (count - limit).max(0)
                }
                _ => 0,
            };
            let mut rows = connection.prepare_cached(&format!(
                "SELECT number, id, prompt, extra, execute, outputs, status, meta
                 FROM jobs JOIN job_texts USING (id) WHERE {finished}
                 ORDER BY ended_at, seq LIMIT ?2 OFFSET ?3"
            ))?;
            let rows = rows
                .query_map(params![user.as_str(), limit.unwrap_or(-1), offset], |row| {
                    Ok((row.get(1)?, entry(row)?))
                })?;
            rows.collect()
        })
        .await
    }

    /// One finished job of a user, as its entry of ComfyUI's history.
    pub(crate) async fn history_of(
        &self,
        user: UserId,
        id: JobId,
    ) -> Result<Option<String>, StoreError> {
        self.call(move |connection| {
            connection
                .query_row(
                    "SELECT number, id, prompt, extra, execute, outputs, status, meta
                     FROM jobs JOIN job_texts USING (id)
                     WHERE id = ?1 AND user_id = ?2 AND state NOT IN ('waiting', 'running')",
                    params![id, user.as_str()],
                    entry,
                )
                .optional()
        })
        .await
    }

    /// Completed jobs, to look whether their files are still there: at most `limit`, in order of
    /// arrival from behind `after` on.
    pub(crate) async fn finished_outputs(
        &self,
        after: i64,
        limit: i64,
    ) -> Result<Vec<FinishedOutputs>, StoreError> {
        self.call(move |connection| {
            let mut rows = connection.prepare_cached(
                "SELECT seq, id, user_id, outputs FROM jobs JOIN job_texts USING (id)
                 WHERE seq > ?1 AND state = 'completed' AND outputs IS NOT NULL ORDER BY seq LIMIT ?2",
            )?;
            let rows = rows.query_map(params![after, limit], |row| {
                Ok(FinishedOutputs {
                    seq: row.get(0)?,
                    id: row.get(1)?,
                    user: user(row, 2)?,
                    outputs: row.get(3)?,
                })
            })?;
            Ok(rows.filter_map(Result::ok).collect())
        })
        .await
    }
}

fn summary(row: &Row<'_>) -> rusqlite::Result<JobSummary> {
    Ok(JobSummary {
        id: row.get(0)?,
        number: row.get(1)?,
        state: row.get(2)?,
        created_at: row.get(3)?,
        workflow_id: row.get(4)?,
        summary: row.get(5)?,
    })
}

/// `[number, id, prompt, extra_data, outputs_to_execute]`; the texts are JSON already.
fn item(row: &Row<'_>) -> rusqlite::Result<String> {
    let text = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let number: f64 = row.get(0)?;
    Ok(format!(
        "[{},\"{}\",{},{},{}]",
        number_text(number),
        text(1)?,
        text(2)?,
        text(3)?,
        text(4)?
    ))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<String> {
    let text = |column| -> rusqlite::Result<String> {
        let text: Option<String> = row.get(column)?;
        Ok(text.unwrap_or_else(|| "{}".to_owned()))
    };
    Ok(format!(
        "{{\"prompt\":{},\"outputs\":{},\"status\":{},\"meta\":{}}}",
        item(row)?,
        text(5)?,
        text(6)?,
        text(7)?
    ))
}
