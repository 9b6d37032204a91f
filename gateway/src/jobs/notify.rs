//! Tells people where they want to be told that their jobs are done: an ntfy topic or a webhook.
//!
//! The addresses are the users', so a message may lead nowhere a user could not reach without this
//! machine: the name is resolved once, every address it has must be public, and the connection goes
//! to an address that was looked at. Hosts that the settings name are exempt.

use crate::accounts::UserId;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::{CONTENT_TYPE, HOST, USER_AGENT};
use http::{Method, Request, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

/// Time for a message with all its tries.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Time for a connection to one address of a host.
const CONNECT_TIME_LIMIT: Duration = Duration::from_secs(4);
/// Before the second try.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Between two messages to one user.
const PAUSE: Duration = Duration::from_secs(1);
/// Time for the worker to end.
const STOP_TIME_LIMIT: Duration = Duration::from_secs(2);
/// Messages that may wait.
const MAX_WAITING: usize = 256;
/// Messages that are sent at the same time, each of another user.
const MAX_SENDING: usize = 8;
/// Test messages that are sent at the same time.
const MAX_TESTS: usize = 4;
/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 3;
/// Largest head of an answer that is read, bytes; the least that hyper allows is 8 KiB. The body
/// is not asked for.
const MAX_ANSWER: usize = 8 * 1024;

/// Where a message goes. Its path is a secret and never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Target {
    kind: Kind,
    is_secure: bool,
    /// In lower case, without brackets.
    host: String,
    port: u16,
    /// Host and port as they were written.
    authority: String,
    path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ntfy,
    Webhook,
}

/// Why there is no sending to an address, as a sentence for its user.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("messages go to ntfy or to a webhook")]
    Kind,
    #[error("the address must begin with https:// or http://")]
    Scheme,
    #[error("the address must not hold a user name or password")]
    UserInfo,
    #[error("the address names no topic, as in https://ntfy.sh/topic")]
    Topic,
    #[error("this is not a valid address")]
    Address,
}

/// Why a message did not arrive, as a sentence for its user.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotifyError {
    #[error("the address is not on the internet, and the settings do not name its host as allowed")]
    NotPublic,
    #[error("the name of the server is not known")]
    Name,
    #[error("the server cannot be reached")]
    Connect(#[source] std::io::Error),
    #[error("there is no secure connection to the server")]
    Secure(#[source] std::io::Error),
    #[error("the server did not answer in time")]
    Silent,
    #[error("the server did not answer as a web server does")]
    Exchange(#[from] hyper::Error),
    #[error("the address cannot be asked for")]
    Request(#[from] http::Error),
    #[error("the server answered with status {0}")]
    Refused(u16),
    #[error("secure connections cannot be made here")]
    NoTls,
}

impl NotifyError {
    /// Whether a second try may help.
    fn may_pass(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Secure(_) | Self::Exchange(_) => true,
            Self::Refused(status) => *status == 429 || *status >= 500,
            _ => false,
        }
    }
}

impl Target {
    /// Reads the address of a `kind`, `ntfy` or `webhook`.
    pub(crate) fn parse(kind: &str, address: &str) -> Result<Self, TargetError> {
        let kind = match kind {
            "ntfy" => Kind::Ntfy,
            "webhook" => Kind::Webhook,
            _ => return Err(TargetError::Kind),
        };
        let address = address.trim();
        if !address.bytes().all(|byte| byte.is_ascii_graphic()) || address.contains('\\') {
            return Err(TargetError::Address);
        }
        let uri: Uri = address.parse().map_err(|_| TargetError::Address)?;
        let (is_secure, default_port) = match uri.scheme_str() {
            Some("https") => (true, 443),
            Some("http") => (false, 80),
            _ => return Err(TargetError::Scheme),
        };
        let authority = uri.authority().ok_or(TargetError::Address)?;
        if authority.as_str().contains('@') {
            return Err(TargetError::UserInfo);
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => default_port,
            Some(port) => port
                .strip_prefix(':')
                .and_then(|port| port.parse().ok())
                .filter(|port| *port != 0)
                .ok_or(TargetError::Address)?,
            None => return Err(TargetError::Address),
        };
        let host = authority.host().to_ascii_lowercase();
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']').ok_or(TargetError::Address)?;
                inner
                    .parse::<Ipv6Addr>()
                    .map_err(|_| TargetError::Address)?;
                inner.to_owned()
            }
            None => host,
        };
        if host.is_empty() {
            return Err(TargetError::Address);
        }
        if kind == Kind::Ntfy && uri.path().trim_matches('/').is_empty() {
            return Err(TargetError::Topic);
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Ok(Self {
            kind,
            is_secure,
            host,
            port,
            authority: authority.as_str().to_owned(),
            path: if path.starts_with('/') {
                path.to_owned()
            } else {
                format!("/{path}")
            },
        })
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Target")
            .field("kind", &self.kind)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

/// That a job is done.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) is_failure: bool,
    /// By RFC 3339.
    pub(crate) finished_at: String,
    pub(crate) gpu_ms: u64,
    /// Further jobs of the user.
    pub(crate) waiting: usize,
    /// As it is kept of the job; what may name files or texts of a prompt is not sent.
    pub(crate) reason: Option<String>,
}

/// One message about all jobs that were done while it waited.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Report {
    completed: u64,
    failed: u64,
    finished_at: String,
    gpu_ms: u64,
    waiting: usize,
    reason: Option<&'static str>,
}

impl Report {
    fn add(&mut self, message: Message) {
        if message.is_failure {
            self.failed += 1;
            self.reason = Some(public_reason(message.reason.as_deref().unwrap_or_default()));
        } else {
            self.completed += 1;
        }
        self.finished_at = message.finished_at;
        self.gpu_ms = self.gpu_ms.saturating_add(message.gpu_ms);
        self.waiting = message.waiting;
    }

    fn title(&self) -> String {
        match (self.completed, self.failed) {
            (1, 0) => "A picture is done".to_owned(),
            (completed, 0) => format!("{completed} pictures are done"),
            (0, 1) => "A picture has failed".to_owned(),
            (0, failed) => format!("{failed} pictures have failed"),
            (1, failed) => format!("1 picture is done, {failed} failed"),
            (completed, failed) => format!("{completed} pictures are done, {failed} failed"),
        }
    }

    fn text(&self) -> String {
        let seconds = self.gpu_ms.div_ceil(1000);
        let waiting = match self.waiting {
            0 => "Nothing else is waiting.".to_owned(),
            1 => "1 more is waiting.".to_owned(),
            waiting => format!("{waiting} more are waiting."),
        };
        let reason = self.reason.map(|reason| format!("{reason} "));
        format!(
            "{}Time on the GPU: {} min {:02} s. {waiting}",
            reason.unwrap_or_default(),
            seconds / 60,
            seconds % 60
        )
    }
}

/// What may be said of a failure outside: ComfyUI's own words can hold file names and texts of the
/// prompt.
fn public_reason(reason: &str) -> &'static str {
    let reason = reason.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if has(&["out of memory", "allocation on device", "outofmemory"]) {
        "The memory of the GPU was not enough."
    } else if has(&["took longer than"]) {
        "It took longer than one job may."
    } else if has(&["ended twice while it ran"]) {
        "ComfyUI ended while it ran."
    } else {
        "ComfyUI could not do it."
    }
}

#[derive(Debug)]
enum Content<'a> {
    Report(&'a Report),
    Test,
}

fn request(target: &Target, content: &Content<'_>) -> Result<Request<Full<Bytes>>, http::Error> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(target.path.as_str())
        .header(HOST, target.authority.as_str())
        .header(USER_AGENT, "ComfyUI-Sentinel");
    let (request, body) = match (target.kind, content) {
        (Kind::Ntfy, Content::Test) => (
            request.header("title", "Test"),
            "Messages of ComfyUI Sentinel arrive here.".to_owned(),
        ),
        (Kind::Ntfy, Content::Report(report)) => {
            let request = request.header("title", report.title());
            let request = if report.failed > 0 {
                request.header("tags", "warning").header("priority", "high")
            } else {
                request.header("tags", "white_check_mark")
            };
            (request, report.text())
        }
        (Kind::Webhook, Content::Test) => (request, json!({ "event": "test" }).to_string()),
        (Kind::Webhook, Content::Report(report)) => {
            let body = json!({
                "event": "job_finished",
                "state": if report.failed > 0 { "failed" } else { "completed" },
                "finished_at": report.finished_at,
                "gpu_seconds": report.gpu_ms.div_ceil(1000),
                "waiting": report.waiting,
                "reason": report.reason,
                "completed": report.completed,
                "failed": report.failed,
            });
            (request, body.to_string())
        }
    };
    let kind = match target.kind {
        Kind::Ntfy => "text/plain; charset=utf-8",
        Kind::Webhook => "application/json",
    };
    request
        .header(CONTENT_TYPE, kind)
        .body(Full::new(Bytes::from(body)))
}

/// Sends messages to users, one after the other for each.
pub(crate) struct Notifier {
    post: Arc<Post>,
    stopped: CancellationToken,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Notifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Notifier").finish_non_exhaustive()
    }
}

struct Post {
    allowed: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// `None` when there is no usable TLS.
    tls: Option<Arc<ClientConfig>>,
    line: Mutex<VecDeque<Waiting>>,
    wake: Notify,
    tests: Semaphore,
}

struct Waiting {
    user: UserId,
    target: Target,
    report: Report,
}

impl Notifier {
    /// Starts the task that sends, which [`Notifier::stop`] ends. `allowed` tells hosts that need
    /// not be public, and is asked for each message.
    pub(crate) fn start(allowed: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        let roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        Self::with_roots(allowed, roots)
    }

    fn with_roots(
        allowed: impl Fn() -> Vec<String> + Send + Sync + 'static,
        roots: RootCertStore,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_root_certificates(roots).with_no_client_auth());
        let post = Arc::new(Post {
            allowed: Box::new(allowed),
            tls: tls.ok().map(Arc::new),
            line: Mutex::default(),
            wake: Notify::new(),
            tests: Semaphore::new(MAX_TESTS),
        });
        let stopped = CancellationToken::new();
        let worker = tokio::spawn(work(Arc::clone(&post), stopped.clone()));
        Self {
            post,
            stopped,
            worker: Mutex::new(Some(worker)),
        }
    }

    /// Has a message sent soon, together with others of this user that wait for the same target.
    pub(crate) fn send(&self, user: UserId, target: Target, message: Message) {
        {
            let mut line = self.post.line.lock();
            let same = |waiting: &&mut Waiting| waiting.user == user && waiting.target == target;
            if let Some(waiting) = line.iter_mut().find(same) {
                waiting.report.add(message);
            } else if line.len() >= MAX_WAITING {
                tracing::warn!(%user, host = target.host, "too many messages wait; one is dropped");
                return;
            } else {
                let mut report = Report::default();
                report.add(message);
                line.push_back(Waiting {
                    user,
                    target,
                    report,
                });
            }
        }
        self.post.wake.notify_one();
    }

    /// Sends a message to see whether it arrives; tries once.
    pub(crate) async fn test(&self, target: &Target) -> Result<(), NotifyError> {
        let deliver = async {
            let _permit = self.post.tests.acquire().await;
            self.post.deliver(target, &Content::Test).await
        };
        timeout(TIME_LIMIT, Box::pin(deliver))
            .await
            .map_err(|_| NotifyError::Silent)?
    }

    /// Ends sending; what waits is not sent.
    pub(crate) async fn stop(&self) {
        self.stopped.cancel();
        let worker = self.worker.lock().take();
        if let Some(worker) = worker
            && timeout(STOP_TIME_LIMIT, worker).await.is_err()
        {
            tracing::warn!("sending messages did not end in time");
        }
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

/// Sends what waits until `stopped`.
async fn work(post: Arc<Post>, stopped: CancellationToken) {
    let mut sending = FuturesUnordered::new();
    // When a user may be sent the next; `None` while one is under way.
    let mut next_at: HashMap<UserId, Option<Instant>> = HashMap::new();
    loop {
        let now = Instant::now();
        next_at.retain(|_, at| at.is_none_or(|at| at > now));
        while sending.len() < MAX_SENDING
            && let Some(next) = post.take(|user| !next_at.contains_key(user))
        {
            next_at.insert(next.user.clone(), None);
            let post = &post;
            sending.push(Box::pin(async move {
                post.send(&next.target, &next.report).await;
                next.user
            }));
        }
        let wait_until = next_at.values().flatten().min().copied();
        tokio::select! {
            () = stopped.cancelled() => return,
            () = post.wake.notified() => {}
            Some(user) = sending.next() => {
                next_at.insert(user, Some(Instant::now() + PAUSE));
            }
            () = sleep_until(wait_until.unwrap_or(now)), if wait_until.is_some() => {}
        }
    }
}

impl Post {
    /// The first that waits and whose user may be sent something.
    fn take(&self, is_free: impl Fn(&UserId) -> bool) -> Option<Waiting> {
        let mut line = self.line.lock();
        let first = line.iter().position(|waiting| is_free(&waiting.user))?;
        line.remove(first)
    }

    /// Sends one message, at most in two tries.
    async fn send(&self, target: &Target, report: &Report) {
        let content = Content::Report(report);
        let tries = async {
            match self.deliver(target, &content).await {
                Err(error) if error.may_pass() => {
                    sleep(TRY_AGAIN_AFTER).await;
                    self.deliver(target, &content).await
                }
                result => result,
            }
        };
        let result = timeout(TIME_LIMIT, Box::pin(tries)).await;
        if let Err(error) = result.unwrap_or(Err(NotifyError::Silent)) {
            tracing::info!(host = target.host, %error, "a message for a user did not arrive");
        }
    }

    async fn deliver(&self, target: &Target, content: &Content<'_>) -> Result<(), NotifyError> {
        let request = request(target, content)?;
        let stream = self.connect(target).await?;
        let status = if target.is_secure {
            let tls = self.tls.clone().ok_or(NotifyError::NoTls)?;
            let name = ServerName::try_from(target.host.clone()).map_err(|_| NotifyError::Name)?;
            let stream = TlsConnector::from(tls).connect(name, stream).await;
            exchange(stream.map_err(NotifyError::Secure)?, request).await?
        } else {
            exchange(stream, request).await?
        };
        if status.is_success() {
            Ok(())
        } else {
            Err(NotifyError::Refused(status.as_u16()))
        }
    }

    /// Connects to an address of the target that was looked at: resolving the name again could
    /// give another one.
    async fn connect(&self, target: &Target) -> Result<TcpStream, NotifyError> {
        let addresses: Vec<SocketAddr> = lookup_host((target.host.as_str(), target.port))
            .await
            .map_err(|_| NotifyError::Name)?
            .collect();
        if !is_named(&(self.allowed)(), &target.host) {
            let own = own_networks();
            let is_open = |address: &SocketAddr| {
                is_public(address.ip()) && !own.iter().any(|own| own.holds(address.ip()))
            };
            if !addresses.iter().all(is_open) {
                return Err(NotifyError::NotPublic);
            }
        }
        let mut failure = NotifyError::Name;
        for address in addresses.iter().take(MAX_ADDRESSES) {
            match timeout(CONNECT_TIME_LIMIT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = NotifyError::Connect(error),
                Err(_) => failure = NotifyError::Silent,
            }
        }
        Err(failure)
    }
}

/// Sends a request and reads the head of the answer, whatever it redirects to.
async fn exchange<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<http::StatusCode, NotifyError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_ANSWER)
        .handshake(TokioIo::new(stream))
        .await?;
    let answer = sender.send_request(request);
    tokio::pin!(connection);
    tokio::pin!(answer);
    let answer = tokio::select! {
        answer = &mut answer => answer?,
        // The answer may have arrived whole with the end of the connection, however it ended.
        _ = &mut connection => answer.await?,
    };
    Ok(answer.status())
}

/// Whether the settings name this host.
fn is_named(allowed: &[String], host: &str) -> bool {
    allowed.iter().any(|name| {
        let name = name.trim().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case(host)
    })
}

/// A network of this machine in which no address is public, though it looks so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OwnNetwork {
    address: IpAddr,
    /// Leading bits that are the same in the whole network.
    bits: u8,
}

impl OwnNetwork {
    fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V6(own), IpAddr::V6(address)) => {
                let difference = own.to_bits() ^ address.to_bits();
                difference.leading_zeros() >= u32::from(self.bits)
            }
            (own, address) => own == address,
        }
    }
}

/// The addresses of this machine and, by IPv6, the networks around: there no translation keeps
/// the devices of a home apart from the internet.
fn own_networks() -> Vec<OwnNetwork> {
    let found = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::debug!(%error, "the network adapters cannot be listed");
        Vec::new()
    });
    found
        .iter()
        .map(|interface| OwnNetwork {
            address: interface.ip(),
            bits: match &interface.addr {
                if_addrs::IfAddr::V4(_) => 32,
                if_addrs::IfAddr::V6(address) => address.prefixlen.max(48),
            },
        })
        .collect()
}

/// Whether an address is one of the open internet.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// By IANA's list of special addresses.
fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        // This network, private, this machine.
        [0 | 10 | 127, ..]
            // Carriers' networks.
            | [100, 64..=127, ..]
            // Link-local.
            | [169, 254, ..]
            // Private.
            | [172, 16..=31, ..]
            | [192, 168, ..]
            // Protocols and documentation.
            | [192, 0, 0 | 2, _]
            // Relays of 6to4.
            | [192, 88, 99, _]
            // Benchmarks.
            | [198, 18 | 19, ..]
            // Documentation.
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            // Multicast, reserved, broadcast.
            | [224..=255, ..]
    )
}

/// Only `2000::/3` is given out; all that holds an IPv4 address or is for one link is outside of
/// it, but for what is named here.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Protocols, Teredo among them; documentation; 6to4; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => {
            false
        }
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    const DEADLINE: Duration = Duration::from_secs(20);
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    /// A web server on loopback that answers each request with the next of `answers`, the last one
    /// for ever, and an empty one never.
    struct Server {
        port: u16,
        requests: mpsc::UnboundedReceiver<(Instant, String)>,
        task: JoinHandle<()>,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.task.abort();
        }
    }

    impl Server {
        async fn start(answers: &[&str], tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let (tell, requests) = mpsc::unbounded_channel();
            let answers: Vec<String> = answers.iter().map(|answer| (*answer).to_owned()).collect();
            let task = tokio::spawn(async move {
                let mut kept = Vec::new();
                let mut at = 0;
                while let Ok((stream, _)) = listener.accept().await {
                    let answer = answers[at.min(answers.len() - 1)].clone();
                    at += 1;
                    let request = match &tls {
                        None => {
                            let mut stream = stream;
                            let request = serve(&mut stream, &answer).await;
                            kept.push(stream);
                            request
                        }
                        Some(tls) => match tls.accept(stream).await {
                            Ok(mut stream) => serve(&mut stream, &answer).await,
                            Err(_) => continue,
                        },
                    };
                    let _ = tell.send((Instant::now(), request));
                }
            });
            Self {
                port,
                requests,
                task,
            }
        }

        fn target(&self, kind: &str, path: &str) -> Target {
            Target::parse(kind, &format!("http://127.0.0.1:{}{path}", self.port)).unwrap()
        }

        async fn next(&mut self) -> (Instant, String) {
            timeout(DEADLINE, self.requests.recv())
                .await
                .unwrap()
                .unwrap()
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, answer: &str) -> String {
        let mut text = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let read = stream.read(&mut piece).await.unwrap_or(0);
            text.extend_from_slice(&piece[..read]);
            let request = String::from_utf8_lossy(&text).into_owned();
            let body = request.split_once("\r\n\r\n").map(|(head, body)| {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                (
                    length.map_or(0, |length| length.parse().unwrap()),
                    body.len(),
                )
            });
            if read == 0 || body.is_some_and(|(expected, length)| length >= expected) {
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.flush().await;
                return request;
            }
        }
    }

    fn loopback_allowed() -> Notifier {
        Notifier::start(|| vec!["127.0.0.1".to_owned()])
    }

    fn message(is_failure: bool, reason: Option<&str>) -> Message {
        Message {
            is_failure,
            finished_at: "2026-11-25T07:00:00Z".to_owned(),
            gpu_ms: 61_500,
            waiting: 2,
            reason: reason.map(str::to_owned),
        }
    }

    fn user() -> UserId {
        UserId::parse("one").unwrap()
    }

    fn body(request: &str) -> serde_json::Value {
        let (_, body) = request.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn addresses_are_read() {
        let table = [
            ("ntfy", "https://ntfy.sh/secret", "ntfy.sh", 443, "/secret"),
            (
                "ntfy",
                "http://NTFY.local:8080/a?b=c#d",
                "ntfy.local",
                8080,
                "/a?b=c",
            ),
            ("webhook", "https://example.org", "example.org", 443, "/"),
            (
                "webhook",
                "https://example.org?a",
                "example.org",
                443,
                "/?a",
            ),
            (
                "webhook",
                "http://[2001:DB8::1]:81/x",
                "2001:db8::1",
                81,
                "/x",
            ),
        ];
        for (kind, address, host, port, path) in table {
            let target = Target::parse(kind, address).unwrap();
            assert_eq!(
                (target.host.as_str(), target.port, target.path.as_str()),
                (host, port, path),
                "{address}"
            );
            assert!(!format!("{target:?}").contains("secret"));
        }
        let table = [
            ("mail", "https://example.org/", TargetError::Kind),
            ("webhook", "ftp://example.org/", TargetError::Scheme),
            ("webhook", "file:///etc/passwd", TargetError::Address),
            ("webhook", "/path", TargetError::Scheme),
            ("webhook", "example.org", TargetError::Scheme),
            ("webhook", "", TargetError::Address),
            ("webhook", "https://", TargetError::Address),
            ("webhook", "https://:80/", TargetError::Address),
            ("webhook", "https://a:b@example.org/", TargetError::UserInfo),
            ("webhook", "https://a@example.org/", TargetError::UserInfo),
            ("webhook", "https://example.org:0/", TargetError::Address),
            (
                "webhook",
                "https://example.org:65536/",
                TargetError::Address,
            ),
            ("webhook", "https://example.org:/", TargetError::Address),
            ("webhook", "https://exam ple.org/", TargetError::Address),
            (
                "webhook",
                "https://example.org/\r\nx: y",
                TargetError::Address,
            ),
            (
                "webhook",
                "https://example.org\\@localhost/",
                TargetError::Address,
            ),
            ("webhook", "https://[::1%25lo]/", TargetError::Address),
            ("ntfy", "https://ntfy.sh/", TargetError::Topic),
        ];
        for (kind, address, expected) in table {
            assert_eq!(
                Target::parse(kind, address).unwrap_err(),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn special_addresses_are_not_public() {
        let special = "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.0.1 \
            169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.8 192.0.2.1 192.88.99.1 192.168.1.1 \
            198.18.0.1 198.19.0.1 198.51.100.7 203.0.113.9 224.0.0.1 239.1.1.1 240.0.0.1 \
            255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1 \
            64:ff9b::7f00:1 64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378::1 2001:2::1 2001:20::1 \
            2001:db8::1 2002:7f00:1::1 3fff::1 5f00::1 fc00::1 fd12:3456::1 fe80::1 fec0::1 ff02::1";
        for address in special.split_whitespace() {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        let public = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 \
            126.255.255.255 128.0.0.1 169.253.1.1 172.15.255.255 172.32.0.1 192.0.1.1 192.167.1.1 \
            192.169.1.1 198.17.1.1 198.20.1.1 223.255.255.255 2001:200::1 2001:4860:4860::8888 \
            2606:4700::1111 2a00:1450::1 3ffe::1";
        for address in public.split_whitespace() {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn neighbours_by_ipv6_are_not_public() {
        let own = |address: &str, bits| OwnNetwork {
            address: address.parse().unwrap(),
            bits,
        };
        let table = [
            (own("2a00:1:2:3::5", 64), "2a00:1:2:3:ffff::1", true),
            (own("2a00:1:2:3::5", 64), "2a00:1:2:4::1", false),
            (own("2a00:1:2:3::5", 128), "2a00:1:2:3::5", true),
            (own("2a00:1:2:3::5", 128), "2a00:1:2:3::4", false),
            (own("8.8.8.8", 32), "8.8.8.8", true),
            (own("8.8.8.8", 32), "8.8.8.9", false),
            (own("8.8.8.8", 32), "2a00:1:2:3::5", false),
        ];
        for (own, address, expected) in table {
            assert_eq!(
                own.holds(address.parse().unwrap()),
                expected,
                "{own:?} {address}"
            );
        }
    }

    #[tokio::test]
    async fn nothing_goes_to_addresses_that_are_not_public() {
        let mut server = Server::start(&[OK], None).await;
        let port = server.port;
        let nobody = Notifier::start(Vec::new);
        let others = Notifier::start(|| vec!["127.0.0.2".to_owned(), "example.org".to_owned()]);
        for host in [
            "127.0.0.1",
            "localhost",
            "LOCALHOST",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "017700000001",
            "127.1",
            "0.0.0.0",
            "0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[2002:7f00:1::]",
            "[fe80::1]",
            "192.168.0.1",
            "169.254.169.254",
            "10.0.0.1",
        ] {
            for scheme in ["http", "https"] {
                let target =
                    Target::parse("webhook", &format!("{scheme}://{host}:{port}/")).unwrap();
                for notifier in [&nobody, &others] {
                    let error = notifier.test(&target).await.unwrap_err();
                    // Some systems do not know the spelling at all.
                    assert!(
                        matches!(error, NotifyError::NotPublic | NotifyError::Name),
                        "{host}: {error:?}"
                    );
                }
            }
        }
        let plain = nobody.test(&server.target("webhook", "/")).await;
        assert!(matches!(plain, Err(NotifyError::NotPublic)), "{plain:?}");
        assert!(server.requests.try_recv().is_err());
        nobody.stop().await;
        others.stop().await;
    }

    #[tokio::test]
    async fn named_hosts_need_not_be_public() {
        let mut server = Server::start(&[OK], None).await;
        let port = server.port;
        let notifier = Notifier::start(|| vec!["LocalHost".to_owned(), "127.0.0.1".to_owned()]);
        for host in ["127.0.0.1", "LOCALHOST"] {
            let target = Target::parse("webhook", &format!("http://{host}:{port}/a?b")).unwrap();
            notifier.test(&target).await.unwrap();
            let (_, request) = server.next().await;
            assert!(request.starts_with("POST /a?b HTTP/1.1\r\n"), "{request}");
            assert!(
                request.contains(&format!("host: {host}:{port}\r\n")),
                "{request}"
            );
            assert_eq!(body(&request), json!({ "event": "test" }));
        }
        notifier.stop().await;
    }

    #[tokio::test]
    async fn a_webhook_is_told_and_learns_no_words_of_comfyui() {
        let mut server = Server::start(&[OK], None).await;
        let notifier = loopback_allowed();
        notifier.send(user(), server.target("webhook", "/x"), message(false, None));
        let (_, request) = server.next().await;
        let expected = json!({
            "event": "job_finished", "state": "completed", "finished_at": "2026-11-25T07:00:00Z",
            "gpu_seconds": 62, "waiting": 2, "reason": null, "completed": 1, "failed": 0,
        });
        assert_eq!(body(&request), expected);
        let secret = "cannot open '/srv/comfy/input/my face.png'";
        notifier.send(
            user(),
            server.target("webhook", "/x"),
            message(true, Some(secret)),
        );
        let (_, request) = server.next().await;
        assert!(!request.contains("face"), "{request}");
        assert_eq!(body(&request)["state"], "failed");
        assert_eq!(body(&request)["reason"], "ComfyUI could not do it.");
        notifier.stop().await;
    }

    #[tokio::test]
    async fn ntfy_is_told_with_a_title_and_what_waits_together_is_one_message() {
        let mut server = Server::start(&[OK], None).await;
        let notifier = loopback_allowed();
        let target = server.target("ntfy", "/topic");
        notifier.send(
            user(),
            target.clone(),
            message(true, Some("CUDA out of memory at x")),
        );
        let (first_at, request) = server.next().await;
        for part in [
            "title: A picture has failed\r\n",
            "priority: high\r\n",
            "tags: warning\r\n",
        ] {
            assert!(request.contains(part), "{request}");
        }
        let text = "The memory of the GPU was not enough. Time on the GPU: 1 min 02 s. \
            2 more are waiting.";
        assert!(request.ends_with(text), "{request}");
        for _ in 0..5 {
            notifier.send(user(), target.clone(), message(false, None));
        }
        let (second_at, request) = server.next().await;
        assert!(
            request.contains("title: 5 pictures are done\r\n"),
            "{request}"
        );
        assert!(!request.contains("priority"), "{request}");
        assert!(request.contains("5 min 08 s"), "{request}");
        assert!(second_at - first_at >= PAUSE, "{:?}", second_at - first_at);
        notifier.stop().await;
        assert!(server.requests.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        let mut inner = Server::start(&[OK], None).await;
        let answer = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{}/\r\ncontent-length: 0\r\n\r\n",
            inner.port
        );
        let server = Server::start(&[&answer], None).await;
        let notifier = loopback_allowed();
        let result = notifier.test(&server.target("webhook", "/")).await;
        assert!(
            matches!(result, Err(NotifyError::Refused(307))),
            "{result:?}"
        );
        assert!(inner.requests.try_recv().is_err());
        notifier.stop().await;
    }

    #[tokio::test]
    async fn a_second_try_is_the_last_one() {
        let busy = "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n";
        let gone = "HTTP/1.1 404 Gone\r\ncontent-length: 0\r\n\r\n";
        let mut server = Server::start(&[busy, busy, gone, OK], None).await;
        let notifier = loopback_allowed();
        for waiting in [7, 8, 9] {
            let mut message = message(false, None);
            message.waiting = waiting;
            let target = server.target("webhook", &format!("/{waiting}"));
            notifier.send(user(), target, message);
        }
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(body(&server.next().await.1)["waiting"].as_u64().unwrap());
        }
        assert_eq!(seen, [7, 7, 8, 9]);
        notifier.stop().await;
    }

    #[tokio::test]
    async fn a_silent_server_holds_up_nobody_else_and_no_stop() {
        let mut silent = Server::start(&[""], None).await;
        let mut server = Server::start(&[OK], None).await;
        let notifier = loopback_allowed();
        notifier.send(user(), silent.target("webhook", "/"), message(false, None));
        silent.next().await;
        let other = UserId::parse("other").unwrap();
        notifier.send(other, server.target("webhook", "/"), message(false, None));
        server.next().await;
        let begin = Instant::now();
        notifier.stop().await;
        assert!(begin.elapsed() < STOP_TIME_LIMIT);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_dropped() {
        let notifier = loopback_allowed();
        notifier.stop().await;
        for at in 0..MAX_WAITING + 10 {
            let target = Target::parse("webhook", &format!("http://127.0.0.1/{at}")).unwrap();
            notifier.send(user(), target, message(false, None));
        }
        let line = notifier.post.line.lock();
        assert_eq!(line.len(), MAX_WAITING);
        assert_eq!(
            line.back().unwrap().target.path,
            format!("/{}", MAX_WAITING - 1)
        );
    }

    #[tokio::test]
    async fn answers_are_bounded_and_not_shown() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "secret".repeat(10_000));
        let server = Server::start(&["nonsense secret\r\n\r\n", &long], None).await;
        let notifier = loopback_allowed();
        for _ in 0..2 {
            let error = notifier
                .test(&server.target("webhook", "/"))
                .await
                .unwrap_err();
            assert!(matches!(error, NotifyError::Exchange(_)), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("secret"));
        }
        notifier.stop().await;
    }

    #[tokio::test]
    async fn secure_servers_need_a_certificate_for_their_name() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let mut server = Server::start(&[OK], Some(acceptor)).await;
        let allowed = || vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let trusting = Notifier::with_roots(allowed, roots);
        let target = |host: &str| {
            Target::parse("ntfy", &format!("https://{host}:{}/topic", server.port)).unwrap()
        };
        let (by_name, by_address) = (target("localhost"), target("127.0.0.1"));
        trusting.test(&by_name).await.unwrap();
        let (_, request) = server.next().await;
        assert!(request.starts_with("POST /topic HTTP/1.1\r\n"), "{request}");
        let wrong_name = trusting.test(&by_address).await;
        assert!(
            matches!(wrong_name, Err(NotifyError::Secure(_))),
            "{wrong_name:?}"
        );
        let notifier = Notifier::start(allowed);
        let unknown = notifier.test(&by_name).await;
        assert!(
            matches!(unknown, Err(NotifyError::Secure(_))),
            "{unknown:?}"
        );
        trusting.stop().await;
        notifier.stop().await;
    }

    #[test]
    fn titles() {
        for (completed, failed, title) in [
            (1, 0, "A picture is done"),
            (5, 0, "5 pictures are done"),
            (0, 1, "A picture has failed"),
            (0, 2, "2 pictures have failed"),
            (1, 1, "1 picture is done, 1 failed"),
            (3, 2, "3 pictures are done, 2 failed"),
        ] {
            let report = Report {
                completed,
                failed,
                ..Report::default()
            };
            assert_eq!(report.title(), title);
        }
    }
}
