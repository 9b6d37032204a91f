//! What happens to jobs.

use super::columns::user;
use super::{FinishedJob, JobTexts, NewJob, PutBack, SameJob};
use crate::accounts::UserId;
use crate::jobs::{JobId, Urgency};
use crate::store::{Store, StoreError, usage};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

impl Store {
    /// Writes a job down; it outlives a power cut when this returns.
    pub(crate) async fn add_job(&self, job: NewJob) -> Result<(), StoreError> {
        self.call(move |connection| insert(connection, &job)).await
    }

    /// Writes a job down that is on its way to the engine at this moment; it outlives the end of
    /// this process when this returns, and a power cut with [`Store::secure_job`].
    pub(crate) async fn add_running_job(&self, job: NewJob) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            let written = insert(connection, &job);
            connection.pragma_update(None, "synchronous", "FULL")?;
            written
        })
        .await
    }

    /// Notes when a job that was written by [`Store::add_running_job`] was handed to its engine; that
    /// brings it to the disk, so that it outlives a power cut when this returns. The row must not hold
    /// that time before: SQLite writes nothing, and syncs nothing, when nothing changes.
    pub(crate) async fn secure_job(&self, id: JobId, handed_at: i64) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection
                .prepare_cached("UPDATE jobs SET handed_at = ?2 WHERE id = ?1")?
                .execute(params![id, handed_at])
                .map(drop)
        })
        .await
    }

    /// An engine has a job from an earlier run of this program.
    pub(crate) async fn find_job_running(&self, id: JobId, at: i64) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection
                .execute(
                    "UPDATE jobs SET state = 'running', handed_at = coalesce(handed_at, ?2)
                     WHERE id = ?1 AND state = 'waiting'",
                    params![id, at],
                )
                .map(drop)
        })
        .await
    }

    /// The job of this id, if there is one: whose it is, its number, its graph and the members of the
    /// request that the gateway does not know.
    pub(crate) async fn job_of_id(&self, id: JobId) -> Result<Option<SameJob>, StoreError> {
        self.call(move |connection| {
            connection
                .query_row(
                    "SELECT user_id, number, prompt, rest FROM jobs JOIN job_texts USING (id)
                     WHERE id = ?1",
                    [id],
                    |row| {
                        Ok(SameJob {
                            user: user(row, 0)?,
                            number: row.get(1)?,
                            prompt: row.get(2)?,
                            rest: row.get(3)?,
                        })
                    },
                )
                .optional()
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
                params![id, at],
            )?;
            let texts = transaction
                .query_row(
                    "SELECT prompt, extra, rest, execute FROM job_texts WHERE id = ?1",
                    [id],
                    texts,
                )
                .optional()?;
            transaction.commit()?;
            Ok(texts)
        })
        .await
    }

    /// A job waits again.
    pub(crate) async fn put_job_back(&self, id: JobId, back: PutBack) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection
                .execute(
                    "UPDATE jobs SET state = 'waiting', attempts = max(0, attempts - ?2),
                        handed_at = CASE WHEN ?3 THEN handed_at END
                     WHERE id = ?1 AND state = 'running'",
                    params![id, i64::from(!back.is_counted), back.is_posted],
                )
                .map(|_| ())
        })
        .await
    }

    /// A job has ended: its result and what it used, in one step.
    pub(crate) async fn finish_job(&self, job: FinishedJob, day: String) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let outcome = &job.outcome;
            let changed = transaction.execute(
                "UPDATE jobs SET state = ?2, handed_at = ?3, started_at = ?4, ended_at = ?5, gpu_ms = ?6,
                    reason = ?7, summary = ?8 WHERE id = ?1 AND state IN ('waiting', 'running')",
                params![
                    job.id,
                    outcome.state,
                    job.handed_at,
                    outcome.started_at,
                    job.ended_at,
                    job.gpu_ms,
                    outcome.reason,
                    outcome.summary
                ],
            )?;
            if changed == 1 {
                transaction.execute(
                    "UPDATE job_texts SET execute = coalesce(?2, execute), outputs = ?3, status = ?4, meta = ?5
                     WHERE id = ?1",
                    params![job.id, outcome.execute, outcome.outputs, outcome.status, outcome.meta],
                )?;
                usage::count(&transaction, &day, &job)?;
            }
            transaction.commit()
        })
        .await
    }

    /// Forgets those of these jobs that wait; returns them.
    pub(crate) async fn remove_waiting_jobs(
        &self,
        ids: Vec<JobId>,
    ) -> Result<Vec<JobId>, StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let mut removed = Vec::new();
            for id in ids {
                let count = transaction
                    .execute("DELETE FROM jobs WHERE id = ?1 AND state = 'waiting'", [id])?;
                if count == 1 {
                    removed.push(id);
                }
            }
            transaction.commit()?;
            Ok(removed)
        })
        .await
    }

    /// Forgets jobs.
    pub(crate) async fn remove_jobs(&self, ids: Vec<JobId>) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            for id in ids {
                transaction.execute("DELETE FROM jobs WHERE id = ?1", [id])?;
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
                    params![id, urgency],
                )
                .map(|_| ())
        })
        .await
    }
}

fn insert(connection: &mut Connection, job: &NewJob) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    let NewJob { row, texts } = job;
    {
        let mut statement = transaction.prepare_cached(
            "INSERT INTO jobs (id, user_id, seq, number, urgency, state, attempts, created_at, client_id, workflow_id, model, handed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?;
        statement.execute(params![
            row.id,
            row.user.as_str(),
            row.seq,
            row.number,
            row.urgency,
            row.state,
            row.attempts,
            row.created_at,
            row.client_id,
            row.workflow_id,
            row.model.map(u64::cast_signed),
            row.handed_at,
        ])?;
        let mut statement = transaction.prepare_cached(
            "INSERT INTO job_texts (id, prompt, extra, rest, execute) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?;
        statement.execute(params![
            row.id,
            texts.prompt,
            texts.extra,
            texts.rest,
            texts.execute
        ])?;
    }
    transaction.commit()
}

fn texts(row: &Row<'_>) -> rusqlite::Result<JobTexts> {
    Ok(JobTexts {
        prompt: row.get(0)?,
        extra: row.get(1)?,
        rest: row.get(2)?,
        execute: row.get(3)?,
    })
}
