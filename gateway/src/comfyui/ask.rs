//! Starts a program for a short answer.

use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use crate::platform::without_window;

/// What a program says beyond this is not read.
const ANSWER_LIMIT: u64 = 256 * 1024;
/// How many characters of last words are shown.
const WORDS_SHOWN: usize = 300;

/// What a program answered.
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) output: String,
    /// The last line it wrote to standard error.
    pub(crate) last_words: String,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    #[error("not started")]
    NotStarted(#[from] io::Error),
    #[error("no answer in time")]
    TimedOut,
}

/// Runs `command` to its end; it is killed when it takes longer than `limit` or nobody waits for
/// the answer any more.
pub(crate) async fn ask(command: &mut Command, limit: Duration) -> Result<Answer, AskError> {
    without_window(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = child.stdout.take();
    let errors = child.stderr.take();
    let answer = async {
        let (output, errors) = tokio::join!(read(output), read(errors));
        let status = child.wait().await?;
        let last = errors.trim_end().lines().next_back();
        Ok(Answer {
            status,
            output,
            last_words: last
                .unwrap_or("no reason given")
                .chars()
                .take(WORDS_SHOWN)
                .collect(),
        })
    };
    tokio::time::timeout(limit, answer)
        .await
        .map_err(|_| AskError::TimedOut)?
}

/// What can be read of a stream, up to the limit; a broken one just ends.
async fn read(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut text = Vec::new();
    if let Some(stream) = stream
        && let Err(error) = stream.take(ANSWER_LIMIT).read_to_end(&mut text).await
    {
        tracing::debug!(%error, "an answer broke off");
    }
    String::from_utf8_lossy(&text).into_owned()
}
