//! What an engine tells of its queue by itself, over a socket of our own.

use super::client::ClientError;
use crate::comfyui::event::{self, Event};
use futures_util::StreamExt as _;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Time to open the socket.
const TIME_LIMIT: Duration = Duration::from_secs(10);

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
                && event::read(text.as_bytes()) == Some(Event::Status)
                && let Some(count) = event::remaining(text.as_bytes())
            {
                return Ok(count);
            }
        }
        Err(ClientError::Silent)
    }
}
