//! Sockets and event streams of any size and length, against an engine that does what custom nodes do:
//! R15 (large messages), R33 (event streams), R17 (silence).

use anyhow::{Context as _, Result, bail, ensure};
use sentinel_tests::{Ask, Gateway, Options};
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1024 * 1024;
const BINARY: u8 = 2;
const TEXT: u8 = 1;
const FIN: u8 = 0x80;
/// Sizes of the large messages, MiB.
const SIZES: [usize; 3] = [5, 20, 100];
/// Most memory of the gateway, kB.
const MOST: u64 = 60 * 1024;

/// What ComfyUI sends with `--disable-api-nodes`, in short.
pub(crate) const POLICY: &str = "default-src 'self'";
/// Assets that it has.
pub(crate) const MODEL: &str = "11111111-1111-4111-8111-111111111111";
pub(crate) const PICTURE: &str = "22222222-2222-4222-8222-222222222222";

/// An engine that answers what the gateway asks, sends large messages on every socket, takes one, and
/// tells events when it is told to.
pub(crate) struct Engine {
    port: u16,
    tell: Sender<()>,
}

impl Engine {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let (tell, told) = channel();
        let told = Arc::new(Mutex::new(told));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let told = Arc::clone(&told);
                // A connection that breaks is the gateway's affair.
                thread::spawn(move || serve(stream, &told));
            }
        });
        Ok(Self { port, tell })
    }

    pub(crate) fn gateway(&self) -> Result<Gateway> {
        let attach = format!("comfyui.attach=http://127.0.0.1:{}", self.port);
        Gateway::start(Options::default().set(&attach))
    }
}

fn serve(stream: TcpStream, told: &Mutex<Receiver<()>>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut request = String::new();
        reader.read_line(&mut request)?;
        let target = request.split(' ').nth(1).context("a target")?.to_owned();
        let mut key = None;
        let mut is_last = false;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("sec-websocket-key") {
                key = Some(value.trim().to_owned());
            }
            is_last |= name.eq_ignore_ascii_case("connection")
                && value.trim().eq_ignore_ascii_case("close");
        }
        if let Some(key) = key {
            write!(
                stream,
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Accept: {}\r\n\r\n",
                derive_accept_key(key.as_bytes())
            )?;
            return talk(&mut stream, &mut reader);
        }
        if target.starts_with("/pack/events") {
            return tell_events(&mut stream, told);
        }
        let (kind, body) = answer(&target);
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Security-Policy: {POLICY}\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        if is_last {
            return Ok(());
        }
    }
}

fn answer(target: &str) -> (&'static str, &'static str) {
    const JSON: &str = "application/json";
    let path = target.split('?').next().unwrap_or_default();
    match path.trim_start_matches("/api") {
        "/system_stats" => (
            JSON,
            r#"{"system":{"comfyui_version":"0.33.0"},"devices":[]}"#,
        ),
        "/prompt" => (JSON, r#"{"exec_info":{"queue_remaining":0}}"#),
        "/" => ("text/html", "<html><head></head><body></body></html>"),
        asset if asset == format!("/assets/{MODEL}") => (
            JSON,
            r#"{"tags":["models","model_type:vae"],"display_name":"vae/a.safetensors","size":5,"updated_at":"x"}"#,
        ),
        asset if asset == format!("/assets/{PICTURE}") => (
            JSON,
            r#"{"tags":["input"],"display_name":"a.png","size":5,"updated_at":"x"}"#,
        ),
        asset if asset.ends_with("/content") => ("application/octet-stream", "bytes"),
        _ => (JSON, "{}"),
    }
}

/// One event at once, each further one when it is told to; never the end.
fn tell_events(stream: &mut TcpStream, told: &Mutex<Receiver<()>>) -> Result<()> {
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    loop {
        stream.write_all(b"9\r\ndata: x\n\n\r\n")?;
        let told = told.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
        if told.recv().is_err() {
            return Ok(());
        }
    }
}

/// Large texts and binaries, whole and in fragments, then a `status`; then what comes back.
fn talk(stream: &mut TcpStream, reader: &mut BufReader<TcpStream>) -> Result<()> {
    for size in SIZES {
        for kind in [TEXT, BINARY] {
            write_header(stream, FIN | kind, size * MIB, false)?;
            write_payload(stream, size * MIB)?;
        }
    }
    for part in 0..20 {
        let first = if part == 0 { BINARY } else { 0 };
        let last = if part == 19 { FIN } else { 0 };
        write_header(stream, first | last, MIB, false)?;
        write_payload(stream, MIB)?;
    }
    let status = br#"{"type":"status","data":{"status":{"exec_info":{"queue_remaining":77}}}}"#;
    write_header(stream, FIN | TEXT, status.len(), false)?;
    stream.write_all(status)?;
    // The client's turn: tells how much has come.
    let frame = Frame::read(reader)?;
    let length = frame.skip(reader)?;
    let answer = length.to_string();
    write_header(stream, FIN | TEXT, answer.len(), false)?;
    stream.write_all(answer.as_bytes())?;
    Ok(())
}

/// Only the mask 0 is used, which changes nothing.
fn write_header(stream: &mut TcpStream, first: u8, length: usize, is_masked: bool) -> Result<()> {
    let mask = if is_masked { 0x80 } else { 0 };
    let mut header = vec![first];
    match u8::try_from(length) {
        Ok(length @ ..126) => header.push(mask | length),
        _ => {
            header.push(mask | 127);
            header.extend(u64::try_from(length)?.to_be_bytes());
        }
    }
    if is_masked {
        header.extend([0; 4]);
    }
    Ok(stream.write_all(&header)?)
}

fn write_payload(stream: &mut TcpStream, length: usize) -> Result<()> {
    let piece = vec![b'x'; MIB.min(length)];
    let mut left = length;
    while left > 0 {
        let taken = left.min(piece.len());
        stream.write_all(&piece[..taken])?;
        left -= taken;
    }
    Ok(())
}

/// A frame whose payload has not been read.
struct Frame {
    first: u8,
    length: u64,
}

impl Frame {
    fn read(reader: &mut BufReader<TcpStream>) -> Result<Self> {
        let mut start = [0; 2];
        reader.read_exact(&mut start)?;
        let length = match start[1] & 0x7f {
            126 => {
                let mut more = [0; 2];
                reader.read_exact(&mut more)?;
                u64::from(u16::from_be_bytes(more))
            }
            127 => {
                let mut more = [0; 8];
                reader.read_exact(&mut more)?;
                u64::from_be_bytes(more)
            }
            short => u64::from(short),
        };
        if start[1] & 0x80 != 0 {
            reader.read_exact(&mut [0; 4])?;
        }
        Ok(Self {
            first: start[0],
            length,
        })
    }

    fn skip(&self, reader: &mut BufReader<TcpStream>) -> Result<u64> {
        let mut left = reader.take(self.length);
        let mut piece = vec![0; 256 * 1024];
        let mut total = 0;
        loop {
            let length = left.read(&mut piece)?;
            if length == 0 {
                ensure!(total == self.length, "{total} of {}", self.length);
                return Ok(total);
            }
            ensure!(piece[..length].iter().all(|byte| *byte == b'x'));
            total += u64::try_from(length)?;
        }
    }

    fn text(&self, reader: &mut BufReader<TcpStream>) -> Result<String> {
        let mut text = String::new();
        reader.take(self.length).read_to_string(&mut text)?;
        Ok(text)
    }
}

/// The next frame that is no ping.
fn next(reader: &mut BufReader<TcpStream>) -> Result<Frame> {
    loop {
        let frame = Frame::read(reader)?;
        if frame.first & 0x0f < 8 {
            return Ok(frame);
        }
        ensure!(frame.length == 0);
    }
}

/// Resident memory of the gateway, kB.
fn memory(gateway: &Gateway) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let line = line.context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn open(gateway: &Gateway, target: &str) -> Result<(TcpStream, BufReader<TcpStream>)> {
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "GET {target} HTTP/1.1\r\nHost: localhost:{}\r\nAuthorization: Bearer {}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        gateway.port, gateway.owner
    )?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    ensure!(line.starts_with("HTTP/1.1 101"), "{line}");
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line)?;
    }
    Ok((stream, reader))
}

#[test]
fn r15_messages_of_100_mb_pass_both_ways_in_bounded_memory() -> Result<()> {
    let engine = Engine::start()?;
    let gateway = engine.gateway()?;
    for (target, count) in [("/ws?clientId=a", 0), ("/pack/ws", 77)] {
        let (mut stream, mut reader) = open(&gateway, target)?;
        let mut most = 0;
        for size in SIZES {
            for kind in [TEXT, BINARY] {
                let frame = next(&mut reader)?;
                ensure!(frame.first == FIN | kind, "{target}: {}", frame.first);
                ensure!(frame.length == u64::try_from(size * MIB)?);
                frame.skip(&mut reader)?;
                most = most.max(memory(&gateway)?);
            }
        }
        let mut fragments = 0;
        loop {
            let frame = next(&mut reader)?;
            fragments += frame.skip(&mut reader)?;
            if frame.first & FIN != 0 {
                break;
            }
        }
        ensure!(fragments == u64::try_from(20 * MIB)?, "{fragments}");
        // The count is still the user's own, where ComfyUI tells it.
        let status = next(&mut reader)?.text(&mut reader)?;
        let told = format!("\"queue_remaining\":{count}");
        ensure!(
            status.replace(' ', "").contains(&told),
            "{target}: {status}"
        );
        write_header(&mut stream, FIN | BINARY, 100 * MIB, true)?;
        write_payload(&mut stream, 100 * MIB)?;
        let came = next(&mut reader)?.text(&mut reader)?;
        ensure!(came == (100 * MIB).to_string(), "{came}");
        most = most.max(memory(&gateway)?);
        ensure!(most < MOST, "{target}: {most} kB");
    }
    Ok(())
}

/// Reads on until `text` has come.
fn await_text(reader: &mut BufReader<TcpStream>, text: &str) -> Result<()> {
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            bail!("the stream ended");
        }
        if line.contains(text) {
            return Ok(());
        }
    }
}

#[test]
fn r33_events_come_one_by_one_and_end_with_the_session() -> Result<()> {
    let engine = Engine::start()?;
    let gateway = engine.gateway()?;
    let session = gateway.sign_in("owner")?;
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let ask = Ask::get("/pack/events").bearer(&session);
    stream.write_all(&ask.bytes(gateway.port))?;
    let mut reader = BufReader::new(stream);
    await_text(&mut reader, "text/event-stream")?;
    // The engine sends no second one before the first has arrived.
    for _ in 0..3 {
        await_text(&mut reader, "data: x")?;
        engine.tell.send(())?;
    }
    await_text(&mut reader, "data: x")?;
    gateway.ask(&Ask::get("/logout").bearer(&session))?;
    let ended = reader.read_to_end(&mut Vec::new());
    let is_silent = ended
        .is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
    ensure!(!is_silent, "the stream outlives its session");
    Ok(())
}
