//! Requests of our own to an engine.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use std::fmt;
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
/// Time for the rest of an answer, once its head is there.
const REST_LIMIT: Duration = Duration::from_secs(30);
/// Largest entry of the history that is read, bytes: some nodes put whole texts into it.
const MAX_ENTRY: usize = 64 * 1024 * 1024;
/// Largest queue that is read, bytes: it holds whole prompts.
const MAX_QUEUE: usize = 128 * 1024 * 1024;
/// Largest list of replaced nodes that is read, bytes.
const MAX_REPLACEMENTS: usize = 4 * 1024 * 1024;
/// Largest row of an asset that is read, bytes: models bring their training data along.
const MAX_ASSET_ROW: usize = 16 * 1024 * 1024;
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

/// What became of a prompt that was sent to an engine.
#[derive(Debug)]
pub(crate) enum Posted {
    /// It is in the engine's queue. The value holds ComfyUI's `node_errors`: faults of nodes that are not
    /// run.
    Taken(Value),
    /// The engine does not take it: its status and its reasons in ComfyUI's form.
    Refused(StatusCode, Value),
    /// The engine was not reached, so that it knows nothing of it.
    NotConnected(ClientError),
    /// There was no answer that could be read: the engine may have it.
    Unknown(ClientError),
}

/// `POST /prompt`.
pub(crate) async fn post_prompt(address: SocketAddr, body: String) -> Posted {
    let question = Question {
        time_limit: PROMPT_TIME_LIMIT,
        max_answer: MAX_ENTRY,
        ..Question::post("/prompt", body)
    };
    match question.ask(address).await {
        Ok((status, bytes)) => read_verdict(status, &bytes),
        Err(error @ ClientError::Connect(_)) => Posted::NotConnected(error),
        Err(error) => Posted::Unknown(error),
    }
}

/// Reads a whole answer to `POST /prompt`.
fn read_verdict(status: StatusCode, bytes: &[u8]) -> Posted {
    let answer: Option<Value> = serde_json::from_slice(bytes).ok();
    match answer {
        Some(mut answer) if status.is_success() && answer["prompt_id"].is_string() => {
            Posted::Taken(match answer["node_errors"].take() {
                Value::Null => json!({}),
                errors => errors,
            })
        }
        _ if status.is_success() => Posted::Unknown(ClientError::Answer),
        // These are the words of something between us and ComfyUI.
        _ if matches!(
            status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ) =>
        {
            Posted::Unknown(ClientError::Refused(status))
        }
        Some(answer) if answer["error"].is_object() => Posted::Refused(status, answer),
        // ComfyUI's web server answers in plain text when its own code breaks.
        _ => Posted::Refused(
            status,
            json!({
                "error": {
                    "type": "engine_error",
                    "message": "ComfyUI could not read this job.",
                    "details": status.to_string(),
                    "extra_info": {},
                },
                "node_errors": {},
            }),
        ),
    }
}

/// Returns true if a job runs or waits in an engine, from `GET /queue`.
pub(crate) async fn has_job(address: SocketAddr, id: &str) -> Result<bool, ClientError> {
    #[derive(Deserialize)]
    struct Queue {
        queue_running: Vec<QueuedId>,
        queue_pending: Vec<QueuedId>,
    }
    let question = Question {
        max_answer: MAX_QUEUE,
        ..Question::get("/queue")
    };
    let bytes = question.answer(address).await?;
    let queue: Queue = serde_json::from_slice(&bytes).map_err(|_| ClientError::Answer)?;
    let mut items = queue.queue_running.iter().chain(&queue.queue_pending);
    Ok(items.any(|item| item.0 == id))
}

/// The id in ComfyUI's tuple of a queued job: the second of five or more.
struct QueuedId(String);

impl<'text> Deserialize<'text> for QueuedId {
    fn deserialize<D: Deserializer<'text>>(value: D) -> Result<Self, D::Error> {
        struct Tuple;
        impl<'text> Visitor<'text> for Tuple {
            type Value = QueuedId;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a job's number, its id and more")
            }

            fn visit_seq<A: SeqAccess<'text>>(self, mut items: A) -> Result<QueuedId, A::Error> {
                items.next_element::<IgnoredAny>()?;
                let id = items.next_element::<String>()?;
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(QueuedId(id.unwrap_or_default()))
            }
        }
        value.deserialize_seq(Tuple)
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

/// `GET /node_replacements`; `None`: this version replaces no nodes.
pub(super) async fn node_replacements(address: SocketAddr) -> Result<Option<Bytes>, ClientError> {
    let question = Question {
        max_answer: MAX_REPLACEMENTS,
        ..Question::get("/node_replacements")
    };
    match question.answer(address).await {
        Ok(text) => Ok(Some(text)),
        Err(ClientError::Refused(StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// `GET /api/assets/{id}`: the row of an asset.
pub(crate) async fn asset_row(address: SocketAddr, id: &str) -> Result<Bytes, ClientError> {
    let question = Question {
        max_answer: MAX_ASSET_ROW,
        ..Question::get(&format!("/api/assets/{id}"))
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
            let body = Limited::new(response.into_body(), self.max_answer).collect();
            let body = timeout(REST_LIMIT, body)
                .await
                .map_err(|_| ClientError::Silent)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_answer_of_comfyui_says_what_became_of_a_prompt() {
        let kind = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            match read_verdict(status, body.as_bytes()) {
                Posted::Taken(errors) => format!("taken {errors}"),
                Posted::Refused(status, body) => {
                    format!("refused {} {}", status.as_u16(), body["error"]["type"])
                }
                Posted::NotConnected(_) => "not connected".to_owned(),
                Posted::Unknown(_) => "unknown".to_owned(),
            }
        };
        let table = [
            (
                200,
                r#"{"prompt_id": "a", "number": 1, "node_errors": {}}"#,
                "taken {}",
            ),
            (
                200,
                r#"{"prompt_id": "a", "number": 1, "node_errors": {"3": 1}}"#,
                r#"taken {"3":1}"#,
            ),
            (200, r#"{"prompt_id": "a", "nu"#, "unknown"),
            (200, "<html>", "unknown"),
            (200, "{}", "unknown"),
            (
                400,
                r#"{"error": {"type": "no_prompt"}, "node_errors": []}"#,
                r#"refused 400 "no_prompt""#,
            ),
            (
                500,
                "500 Internal Server Error",
                r#"refused 500 "engine_error""#,
            ),
            (400, r#"{"error": "text"}"#, r#"refused 400 "engine_error""#),
            (502, "Bad Gateway", "unknown"),
            (504, "", "unknown"),
        ];
        for (status, body, expected) in table {
            assert_eq!(kind(status, body), expected, "{status} {body}");
        }
    }
}
