//! What users see of their jobs. Nobody's is in reach but the named user's.

use super::{JobDetails, JobState, JobSummary, Ordering, Selection};
use crate::accounts::UserId;
use crate::jobs::{JobId, number_text};
use crate::store::{Store, StoreError};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, params};
use std::fmt::{self, Write as _};

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

    /// ComfyUI's tuples of what runs and what waits of a user, as of one moment and in own order: two
    /// JSON texts, without the brackets of their lists.
    pub(crate) async fn queue(&self, user: UserId) -> Result<(String, String), StoreError> {
        self.call(move |connection| {
            let moment = connection.transaction()?;
            Ok((
                items(&moment, &user, JobState::Running)?,
                items(&moment, &user, JobState::Waiting)?,
            ))
        })
        .await
    }

    /// Finished jobs of a user, oldest first: ComfyUI's history as a JSON text. `limit` alone: so many
    /// of the newest; `offset` counts from the oldest.
    pub(crate) async fn history(
        &self,
        user: UserId,
        limit: Option<i64>,
        offset: Option<i64>,
    ) -> Result<String, StoreError> {
        self.call(move |connection| {
            let moment = connection.transaction()?;
            let offset = match (offset, limit) {
                (Some(offset), _) if offset >= 0 => offset,
                (_, Some(limit)) => {
                    let count: i64 = moment.query_row(
                        "SELECT count(*) FROM jobs
                         WHERE user_id = ?1 AND state NOT IN ('waiting', 'running')",
                        [user.as_str()],
                        |row| row.get(0),
                    )?;
                    (count - limit).max(0)
                }
                _ => 0,
            };
            let places = places(
                &moment,
                "SELECT id, number FROM jobs
                 WHERE user_id = ?1 AND state NOT IN ('waiting', 'running')
                 ORDER BY ended_at, seq LIMIT ?2 OFFSET ?3",
                params![user.as_str(), limit.unwrap_or(-1), offset],
            )?;
            let mut texts = moment.prepare_cached(ENTRY)?;
            let mut history = String::from("{");
            for (id, number) in &places {
                let entry = texts.query_row([id], |row| {
                    let comma = if history.len() > 1 { "," } else { "" };
                    write(&mut history, format_args!("{comma}\"{id}\":"));
                    push_entry(&mut history, id, *number, row)
                });
                entry.optional()?;
            }
            history.push('}');
            Ok(history)
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
            let moment = connection.transaction()?;
            let places = places(
                &moment,
                "SELECT id, number FROM jobs
                 WHERE id = ?1 AND user_id = ?2 AND state NOT IN ('waiting', 'running')",
                params![id, user.as_str()],
            )?;
            let Some((id, number)) = places.first() else {
                return Ok(None);
            };
            let mut history = String::new();
            let entry = moment
                .prepare_cached(ENTRY)?
                .query_row([id], |row| push_entry(&mut history, id, *number, row));
            Ok(entry.optional()?.map(|()| history))
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

/// Ids and numbers of jobs, in the order of a query. Texts are looked up one by one afterwards: sorted
/// together with them, a long line would have to be copied to be put in order. A job without texts
/// is left out, so that it breaks no list.
fn places(
    connection: &Connection,
    query: &str,
    wanted: impl Params,
) -> rusqlite::Result<Vec<(String, f64)>> {
    let mut rows = connection.prepare_cached(query)?;
    let places = rows.query_map(wanted, |row| Ok((row.get(0)?, row.get(1)?)))?;
    places.collect()
}

fn items(connection: &Connection, user: &UserId, state: JobState) -> rusqlite::Result<String> {
    let places = places(
        connection,
        "SELECT id, number FROM jobs WHERE user_id = ?1 AND state = ?2
         ORDER BY urgency, number, seq",
        params![user.as_str(), state],
    )?;
    let mut texts =
        connection.prepare_cached("SELECT prompt, extra, execute FROM job_texts WHERE id = ?1")?;
    let mut items = String::new();
    for (id, number) in &places {
        let item = texts.query_row([id], |row| {
            if !items.is_empty() {
                items.push(',');
            }
            push_item(&mut items, id, *number, row)
        });
        item.optional()?;
    }
    Ok(items)
}

/// Adds `[number, id, prompt, extra_data, outputs_to_execute]`; the texts are JSON already.
fn push_item(text: &mut String, id: &str, number: f64, row: &Row<'_>) -> rusqlite::Result<()> {
    let column = |column| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    let (prompt, extra, execute) = (column(0)?, column(1)?, column(2)?);
    let number = number_text(number);
    write(
        text,
        format_args!("[{number},\"{id}\",{prompt},{extra},{execute}]"),
    );
    Ok(())
}

/// What [`push_entry`] needs of a job.
const ENTRY: &str =
    "SELECT prompt, extra, execute, outputs, status, meta FROM job_texts WHERE id = ?1";

fn push_entry(text: &mut String, id: &str, number: f64, row: &Row<'_>) -> rusqlite::Result<()> {
    let column = |column| -> rusqlite::Result<&str> {
        let value = row.get_ref(column)?.as_str_or_null()?;
        Ok(value.unwrap_or("{}"))
    };
    text.push_str("{\"prompt\":");
    push_item(text, id, number, row)?;
    let (outputs, status, meta) = (column(3)?, column(4)?, column(5)?);
    write(
        text,
        format_args!(",\"outputs\":{outputs},\"status\":{status},\"meta\":{meta}}}"),
    );
    Ok(())
}

fn write(text: &mut String, what: fmt::Arguments<'_>) {
    // Writing into a text cannot fail.
    let _ = text.write_fmt(what);
}
