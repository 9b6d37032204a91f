//! Requests of our own to an engine.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Time for the whole exchange.
const TIME_LIMIT: Duration = Duration::from_secs(10);

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
}

/// `POST /free`.
pub(super) async fn free(
    address: SocketAddr,
    unload_models: bool,
    free_memory: bool,
) -> Result<(), ClientError> {
    let body = json!({ "unload_models": unload_models, "free_memory": free_memory }).to_string();
    timeout(TIME_LIMIT, post(address, "/free", body))
        .await
        .map_err(|_| ClientError::Silent)?
}

async fn post(address: SocketAddr, path: &str, body: String) -> Result<(), ClientError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, address.to_string())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(ClientError::Refused(response.status()))
        }
    };
    tokio::select! {
        result = exchange => result,
        closed = connection => Err(closed.err().map_or(ClientError::Silent, ClientError::Exchange)),
    }
}
