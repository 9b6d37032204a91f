//! `sentinel.db`: what must outlive a restart but is not edited by hand. One thread owns the
//! connection; everybody else sends it a piece of work and awaits the answer.

mod audit;
mod deletions;
mod devices;
mod facts;
mod invites;
mod jobs;
mod place;
mod sessions;
mod usage;

pub use audit::{AuditEntry, AuditEvent, AuditView};
pub use devices::Device;
pub use invites::Invite;
pub(crate) use jobs::{
    FinishedJob, FinishedOutputs, Forgotten, JobOutcome, JobRow, JobState, JobSummary, JobTexts,
    Look as FilesLook, NewJob, Ordering as JobOrdering, PutBack, Selection as JobSelection,
};
pub use sessions::SessionRow;
pub(crate) use usage::{NotificationTarget, UsageRow};

use rusqlite::Connection;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Pieces of work that may wait for the thread.
const QUEUE: usize = 1024;
/// How long SQLite waits for another process (the command line) to finish its write.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Page cache, KiB; the tables are small and the process shall be too.
const CACHE_KIB: i64 = 512;

/// SQLite's number for files that shrink when they are told to.
const INCREMENTAL: i64 = 2;
/// Largest file that a start writes anew, in bytes.
const LARGEST_REWRITE: i64 = 32 * 1024 * 1024;
/// Size to which the journal is cut back, in bytes.
const JOURNAL_LIMIT: i64 = 16 * 1024 * 1024;

/// Each entry brings the schema one version further; `user_version` counts them.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        admin INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        last_used_at INTEGER,
        address TEXT NOT NULL,
        user_agent TEXT NOT NULL
    ) STRICT;
    CREATE TABLE audit (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        at INTEGER NOT NULL,
        event TEXT NOT NULL,
        user TEXT,
        address TEXT,
        detail TEXT
    ) STRICT;
",
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;",
    "
    CREATE TABLE devices (
        user_id TEXT NOT NULL,
        address TEXT NOT NULL,
        user_agent TEXT NOT NULL,
        last_seen_at INTEGER NOT NULL,
        PRIMARY KEY (user_id, address, user_agent)
    ) STRICT;
    INSERT INTO devices
        SELECT user_id, address, user_agent, max(coalesce(last_used_at, created_at))
        FROM sessions WHERE kind = 'browser' GROUP BY user_id, address, user_agent;
    CREATE TABLE invites (
        id TEXT PRIMARY KEY,
        code BLOB NOT NULL UNIQUE,
        created_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        admin INTEGER NOT NULL,
        note TEXT NOT NULL,
        made_by TEXT NOT NULL,
        ended_at INTEGER
    ) STRICT;
",
    // Times of jobs are milliseconds since 1970.
    "
    CREATE TABLE jobs (
        id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        number REAL NOT NULL,
        urgency INTEGER NOT NULL DEFAULT 1,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL,
        created_at INTEGER NOT NULL,
        handed_at INTEGER,
        started_at INTEGER,
        ended_at INTEGER,
        gpu_ms INTEGER,
        client_id TEXT,
        workflow_id TEXT,
        model INTEGER,
        reason TEXT,
        summary TEXT
    ) STRICT;
    CREATE INDEX jobs_of_user ON jobs (user_id, seq);
    CREATE INDEX unfinished_jobs ON jobs (seq) WHERE state IN ('waiting', 'running');
    CREATE TABLE job_texts (
        id TEXT PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
        prompt TEXT NOT NULL,
        extra TEXT NOT NULL,
        rest TEXT NOT NULL,
        execute TEXT NOT NULL,
        outputs TEXT,
        status TEXT,
        meta TEXT
    ) STRICT;
    CREATE TABLE usage (
        day TEXT NOT NULL,
        user_id TEXT NOT NULL,
        gpu_ms INTEGER NOT NULL,
        jobs INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        waiting_ms INTEGER NOT NULL,
        PRIMARY KEY (day, user_id)
    ) STRICT;
    CREATE TABLE notification_targets (
        user_id TEXT PRIMARY KEY,
        kind TEXT NOT NULL,
        address TEXT NOT NULL,
        failures_only INTEGER NOT NULL
    ) STRICT;
",
    // Digest of the password hash that a session was made by; none in what older versions made.
    "ALTER TABLE sessions ADD COLUMN binding BLOB;",
    // Browsers by the digest of a cookie of theirs; they outlive sessions.
    "
    CREATE TABLE browsers (
        user_id TEXT NOT NULL,
        cookie BLOB NOT NULL,
        last_seen_at INTEGER NOT NULL,
        PRIMARY KEY (user_id, cookie)
    ) STRICT;
",
    "CREATE TABLE deleted_accounts (user_id TEXT PRIMARY KEY, deleted_at INTEGER NOT NULL) STRICT;",
    // Where the files of a job went, and when they were missed there.
    "
    CREATE TABLE places (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
    ALTER TABLE jobs ADD COLUMN place INTEGER;
    ALTER TABLE jobs ADD COLUMN missed_at INTEGER;
    CREATE INDEX ended_jobs ON jobs (ended_at) WHERE state NOT IN ('waiting', 'running');
",
];

/// Why the store did not answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite refused.
    #[error("the database refused")]
    Sqlite(#[from] rusqlite::Error),
    /// The file is damaged.
    #[error(
        "{path} is damaged. Move this file away, and {path}-wal and {path}-shm with it, and put a copy of \
         all in their place, or start without: accounts and settings are in other files, but sign-ins, API \
         tokens, waiting jobs and the history are lost then"
    )]
    Damaged {
        /// The file.
        path: String,
        /// Cause.
        #[source]
        source: rusqlite::Error,
    },
    /// The schema is of a newer version of this program.
    #[error("the database was written by a newer version of Sentinel (schema {0})")]
    Newer(i64),
    /// Too much work is waiting, or the thread has ended.
    #[error("the database does not keep up or has been closed")]
    Unavailable,
    /// The thread could not be started.
    #[error("cannot start the database thread")]
    Thread(#[from] std::io::Error),
}

/// What keeps the database from doing its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreCause {
    /// The disk is full.
    Full,
    /// Another program holds the database, or too much work waits.
    Busy,
    /// The row contradicts another one.
    Conflict,
    /// The file is damaged.
    Damaged,
    /// The disk or the file system refuses.
    Disk,
    /// The work itself is faulty: another try ends alike.
    Fault,
}

impl StoreError {
    /// The cause.
    pub(crate) fn cause(&self) -> StoreCause {
        use rusqlite::ErrorCode;
        let Self::Sqlite(error) = self else {
            return match self {
                Self::Unavailable => StoreCause::Busy,
                Self::Damaged { .. } => StoreCause::Damaged,
                _ => StoreCause::Disk,
            };
        };
        match error
            .sqlite_error()
            .map(|error| (error.code, error.extended_code))
        {
            Some((ErrorCode::DiskFull, _)) => StoreCause::Full,
            Some((ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)) => StoreCause::Busy,
            Some((
                ErrorCode::ConstraintViolation,
                rusqlite::ffi::SQLITE_CONSTRAINT_UNIQUE
                | rusqlite::ffi::SQLITE_CONSTRAINT_PRIMARYKEY,
            )) => StoreCause::Conflict,
            Some((ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase, _)) => StoreCause::Damaged,
            Some((
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied,
                _,
            )) => StoreCause::Disk,
            _ => StoreCause::Fault,
        }
    }
}

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// The database. Dropping it ends the thread after the work that waits.
#[derive(Debug)]
pub struct Store {
    work: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
    warning: Option<String>,
}

impl Store {
    /// Opens the file, bringing its schema up to date.
    ///
    /// # Errors
    /// When the file is damaged, of a newer version, or cannot be used; nothing is changed then.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_file(path).map_err(|error| match error {
            StoreError::Sqlite(source)
                if matches!(
                    source.sqlite_error_code(),
                    Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
                ) =>
            {
                StoreError::Damaged {
                    path: path.display().to_string(),
                    source,
                }
            }
            other => other,
        })
    }

    /// Why what is written down may be lost here, if it may.
    pub(crate) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    fn open_file(path: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path)?;
        close_to_others(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        let is_new = count(&connection, "page_count")? == 0;
        if is_new {
            connection.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
        }
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        let warning = place::warning(path, &mode);
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "journal_size_limit", JOURNAL_LIMIT)?;
        migrate(&mut connection)?;
        let_shrink(&connection)?;
        let (work, received) = sync_channel::<Work>(QUEUE);
        let thread = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                while let Ok(work) = received.recv() {
                    work(&mut connection);
                }
            })?;
        Ok(Self {
            work: Some(work),
            thread: Some(thread),
            warning,
        })
    }

    /// Runs `work` on the thread and awaits what it returns.
    pub async fn call<Answer, Task>(&self, work: Task) -> Result<Answer, StoreError>
    where
        Answer: Send + 'static,
        Task: FnOnce(&mut Connection) -> rusqlite::Result<Answer> + Send + 'static,
    {
        let (answer, received) = oneshot::channel();
        self.post(move |connection| {
            let _ = answer.send(work(connection));
        })?;
        Ok(received.await.map_err(|_| StoreError::Unavailable)??)
    }

    /// Runs `work` on the thread, waiting on this thread: for the command line and the start.
    pub fn call_blocking<Answer, Task>(&self, work: Task) -> Result<Answer, StoreError>
    where
        Answer: Send + 'static,
        Task: FnOnce(&mut Connection) -> rusqlite::Result<Answer> + Send + 'static,
    {
        let (answer, received) = sync_channel(1);
        self.post(move |connection| {
            let _ = answer.send(work(connection));
        })?;
        Ok(received.recv().map_err(|_| StoreError::Unavailable)??)
    }

    fn post(&self, work: impl FnOnce(&mut Connection) + Send + 'static) -> Result<(), StoreError> {
        let sender = self.work.as_ref().ok_or(StoreError::Unavailable)?;
        sender
            .try_send(Box::new(work))
            .map_err(|_| StoreError::Unavailable)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A number that SQLite tells of the file.
fn count(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))
}

/// Files of older versions keep their size for ever. A small one is written anew, so that it can
/// shrink from then on; with a large one everybody would wait for too long.
fn let_shrink(connection: &Connection) -> rusqlite::Result<()> {
    let size = count(connection, "page_count")?.saturating_mul(count(connection, "page_size")?);
    if count(connection, "auto_vacuum")? == INCREMENTAL || size > LARGEST_REWRITE {
        return Ok(());
    }
    connection.pragma_update(None, "auto_vacuum", INCREMENTAL)?;
    if let Err(error) = connection.execute_batch("VACUUM") {
        // Another program reads it, or the disk is full: the next start tries again.
        tracing::warn!(%error, "the database could not be written anew");
    }
    Ok(())
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let done = usize::try_from(version).map_err(|_| StoreError::Newer(version))?;
    let Some(missing) = MIGRATIONS.get(done..) else {
        return Err(StoreError::Newer(version));
    };
    let transaction = connection.transaction()?;
    for statements in missing {
        transaction.execute_batch(statements)?;
    }
    transaction.pragma_update(
        None,
        "user_version",
        i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX),
    )?;
    Ok(transaction.commit()?)
}

#[cfg(unix)]
fn close_to_others(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn close_to_others(_path: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_a_newer_version_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sentinel.db");
        drop(Store::open(&path).unwrap());
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(matches!(Store::open(&path), Err(StoreError::Newer(99))));
    }

    #[test]
    fn a_database_of_the_first_version_is_brought_up_and_keeps_what_it_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sentinel.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(MIGRATIONS[0]).unwrap();
        old.execute_batch(
            "INSERT INTO sessions VALUES ('1', 'anna', 'browser', '', 0, 5, 90, NULL, '10.0.0.1', 'Browser');
             INSERT INTO sessions VALUES ('2', 'anna', 'token', 'n', 0, 5, 90, NULL, '10.0.0.2', 'curl');
             PRAGMA user_version = 1;",
        )
        .unwrap();
        drop(old);
        drop(Store::open(&path).unwrap());
        let now = Connection::open(&path).unwrap();
        let count = |sql: &str| now.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(
            count("SELECT count(*) FROM devices WHERE address = '10.0.0.1' AND last_seen_at = 5"),
            1
        );
        assert_eq!(count("SELECT count(*) FROM devices"), 1);
        assert_eq!(count("SELECT count(*) FROM sessions"), 2);
        assert_eq!(count("SELECT count(*) FROM invites"), 0);
    }
}
