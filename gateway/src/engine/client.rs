//! Requests of our own to an engine.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time for the whole exchange.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Largest answer that is read, bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Time for an engine to check a prompt: custom nodes may load models for it.
const PROMPT_TIME_LIMIT: Duration = Duration::from_secs(300);
/// Largest entry of the history that is read, bytes: some nodes put whole texts into it.
const MAX_ENTRY: usize = 64 * 1024 * 1024;
/// Largest list of nodes that is read, bytes.
const MAX_OBJECT_INFO: usize = 128 * 1024 * 1024;
/// Longest silence of an engine's event socket; nothing of an open job is late by more.
const EVENT_TIME_LIMIT: Duration = Duration::from_secs(10);

/// Why a request of ours failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("cannot connect")]
    Connect(#[from] std::io::Error),
    #[error("the exchange broke off")]
    Exchange(#[from] hyper::Error),
    #[error("the request cannot be written")]
    Request(#[from] http::Error),
    #[error("no answer in time")]
    Silent,
    #[error("refused with status {0}")]
    Refused(http::StatusCode),
    #[error("the answer is not as expected")]
    Answer,
    #[error("the event socket broke")]
    Events(#[from] Box<tokio_tungstenite::tungstenite::Error>),
}

/// What an engine says to a prompt.
#[derive(Debug)]
pub(crate) enum Taken {
    /// It is in the engine's queue.
    Yes,
    /// It is refused, with ComfyUI's reasons.
    No(Value),
}

/// `POST /prompt`.
pub(crate) async fn post_prompt(address: SocketAddr, body: String) -> Result<Taken, ClientError> {
    let exchange = send(address, Method::POST, "/prompt", body, MAX_ENTRY);
    let (status, bytes) = timeout(PROMPT_TIME_LIMIT, exchange)
        .await
        .map_err(|_| ClientError::Silent)??;
    if status.is_success() {
        Ok(Taken::Yes)
    } else {
        Ok(Taken::No(serde_json::from_slice(&bytes).unwrap_or_else(|_| {
            json!({ "error": { "type": "engine_error", "message": "ComfyUI could not read this job.", "details": status.to_string() } })
        })))
    }
}

/// `GET /history/{id}`: the answer as it is, JSON or nearly; empty history is `{}`.
pub(crate) async fn history(address: SocketAddr, id: &str) -> Result<Bytes, ClientError> {
    let path = format!("/history/{id}");
    let exchange = send(address, Method::GET, &path, String::new(), MAX_ENTRY);
    let (status, bytes) = timeout(TIME_LIMIT, exchange)
        .await
        .map_err(|_| ClientError::Silent)??;
    if status.is_success() {
        Ok(bytes)
    } else {
        Err(ClientError::Refused(status))
    }
}

/// `POST /interrupt` of one job.
pub(crate) async fn interrupt(address: SocketAddr, id: &str) -> Result<(), ClientError> {
    let body = json!({ "prompt_id": id }).to_string();
    ask(address, Method::POST, "/interrupt", body)
        .await
        .map(|_| ())
}

/// `POST /history`: forgets one job.
pub(crate) async fn forget(address: SocketAddr, id: &str) -> Result<(), ClientError> {
    let body = json!({ "delete": [id] }).to_string();
    ask(address, Method::POST, "/history", body)
        .await
        .map(|_| ())
}

/// `POST /queue`: takes one job out, if it does not run yet.
pub(crate) async fn unqueue(address: SocketAddr, id: &str) -> Result<(), ClientError> {
    let body = json!({ "delete": [id] }).to_string();
    ask(address, Method::POST, "/queue", body).await.map(|_| ())
}

/// `GET /object_info`.
pub(crate) async fn object_info(address: SocketAddr) -> Result<Bytes, ClientError> {
    let exchange = send(
        address,
        Method::GET,
        "/object_info",
        String::new(),
        MAX_OBJECT_INFO,
    );
    let (status, bytes) = timeout(PROMPT_TIME_LIMIT, exchange)
        .await
        .map_err(|_| ClientError::Silent)??;
    if status.is_success() {
        Ok(bytes)
    } else {
        Err(ClientError::Refused(status))
    }
}

/// An engine's events, of which only the count of its jobs is read.
#[derive(Debug)]
pub(crate) struct Events(tokio_tungstenite::WebSocketStream<TcpStream>);

impl Events {
    /// Opens a socket of our own; no job names it, so only what is told to all arrives.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, ClientError> {
        let open = async {
            let stream = TcpStream::connect(address).await?;
            let request = format!("ws://{address}/ws?clientId={}", uuid::Uuid::new_v4());
            let (socket, _) = tokio_tungstenite::client_async(request, stream)
                .await
                .map_err(Box::new)?;
            Ok(Self(socket))
        };
        timeout(EVENT_TIME_LIMIT, open)
            .await
            .map_err(|_| ClientError::Silent)?
    }

    /// Waits for the next count of running and waiting jobs.
    pub(crate) async fn next_count(&mut self) -> Result<u32, ClientError> {
        use futures_util::StreamExt as _;
        while let Some(message) = self.0.next().await {
            let message = message.map_err(Box::new)?;
            if let tokio_tungstenite::tungstenite::Message::Text(text) = message
                && text.len() < MAX_ANSWER
                && text.contains("queue_remaining")
                && let Ok(value) = serde_json::from_str::<Value>(&text)
                && let Some(count) = value.pointer("/data/status/exec_info/queue_remaining")
                && let Some(count) = count.as_u64()
            {
                return Ok(u32::try_from(count).unwrap_or(u32::MAX));
            }
        }
        Err(ClientError::Silent)
    }
}

/// `POST /free`.
pub(super) async fn free(
    address: SocketAddr,
    unload_models: bool,
    free_memory: bool,
) -> Result<(), ClientError> {
    let body = json!({ "unload_models": unload_models, "free_memory": free_memory }).to_string();
    ask(address, Method::POST, "/free", body).await.map(|_| ())
}

/// Running and waiting jobs, from `GET /prompt`.
pub(crate) async fn jobs(address: SocketAddr) -> Result<u32, ClientError> {
    #[derive(Deserialize)]
    struct Answer {
        exec_info: ExecInfo,
    }
    #[derive(Deserialize)]
    struct ExecInfo {
        queue_remaining: u32,
    }
    let bytes = ask(address, Method::GET, "/prompt", String::new()).await?;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| ClientError::Answer)?;
    Ok(answer.exec_info.queue_remaining)
}

/// `GET /system_stats`.
pub(super) async fn system_stats(address: SocketAddr) -> Result<Value, ClientError> {
    let bytes = ask(address, Method::GET, "/system_stats", String::new()).await?;
    serde_json::from_slice(&bytes).map_err(|_| ClientError::Answer)
}

async fn ask(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: String,
) -> Result<Bytes, ClientError> {
    let exchange = send(address, method, path, body, MAX_ANSWER);
    let (status, bytes) = timeout(TIME_LIMIT, exchange)
        .await
        .map_err(|_| ClientError::Silent)??;
    if status.is_success() {
        Ok(bytes)
    } else {
        Err(ClientError::Refused(status))
    }
}

async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: String,
    max_answer: usize,
) -> Result<(StatusCode, Bytes), ClientError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, address.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), max_answer)
            .collect()
            .await;
        Ok((status, body.map_err(|_| ClientError::Answer)?.to_bytes()))
    };
    tokio::pin!(connection);
    tokio::pin!(exchange);
    tokio::select! {
        result = &mut exchange => result,
        closed = &mut connection => match closed {
            Err(error) => Err(ClientError::Exchange(error)),
            // The answer may have arrived whole with the end of the connection.
            Ok(()) => exchange.await,
        },
    }
}
