//! The servers that this program plays as a child of itself. Each prints its port first.

use crate::say;
use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

/// Payload of one WebSocket frame, bytes.
pub(crate) const FRAME: usize = 500 * 1000;
/// What ComfyUI answers to the question whether it is there.
pub(crate) const SYSTEM_STATS: &str = r#"{"system":{"comfyui_version":"0.12.1"}}"#;
/// Signs the tokens that nginx has checked; worth nothing beyond this machine and run.
const KEY: &[u8] = b"only for the tokens of one measurement on loopback";

/// Claims as the gateway's tokens have them.
#[derive(Deserialize, Serialize)]
struct Claims {
    sub: String,
    username: String,
    jti: String,
    iat: u64,
    exp: u64,
}

/// A token that [`token_check`] accepts.
pub(crate) fn token() -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let claims = Claims {
        sub: "00000000-0000-4000-8000-000000000001".to_owned(),
        username: "measurer".to_owned(),
        jti: "00000000-0000-4000-8000-000000000002".to_owned(),
        iat: now,
        exp: now + 3600,
    };
    Ok(jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(KEY),
    )?)
}

fn serve<Answer>(serve_one: impl Fn(TcpStream) -> Answer) -> Result<()>
where
    Answer: Future<Output = ()> + Send + 'static,
{
    Runtime::new()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        say(&listener.local_addr()?.port().to_string());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve_one(stream));
        }
    })
}

/// The smallest sensible answer to `auth_request`: 204 for a good token, else 401.
pub(crate) fn token_check() -> Result<()> {
    let key = Arc::new(DecodingKey::from_secret(KEY));
    let validation = Arc::new(Validation::new(Algorithm::HS256));
    serve(move |stream| {
        let key = Arc::clone(&key);
        let validation = Arc::clone(&validation);
        async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let is_good = request
                    .headers()
                    .get(AUTHORIZATION)
                    .and_then(|value| value.to_str().ok())
                    .and_then(|value| value.strip_prefix("Bearer "))
                    .is_some_and(|token| {
                        jsonwebtoken::decode::<Claims>(token, &key, &validation).is_ok()
                    });
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = if is_good {
                    StatusCode::NO_CONTENT
                } else {
                    StatusCode::UNAUTHORIZED
                };
                std::future::ready(Ok::<_, Infallible>(response))
            });
            // The connection's end is the client's business.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
}

/// Takes uploads of any size to their last byte, and sends WebSocket frames as fast as they go.
pub(crate) fn stream() -> Result<()> {
    let mut frame = vec![0x82, 127];
    frame.extend((FRAME as u64).to_be_bytes());
    frame.resize(frame.len() + FRAME, 0x5a);
    let frame = Arc::new(frame);
    serve(move |stream| {
        let frame = Arc::clone(&frame);
        async move {
            // The connection's end is the client's business.
            let _ = stream_one(stream, &frame).await;
        }
    })
}

async fn stream_one(mut stream: TcpStream, frame: &[u8]) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    let mut filled = 0;
    loop {
        let end = loop {
            if let Some(end) = buffer[..filled]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            {
                break end + 4;
            }
            let count = stream.read(&mut buffer[filled..]).await?;
            if count == 0 {
                return Ok(());
            }
            filled += count;
        };
        let head = std::str::from_utf8(&buffer[..end])?.to_ascii_lowercase();
        let length: usize = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"))
            .map_or(Ok(0), |value| value.trim().parse())?;
        let target = head.split(' ').nth(1).context("a request line")?;
        // Of a page's address the gateway lets its name pass, with its user's before it.
        let wanted = target.strip_prefix("/ws?clientid=");
        if let Some((_, frames)) = wanted.and_then(|name| name.split_once("frames.")) {
            return send_frames(stream, frame, frames.parse()?).await;
        }
        let mut missing = (length + end).saturating_sub(filled);
        while missing > 0 {
            let count = stream.read(&mut buffer).await?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            missing = missing.saturating_sub(count);
        }
        filled = 0;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{SYSTEM_STATS}",
            SYSTEM_STATS.len()
        );
        stream.write_all(answer.as_bytes()).await?;
        if head.contains("\nconnection: close") {
            return Ok(());
        }
    }
}

async fn send_frames(mut stream: TcpStream, frame: &[u8], count: usize) -> Result<()> {
    stream
        .write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        )
        .await?;
    for _ in 0..count {
        stream.write_all(frame).await?;
    }
    // Stays open until the client has had enough.
    let _ = tokio::time::timeout(Duration::from_secs(60), stream.read(&mut [0; 64])).await;
    Ok(())
}
