//! Connections to engines, kept open between requests. Each worker thread has a pool of its own, so
//! that a request stays on one thread all its way.

use super::ProxyError;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

/// Time to reach an engine on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which the system asks whether an engine is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Idle connections kept for one engine.
const MAX_IDLE: usize = 64;
/// An idle connection older than this is not used: ComfyUI closes its own after 75 s.
const MAX_IDLE_TIME: Duration = Duration::from_secs(60);
/// Largest read and write buffer of a connection, bytes: a stalled download holds no more.
pub(crate) const CONNECTION_BUFFER: usize = 256 * 1024;

#[derive(Debug)]
struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// Connections to engines by their address.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    tasks: TaskTracker,
}

impl Pool {
    /// Sends a request on an idle connection, else on a new one. A request that an idle connection
    /// did not take because it was just closing is sent once more on a new one.
    pub(crate) async fn send(
        self: &Arc<Self>,
        address: SocketAddr,
        mut request: Request<Body>,
    ) -> Result<Response<PooledBody>, ProxyError> {
        while let Some(mut sender) = self.take(address) {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.lease(address, sender, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(ProxyError::Upstream(error.into_error())),
                },
            }
        }
        let mut sender = self.connect(address).await?;
        let response = sender
            .send_request(request)
            .await
            .map_err(ProxyError::Upstream)?;
        Ok(self.lease(address, sender, response))
    }

    async fn connect(&self, address: SocketAddr) -> Result<SendRequest<Body>, ProxyError> {
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
        let stream = stream
            .map_err(|_| ProxyError::ConnectTimeout)?
            .map_err(ProxyError::Connect)?;
        let _ = stream.set_nodelay(true);
        // Silent exchanges may last for hours; an engine on another machine that is gone is noticed.
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(CONNECTION_BUFFER)
            .preserve_header_case(false)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(ProxyError::Upstream)?;
        // Ends with the connection: when the sender is dropped or the engine closes.
        self.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to an engine ended");
            }
        });
        Ok(sender)
    }

    fn take(&self, address: SocketAddr) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        let connections = idle.get_mut(&address)?;
        let now = Instant::now();
        while let Some(connection) = connections.pop() {
            if !connection.sender.is_closed()
                && now.duration_since(connection.since) < MAX_IDLE_TIME
            {
                return Some(connection.sender);
            }
        }
        idle.remove(&address);
        None
    }

    fn put(&self, address: SocketAddr, sender: SendRequest<Body>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        let connections = idle.entry(address).or_default();
        if connections.len() < MAX_IDLE {
            connections.push(Idle {
                sender,
                since: Instant::now(),
            });
        }
    }

    /// Closes connections that have rested too long, and those of engines that are gone.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        self.idle.lock().retain(|_, connections| {
            connections.retain(|connection| {
                !connection.sender.is_closed()
                    && now.duration_since(connection.since) < MAX_IDLE_TIME
            });
            !connections.is_empty()
        });
    }

    fn lease(
        self: &Arc<Self>,
        address: SocketAddr,
        sender: SendRequest<Body>,
        response: Response<Incoming>,
    ) -> Response<PooledBody> {
        let lease = Lease {
            pool: Arc::clone(self),
            address,
            sender,
        };
        response.map(|incoming| {
            let mut body = PooledBody {
                incoming,
                lease: Some(lease),
            };
            body.return_if_ended();
            body
        })
    }
}

#[derive(Debug)]
struct Lease {
    pool: Arc<Pool>,
    address: SocketAddr,
    sender: SendRequest<Body>,
}

/// Body of an engine's answer. When it has been read to its end the connection goes back to the
/// pool; dropped before, the connection is closed.
#[derive(Debug)]
pub(crate) struct PooledBody {
    incoming: Incoming,
    lease: Option<Lease>,
}

impl PooledBody {
    fn return_if_ended(&mut self) {
        use http_body::Body as _;
        if self.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.pool.put(lease.address, lease.sender);
        }
    }
}

impl http_body::Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Err(_))) => self.lease = None,
            Poll::Ready(_) => self.return_if_ended(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
