//! What is forgotten of jobs, in steps so small that nobody's work waits for them.

use super::columns::user;
use super::{FinishedOutputs, Look};
use crate::accounts::UserId;
use crate::jobs::JobId;
use crate::store::{Store, StoreError};
use rusqlite::{Connection, OptionalExtension as _, params};

/// Free pages that a file keeps, as it will need them again.
const KEPT_PAGES: i64 = 1024;

/// What is to be forgotten.
#[derive(Clone, Debug)]
pub(crate) enum Forgotten {
    /// Finished jobs of deleted accounts. The named ones are there, whatever was written down.
    OfDeletedAccounts(Vec<UserId>),
    /// Finished jobs from before this time.
    EndedBefore(i64),
    /// Finished jobs of a user up to this number of arrival.
    UpTo(UserId, i64),
}

impl Store {
    /// Forgets at most `limit` jobs; returns how many.
    pub(crate) async fn forget_some(
        &self,
        what: Forgotten,
        limit: i64,
    ) -> Result<usize, StoreError> {
        self.call(move |connection| match what {
            Forgotten::OfDeletedAccounts(there) => {
                let there = serde_json::to_string(&there).unwrap_or_else(|_| "[]".to_owned());
                connection.execute(
                    "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs
                        WHERE user_id IN (SELECT user_id FROM deleted_accounts)
                        AND user_id NOT IN (SELECT value FROM json_each(?1))
                        AND state NOT IN ('waiting', 'running') LIMIT ?2)",
                    params![there, limit],
                )
            }
            Forgotten::EndedBefore(time) => connection.execute(ENDED_BEFORE, params![time, limit]),
            Forgotten::UpTo(user, seq) => connection.execute(
                "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE user_id = ?1 AND seq <= ?2
                    AND state NOT IN ('waiting', 'running') LIMIT ?3)",
                params![user.as_str(), seq, limit],
            ),
        })
        .await
    }

    /// Forgets where people of deleted accounts wanted to be told.
    pub(crate) async fn forget_targets_of_deleted(
        &self,
        there: Vec<UserId>,
    ) -> Result<(), StoreError> {
        self.call(move |connection| {
            let there = serde_json::to_string(&there).unwrap_or_else(|_| "[]".to_owned());
            connection
                .execute(
                    "DELETE FROM notification_targets
                     WHERE user_id IN (SELECT user_id FROM deleted_accounts)
                     AND user_id NOT IN (SELECT value FROM json_each(?1))",
                    [there],
                )
                .map(drop)
        })
        .await
    }

    /// Users with more than `keep` finished jobs, and the number of arrival up to which they are too
    /// many.
    pub(crate) async fn surplus(&self, keep: i64) -> Result<Vec<(UserId, i64)>, StoreError> {
        self.call(move |connection| {
            let mut users = connection
                .prepare_cached("SELECT user_id FROM jobs GROUP BY user_id HAVING count(*) > ?1")?;
            let users = users.query_map([keep], |row| user(row, 0))?;
            let mut last = connection.prepare_cached(
                "SELECT seq FROM jobs WHERE user_id = ?1 AND state NOT IN ('waiting', 'running')
                 ORDER BY seq DESC LIMIT 1 OFFSET ?2",
            )?;
            let mut surplus = Vec::new();
            for user in users.filter_map(Result::ok) {
                let seq = last.query_row(params![user.as_str(), keep], |row| row.get(0));
                if let Some(seq) = seq.optional()? {
                    surplus.push((user, seq));
                }
            }
            Ok(surplus)
        })
        .await
    }

    /// Gives at most so many free pages of the file back to the disk. Returns true if there are more.
    pub(crate) async fn shrink(&self, pages: i64) -> Result<bool, StoreError> {
        self.call(move |connection| {
            let free = free_pages(connection)?;
            let spare = (free - KEPT_PAGES).min(pages);
            if spare <= 0 {
                return Ok(false);
            }
            // Each row that is asked for is a page given back.
            let mut steps = connection.prepare(&format!("PRAGMA incremental_vacuum({spare})"))?;
            let mut steps = steps.query([])?;
            while steps.next()?.is_some() {}
            let left = free_pages(connection)?;
            // A file that an older version has made may not be able to shrink.
            Ok(left < free && left > KEPT_PAGES)
        })
        .await
    }

    /// Notes where the files of jobs went. A crash may lose this: then the next look finds out.
    pub(crate) async fn note_places(&self, jobs: Vec<(JobId, String)>) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            let noted = note_places(connection, &jobs);
            connection.pragma_update(None, "synchronous", "FULL")?;
            noted
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
                "SELECT seq, jobs.id, user_id, outputs, places.text, missed_at
                 FROM jobs JOIN job_texts ON job_texts.id = jobs.id LEFT JOIN places ON places.id = place
                 WHERE seq > ?1 AND state = 'completed' AND outputs IS NOT NULL ORDER BY seq LIMIT ?2",
            )?;
            let rows = rows.query_map(params![after, limit], |row| {
                Ok(FinishedOutputs {
                    seq: row.get(0)?,
                    id: row.get(1)?,
                    user: user(row, 2)?,
                    outputs: row.get(3)?,
                    place: row.get(4)?,
                    missed_at: row.get(5)?,
                })
            })?;
            Ok(rows.filter_map(Result::ok).collect())
        })
        .await
    }

    /// Writes down what a look at the files of jobs has shown.
    pub(crate) async fn note_looks(&self, looks: Vec<(JobId, Look)>) -> Result<(), StoreError> {
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let mut places = Vec::new();
            for (id, look) in looks {
                match look {
                    Look::FoundAt(place) => places.push((id, place)),
                    Look::Missed(at) => {
                        transaction.execute(
                            "UPDATE jobs SET missed_at = ?2 WHERE id = ?1",
                            params![id, at],
                        )?;
                    }
                    Look::Gone => {
                        transaction.execute("DELETE FROM jobs WHERE id = ?1", [id])?;
                    }
                }
            }
            note_places(&transaction, &places)?;
            transaction.commit()
        })
        .await
    }
}

const ENDED_BEFORE: &str = "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE ended_at < ?1
        AND state NOT IN ('waiting', 'running') LIMIT ?2)";

fn note_places(connection: &Connection, jobs: &[(JobId, String)]) -> rusqlite::Result<()> {
    for (id, place) in jobs {
        connection
            .prepare_cached("INSERT INTO places (text) VALUES (?1) ON CONFLICT DO NOTHING")?
            .execute([place])?;
        connection
            .prepare_cached(
                "UPDATE jobs SET place = (SELECT id FROM places WHERE text = ?2), missed_at = NULL
                 WHERE id = ?1",
            )?
            .execute(params![id, place])?;
    }
    Ok(())
}

fn free_pages(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA freelist_count", [], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jobs with these ends; each has a graph of 20,000 bytes.
    fn add(path: &std::path::Path, ends: std::ops::Range<i64>) {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch("BEGIN").unwrap();
        for end in ends {
            let id = format!("00000000-0000-4000-8000-{end:012}");
            connection
                .execute(
                    "INSERT INTO jobs (id, user_id, seq, number, state, attempts, created_at, ended_at)
                     VALUES (?1, ?2, ?3, 0, 'completed', 1, 0, ?3)",
                    params![id, if end % 2 == 0 { "anna" } else { "bert" }, end],
                )
                .unwrap();
            connection
                .execute(
                    "INSERT INTO job_texts (id, prompt, extra, rest, execute)
                     VALUES (?1, printf('%.20000c', 'x'), '{}', '{}', '[]')",
                    [id],
                )
                .unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();
    }

    #[tokio::test]
    async fn jobs_are_forgotten_in_steps_by_an_index_and_the_file_shrinks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sentinel.db");
        let store = Store::open(&path).unwrap();
        add(&path, 1..1001);
        let before = std::fs::metadata(&path).unwrap().len();
        let some = |what| store.forget_some(what, 200);
        for expected in [200, 200, 200, 200, 100, 0] {
            let what = Forgotten::EndedBefore(901);
            assert_eq!(some(what).await.unwrap(), expected);
        }
        let plan: String = store
            .call(|connection| {
                connection.query_row(
                    &format!(
                        "EXPLAIN QUERY PLAN {}",
                        &ENDED_BEFORE[ENDED_BEFORE.find("SELECT").unwrap()..ENDED_BEFORE.len() - 1]
                    ),
                    params![1, 1],
                    |row| row.get(3),
                )
            })
            .await
            .unwrap();
        assert!(plan.contains("ended_jobs"), "{plan}");
        while store.shrink(300).await.unwrap() {}
        store
            .call(|connection| {
                connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            })
            .await
            .unwrap();
        let after = std::fs::metadata(&path).unwrap().len();
        assert!(after < before / 2, "{before} became {after}");
        let surplus = store.surplus(20).await.unwrap();
        let users: Vec<_> = surplus.iter().map(|(user, _)| user.as_str()).collect();
        assert_eq!(users, ["anna", "bert"]);
        for (user, seq) in surplus {
            assert_eq!(some(Forgotten::UpTo(user, seq)).await.unwrap(), 30);
        }
        assert!(store.surplus(20).await.unwrap().is_empty());
        let anna = UserId::parse("anna").unwrap();
        store.note_deletion(anna.clone(), 1).await.unwrap();
        let of_deleted = |there| some(Forgotten::OfDeletedAccounts(there));
        assert_eq!(of_deleted(vec![anna]).await.unwrap(), 0, "she is there");
        assert_eq!(of_deleted(vec![]).await.unwrap(), 20);
    }
}
