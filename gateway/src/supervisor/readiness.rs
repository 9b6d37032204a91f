//! Asks ComfyUI whether it is there, with the smallest HTTP client that will do.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, ToSocketAddrs};

#[cfg(target_os = "linux")]
use super::listener::belongs_to;
use super::settings::SupervisorSettings;

/// More than any `/system_stats` answer, with its header.
const ANSWER_LIMIT: u64 = 256 * 1024;

/// Who answers at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Where the answer came from.
    pub(super) address: SocketAddr,
    /// ComfyUI's version, if it tells.
    pub(super) version: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum ProbeError {
    /// Nobody listens there, or the connection broke.
    #[error("no connection")]
    Connection(#[from] std::io::Error),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// Something else than ComfyUI answers.
    #[error("the answer is not ComfyUI's")]
    NotComfyUi,
}

/// Asks until there is an answer of the process `engine`. Never ends otherwise.
pub(super) async fn until_ready(
    address: SocketAddr,
    engine: Option<u32>,
    settings: &SupervisorSettings,
) -> Answer {
    let mut is_said = false;
    loop {
        match probe(address, &address.to_string(), settings.probe_timeout).await {
            Ok(answer) if engine.is_none_or(|engine| belongs_to(address, engine)) => return answer,
            Ok(_) if is_said => {}
            Ok(_) => {
                is_said = true;
                tracing::warn!(%address, "another program answers at the engine's address");
            }
            Err(error) => tracing::trace!(%error, %address, "not ready"),
        }
        tokio::time::sleep(settings.poll_interval).await;
    }
}

/// Only Linux tells whose sockets are whose.
#[cfg(not(target_os = "linux"))]
fn belongs_to(_address: SocketAddr, _engine: u32) -> bool {
    true
}

/// Asks once. `host` is what the `Host` header says.
pub(super) async fn probe(
    address: impl ToSocketAddrs,
    host: &str,
    limit: Duration,
) -> Result<Answer, ProbeError> {
    tokio::time::timeout(limit, ask(address, host))
        .await
        .map_err(|_| ProbeError::TimedOut)?
}

async fn ask(address: impl ToSocketAddrs, host: &str) -> Result<Answer, ProbeError> {
    let mut stream = TcpStream::connect(address).await?;
    let address = stream.peer_addr()?;
    let request = format!(
        "GET /system_stats HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n\
         Accept-Encoding: identity\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_LIMIT).read_to_end(&mut answer).await?;
    let version = parse(&answer).ok_or(ProbeError::NotComfyUi)?;
    Ok(Answer { address, version })
}

#[derive(Deserialize)]
struct SystemStats {
    system: System,
}

#[derive(Deserialize)]
struct System {
    comfyui_version: Option<String>,
}

/// The version in a whole answer; `None` if it is no success or not from ComfyUI.
fn parse(answer: &[u8]) -> Option<Option<String>> {
    let head_end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    let (head, body) = (&answer[..head_end], &answer[head_end..]);
    let status = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    if status != b"200" {
        return None;
    }
    // From the first to the last brace, so that chunk sizes around the object do not matter.
    let from = body.iter().position(|byte| *byte == b'{')?;
    let to = body.iter().rposition(|byte| *byte == b'}')?;
    let stats: SystemStats = serde_json::from_slice(body.get(from..=to)?).ok()?;
    Some(stats.system.comfyui_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let version = |text: &str| Some(Some(text.to_owned()));
        let table = [
            (
                "HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"system\": {\"comfyui_version\": \"0.12.1\"}, \"devices\": []}",
                version("0.12.1"),
            ),
            ("HTTP/1.0 200 OK\r\n\r\n{\"system\": {}}", Some(None)),
            (
                "HTTP/1.1 200 OK\r\n\r\n2a\r\n{\"system\":{\"comfyui_version\":\"1\"}}\r\n0\r\n\r\n",
                version("1"),
            ),
            ("HTTP/1.1 503 No\r\n\r\n{\"system\": {}}", None),
            ("HTTP/1.1 200 OK\r\n\r\n<html>", None),
            ("HTTP/1.1 200 OK\r\n\r\n}{", None),
            ("HTTP/1.1 200 OK\r\n\r\n{}", None),
            ("HTTP/1.1", None),
            ("", None),
        ];
        for (answer, expected) in table {
            assert_eq!(parse(answer.as_bytes()), expected, "{answer}");
        }
    }

    #[tokio::test]
    async fn an_address_where_nobody_answers_is_given_up_in_time() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let error = probe(address, "x", Duration::from_millis(100))
            .await
            .unwrap_err();
        assert!(matches!(error, ProbeError::TimedOut));
        drop(silent);
        let error = probe(address, "x", Duration::from_secs(5))
            .await
            .unwrap_err();
        assert!(matches!(error, ProbeError::Connection(_)));
    }
}
