//! A WebSocket through the gateway.

use anyhow::{Context as _, Result, bail};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

const PATIENCE: Duration = Duration::from_secs(20);

/// A connected WebSocket.
#[derive(Debug)]
pub struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// Connects with these headers.
    pub async fn open(port: u16, target: &str, headers: &[(&str, &str)]) -> Result<Self> {
        match Self::attempt(port, target, headers).await? {
            Ok(socket) => Ok(socket),
            Err(status) => bail!("the socket was refused: {status}"),
        }
    }

    /// Connects, or returns the status of the refusal.
    pub async fn attempt(
        port: u16,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Result<Self, u16>> {
        Self::attempt_as(port, &format!("localhost:{port}"), target, headers).await
    }

    /// Connects to this host and port, which a program has called so.
    pub async fn open_as(
        port: u16,
        host: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Self> {
        match Self::attempt_as(port, host, target, headers).await? {
            Ok(socket) => Ok(socket),
            Err(status) => bail!("the socket was refused: {status}"),
        }
    }

    /// The same, or returns the status of the refusal.
    pub async fn attempt_as(
        port: u16,
        host: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Result<Self, u16>> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let mut request = format!("ws://{host}{target}").into_client_request()?;
        for (name, value) in headers {
            request
                .headers_mut()
                .append(name.parse::<HeaderName>()?, HeaderValue::from_str(value)?);
        }
        match timeout(PATIENCE, client_async(request, stream)).await? {
            Ok((socket, _)) => Ok(Ok(Self(socket))),
            Err(Error::Http(response)) => Ok(Err(response.status().as_u16())),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a message.
    pub async fn send(&mut self, message: Message) -> Result<()> {
        Ok(timeout(PATIENCE, self.0.send(message)).await??)
    }

    /// The next text or binary message.
    pub async fn next(&mut self) -> Result<Message> {
        loop {
            let message = timeout(PATIENCE, self.0.next())
                .await?
                .context("the socket ended")??;
            if matches!(message, Message::Text(_) | Message::Binary(_)) {
                return Ok(message);
            }
        }
    }

    /// The next message that is JSON.
    pub async fn next_json(&mut self) -> Result<Value> {
        loop {
            if let Message::Text(text) = self.next().await? {
                return Ok(serde_json::from_str(&text)?);
            }
        }
    }
}

/// Whether the other side ends the socket in time.
pub async fn ended_within(mut socket: Socket, patience: Duration) -> bool {
    let end = async { while let Some(Ok(_)) = socket.0.next().await {} };
    timeout(patience, end).await.is_ok()
}
