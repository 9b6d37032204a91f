//! What an engine tells of its queue by itself, over a socket of our own.

use super::client::ClientError;
use futures_util::StreamExt as _;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Time to open the socket.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Longer texts are not looked at, bytes; a `status` has about a hundred.
const MAX_STATUS: usize = 64 * 1024;

/// An engine's events, of which only the count of its jobs is read.
#[derive(Debug)]
pub(crate) struct Events(WebSocketStream<TcpStream>);

impl Events {
    /// Opens a socket of our own; no job names it, so only what is told to all arrives.
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, ClientError> {
        let open = async {
            let stream = TcpStream::connect(address).await?;
            let request = format!("ws://{address}/ws?clientId={}", uuid::Uuid::new_v4());
            let (socket, _) = client_async(request, stream).await.map_err(Box::new)?;
            Ok(Self(socket))
        };
        timeout(TIME_LIMIT, open)
            .await
            .map_err(|_| ClientError::Silent)?
    }

    /// Waits for the next count of running and waiting jobs.
    pub(crate) async fn next_count(&mut self) -> Result<u32, ClientError> {
        while let Some(message) = self.0.next().await {
            let message = message.map_err(Box::new)?;
            if let Message::Text(text) = message
                && text.len() < MAX_STATUS
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
