//! One HTTP exchange for each connection, with the request target sent as it is written.

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The member `code` of our errors.
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The values of a header that the echo route saw.
    pub fn echoed(&self, name: &str) -> Vec<String> {
        let shown = self.json();
        let pairs = shown["headers"].as_array().cloned().unwrap_or_default();
        pairs
            .iter()
            .filter(|pair| pair[0] == name)
            .filter_map(|pair| pair[1].as_str().map(str::to_owned))
            .collect()
    }
}

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Ask {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Ask {
    /// A request of this method.
    pub fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
        }
    }

    /// GET.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// POST.
    pub fn post(target: &str) -> Self {
        Self::new("POST", target)
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a token.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("Authorization", &format!("Bearer {token}"))
    }

    /// Adds the cookie of a browser.
    #[must_use]
    pub fn cookie(self, token: &str) -> Self {
        self.header("Cookie", &format!("jwt_token={token}"))
    }

    /// Comes from this address, as a trusted proxy tells it.
    #[must_use]
    pub fn from(self, address: &str) -> Self {
        self.header("X-Forwarded-For", address)
    }

    /// Accepts a page, as a browser does.
    #[must_use]
    pub fn browser(self) -> Self {
        self.header(
            "Accept",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        )
    }

    /// Adds a body.
    #[must_use]
    pub fn body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self.header("Content-Type", kind)
    }

    /// Adds a JSON body.
    #[must_use]
    pub fn json(self, body: &Value) -> Self {
        self.body("application/json", body.to_string())
    }

    /// The bytes on the wire.
    pub fn bytes(&self, port: u16) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        let has = |name: &str| {
            self.headers
                .iter()
                .any(|(known, _)| known.eq_ignore_ascii_case(name))
        };
        if !has("host") {
            head.push_str(&format!("Host: localhost:{port}\r\n"));
        }
        if !has("connection") {
            head.push_str("Connection: close\r\n");
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = &self.body {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend(self.body.iter().flatten());
        bytes
    }

    /// Sends it on a connection of its own and reads the answer.
    pub fn send(&self, port: u16) -> Result<Answer> {
        self.send_to(SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// Sends it to this address.
    pub fn send_to(&self, address: SocketAddr) -> Result<Answer> {
        self.exchange_on(connect(address)?, address.port())
    }

    /// Sends it over TLS to a host of this name, trusting only the authority of this PEM text.
    pub fn send_over_tls(
        &self,
        address: SocketAddr,
        name: &str,
        authority: &[u8],
    ) -> Result<Answer> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority)?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned())?;
        let connection = ClientConnection::new(Arc::new(config), name)?;
        self.exchange_on(
            StreamOwned::new(connection, connect(address)?),
            address.port(),
        )
    }

    fn exchange_on(&self, mut stream: impl Read + Write, port: u16) -> Result<Answer> {
        // A refusal may come, and the connection end, before the whole body is taken.
        let written = stream.write_all(&self.bytes(port));
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes);
        read_answer(&bytes, self.method == "HEAD").with_context(|| {
            format!(
                "{} {}: {} bytes came; written: {written:?}; ended: {ended:?}",
                self.method,
                self.target,
                bytes.len()
            )
        })
    }
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends these bytes and returns all that comes back until the connection ends or rests.
pub fn exchange(port: u16, bytes: &[u8], rest: Duration) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(rest))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let mut piece = [0; 16 * 1024];
    while let Ok(length) = stream.read(&mut piece) {
        if length == 0 {
            break;
        }
        all.extend(&piece[..length]);
    }
    Ok(all)
}

/// Reads one whole answer.
pub fn read_answer(bytes: &[u8], is_head: bool) -> Result<Answer> {
    let end = find(bytes, b"\r\n\r\n").context("no whole header came")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .context("no status")?
        .parse()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = &bytes[end + 4..];
    let value = |name: &str| {
        headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    let has_body = !is_head && status >= 200 && status != 204 && status != 304;
    let body = if !has_body {
        Vec::new()
    } else if value("transfer-encoding").is_some() {
        unchunked(rest)?
    } else if let Some(length) = value("content-length") {
        let length: usize = length.parse()?;
        rest.get(..length).context("the body is cut off")?.to_vec()
    } else {
        rest.to_vec()
    };
    Ok(Answer {
        status,
        headers,
        body,
    })
}

fn unchunked(mut rest: &[u8]) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = find(rest, b"\r\n").context("a chunk is cut off")?;
        let size = String::from_utf8_lossy(&rest[..end]).into_owned();
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        let start = end + 2;
        body.extend(
            rest.get(start..start + size)
                .context("a chunk is cut off")?,
        );
        rest = rest.get(start + size + 2..).context("a chunk is cut off")?;
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
