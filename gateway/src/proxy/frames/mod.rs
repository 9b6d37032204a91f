//! WebSocket messages on their way from an engine to a browser (RFC 6455): passed on byte for byte,
//! but for ComfyUI's `status`, whose count is the user's own, and progress texts of other people's
//! jobs. Messages of our own are put in between, never into the middle of another.
//!
//! - `wire` reads and writes single frames, `rewrite` decides what of the stream goes on;
//! - [`carry`] moves the bytes.

mod rewrite;
#[cfg(test)]
mod tests;
mod wire;

use crate::jobs::Messages;
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

/// Replaces a message of an engine; `None` leaves it as it is.
type Replace = Arc<dyn Fn(&[u8]) -> Option<Vec<u8>> + Send + Sync>;
/// Decides while messages pass.
type Decide = Arc<dyn Fn() -> bool + Send + Sync>;

/// What is done to the messages of one socket.
pub(super) struct Feed {
    /// Changes a `status`.
    pub(super) status: Replace,
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
        status,
        hears_text,
        mut messages,
    } = feed;
    let mut rewriter = Rewriter::new(status, hears_text);
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
