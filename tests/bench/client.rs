//! A load generator that costs little: requests are bytes made once, answers are only measured.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Longest silence that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where requests go, and what they carry.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) token: Option<String>,
}

impl Target {
    /// The head of a request; `more` are further header lines, each with its line end.
    pub(crate) fn request(&self, method: &str, path: &str, more: &str) -> Vec<u8> {
        let mut text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\n",
            self.address
        );
        if let Some(token) = &self.token {
            let _ = write!(text, "Authorization: Bearer {token}\r\n");
        }
        text += more;
        text += "\r\n";
        text.into_bytes()
    }

    /// The same without a token.
    pub(crate) fn stranger(&self) -> Self {
        Self {
            token: None,
            ..self.clone()
        }
    }

    pub(crate) fn connect(&self) -> Result<Connection> {
        self.connect_for(PATIENCE)
    }

    /// A connection on which answers may take so long.
    pub(crate) fn connect_for(&self, patience: Duration) -> Result<Connection> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection {
            stream,
            buffer: vec![0; 256 * 1024],
        })
    }
}

/// What an answer's head says.
#[derive(Clone, Copy, Debug)]
struct Head {
    /// Length of the head itself.
    length: usize,
    status: u16,
    body: Option<usize>,
}

impl Head {
    /// `None`: it has not come completely yet.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            ensure!(bytes.len() < 64 * 1024, "an endless head");
            return Ok(None);
        };
        let status = bytes
            .get(9..12)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            .context("no status in the answer")?;
        let name = b"content-length:";
        let body = bytes[..end]
            .split(|byte| *byte == b'\n')
            .find(|line| {
                line.get(..name.len())
                    .is_some_and(|start| start.eq_ignore_ascii_case(name))
            })
            .and_then(|line| std::str::from_utf8(&line[name.len()..]).ok())
            .and_then(|value| value.trim().parse().ok());
        Ok(Some(Self {
            length: end + 4,
            status,
            body,
        }))
    }
}

/// One connection, used by one request after another.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes)?)
    }

    /// Reads a head; returns it and how many bytes after it are in the buffer.
    fn head(&mut self) -> Result<(Head, usize)> {
        let mut filled = 0;
        loop {
            let count = self.stream.read(&mut self.buffer[filled..])?;
            ensure!(count > 0, "the connection was closed before the answer");
            filled += count;
            if let Some(head) = Head::parse(&self.buffer[..filled])? {
                return Ok((head, filled - head.length));
            }
        }
    }

    /// Reads an answer to its end; returns its status and the length of its body.
    pub(crate) fn answer(&mut self) -> Result<(u16, usize)> {
        let (head, received) = self.head()?;
        if matches!(head.status, 101 | 204 | 304) {
            return Ok((head.status, received));
        }
        let length = head.body.context("an answer without Content-Length")?;
        self.skip(length.saturating_sub(received))?;
        Ok((head.status, length))
    }

    /// Reads an answer that is small enough for the buffer.
    pub(crate) fn text(&mut self) -> Result<(u16, String)> {
        let (head, received) = self.head()?;
        let length = head.body.unwrap_or(0);
        let end = head.length + length;
        ensure!(end <= self.buffer.len(), "a larger answer than expected");
        self.stream
            .read_exact(&mut self.buffer[head.length + received..end])?;
        let text = String::from_utf8(self.buffer[head.length..end].to_vec())?;
        Ok((head.status, text))
    }

    /// Reads an answer of any length, also one in chunks.
    pub(crate) fn whole(&mut self) -> Result<(u16, String)> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(head) = Head::parse(&bytes)? {
                break head;
            }
            self.more(&mut bytes)?;
        };
        let is_ended = |bytes: &[u8]| match head.body {
            Some(length) => bytes.len() >= head.length + length,
            None => bytes.ends_with(b"0\r\n\r\n"),
        };
        while !is_ended(&bytes) {
            self.more(&mut bytes)?;
        }
        let body = &bytes[head.length..];
        let body = match head.body {
            Some(_) => body.to_vec(),
            None => unchunked(body)?,
        };
        Ok((head.status, String::from_utf8(body)?))
    }

    fn more(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        let count = self.stream.read(&mut self.buffer)?;
        ensure!(count > 0, "the connection was closed within the answer");
        bytes.extend_from_slice(&self.buffer[..count]);
        Ok(())
    }

    /// Posts JSON and reads the JSON that comes back, whatever its status.
    pub(crate) fn post(&mut self, target: &Target, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let more = format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        let mut request = target.request("POST", path, &more);
        request.extend(body.into_bytes());
        self.send(&request)?;
        let (status, text) = self.whole()?;
        serde_json::from_str(&text).with_context(|| format!("{path}: {status} {text}"))
    }

    pub(crate) fn skip(&mut self, mut bytes: usize) -> Result<()> {
        while bytes > 0 {
            let count = self.stream.read(&mut self.buffer)?;
            ensure!(count > 0, "the connection was closed within the answer");
            bytes = bytes.saturating_sub(count);
        }
        Ok(())
    }

    /// Sends a request and demands this status.
    pub(crate) fn exchange(&mut self, request: &[u8], status: u16) -> Result<usize> {
        self.send(request)?;
        let (actual, length) = self.answer()?;
        ensure!(actual == status, "{actual} instead of {status}");
        Ok(length)
    }
}

fn unchunked(mut bytes: &[u8]) -> Result<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = bytes.windows(2).position(|two| two == b"\r\n");
        let end = end.context("a chunk is cut off")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[..end])?.trim(), 16)?;
        if size == 0 {
            return Ok(whole);
        }
        let chunk = bytes.get(end + 2..end + 2 + size);
        whole.extend_from_slice(chunk.context("a chunk is cut off")?);
        bytes = bytes.get(end + 4 + size..).context("a chunk is cut off")?;
    }
}

/// Sends a request over and over on one connection; the seconds that each took.
pub(crate) fn latencies(
    target: &Target,
    request: &[u8],
    status: u16,
    time: Duration,
) -> Result<Vec<f64>> {
    let mut connection = target.connect()?;
    for _ in 0..20 {
        connection.exchange(request, status)?;
    }
    let begun = Instant::now();
    let mut all = Vec::with_capacity(32 * 1024);
    while begun.elapsed() < time {
        let started = Instant::now();
        connection.exchange(request, status)?;
        all.push(started.elapsed().as_secs_f64());
    }
    Ok(all)
}

/// Sends a request over and over on `connections` connections; the number of answers and the
/// seconds it took.
pub(crate) fn flood(
    target: &Target,
    request: &[u8],
    status: u16,
    connections: usize,
    time: Duration,
) -> Result<(usize, f64)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let begun = Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..connections {
            let request = request.to_vec();
            clients.spawn(repeat(target.address, request, status, begun + time));
        }
        let mut answers = 0;
        while let Some(client) = clients.join_next().await {
            answers += client??;
        }
        Ok((answers, begun.elapsed().as_secs_f64()))
    })
}

async fn repeat(
    address: SocketAddr,
    request: Vec<u8>,
    status: u16,
    until: Instant,
) -> Result<usize> {
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 16 * 1024];
    let mut answers = 0;
    while Instant::now() < until {
        stream.write_all(&request).await?;
        let mut filled = 0;
        let head = loop {
            let count = stream.read(&mut buffer[filled..]).await?;
            if count == 0 {
                bail!("the connection was closed before the answer");
            }
            filled += count;
            if let Some(head) = Head::parse(&buffer[..filled])? {
                break head;
            }
        };
        ensure!(head.status == status, "{} instead of {status}", head.status);
        let end = head.length + head.body.context("an answer without Content-Length")?;
        ensure!(end <= buffer.len(), "a larger answer than expected");
        while filled < end {
            let count = stream.read(&mut buffer[filled..]).await?;
            ensure!(count > 0, "the connection was closed within the answer");
            filled += count;
        }
        answers += 1;
    }
    Ok(answers)
}
