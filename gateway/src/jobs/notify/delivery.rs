//! One message on its way to an address that was looked at.

use super::addresses::{is_named, is_public, own_networks};
use super::message::{Content, Report, request};
use super::target::Target;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

/// Time for a message with all its tries.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(10);
/// Time for a connection to one address of a host.
const CONNECT_TIME_LIMIT: Duration = Duration::from_secs(4);
/// Before the second try.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 3;
/// Largest head of an answer that is read, bytes; the least that hyper allows is 8 KiB. The body
/// is not asked for.
const MAX_ANSWER: usize = 8 * 1024;

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

/// Sends messages to addresses that are public, or whose host the settings name.
pub(super) struct Sender {
    allowed: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    /// `None` when there is no usable TLS.
    tls: Option<Arc<ClientConfig>>,
}

impl Sender {
    /// `allowed` tells hosts that need not be public, and is asked for each message.
    pub(super) fn new(
        allowed: impl Fn() -> Vec<String> + Send + Sync + 'static,
        roots: RootCertStore,
    ) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_root_certificates(roots).with_no_client_auth());
        Self {
            allowed: Box::new(allowed),
            tls: tls.ok().map(Arc::new),
        }
    }

    /// Sends a message to see whether it arrives; tries once.
    pub(super) async fn test(&self, target: &Target) -> Result<(), NotifyError> {
        self.deliver(target, &Content::Test).await
    }

    /// Sends one message, at most in two tries.
    pub(super) async fn send(&self, target: &Target, report: &Report) {
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
