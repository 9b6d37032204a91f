//! Accepts connections and hands each to one of a few worker threads, where it stays with all its
//! requests and their connections to engines: nothing on the way of a request crosses threads.

use super::connections::Place;
use super::context::WorkerContext;
use super::door::Door;
use super::refused_connections::{PAUSE, Refusals};
use super::written::Unflushed;
use crate::access::ClientIp;
use crate::app::App;
use crate::proxy::{CONNECTION_BUFFER, StallGuard};
use crate::server::{BindFault, PortTaken, bind_all, is_held_beside};
use axum::Router;
use futures_util::FutureExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// First byte and TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A request's header, the rest between two requests included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes nothing of what is sent to it.
const WRITE_STALL_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Requests that are under way when the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks for connections to engines that rested too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(15);
/// After a failure to accept, e.g. too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that wait for a worker thread.
const HAND_OVER: usize = 1024;
/// Workers at most: a few cores move more than any network brings.
const MAX_WORKERS: usize = 4;
/// Dead peers are found after about this time.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Header lines of one request.
const MAX_HEADERS: usize = 128;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another program holds the port.
    #[error("{0}")]
    Taken(PortTaken),
    /// The address is not ours.
    #[error("cannot listen on {address}")]
    Bind {
        /// Address asked for.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a worker thread")]
    Thread(#[source] io::Error),
}

impl ServerError {
    fn of(fault: BindFault, wanted: &[SocketAddr]) -> Self {
        match fault {
            BindFault::Taken(address) => Self::Taken(PortTaken::look(address, wanted)),
            BindFault::Other(address, source) => Self::Bind { address, source },
        }
    }
}

/// Whether a port is taken, and that by listeners of ours that are about to close.
fn is_taken_by(fault: &BindFault, ours: &[Listening]) -> bool {
    match fault {
        BindFault::Taken(address) => ours
            .iter()
            .any(|listening| listening.address.port() == address.port()),
        BindFault::Other(..) => false,
    }
}

#[derive(Debug)]
struct Accepted {
    stream: StdTcpStream,
    peer: SocketAddr,
    place: Place,
}

/// The listening server. What it listens on can change while it runs; connections stay.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    listeners: Vec<Listening>,
    senders: Vec<mpsc::Sender<Accepted>>,
    stopping: CancellationToken,
    workers: Vec<JoinHandle<()>>,
}

/// One address that is listened on.
#[derive(Debug)]
struct Listening {
    address: SocketAddr,
    stopping: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Listens on all `addresses` or on none; who connects waits for [`Server::start`]. With port 0
    /// the first address picks a port and the others follow it.
    pub fn listen(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, ServerError> {
        if let Some(taken) = is_held_beside(addresses) {
            return Err(ServerError::Taken(taken));
        }
        bind_all(addresses, false).map_err(|fault| ServerError::of(fault, addresses))
    }

    /// Serves who connects to these listeners until [`Server::stop`].
    pub fn start(
        app: &Arc<App>,
        router: &Router,
        listeners: Vec<TcpListener>,
    ) -> Result<Self, ServerError> {
        let stopping = CancellationToken::new();
        let count = std::thread::available_parallelism()
            .map_or(1, std::num::NonZero::get)
            .min(MAX_WORKERS);
        let mut workers = Vec::new();
        let mut senders = Vec::new();
        for number in 0..count {
            let (sender, received) = mpsc::channel(HAND_OVER);
            let worker = Worker {
                app: Arc::clone(app),
                router: router.clone(),
                stopping: stopping.clone(),
                context: Arc::new(WorkerContext::default()),
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker.run(received));
            workers.push(thread.map_err(ServerError::Thread)?);
            senders.push(sender);
        }
        let mut server = Self {
            app: Arc::clone(app),
            listeners: Vec::new(),
            senders,
            stopping,
            workers,
        };
        server.accept_on(listeners);
        Ok(server)
    }

    /// Addresses it listens on.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .map(|listening| listening.address)
            .collect()
    }

    /// Listens on other addresses; port 0 keeps the port there is. New ones are bound before old
    /// ones close, or, where the system does not let both stand side by side, right after. When a
    /// new one cannot be bound all is as it was before.
    pub async fn listen_on(&mut self, addresses: &[SocketAddr]) -> Result<(), ServerError> {
        let port = self
            .listeners
            .first()
            .map_or(0, |first| first.address.port());
        let wanted: Vec<SocketAddr> = addresses
            .iter()
            .map(|address| match address.port() {
                0 => SocketAddr::new(address.ip(), port),
                _ => *address,
            })
            .collect();
        let current = self.addresses();
        let added: Vec<SocketAddr> = wanted
            .iter()
            .filter(|address| !current.contains(address))
            .copied()
            .collect();
        let (kept, removed): (Vec<_>, Vec<_>) = self
            .listeners
            .drain(..)
            .partition(|listening| wanted.contains(&listening.address));
        self.listeners = kept;
        match bind_all(&added, !self.listeners.is_empty()) {
            Ok(listeners) => {
                self.accept_on(listeners);
                close(removed).await;
                Ok(())
            }
            Err(fault) if is_taken_by(&fault, &removed) => {
                let old: Vec<_> = removed.iter().map(|listening| listening.address).collect();
                close(removed).await;
                match bind_all(&added, !self.listeners.is_empty()) {
                    Ok(listeners) => {
                        self.accept_on(listeners);
                        Ok(())
                    }
                    Err(fault) => {
                        let again = bind_all(&old, !self.listeners.is_empty())
                            .map_err(|fault| ServerError::of(fault, &old))?;
                        self.accept_on(again);
                        Err(ServerError::of(fault, &wanted))
                    }
                }
            }
            Err(fault) => {
                self.listeners.extend(removed);
                Err(ServerError::of(fault, &wanted))
            }
        }
    }

    fn accept_on(&mut self, listeners: Vec<TcpListener>) {
        for listener in listeners {
            let Ok(address) = listener.local_addr() else {
                continue;
            };
            let stopping = self.stopping.child_token();
            let acceptor = Acceptor {
                app: Arc::clone(&self.app),
                senders: self.senders.clone(),
                next: self.listeners.len(),
                stopping: stopping.clone(),
                refusals: Refusals::default(),
            };
            self.listeners.push(Listening {
                address,
                stopping,
                task: tokio::spawn(acceptor.run(listener)),
            });
        }
    }

    /// Stops accepting, gives requests under way a moment, and ends the rest.
    pub async fn stop(self) {
        self.stopping.cancel();
        close(self.listeners).await;
        drop(self.senders);
        let joined = tokio::task::spawn_blocking(move || {
            for worker in self.workers {
                let _ = worker.join();
            }
        });
        let _ = joined.await;
    }
}

/// Stops accepting and waits until the sockets are closed.
async fn close(listeners: Vec<Listening>) {
    for listening in &listeners {
        listening.stopping.cancel();
    }
    for listening in listeners {
        let _ = listening.task.await;
    }
}

struct Acceptor {
    app: Arc<App>,
    senders: Vec<mpsc::Sender<Accepted>>,
    next: usize,
    stopping: CancellationToken,
    refusals: Refusals,
}

impl Acceptor {
    async fn run(mut self, listener: TcpListener) {
        let mut report = interval(PAUSE);
        loop {
            let accepted = tokio::select! {
                () = self.stopping.cancelled() => {
                    // Who came before the end is not turned away.
                    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
                        self.hand_over(stream, peer);
                    }
                    return;
                }
                accepted = listener.accept() => accepted,
                _ = report.tick() => {
                    for (address, number) in self.refusals.due(Instant::now()) {
                        tell_refusals(address, number);
                    }
                    continue;
                }
            };
            match accepted {
                Ok((stream, peer)) => self.hand_over(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Drops what may not speak to us before a byte is read or TLS is begun.
    fn hand_over(&mut self, stream: TcpStream, peer: SocketAddr) {
        let address = ClientIp::new(peer.ip());
        let is_proxy = self.app.live.load().trusted_proxies.contains(address);
        if !is_proxy && !self.app.lists.judge_peer(address).lets_in() {
            tracing::debug!("a denied peer was dropped");
            return;
        }
        let Some(place) = self.app.connections.try_enter(address, is_proxy) else {
            self.refused(address);
            return;
        };
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE));
        let Ok(stream) = stream.into_std() else {
            return;
        };
        self.next = (self.next + 1) % self.senders.len();
        if self.senders[self.next]
            .try_send(Accepted {
                stream,
                peer,
                place,
            })
            .is_err()
        {
            self.refused(address);
        }
    }

    /// A line for each would let strangers fill the disk.
    fn refused(&mut self, address: ClientIp) {
        if let Some((address, number)) = self.refusals.note(address, Instant::now()) {
            tell_refusals(address, number);
        }
    }
}

fn tell_refusals(address: Option<ClientIp>, number: u64) {
    let address = address.map_or_else(|| "many".to_owned(), |address| address.to_string());
    tracing::warn!(
        address,
        number,
        "too many connections; new ones were dropped"
    );
}

struct Worker {
    app: Arc<App>,
    router: Router,
    stopping: CancellationToken,
    context: Arc<WorkerContext>,
}

impl Worker {
    fn run(self, received: mpsc::Receiver<Accepted>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.serve(received)),
            Err(error) => {
                tracing::error!(%error, "a worker thread could not start");
                self.stopping.cancel();
            }
        }
    }

    async fn serve(self, mut received: mpsc::Receiver<Accepted>) {
        let connections = TaskTracker::new();
        let mut sweep = interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                () = self.stopping.cancelled() => break,
                accepted = received.recv() => match accepted {
                    Some(accepted) => {
                        connections.spawn(self.connection(accepted));
                    }
                    None => break,
                },
                _ = sweep.tick() => self.context.pool.sweep(),
            }
        }
        drop(received);
        connections.close();
        let _ = timeout(DRAIN_TIMEOUT, connections.wait()).await;
        // The rest, tunnels among them, ends with the runtime.
    }

    fn connection(&self, accepted: Accepted) -> impl Future<Output = ()> + use<> {
        let door = Door {
            app: Arc::clone(&self.app),
            router: self.router.clone(),
            worker: Arc::clone(&self.context),
            peer: accepted.peer,
            is_tls: false,
            is_https_forced: false,
            unflushed: Unflushed::default(),
        };
        let tls = self.app.tls.load_full();
        let stopping = self.stopping.clone();
        let force_https = self.app.config.current().force_https;
        async move {
            let Accepted { stream, place, .. } = accepted;
            let Ok(stream) = TcpStream::from_std(stream) else {
                return;
            };
            let served = async {
                let Some(tls) = tls else {
                    return serve_http(stream, door, &stopping).await;
                };
                let mut first = [0; 1];
                let Ok(Ok(1)) = timeout(HANDSHAKE_TIMEOUT, stream.peek(&mut first)).await else {
                    return;
                };
                // A TLS record of a handshake begins with 22; no HTTP method does.
                if first[0] != 22 {
                    let door = Door {
                        is_https_forced: force_https,
                        ..door
                    };
                    return serve_http(stream, door, &stopping).await;
                }
                let handshake = TlsAcceptor::from(tls.config()).accept(stream);
                match timeout(HANDSHAKE_TIMEOUT, handshake).await {
                    Ok(Ok(stream)) => {
                        serve_http(
                            stream,
                            Door {
                                is_tls: true,
                                ..door
                            },
                            &stopping,
                        )
                        .await
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            };
            tokio::select! {
                () = served => {}
                () = place.ended() => tracing::debug!("a connection was closed: its address was denied"),
            }
        }
    }
}

fn http_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(CONNECTION_BUFFER)
        .max_headers(MAX_HEADERS)
        .half_close(false);
    builder
}

async fn serve_http<Stream>(stream: Stream, door: Door, stopping: &CancellationToken)
where
    Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(StallGuard::new(
        stream,
        WRITE_STALL_TIMEOUT,
        door.unflushed.clone(),
    ));
    let service = service_fn(move |request| door.clone().answer(request));
    let mut connection = pin!(
        http_builder()
            .serve_connection(stream, service)
            .with_upgrades()
    );
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}
