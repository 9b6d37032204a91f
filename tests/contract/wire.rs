//! One HTTP exchange at a time over a socket of its own, with every byte of the request under control.

use anyhow::{Context as _, Result, bail};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Length of the body on the wire, with the frames of a chunked one.
    pub(crate) wire_length: usize,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Sends a request and reads its answer.
pub(crate) async fn ask(
    port: u16,
    method: &str,
    target: &str,
    headers: &[(String, String)],
    body: Option<&[u8]>,
) -> Result<Answer> {
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        head.push_str(&format!("Host: 127.0.0.1:{port}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let chunked = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
    let mut request = Vec::new();
    if let Some(body) = body {
        if chunked {
            request.extend(format!("{:x}\r\n", body.len()).bytes());
            request.extend(body);
            request.extend(b"\r\n0\r\n\r\n");
        } else {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
            request.extend(body);
        }
    }
    head.push_str("\r\n");
    let mut bytes = head.into_bytes();
    bytes.extend(request);
    let exchange = exchange(port, &bytes, method == "HEAD");
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .context("no answer in time")?
}

async fn exchange(port: u16, request: &[u8], no_body: bool) -> Result<Answer> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))
        .await
        .context("connecting")?;
    stream.write_all(request).await?;
    let mut received = Vec::new();
    let head_end = loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut received).await? == 0 {
            bail!("closed before the head was complete");
        }
    };
    let head = String::from_utf8_lossy(&received[..head_end]).into_owned();
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .context("status line")?
        .parse()?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut rest = received.split_off(head_end);
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
        wire_length: 0,
    };
    if no_body || matches!(status, 204 | 304) {
        return Ok(answer);
    }
    if answer.header("transfer-encoding") == Some("chunked") {
        loop {
            if let Some((body, used)) = unchunk(&rest) {
                answer.body = body;
                answer.wire_length = used;
                return Ok(answer);
            }
            if stream.read_buf(&mut rest).await? == 0 {
                bail!("closed within a chunked body");
            }
        }
    }
    let length: Option<usize> = answer
        .header("content-length")
        .map(str::parse)
        .transpose()?;
    while length.is_none_or(|length| rest.len() < length) {
        if stream.read_buf(&mut rest).await? == 0 {
            break;
        }
    }
    answer.wire_length = rest.len();
    answer.body = rest;
    Ok(answer)
}

fn unchunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let line = bytes
            .get(at..)?
            .windows(2)
            .position(|window| window == b"\r\n")?;
        let size =
            usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).ok()?, 16).ok()?;
        at += line + 2;
        body.extend(bytes.get(at..at + size)?);
        at += size;
        bytes.get(at..at + 2)?;
        at += 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}
