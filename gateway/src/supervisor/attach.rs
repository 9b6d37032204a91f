//! A ComfyUI somebody else runs: watched, never started or stopped.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::readiness::{Answer, probe};
use super::status::{EngineState, EngineStatus};

/// Pause between two questions.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Time-out of one question.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A busy ComfyUI may answer late; only this many missing answers in a row count as gone.
const MISSED_ANSWERS: u32 = 3;

/// Watches a foreign ComfyUI. Its status knows two states: ready and stopped. Dropping it ends
/// the watching.
#[derive(Debug)]
pub struct Attached {
    status: watch::Receiver<EngineStatus>,
    task: JoinHandle<()>,
    stop: DropGuard,
}

impl Attached {
    /// Begins to watch `target`, `host:port`. Needs a tokio runtime.
    pub fn watch(target: String) -> Self {
        Self::watch_every(target, ASK_EVERY)
    }

    fn watch_every(target: String, pause: Duration) -> Self {
        let stop = CancellationToken::new();
        let (sender, status) = watch::channel(EngineStatus::stopped(format!(
            "ComfyUI at {target} was not asked yet"
        )));
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            stopped
                .run_until_cancelled(keep_asking(&target, pause, &sender))
                .await;
        });
        Self {
            status,
            task,
            stop: stop.drop_guard(),
        }
    }

    /// What is known of it.
    pub fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.clone()
    }

    /// Ends the watching; the ComfyUI goes on.
    pub async fn shutdown(self) {
        drop(self.stop);
        if self.task.await.is_err() {
            tracing::error!("the task that watches a foreign ComfyUI died");
        }
    }
}

async fn keep_asking(target: &str, pause: Duration, status: &watch::Sender<EngineStatus>) {
    let mut missed = 0_u32;
    loop {
        match probe(target, target, ANSWER_LIMIT).await {
            Ok(answer) => {
                missed = 0;
                status.send_if_modified(|status| answered(status, target, answer));
            }
            Err(error) => {
                missed = missed.saturating_add(1);
                if missed >= MISSED_ANSWERS || !status.borrow().is_ready() {
                    let message = format!("ComfyUI at {target} is not answering: {error}");
                    status.send_if_modified(|status| not_answered(status, message));
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

fn answered(status: &mut EngineStatus, target: &str, answer: Answer) -> bool {
    let known = status.is_ready()
        && status.address == Some(answer.address)
        && status.version == answer.version;
    if !known {
        tracing::info!(
            target,
            version = answer.version,
            "the attached ComfyUI answers"
        );
        *status = EngineStatus {
            state: EngineState::Ready,
            since: OffsetDateTime::now_utc(),
            message: format!("ComfyUI at {target} is ready"),
            address: Some(answer.address),
            version: answer.version,
            generation: status.generation + 1,
            ..EngineStatus::stopped("")
        };
    }
    !known
}

fn not_answered(status: &mut EngineStatus, message: String) -> bool {
    let known = !status.is_ready() && status.message == message;
    if status.is_ready() {
        tracing::info!("the attached ComfyUI does not answer any more");
    }
    if !known {
        *status = EngineStatus {
            version: status.version.take(),
            generation: status.generation,
            ..EngineStatus::stopped(message)
        };
    }
    !known
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn it_tells_when_a_foreign_comfyui_comes_and_goes() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let attached = Attached::watch_every(address.to_string(), Duration::from_millis(10));
        let server = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let _length = stream.read(&mut request).await.unwrap();
                let body = "{\"system\":{\"comfyui_version\":\"0.12.1\"}}";
                let answer = format!("HTTP/1.1 200 OK\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        let mut status = attached.status();
        let wait = status.wait_for(EngineStatus::is_ready);
        let ready = tokio::time::timeout(LIMIT, wait)
            .await
            .unwrap()
            .unwrap()
            .clone();
        assert_eq!(ready.address, Some(address));
        assert_eq!(ready.version.as_deref(), Some("0.12.1"));
        server.abort();
        let wait = status.wait_for(|status| status.state == EngineState::Stopped);
        let stopped = tokio::time::timeout(LIMIT, wait)
            .await
            .unwrap()
            .unwrap()
            .clone();
        assert!(
            stopped.message.contains("not answering"),
            "{}",
            stopped.message
        );
        assert_eq!(stopped.address, None);
        attached.shutdown().await;
    }
}
