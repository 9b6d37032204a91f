//! The last lines of the log, in memory, for the management page.

use crate::supervisor::mask_secrets;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::Arc;
use time::OffsetDateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Lines kept.
const LINES: usize = 5000;
/// Bytes of text kept.
const BYTES: usize = 1 << 20;
/// Bytes of one line.
const LINE: usize = 4096;

/// One line, freed of secrets and control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Counts from 1.
    pub(crate) seq: u64,
    pub(crate) at: OffsetDateTime,
    pub(crate) level: Level,
    /// Part of the program.
    pub(crate) target: String,
    pub(crate) text: String,
}

/// The last lines. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ring(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    seq: u64,
}

impl Ring {
    /// The last `limit` lines of at least this level, oldest first, and the number of the newest
    /// line looked at.
    pub(crate) fn tail(&self, limit: usize, level: Level) -> (Vec<Line>, u64) {
        let kept = self.0.lock();
        let mut lines: Vec<Line> = kept
            .lines
            .iter()
            .rev()
            .filter(|line| line.level <= level)
            .take(limit)
            .cloned()
            .collect();
        lines.reverse();
        (lines, kept.seq)
    }

    /// At most `limit` lines of at least this level after number `seq`, oldest first, and the
    /// number of the last line looked at.
    pub(crate) fn after(&self, seq: u64, limit: usize, level: Level) -> (Vec<Line>, u64) {
        let kept = self.0.lock();
        let from = kept.lines.partition_point(|line| line.seq <= seq);
        let wanted = kept.lines.range(from..).filter(|line| line.level <= level);
        let lines: Vec<Line> = wanted.take(limit).cloned().collect();
        let next = match lines.last() {
            Some(last) if lines.len() == limit => last.seq,
            _ => kept.seq,
        };
        (lines, next)
    }

    fn push(&self, level: Level, target: &str, text: &str) {
        let text = mask_secrets(text);
        let mut kept = self.0.lock();
        kept.seq += 1;
        kept.bytes += text.len();
        let line = Line {
            seq: kept.seq,
            at: OffsetDateTime::now_utc(),
            level,
            target: target.to_owned(),
            text: text.into_owned(),
        };
        kept.lines.push_back(line);
        while kept.lines.len() > LINES || kept.bytes > BYTES {
            let Some(oldest) = kept.lines.pop_front() else {
                break;
            };
            kept.bytes -= oldest.text.len();
        }
    }
}

/// Puts events into a ring.
#[derive(Debug, Default)]
pub(super) struct RingLayer(Ring);

/// The ring of this program's log; an empty one while nothing is logged.
pub(crate) fn ring() -> Ring {
    tracing::dispatcher::get_default(|dispatch| {
        dispatch
            .downcast_ref::<RingLayer>()
            .map(|layer| layer.0.clone())
    })
    .unwrap_or_default()
}

impl<Logged: Subscriber> Layer<Logged> for RingLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, Logged>) {
        let mut text = Text::default();
        event.record(&mut text);
        let metadata = event.metadata();
        self.0
            .push(*metadata.level(), metadata.target(), &text.whole());
    }
}

/// An event as one line: its message, then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn whole(self) -> String {
        let mut text = self.message;
        text.push_str(&self.fields);
        text
    }
}

impl Visit for Text {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A `Bounded` never fails; what is too long is cut off.
        let _ = if field.name() == "message" {
            write!(Bounded(&mut self.message), "{value:?}")
        } else {
            write!(Bounded(&mut self.fields), " {}={value:?}", field.name())
        };
    }
}

/// Takes printable characters up to the length of a line.
struct Bounded<'text>(&'text mut String);

impl fmt::Write for Bounded<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.len() + character.len_utf8() > LINE {
                break;
            }
            self.0.push(if character.is_control() {
                ' '
            } else {
                character
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    #[test]
    fn events_become_bounded_lines_without_secrets() {
        let subscriber = tracing_subscriber::registry().with(RingLayer::default());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(user = "anna", count = 3, "signed in");
            tracing::warn!("got Bearer abcdefghijkl\n\u{1b}[31mred");
            tracing::debug!(text = "x".repeat(10_000), "long");
            let ring = ring();
            let (lines, next) = ring.tail(10, Level::TRACE);
            assert_eq!(next, 3);
            assert_eq!(lines[0].text, "signed in user=anna count=3");
            assert_eq!(lines[0].target, module_path!());
            assert_eq!(lines[1].text, "got Bearer [hidden]  [31mred");
            assert!(lines[2].text.len() < LINE + 16);
            let (warnings, next) = ring.after(0, 10, Level::WARN);
            assert_eq!((warnings.len(), warnings[0].seq, next), (1, 2, 3));
            let (first, next) = ring.after(0, 1, Level::TRACE);
            assert_eq!((first.len(), next), (1, 1));
            for number in 0..2 * LINES {
                tracing::info!(number, "again");
            }
            let (all, next) = ring.tail(usize::MAX, Level::TRACE);
            assert_eq!(
                (all.len(), next),
                (LINES, 3 + 2 * u64::try_from(LINES).unwrap())
            );
            assert!(ring.0.lock().bytes <= BYTES);
        });
    }
}
