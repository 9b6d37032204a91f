//! The listening side: judges each request, adds the credential, and streams both ways.

use super::answer::refusal;
use super::guard::{self, Names};
use super::headers;
use super::token::Token;
use super::trust::RefusedReason;
use super::upstream::{Upstream, UpstreamError};
use crate::http::{Unflushed, chain};
use crate::proxy::{CONNECTION_BUFFER, IdleBody, StallGuard};
use axum::body::Body;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at once, those that have become WebSockets included.
const MAX_CONNECTIONS: usize = 256;
/// A request's header, the rest between two requests included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence of the gateway, and of a program that uploads; the gateway's own towards ComfyUI
/// ends first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(16 * 60);
/// A program that takes nothing of what is sent to it.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Requests that are under way when the door closes.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for both sides to finish an upgrade.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure to accept, e.g. too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Dead peers are found after about this time.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Header lines of one request.
const MAX_HEADERS: usize = 128;
/// Buffer of each direction of a WebSocket, bytes.
const TUNNEL_BUFFER: usize = 128 * 1024;

/// The open door.
pub(super) struct Door {
    upstream: Arc<Upstream>,
    token: Token,
    names: Names,
    tunnels: TaskTracker,
    stopping: CancellationToken,
    /// The gateway refused the token, and that was told.
    is_refused: AtomicBool,
    /// The gateway does not answer, and that was told.
    is_away: AtomicBool,
}

impl Door {
    pub(super) fn new(upstream: Arc<Upstream>, token: Token, address: SocketAddr) -> Self {
        Self {
            upstream,
            token,
            names: Names::of(address),
            tunnels: TaskTracker::new(),
            stopping: CancellationToken::new(),
            is_refused: AtomicBool::new(false),
            is_away: AtomicBool::new(false),
        }
    }

    /// Serves until `stop`, gives requests under way a moment, and ends the rest.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener, stop: impl Future) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = TaskTracker::new();
        let mut stop = pin!(stop);
        loop {
            let accepted = tokio::select! {
                _ = &mut stop => break,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        connections.spawn(Arc::clone(&self).connection(stream, Arc::new(place)));
                    }
                    Err(_) => tracing::warn!("too many connections; one was dropped"),
                },
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        self.stopping.cancel();
        connections.close();
        self.tunnels.close();
        let ended = async { tokio::join!(connections.wait(), self.tunnels.wait()) };
        if timeout(DRAIN_TIMEOUT, ended).await.is_err() {
            tracing::info!("some requests were broken off");
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, place: Arc<OwnedSemaphorePermit>) {
        let _ = stream.set_nodelay(true);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&keepalive);
        let service = service_fn(|request| {
            let (door, place) = (Arc::clone(&self), Arc::clone(&place));
            async move { Ok::<_, Infallible>(door.answer(request, place).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_buf_size(CONNECTION_BUFFER)
            .max_headers(MAX_HEADERS)
            .half_close(false)
            .serve_connection(
                TokioIo::new(StallGuard::new(
                    stream,
                    WRITE_STALL_TIMEOUT,
                    Unflushed::default(),
                )),
                service,
            )
            .with_upgrades();
        let mut connection = pin!(connection);
        let served = tokio::select! {
            served = &mut connection => served,
            () = self.stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection of a program ended");
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        place: Arc<OwnedSemaphorePermit>,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        if let Err(refused) = guard::judge(self.names, &head) {
            let (status, kind, message) = refused.answer();
            tracing::debug!(kind, "a request was refused");
            return refusal(status, kind, message);
        }
        match self.pass(Request::from_parts(head, body), place).await {
            Ok(response) => response,
            Err(error) => {
                if !self.is_away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(error = %chain(&error), "no answer from the gateway");
                }
                unreachable(self.upstream.target(), &error)
            }
        }
    }

    async fn pass(
        &self,
        mut request: Request<Incoming>,
        place: Arc<OwnedSemaphorePermit>,
    ) -> Result<Response<Body>, UpstreamError> {
        let target = self.upstream.target();
        let is_websocket = headers::to_gateway(request.headers_mut(), target, &self.token);
        let program = is_websocket.then(|| hyper::upgrade::on(&mut request));
        if is_websocket {
            headers::add_upgrade(request.headers_mut());
        }
        *request.uri_mut() = below(&target.prefix, request.uri())?;
        *request.version_mut() = Version::HTTP_11;
        request.extensions_mut().clear();
        let request = request.map(|body| {
            use http_body::Body as _;
            if body.is_end_stream() {
                Body::empty()
            } else {
                Body::new(IdleBody::new(body, IDLE_TIMEOUT))
            }
        });
        let mut response = timeout(IDLE_TIMEOUT, self.upstream.send(request))
            .await
            .map_err(|_| UpstreamError::Silent)??;
        self.note(response.status());
        headers::to_program(response.headers_mut());
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(program) = program else {
                return Err(UpstreamError::Silent);
            };
            let gateway = hyper::upgrade::on(&mut response);
            headers::add_upgrade(response.headers_mut());
            let ended = self.stopping.clone();
            self.tunnels.spawn(async move {
                let _place = place;
                tokio::select! {
                    () = tunnel(program, gateway) => {}
                    () = ended.cancelled() => {}
                }
            });
            return Ok(response.map(|_| Body::empty()));
        }
        Ok(response.map(|body| Body::new(IdleBody::new(body, IDLE_TIMEOUT))))
    }

    /// Tells once when the gateway begins to refuse the token, and once when it is there again.
    fn note(&self, status: StatusCode) {
        if self.is_away.swap(false, Ordering::Relaxed) {
            tracing::info!("the gateway answers again");
        }
        let is_refused = status == StatusCode::UNAUTHORIZED;
        if is_refused && !self.is_refused.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                "the gateway does not accept the token any more: it has ended or was taken back; make a new one and start again"
            );
        } else if !is_refused {
            self.is_refused.store(false, Ordering::Relaxed);
        }
    }
}

async fn tunnel(program: OnUpgrade, gateway: OnUpgrade) {
    let both = timeout(UPGRADE_TIMEOUT, async { tokio::join!(program, gateway) });
    let Ok((Ok(program), Ok(gateway))) = both.await else {
        tracing::debug!("an upgrade was not finished");
        return;
    };
    let (mut program, mut gateway) = (TokioIo::new(program), TokioIo::new(gateway));
    let copied =
        copy_bidirectional_with_sizes(&mut program, &mut gateway, TUNNEL_BUFFER, TUNNEL_BUFFER);
    if let Err(error) = copied.await {
        tracing::debug!(%error, "a tunnel broke");
    }
}

/// The address of a request below the gateway's path.
fn below(prefix: &str, uri: &Uri) -> Result<Uri, UpstreamError> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    format!("{prefix}{path}")
        .parse::<PathAndQuery>()
        .map(Uri::from)
        .map_err(|_| super::target::TargetError::Address.into())
}

fn unreachable(target: &super::target::Target, error: &UpstreamError) -> Response<Body> {
    let message = match error {
        UpstreamError::Certificate(refused) => match &refused.reason {
            RefusedReason::NotValid(fault) => {
                format!("The certificate of {target} is not valid any more: {fault}.")
            }
            RefusedReason::Unknown | RefusedReason::OtherFingerprint => format!(
                "{target} shows another certificate than before, so nothing was sent to it. sentineld connect tells more when it is started anew."
            ),
        },
        _ => format!("Sentinel at {target} does not answer: {}.", chain(error)),
    };
    refusal(StatusCode::BAD_GATEWAY, "sentinel_unreachable", &message)
}
