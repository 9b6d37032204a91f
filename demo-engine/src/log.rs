//! What the engine prints, kept for `/internal/logs` and for the clients that subscribed.

use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};
use std::io::Write as _;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const KEPT: usize = 300;
const STAMP: &[BorrowedFormatItem<'static>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]");

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Info,
    Warning,
    Error,
}

impl Level {
    fn tag(self) -> &'static str {
        match self {
            Self::Info => "\u{1b}[32m[INFO]\u{1b}[0m ",
            Self::Warning => "\u{1b}[1m\u{1b}[33m[WARNING]\u{1b}[0m ",
            Self::Error => "\u{1b}[1m\u{1b}[31m[ERROR]\u{1b}[0m ",
        }
    }
}

/// One printed piece.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: String,
    pub(crate) text: String,
}

/// The printed pieces and who follows them.
#[derive(Debug)]
pub(crate) struct Log {
    to_output: bool,
    quiet: bool,
    entries: Mutex<VecDeque<Entry>>,
    subscribers: Mutex<HashSet<String>>,
}

impl Log {
    pub(crate) fn new(to_output: bool, quiet: bool) -> Self {
        Self {
            to_output,
            quiet,
            entries: Mutex::default(),
            subscribers: Mutex::default(),
        }
    }

    /// Prints a line and keeps it. The level stands before it in colour, whether there is a terminal or not.
    pub(crate) fn line(&self, level: Level, text: &str) -> Entry {
        let entry = Entry {
            at: stamp(),
            text: format!("{}{text}\n", level.tag()),
        };
        let mut entries = self.entries.lock();
        // A closed pipe must not end the engine.
        if self.to_output {
            let _ = std::io::stdout().write_all(entry.text.as_bytes());
        } else if !self.quiet {
            let _ = std::io::stderr().write_all(entry.text.as_bytes());
        }
        if entries.len() == KEPT {
            entries.pop_front();
        }
        entries.push_back(entry.clone());
        entry
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().iter().cloned().collect()
    }

    pub(crate) fn subscribe(&self, client: &str, enabled: bool) {
        if enabled {
            self.subscribers.lock().insert(client.to_owned());
        } else {
            self.subscribers.lock().remove(client);
        }
    }

    pub(crate) fn subscribers(&self) -> Vec<String> {
        self.subscribers.lock().iter().cloned().collect()
    }
}

/// Now, as Python's `isoformat` writes it.
pub(crate) fn stamp() -> String {
    OffsetDateTime::now_utc().format(STAMP).unwrap_or_default()
}
