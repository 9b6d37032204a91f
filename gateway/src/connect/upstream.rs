//! The way to the gateway: connections that are kept open between requests.

use super::target::{Target, TargetError};
use super::trust::{Refused, Trust, Verifier};
use crate::proxy::CONNECTION_BUFFER;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

/// Time to reach the gateway: name, connection, TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Idle connections that are kept.
const MAX_IDLE: usize = 32;
/// An idle connection older than this is not used: the gateway closes its own after 30 s.
const MAX_IDLE_TIME: Duration = Duration::from_secs(20);
/// A gateway that is gone without a word is found after about this time.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// Why the gateway gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// There is no connection.
    #[error("no connection to Sentinel")]
    Connect(#[source] io::Error),
    /// There is no connection in time.
    #[error("Sentinel did not accept the connection in time")]
    ConnectTimeout,
    /// Its certificate is not to be trusted.
    #[error("the certificate of Sentinel is not the expected one")]
    Certificate(Refused),
    /// There is no encrypted connection, for another reason.
    #[error("no encrypted connection to Sentinel")]
    Secure(#[source] io::Error),
    /// The exchange was broken off.
    #[error("Sentinel broke the exchange off")]
    Exchange(#[source] hyper::Error),
    /// It took too long.
    #[error("Sentinel was silent for too long")]
    Silent,
    /// The host cannot have a certificate.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// TLS cannot be used here.
    #[error("encryption cannot be used here")]
    Tls(#[source] rustls::Error),
}

/// Connections to one gateway.
pub(super) struct Upstream {
    target: Target,
    tls: Option<Tls>,
    /// The oldest first.
    idle: Mutex<VecDeque<Idle>>,
    tasks: TaskTracker,
}

struct Tls {
    connector: TlsConnector,
    verifier: Arc<Verifier>,
    name: ServerName<'static>,
}

struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

impl Upstream {
    /// A way to this gateway; nothing is connected yet.
    pub(super) fn new(target: Target, trust: Trust) -> Result<Self, UpstreamError> {
        let tls = if target.is_secure() {
            let (config, verifier) = Verifier::config(trust).map_err(UpstreamError::Tls)?;
            Some(Tls {
                connector: TlsConnector::from(config),
                verifier,
                name: target.server_name()?,
            })
        } else {
            None
        };
        Ok(Self {
            target,
            tls,
            idle: Mutex::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// The gateway.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Sends a request on an idle connection, else on a new one. A request that an idle connection
    /// did not take because it was just closing is sent once more on a new one.
    pub(super) async fn send(
        self: &Arc<Self>,
        mut request: Request<Body>,
    ) -> Result<Response<LeasedBody>, UpstreamError> {
        while let Some(mut sender) = self.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(self.lease(sender, response)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(UpstreamError::Exchange(error.into_error())),
                },
            }
        }
        let mut sender = timeout(CONNECT_TIMEOUT, self.connect())
            .await
            .map_err(|_| UpstreamError::ConnectTimeout)??;
        let response = sender
            .send_request(request)
            .await
            .map_err(UpstreamError::Exchange)?;
        Ok(self.lease(sender, response))
    }

    async fn connect(&self) -> Result<SendRequest<Body>, UpstreamError> {
        let stream = TcpStream::connect((self.target.host.as_str(), self.target.port))
            .await
            .map_err(UpstreamError::Connect)?;
        let _ = stream.set_nodelay(true);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let Some(tls) = &self.tls else {
            return self.speak_http(stream).await;
        };
        let connected = tls.connector.connect(tls.name.clone(), stream).await;
        match connected {
            Ok(stream) => self.speak_http(stream).await,
            Err(error) => Err(match tls.verifier.take_refused() {
                Some(refused) => UpstreamError::Certificate(refused),
                None => UpstreamError::Secure(error),
            }),
        }
    }

    async fn speak_http<Stream>(&self, stream: Stream) -> Result<SendRequest<Body>, UpstreamError>
    where
        Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(CONNECTION_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(UpstreamError::Exchange)?;
        // Ends with the connection: when the sender is dropped or the gateway closes.
        self.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "a connection to the gateway ended");
            }
        });
        Ok(sender)
    }

    /// The connection that has rested for the shortest time.
    fn take(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock();
        let now = Instant::now();
        while let Some(connection) = idle.pop_back() {
            if !connection.sender.is_closed()
                && now.duration_since(connection.since) < MAX_IDLE_TIME
            {
                return Some(connection.sender);
            }
        }
        None
    }

    fn put(&self, sender: SendRequest<Body>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock();
        if idle.len() >= MAX_IDLE {
            idle.pop_front();
        }
        let since = Instant::now();
        idle.push_back(Idle { sender, since });
    }

    fn lease(
        self: &Arc<Self>,
        sender: SendRequest<Body>,
        response: Response<Incoming>,
    ) -> Response<LeasedBody> {
        response.map(|incoming| {
            let mut body = LeasedBody {
                incoming,
                lease: Some((Arc::clone(self), sender)),
            };
            body.return_if_ended();
            body
        })
    }
}

/// Body of an answer. When it has been read to its end the connection is kept; dropped before, the
/// connection is closed.
pub(super) struct LeasedBody {
    incoming: Incoming,
    lease: Option<(Arc<Upstream>, SendRequest<Body>)>,
}

impl LeasedBody {
    fn return_if_ended(&mut self) {
        use http_body::Body as _;
        if self.incoming.is_end_stream()
            && let Some((upstream, sender)) = self.lease.take()
        {
            upstream.put(sender);
        }
    }
}

impl http_body::Body for LeasedBody {
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
