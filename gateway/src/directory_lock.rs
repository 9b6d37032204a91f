//! One gateway for one data directory. Two would take up the same jobs, and each would run them all.

use crate::files::DataDirectory;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a start waits for another Sentinel that is just ending.
const PATIENCE: Duration = Duration::from_secs(3);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest note that is read of another Sentinel, in bytes.
const LONGEST_NOTE: usize = 300;

/// Why a data directory cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryLockError {
    /// Another Sentinel has it.
    #[error(
        "another Sentinel{holder} works on the data directory {directory}. End it first, or give this one \
         a directory of its own with --data-dir"
    )]
    Held {
        /// Process and address of the other, in brackets, as far as it has told them.
        holder: String,
        /// The directory.
        directory: String,
    },
    /// The file of the lock cannot be used.
    #[error("cannot lock {path}")]
    Io {
        /// The file.
        path: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
}

/// The right to work on a data directory, held until this is dropped or the process ends, however it
/// ends.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    /// The system gives the lock back when this is closed.
    _file: File,
    /// Who has the lock. Beside the locked file: Windows lets nobody else read that one.
    note: PathBuf,
}

impl DirectoryLock {
    /// Takes the lock, waiting a moment for a Sentinel that is just ending.
    ///
    /// # Errors
    /// When another Sentinel keeps it, or the file cannot be used.
    pub(crate) fn acquire(data: &DataDirectory) -> Result<Self, DirectoryLockError> {
        Self::acquire_within(data, PATIENCE)
    }

    fn acquire_within(
        data: &DataDirectory,
        patience: Duration,
    ) -> Result<Self, DirectoryLockError> {
        let path = data.root().join("sentinel.lock");
        let failed = |source| DirectoryLockError::Io {
            path: path.display().to_string(),
            source,
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        let note = data.root().join("sentinel.running");
        let started = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if started.elapsed() < patience => sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(DirectoryLockError::Held {
                        holder: holder(&fs::read_to_string(note).unwrap_or_default()),
                        directory: data.root().display().to_string(),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
        let lock = Self { _file: file, note };
        lock.tell("");
        Ok(lock)
    }

    /// Leaves word for others of who has the lock, and where it answers.
    pub(crate) fn tell(&self, address: &str) {
        let text = format!("{} {address}\n", std::process::id());
        if let Err(error) = fs::write(&self.note, text) {
            tracing::warn!(%error, path = %self.note.display(), "others cannot read who works here");
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.note);
    }
}

/// What a note tells, in words; nothing if it is not one of ours.
fn holder(note: &str) -> String {
    let mut words = note.split_whitespace();
    let process = words.next().filter(|word| word.parse::<u32>().is_ok());
    match (process, words.next()) {
        _ if note.len() > LONGEST_NOTE => String::new(),
        (Some(process), Some(address)) => format!(" (process {process}, at {address})"),
        (Some(process), None) => format!(" (process {process})"),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_one_s_at_a_time_and_the_other_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(directory.path()).unwrap();
        let first = DirectoryLock::acquire(&data).unwrap();
        first.tell("http://localhost:8189");
        let second = DirectoryLock::acquire_within(&data, PAUSE).unwrap_err();
        let words = second.to_string();
        let expected = format!("(process {}, at http://localhost:8189)", std::process::id());
        assert!(words.contains(&expected), "{words}");
        drop(first);
        DirectoryLock::acquire_within(&data, PAUSE).unwrap();
    }

    #[test]
    fn a_note_is_told_as_far_as_it_can_be_read() {
        for (note, expected) in [
            (
                "12 http://localhost:1\n",
                " (process 12, at http://localhost:1)",
            ),
            ("12 \n", " (process 12)"),
            ("", ""),
            ("nonsense here", ""),
            (&format!("12 {}", "x".repeat(LONGEST_NOTE)), ""),
        ] {
            assert_eq!(holder(note), expected, "{note}");
        }
    }
}
