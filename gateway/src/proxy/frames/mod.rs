//! WebSocket messages on their way from an engine to a browser (RFC 6455): passed on byte for byte,
//! but for ComfyUI's `status`, whose count is the user's own, the beginning and the end of jobs, which
//! wait until the gateway's record shows them, and progress texts of other people's jobs. Messages of
//! our own are put in between, never into the middle of another.
//!
//! - `wire` reads and writes single frames, `rewrite` decides what of the stream goes on;
//! - [`carry`] moves the bytes.

mod rewrite;
#[cfg(test)]
mod tests;
mod wire;

use crate::jobs::{EventGate, Messages, Passage};
use rewrite::Rewriter;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use wire::write_text;

/// Buffer, bytes: large frames are passed on in pieces of this.
const BUFFER: usize = 128 * 1024;
/// How long a browser may take to accept a piece.
const SEND_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Pieces of frames of at least so many bytes go on as they lie in the buffer; smaller ones are
/// written together with what is around them.
const DIRECT: usize = 16 * 1024;

/// Decides on an event of an engine by its text, or by its beginning when the second is `false`.
type Judge = Box<dyn FnMut(&[u8], bool) -> Passage + Send>;
/// Decides while messages pass.
type Decide = Arc<dyn Fn() -> bool + Send + Sync>;

/// What is done to the messages of one socket.
pub(super) struct Feed {
    /// Judges ComfyUI's own events.
    pub(super) judge: Judge,
    /// Knows when events that wait may pass.
    pub(super) gate: Arc<EventGate>,
    /// Whether progress texts are for this socket.
    pub(super) hears_text: Decide,
    /// Messages of our own, texts.
    pub(super) messages: Messages,
}

/// Carries messages from an engine to a browser until the engine ends or the browser is gone.
pub(super) async fn carry(
    engine: &mut (impl AsyncRead + Unpin),
    client: &mut (impl AsyncWrite + Unpin),
    feed: Feed,
) -> std::io::Result<()> {
    let Feed {
        judge,
        gate,
        hears_text,
        mut messages,
    } = feed;
    let mut rewriter = Rewriter::new(judge, hears_text);
    let mut buffer = vec![0; BUFFER];
    let mut out = Vec::new();
    let mut is_open = true;
    loop {
        out.clear();
        tokio::select! {
            read = engine.read(&mut buffer) => {
                let length = read?;
                if length == 0 {
                    return client.shutdown().await;
                }
                let mut rest = &buffer[..length];
                while !rest.is_empty() {
                    let piece = rewriter.passes(rest);
                    let taken = if piece.len() >= DIRECT {
                        if !out.is_empty() {
                            send(client, &out).await?;
                            out.clear();
                        }
                        send(client, piece).await?;
                        rewriter.passed(piece);
                        piece.len()
                    } else {
                        rewriter.take(rest, &mut out)
                    };
                    rest = &rest[taken..];
                    if let Some(wait) = rewriter.held() {
                        // What came before is not late for it, and nothing is read meanwhile.
                        if !out.is_empty() {
                            send(client, &out).await?;
                            out.clear();
                        }
                        let verdict = gate.wait(wait).await;
                        rewriter.release(&verdict, &mut out);
                        // The engine's own `status` comes next; ours would stand in its place.
                        continue;
                    }
                    if rewriter.is_between() {
                        while let Some(message) = messages.ready() {
                            write_text(&message, &mut out);
                        }
                    }
                }
            }
            message = messages.next(), if is_open && rewriter.is_between() => match message {
                Some(message) => write_text(&message, &mut out),
                None => is_open = false,
            },
        }
        if !out.is_empty() {
            send(client, &out).await?;
        }
    }
}

async fn send(client: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    let sent = async {
        client.write_all(bytes).await?;
        client.flush().await
    };
    timeout(SEND_LIMIT, sent)
        .await
        .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))?
}
