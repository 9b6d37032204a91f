//! Reads one output stream of an engine to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

use super::lines::LineAssembler;
use super::ring::{LogRing, LogStream};
use crate::sandbox::Refusals;

/// Bytes read at once.
const PIECE: usize = 16 * 1024;
/// An unfinished line (a progress bar, a question) is shown this often at most.
const SHOW_UNFINISHED: Duration = Duration::from_millis(500);
/// Span over which lines and bytes are counted.
const SPAN: Duration = Duration::from_secs(1);

/// Moves lines from `stream` to the log until it ends, and past `refusals`. An engine that prints more than the
/// limits allow loses lines, with a note of how many, and is slowed down by its full pipe.
pub(in crate::supervisor) async fn pump(
    mut stream: Box<dyn AsyncRead + Send + Unpin>,
    which: LogStream,
    log: LogRing,
    refusals: Option<Arc<Refusals>>,
) {
    let mut piece = vec![0; PIECE];
    let mut lines = LineAssembler::default();
    let mut budget = Budget::new(&log);
    let mut shown = Instant::now();
    let mut pending = false;
    loop {
        let read = if pending {
            tokio::time::timeout_at(shown + SHOW_UNFINISHED, stream.read(&mut piece)).await
        } else {
            Ok(stream.read(&mut piece).await)
        };
        match read {
            Ok(Ok(0)) => break,
            Ok(Ok(length)) => {
                lines.push(&piece[..length], |line| {
                    if budget.take_line(&log, which, &line)
                        && let Some(refusals) = &refusals
                    {
                        refusals.look_at(&line);
                    }
                });
                pending = true;
                budget.take_bytes(length).await;
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "an output stream of the engine broke");
                break;
            }
            Err(_) => pending = false,
        }
        if shown.elapsed() >= SHOW_UNFINISHED {
            shown = Instant::now();
            budget.tell_left_out(&log, which, false);
            if let Some(text) = lines.unfinished() {
                log.push_unfinished(which, &text);
            }
        }
    }
    if let Some(line) = lines.finish() {
        log.push(which, &line);
    }
    budget.tell_left_out(&log, which, true);
}

/// Counts what a stream may still print in the current span.
struct Budget {
    lines_per_span: u32,
    bytes_per_span: u32,
    started: Instant,
    lines: u32,
    bytes: u32,
    left_out: u64,
}

impl Budget {
    fn new(log: &LogRing) -> Self {
        let limits = log.limits();
        Self {
            lines_per_span: limits.lines_per_second,
            bytes_per_span: limits.bytes_per_second,
            started: Instant::now(),
            lines: 0,
            bytes: 0,
            left_out: 0,
        }
    }

    fn renew(&mut self) {
        if self.started.elapsed() >= SPAN {
            self.started = Instant::now();
            self.lines = 0;
            self.bytes = 0;
        }
    }

    /// `false` for a line that is left out.
    fn take_line(&mut self, log: &LogRing, which: LogStream, line: &str) -> bool {
        self.lines = self.lines.saturating_add(1);
        let is_taken = self.lines <= self.lines_per_span;
        if is_taken {
            log.push(which, line);
        } else {
            self.left_out += 1;
        }
        is_taken
    }

    /// Waits for the next span when this one's bytes are used up.
    async fn take_bytes(&mut self, length: usize) {
        self.renew();
        self.bytes = self
            .bytes
            .saturating_add(u32::try_from(length).unwrap_or(u32::MAX));
        if self.bytes > self.bytes_per_span {
            tokio::time::sleep_until(self.started + SPAN).await;
            self.renew();
        }
    }

    /// Says how many lines were left out, once the flood is over.
    fn tell_left_out(&mut self, log: &LogRing, which: LogStream, at_end: bool) {
        self.renew();
        if self.left_out > 0 && (at_end || self.lines <= self.lines_per_span) {
            let count = std::mem::take(&mut self.left_out);
            log.push(which, &format!("[{count} lines left out: too much output]"));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::super::ring::LogLimits;
    use super::*;

    fn texts(log: &LogRing) -> Vec<String> {
        log.tail(usize::MAX)
            .into_iter()
            .map(|entry| entry.text)
            .collect()
    }

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_flood_is_cut_with_a_note_and_the_stream_is_slowed() {
        let log = LogRing::new(LogLimits {
            lines_per_second: 10,
            bytes_per_second: 200_000,
            ..LogLimits::default()
        });
        let (mut ours, theirs) = tokio::io::duplex(1024);
        let started = Instant::now();
        let reader = tokio::spawn(pump(Box::new(theirs), LogStream::Out, log.clone(), None));
        for number in 0..50_000 {
            let line = format!("line {number}\n");
            ours.write_all(line.as_bytes()).await.unwrap();
        }
        drop(ours);
        reader.await.unwrap();
        // 538890 bytes at 200000 a second
        let passed = started.elapsed();
        assert!(passed >= Duration::from_secs(2), "{passed:?}");
        let texts = texts(&log);
        assert!(texts.len() < 100, "{}", texts.len());
        assert_eq!(texts[0], "line 0");
        let kept = texts.iter().filter(|text| text.starts_with("line")).count();
        let left_out: usize = texts
            .iter()
            .filter_map(|text| {
                text.strip_prefix('[')?
                    .split(' ')
                    .next()?
                    .parse::<usize>()
                    .ok()
            })
            .sum();
        assert_eq!(kept + left_out, 50_000);
    }

    #[tokio::test]
    async fn a_progress_bar_moves_without_filling_the_log() {
        let log = LogRing::new(LogLimits::default());
        let (mut ours, theirs) = tokio::io::duplex(1024);
        let reader = tokio::spawn(pump(Box::new(theirs), LogStream::Err, log.clone(), None));
        let mut changes = log.changes();
        for percent in 0..3 {
            ours.write_all(format!("\r{percent:3}%").as_bytes())
                .await
                .unwrap();
            tokio::time::timeout(LIMIT, changes.changed())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(texts(&log), [format!("{percent:3}%")]);
        }
        ours.write_all(b"\r100%\nnext\n").await.unwrap();
        drop(ours);
        reader.await.unwrap();
        assert_eq!(texts(&log), ["100%", "next"]);
    }
}
