//! The last lines of an engine, bounded in number and size.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::watch;

use super::file::LogFile;
use super::mask::mask_secrets;

/// Which of the two streams a line came from. Serialised as `out` and `err`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogStream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One line of output, freed of secrets and control characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// Counts from 1 over all engines' lives in this ring; never used twice.
    pub seq: u64,
    /// When it was read.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Where it came from.
    pub stream: LogStream,
    /// The line without its end.
    pub text: String,
}

/// Bounds of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLimits {
    /// Most lines kept in memory.
    pub lines: usize,
    /// Most bytes of text kept in memory.
    pub bytes: usize,
    /// Size at which the file is put aside and a new one begun, in bytes.
    pub file_bytes: u64,
    /// How many files there are at most, the current one included.
    pub files: u32,
    /// Lines a second taken from one stream; more are counted and left out.
    pub lines_per_second: u32,
    /// Bytes a second read from one stream; an engine that prints more has to wait.
    pub bytes_per_second: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            lines: 5000,
            bytes: 2 << 20,
            file_bytes: 10_000_000,
            files: 3,
            lines_per_second: 2000,
            bytes_per_second: 4 << 20,
        }
    }
}

/// The log of one engine. Clones share it.
#[derive(Debug, Clone)]
pub struct LogRing {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    limits: LogLimits,
    ring: Mutex<Ring>,
    last_seq: watch::Sender<u64>,
    file: Option<LogFile>,
}

#[derive(Debug, Default)]
struct Ring {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    seq: u64,
    /// The entry that shows an unfinished line and gives way to its next state.
    unfinished: Option<u64>,
}

/// What an entry costs besides its text.
const ENTRY_COST: usize = 48;

impl LogRing {
    /// A log in memory only.
    pub fn new(limits: LogLimits) -> Self {
        Self::build(limits, None)
    }

    /// A log in memory and in a file that is rotated to `<path>.1`, `<path>.2` ….
    ///
    /// The file is written by a thread of its own; problems with it are logged once and never
    /// disturb anything else. Missing directories are made.
    pub fn with_file(limits: LogLimits, path: PathBuf) -> Self {
        Self::build(limits, Some(LogFile::open(path, limits)))
    }

    fn build(limits: LogLimits, file: Option<LogFile>) -> Self {
        Self {
            shared: Arc::new(Shared {
                limits,
                ring: Mutex::new(Ring::default()),
                last_seq: watch::Sender::new(0),
                file,
            }),
        }
    }

    /// The last `lines` entries, oldest first.
    pub fn tail(&self, lines: usize) -> Vec<LogEntry> {
        let ring = self.shared.ring.lock();
        let from = ring.entries.len().saturating_sub(lines);
        ring.entries.range(from..).cloned().collect()
    }

    /// At most `limit` entries with a number greater than `seq`, oldest first.
    pub fn after(&self, seq: u64, limit: usize) -> Vec<LogEntry> {
        let ring = self.shared.ring.lock();
        let from = ring.entries.partition_point(|entry| entry.seq <= seq);
        ring.entries.range(from..).take(limit).cloned().collect()
    }

    /// The number of the newest entry; 0 before the first.
    pub fn last_seq(&self) -> u64 {
        *self.shared.last_seq.borrow()
    }

    /// Changes with every new entry; holds its number.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.last_seq.subscribe()
    }

    /// Writes out what is waiting for the file and ends its thread. Lines that come later are
    /// kept in memory only.
    pub async fn close(&self) {
        if let Some(file) = &self.shared.file {
            file.close().await;
        }
    }

    /// Bounds this log was made with.
    pub(super) fn limits(&self) -> LogLimits {
        self.shared.limits
    }

    /// Takes a finished line.
    pub(crate) fn push(&self, stream: LogStream, text: &str) {
        let at = now();
        let text = mask_secrets(text);
        if let Some(file) = &self.shared.file {
            file.write(at, &text);
        }
        self.store(at, stream, &text, false);
    }

    /// Shows the state of a line that is not finished, in place of its last state.
    pub(super) fn push_unfinished(&self, stream: LogStream, text: &str) {
        self.store(now(), stream, &mask_secrets(text), true);
    }

    fn store(&self, at: OffsetDateTime, stream: LogStream, text: &str, unfinished: bool) {
        let seq = {
            let mut ring = self.shared.ring.lock();
            ring.store(at, stream, text, unfinished);
            ring.keep_within(&self.shared.limits);
            ring.seq
        };
        self.shared.last_seq.send_replace(seq);
    }
}

/// To the millisecond: more only makes lines longer.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_millisecond(now.millisecond()).unwrap_or(now)
}

impl Ring {
    fn store(&mut self, at: OffsetDateTime, stream: LogStream, text: &str, unfinished: bool) {
        let replaces = self
            .entries
            .back()
            .is_some_and(|last| Some(last.seq) == self.unfinished && last.stream == stream);
        if replaces && let Some(old) = self.entries.pop_back() {
            self.bytes -= old.text.len() + ENTRY_COST;
        }
        self.seq += 1;
        self.unfinished = unfinished.then_some(self.seq);
        self.bytes += text.len() + ENTRY_COST;
        self.entries.push_back(LogEntry {
            seq: self.seq,
            at,
            stream,
            text: text.to_owned(),
        });
    }

    fn keep_within(&mut self, limits: &LogLimits) {
        while self.entries.len() > limits.lines || self.bytes > limits.bytes {
            match self.entries.pop_front() {
                Some(old) => self.bytes -= old.text.len() + ENTRY_COST,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(entries: &[LogEntry]) -> Vec<&str> {
        entries.iter().map(|entry| entry.text.as_str()).collect()
    }

    #[test]
    fn it_is_bounded_by_lines_and_by_bytes() {
        let limits = LogLimits {
            lines: 3,
            bytes: 10_000,
            ..LogLimits::default()
        };
        let log = LogRing::new(limits);
        for number in 1..=5 {
            log.push(LogStream::Out, &number.to_string());
        }
        assert_eq!(texts(&log.tail(10)), ["3", "4", "5"]);
        assert_eq!(log.last_seq(), 5);
        log.push(LogStream::Err, &"x".repeat(9_950));
        assert_eq!(log.tail(10).len(), 1);
        log.push(LogStream::Err, &"x".repeat(20_000));
        assert!(log.tail(10).is_empty());
        log.push(LogStream::Err, "still works");
        assert_eq!(texts(&log.tail(10)), ["still works"]);
    }

    #[test]
    fn reading_on_by_number() {
        let log = LogRing::new(LogLimits::default());
        for number in 1..=6 {
            log.push(LogStream::Out, &number.to_string());
        }
        assert_eq!(texts(&log.after(0, 2)), ["1", "2"]);
        assert_eq!(texts(&log.after(4, 10)), ["5", "6"]);
        assert!(log.after(6, 10).is_empty());
        assert!(log.after(99, 10).is_empty());
        assert_eq!(texts(&log.tail(2)), ["5", "6"]);
    }

    #[test]
    fn unfinished_lines_give_way_to_what_follows_on_their_stream() {
        let log = LogRing::new(LogLimits::default());
        log.push_unfinished(LogStream::Err, " 10%");
        log.push_unfinished(LogStream::Err, " 20%");
        assert_eq!(texts(&log.tail(9)), [" 20%"]);
        log.push(LogStream::Err, "100%");
        log.push(LogStream::Err, "next");
        assert_eq!(texts(&log.tail(9)), ["100%", "next"]);
        assert_eq!(log.last_seq(), 4);
        log.push_unfinished(LogStream::Err, " 1%");
        log.push(LogStream::Out, "between");
        log.push_unfinished(LogStream::Err, " 2%");
        assert_eq!(texts(&log.tail(3)), [" 1%", "between", " 2%"]);
    }

    #[test]
    fn entries_look_as_the_interface_says_and_hold_no_secrets() {
        let log = LogRing::new(LogLimits::default());
        log.push(LogStream::Err, "Authorization: Bearer 0123456789");
        let json = serde_json::to_value(&log.tail(1)[0]).unwrap();
        assert_eq!(json["seq"], 1);
        assert_eq!(json["stream"], "err");
        assert_eq!(json["text"], "Authorization: Bearer [hidden]");
        assert!(json["at"].as_str().unwrap().ends_with('Z'));
    }

    #[tokio::test]
    async fn watchers_hear_of_new_entries() {
        let log = LogRing::new(LogLimits::default());
        let mut changes = log.changes();
        log.push(LogStream::Out, "a");
        changes.changed().await.unwrap();
        assert_eq!(*changes.borrow_and_update(), 1);
    }
}
