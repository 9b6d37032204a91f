//! Requests of our own to an engine.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
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

/// Why a request of ours failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
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
pub(super) async fn jobs(address: SocketAddr) -> Result<u32, ClientError> {
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
    timeout(TIME_LIMIT, exchange(address, method, path, body))
        .await
        .map_err(|_| ClientError::Silent)?
}

async fn exchange(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: String,
) -> Result<Bytes, ClientError> {
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
        if !response.status().is_success() {
            return Err(ClientError::Refused(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await;
        Ok(body.map_err(|_| ClientError::Answer)?.to_bytes())
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
