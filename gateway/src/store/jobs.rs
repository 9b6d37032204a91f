//! Tables `jobs` and `job_texts`: every prompt that was taken, from its arrival until its owner
//! forgets it. Times are milliseconds since 1970.

use super::{Store, StoreError};
use crate::accounts::UserId;
use crate::jobs::{JobId, Urgency};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobState {
    /// In the gateway.
    Waiting,
    /// Handed to an engine.
    Running,
    /// Its pictures are made.
    Completed,
    /// It broke.
    Failed,
    /// Somebody ended it.
    Cancelled,
}

impl JobState {
    /// Name in the table and in our API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Name in ComfyUI's job list.
    pub(crate) fn comfyui_name(self) -> &'static str {
        match self {
            Self::Waiting => "pending",
            Self::Running => "in_progress",
            Self::Completed | Self::Failed | Self::Cancelled => self.name(),
        }
    }

    /// All, in the order of ComfyUI's message about unknown ones.
    pub(crate) const ALL: [Self; 5] = [
        Self::Waiting,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];
}

impl ToSql for JobState {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.name().into())
    }
}

impl FromSql for JobState {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let name = value.as_str()?;
        Self::ALL
            .into_iter()
            .find(|state| state.name() == name)
            .ok_or(FromSqlError::InvalidType)
    }
}

/// What is written down of a job, without its contents.
#[derive(Clone, Debug)]
pub(crate) struct JobRow {
    pub(crate) id: JobId,
    pub(crate) user: UserId,
    pub(crate) seq: i64,
    pub(crate) number: f64,
    pub(crate) urgency: Urgency,
    pub(crate) state: JobState,
    /// How often it was handed to an engine.
    pub(crate) attempts: u32,
    pub(crate) created_at: i64,
    pub(crate) client_id: Option<String>,
    pub(crate) workflow_id: Option<String>,
    pub(crate) model: Option<u64>,
}

/// Contents of a job, each a JSON text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobTexts {
    /// The graph.
    pub(crate) prompt: String,
    /// `extra_data`, without tokens.
    pub(crate) extra: String,
    /// Further members of the request, such as `partial_execution_targets`.
    pub(crate) rest: String,
    /// Ids of the nodes that are executed.
    pub(crate) execute: String,
}

/// A job to write down.
#[derive(Clone, Debug)]
pub(crate) struct NewJob {
    pub(crate) row: JobRow,
    pub(crate) texts: JobTexts,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub(crate) struct FinishedJob {
    pub(crate) id: JobId,
    pub(crate) user: UserId,
    pub(crate) state: JobState,
    pub(crate) handed_at: i64,
    pub(crate) started_at: Option<i64>,
    pub(crate) ended_at: i64,
    /// Time on the GPU.
    pub(crate) gpu_ms: i64,
    /// Time from its arrival until it was handed over.
    pub(crate) waiting_ms: i64,
    pub(crate) reason: Option<String>,
    /// Members that ComfyUI's job list has of finished jobs alone: a JSON object.
    pub(crate) summary: String,
    /// As ComfyUI's history has them; `None` leaves what was known at the arrival.
    pub(crate) execute: Option<String>,
    pub(crate) outputs: String,
    pub(crate) status: String,
    pub(crate) meta: String,
}

/// What a job has made.
#[derive(Clone, Debug)]
pub(crate) struct FinishedOutputs {
    /// Number of arrival.
    pub(crate) seq: i64,
    pub(crate) id: JobId,
    pub(crate) user: UserId,
    /// As ComfyUI's history has them: a JSON object.
    pub(crate) outputs: String,
}

/// One line of a list of jobs.
#[derive(Clone, Debug)]
pub(crate) struct JobSummary {
    pub(crate) id: JobId,
    pub(crate) number: f64,
    pub(crate) state: JobState,
    pub(crate) created_at: i64,
    pub(crate) workflow_id: Option<String>,
    pub(crate) summary: Option<String>,
}

/// What jobs are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ordering {
    Created,
    Duration,
}

/// Which jobs of a user are listed.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    /// Empty: all.
    pub(crate) states: Vec<JobState>,
    pub(crate) workflow_id: Option<String>,
    pub(crate) ordering: Ordering,
    pub(crate) is_ascending: bool,
    pub(crate) limit: Option<i64>,
    pub(crate) offset: i64,
}

const SUMMARY_COLUMNS: &str = "id, number, state, created_at, workflow_id, summary";

impl Store {
    /// Jobs that are not finished, in order of arrival. Waits on this thread: for the start.
    pub(crate) fn unfinished_jobs(&self) -> Result<Vec<JobRow>, StoreError> {
        self.call_blocking(|connection| {
            let mut rows = connection.prepare(
                "SELECT id, user_id, seq, number, urgency, state, attempts, created_at, client_id, workflow_id, model
                 FROM jobs WHERE state IN ('waiting', 'running') ORDER BY seq",
            )?;
            let rows = rows.query_map([], row)?;
            // One unreadable row must not hold up all others.
            Ok(rows.filter_map(Result::ok).collect())
        })
    }

    /// Highest number of arrival so far. Waits on this thread: for the start.
    pub(crate) fn last_job(&self) -> Result<i64, StoreError> {
        self.call_blocking(|connection| {
            connection.query_row("SELECT coalesce(max(seq), 0) FROM jobs", [], |row| {
                row.get(0)
            })
        })
    }

    /// Last number that was given to each user's jobs, those aside that clients chose far off. Waits
    /// on this thread: for the start.
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

    /// Writes a job down; it outlives a power cut when this returns.
    pub(crate) async fn add_job(&self, job: NewJob) -> Result<(), StoreError> {
        self.call(move |connection| insert(connection, &job)).await
    }

    /// Writes a job down that is on its way to the engine at this moment; it outlives the end of
    /// this process when this returns, and a power cut with the next write.
    pub(crate) async fn add_running_job(&self, job: NewJob) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            let written = insert(connection, &job);
            connection.pragma_update(None, "synchronous", "FULL")?;
            written
        })
        .await
    }

    /// Whether an id was ever used, by anybody.
    pub(crate) async fn knows_job(&self, id: JobId) -> Result<bool, StoreError> {
        self.call(move |connection| {
            connection
                .query_row("SELECT 1 FROM jobs WHERE id = ?1", [id.to_string()], |_| {
                    Ok(())
                })
                .optional()
                .map(|found| found.is_some())
        })
        .await
    }

    /// A job goes to an engine; returns its contents, or `None` if it is gone.
    pub(crate) async fn hand_job(
        &self,
        id: JobId,
        at: i64,
    ) -> Result<Option<JobTexts>, StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            transaction.execute(
                "UPDATE jobs SET state = 'running', attempts = attempts + 1, handed_at = ?2 WHERE id = ?1",
                params![id.to_string(), at],
            )?;
            let texts = transaction
                .query_row(
                    "SELECT prompt, extra, rest, execute FROM job_texts WHERE id = ?1",
                    [id.to_string()],
                    texts,
                )
                .optional()?;
            transaction.commit()?;
            Ok(texts)
        })
        .await
    }

    /// A job waits again; `is_counted`: this attempt was its engine's fault or ours.
    pub(crate) async fn put_job_back(&self, id: JobId, is_counted: bool) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection
                .execute(
                    "UPDATE jobs SET state = 'waiting', attempts = max(0, attempts - ?2), handed_at = NULL
                     WHERE id = ?1 AND state = 'running'",
                    params![id.to_string(), i64::from(!is_counted)],
                )
                .map(|_| ())
        })
        .await
    }

    /// A job has ended: its result and what it used, in one step.
    pub(crate) async fn finish_job(&self, job: FinishedJob, day: String) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let id = job.id.to_string();
            let changed = transaction.execute(
                "UPDATE jobs SET state = ?2, handed_at = ?3, started_at = ?4, ended_at = ?5, gpu_ms = ?6,
                    reason = ?7, summary = ?8 WHERE id = ?1 AND state IN ('waiting', 'running')",
                params![
                    id,
                    job.state,
                    job.handed_at,
                    job.started_at,
                    job.ended_at,
                    job.gpu_ms,
                    job.reason,
                    job.summary
                ],
            )?;
            if changed == 1 {
                transaction.execute(
                    "UPDATE job_texts SET execute = coalesce(?2, execute), outputs = ?3, status = ?4, meta = ?5
                     WHERE id = ?1",
                    params![id, job.execute, job.outputs, job.status, job.meta],
                )?;
                super::usage::count(&transaction, &day, &job)?;
            }
            transaction.commit()
        })
        .await
    }

    /// Forgets jobs.
    pub(crate) async fn remove_jobs(&self, ids: Vec<JobId>) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            for id in ids {
                transaction.execute("DELETE FROM jobs WHERE id = ?1", [id.to_string()])?;
            }
            transaction.commit()
        })
        .await
    }

    /// Forgets finished jobs of a user: those named, or all.
    pub(crate) async fn forget_finished_jobs(
        &self,
        user: UserId,
        ids: Option<Vec<JobId>>,
    ) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let ids: Option<Vec<String>> =
                ids.map(|ids| ids.iter().map(JobId::to_string).collect());
            match ids {
                None => {
                    transaction.execute(
                        "DELETE FROM jobs WHERE user_id = ?1 AND state NOT IN ('waiting', 'running')",
                        [user.as_str()],
                    )?;
                }
                Some(ids) => {
                    for id in ids {
                        transaction.execute(
                            "DELETE FROM jobs WHERE id = ?1 AND user_id = ?2
                             AND state NOT IN ('waiting', 'running')",
                            params![id, user.as_str()],
                        )?;
                    }
                }
            }
            transaction.commit()
        })
        .await
    }

    /// Forgets everything of users that are not among these, and finished jobs from before a time;
    /// of each user at most `keep` finished ones stay.
    pub(crate) async fn tidy_jobs(
        &self,
        users: Vec<String>,
        before: i64,
        keep: i64,
    ) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let known = serde_json::to_string(&users).unwrap_or_else(|_| "[]".to_owned());
            transaction.execute(
                "DELETE FROM jobs WHERE user_id NOT IN (SELECT value FROM json_each(?1))
                    AND state NOT IN ('waiting', 'running')",
                [&known],
            )?;
            transaction.execute(
                "DELETE FROM notification_targets WHERE user_id NOT IN (SELECT value FROM json_each(?1))",
                [&known],
            )?;
            transaction.execute(
                "DELETE FROM jobs WHERE ended_at < ?1 AND state NOT IN ('waiting', 'running')",
                [before],
            )?;
            transaction.execute(
                "DELETE FROM jobs WHERE id IN (SELECT id FROM (
                    SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY seq DESC) AS place
                    FROM jobs WHERE state NOT IN ('waiting', 'running')) WHERE place > ?1)",
                [keep],
            )?;
            transaction.commit()
        })
        .await
    }

    /// An admin moved a job.
    pub(crate) async fn set_job_urgency(
        &self,
        id: JobId,
        urgency: Urgency,
    ) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection
                .execute(
                    "UPDATE jobs SET urgency = ?2 WHERE id = ?1",
                    params![id.to_string(), urgency_number(urgency)],
                )
                .map(|_| ())
        })
        .await
    }

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

    /// One job of a user: its line, contents and result (`outputs`, `status`, `meta`).
    pub(crate) async fn job(
        &self,
        user: UserId,
        id: JobId,
    ) -> Result<Option<(JobSummary, JobTexts, [Option<String>; 3])>, StoreError> {
        self.call(move |connection| {
            connection
                .query_row(
                    &format!(
                        "SELECT {SUMMARY_COLUMNS}, prompt, extra, rest, execute, outputs, status, meta
                         FROM jobs JOIN job_texts USING (id) WHERE id = ?1 AND user_id = ?2"
                    ),
                    params![id.to_string(), user.as_str()],
                    |row| {
                        let texts = JobTexts {
                            prompt: row.get(6)?,
                            extra: row.get(7)?,
                            rest: row.get(8)?,
                            execute: row.get(9)?,
                        };
                        Ok((summary(row)?, texts, [row.get(10)?, row.get(11)?, row.get(12)?]))
                    },
                )
                .optional()
        })
        .await
    }

    /// ComfyUI's tuples of a user's jobs in one of two states, put together on this thread: JSON
    /// texts, in own order.
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
    /// `last`: only so many of the newest; else `offset` and `limit` count from the oldest.
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
                    params![id.to_string(), user.as_str()],
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
                    id: id(row, 1)?,
                    user: user(row, 2)?,
                    outputs: row.get(3)?,
                })
            })?;
            Ok(rows.filter_map(Result::ok).collect())
        })
        .await
    }
}

fn insert(connection: &mut Connection, job: &NewJob) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let NewJob { row, texts } = job;
    let id = row.id.to_string();
    {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO jobs (id, user_id, seq, number, urgency, state, attempts, created_at, client_id, workflow_id, model)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?;
        statement.execute(params![
            id,
            row.user.as_str(),
            row.seq,
            row.number,
            urgency_number(row.urgency),
            row.state,
            row.attempts,
            row.created_at,
            row.client_id,
            row.workflow_id,
            row.model.map(u64::cast_signed),
        ])?;
        let mut statement = transaction.prepare_cached(
            "INSERT INTO job_texts (id, prompt, extra, rest, execute) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        statement.execute(params![
            id,
            texts.prompt,
            texts.extra,
            texts.rest,
            texts.execute
        ])?;
    }
    transaction.commit()
}

fn urgency_number(urgency: Urgency) -> i64 {
    match urgency {
        Urgency::First => 0,
        Urgency::Normal => 1,
        Urgency::Last => 2,
    }
}

fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<JobId> {
    let text: String = row.get(column)?;
    JobId::parse(&text).ok_or(rusqlite::Error::InvalidQuery)
}

fn user(row: &Row<'_>, column: usize) -> rusqlite::Result<UserId> {
    let text: String = row.get(column)?;
    UserId::parse(&text).ok_or(rusqlite::Error::InvalidQuery)
}

fn row(row: &Row<'_>) -> rusqlite::Result<JobRow> {
    Ok(JobRow {
        id: id(row, 0)?,
        user: user(row, 1)?,
        seq: row.get(2)?,
        number: row.get(3)?,
        urgency: match row.get(4)? {
            0 => Urgency::First,
            2 => Urgency::Last,
            _ => Urgency::Normal,
        },
        state: row.get(5)?,
        attempts: row.get(6)?,
        created_at: row.get(7)?,
        client_id: row.get(8)?,
        workflow_id: row.get(9)?,
        model: row.get::<_, Option<i64>>(10)?.map(i64::cast_unsigned),
    })
}

fn texts(row: &Row<'_>) -> rusqlite::Result<JobTexts> {
    Ok(JobTexts {
        prompt: row.get(0)?,
        extra: row.get(1)?,
        rest: row.get(2)?,
        execute: row.get(3)?,
    })
}

fn summary(row: &Row<'_>) -> rusqlite::Result<JobSummary> {
    Ok(JobSummary {
        id: id(row, 0)?,
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
        crate::jobs::number_text(number),
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
