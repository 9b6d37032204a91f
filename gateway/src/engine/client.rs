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

/// Time for a usual exchange.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Largest answer that is read, bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Time for an engine to check a prompt: custom nodes may load models for it.
const PROMPT_TIME_LIMIT: Duration = Duration::from_secs(300);
/// Largest entry of the history that is read, bytes: some nodes put whole texts into it.
const MAX_ENTRY: usize = 64 * 1024 * 1024;
/// Largest list of nodes that is read, bytes.
const MAX_OBJECT_INFO: usize = 128 * 1024 * 1024;

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
    let question = Question {
        time_limit: PROMPT_TIME_LIMIT,
        max_answer: MAX_ENTRY,
        ..Question::post("/prompt", body)
    };
    let (status, bytes) = question.ask(address).await?;
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
    let question = Question {
        max_answer: MAX_ENTRY,
        ..Question::get(&format!("/history/{id}"))
    };
    question.answer(address).await
}

/// `POST /interrupt` of one job.
pub(crate) async fn interrupt(address: SocketAddr, id: &str) -> Result<(), ClientError> {
    order(address, "/interrupt", &json!({ "prompt_id": id })).await
}

/// `POST /history`: forgets one job.
pub(crate) async fn forget(address: SocketAddr, id: &str) -> Result<(), ClientError> {
    order(address, "/history", &json!({ "delete": [id] })).await
}

/// `POST /queue`: takes one job out, if it does not run yet.
pub(crate) async fn unqueue(address: SocketAddr, id: &str) -> Result<(), ClientError> {
    order(address, "/queue", &json!({ "delete": [id] })).await
}

/// `POST /free`.
pub(super) async fn free(
    address: SocketAddr,
    unload_models: bool,
    free_memory: bool,
) -> Result<(), ClientError> {
    let wish = json!({ "unload_models": unload_models, "free_memory": free_memory });
    order(address, "/free", &wish).await
}

/// `GET /object_info`.
pub(super) async fn object_info(address: SocketAddr) -> Result<Bytes, ClientError> {
    let question = Question {
        time_limit: PROMPT_TIME_LIMIT,
        max_answer: MAX_OBJECT_INFO,
        ..Question::get("/object_info")
    };
    question.answer(address).await
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
    let bytes = Question::get("/prompt").answer(address).await?;
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| ClientError::Answer)?;
    Ok(answer.exec_info.queue_remaining)
}

/// `GET /system_stats`.
pub(super) async fn system_stats(address: SocketAddr) -> Result<Value, ClientError> {
    let bytes = Question::get("/system_stats").answer(address).await?;
    serde_json::from_slice(&bytes).map_err(|_| ClientError::Answer)
}

/// A request whose answer tells nothing but whether it was heard.
async fn order(address: SocketAddr, path: &str, body: &Value) -> Result<(), ClientError> {
    let question = Question::post(path, body.to_string());
    question.answer(address).await.map(|_| ())
}

/// One request and how much is waited for and read of its answer.
struct Question {
    method: Method,
    path: String,
    body: String,
    /// For the whole exchange.
    time_limit: Duration,
    /// Bytes.
    max_answer: usize,
}

impl Question {
    fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path.to_owned(),
            body: String::new(),
            time_limit: TIME_LIMIT,
            max_answer: MAX_ANSWER,
        }
    }

    fn post(path: &str, body: String) -> Self {
        Self {
            method: Method::POST,
            body,
            ..Self::get(path)
        }
    }

    /// The body of a successful answer.
    async fn answer(self, address: SocketAddr) -> Result<Bytes, ClientError> {
        let (status, bytes) = self.ask(address).await?;
        if status.is_success() {
            Ok(bytes)
        } else {
            Err(ClientError::Refused(status))
        }
    }

    async fn ask(self, address: SocketAddr) -> Result<(StatusCode, Bytes), ClientError> {
        timeout(self.time_limit, self.exchange(address))
            .await
            .map_err(|_| ClientError::Silent)?
    }

    async fn exchange(self, address: SocketAddr) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(HOST, address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(self.body)))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), self.max_answer)
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
}
