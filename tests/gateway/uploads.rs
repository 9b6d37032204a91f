//! R14: uploads of any size, in any framing, and what is left of those that break off.

use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Answer, Ask, Gateway, Options, eventually, read_answer};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1024 * 1024;
const HEAD: &str = "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"big.bin\"\r\n\
                    Content-Type: application/octet-stream\r\n\r\n";
const TAIL: &str = "\r\n--x--\r\n";

/// How the body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
}

/// An upload under way.
struct Upload {
    stream: TcpStream,
    framing: Framing,
}

impl Upload {
    /// Sends the head of a request that brings `size` bytes in a file to `target`.
    fn begin(gateway: &Gateway, target: &str, size: usize, framing: Framing) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", gateway.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let told = match framing {
            Framing::Length => format!("Content-Length: {}", HEAD.len() + size + TAIL.len()),
            Framing::Chunked => "Transfer-Encoding: chunked".to_owned(),
        };
        write!(
            stream,
            "POST {target} HTTP/1.1\r\nHost: localhost:{}\r\nConnection: close\r\n\
             Authorization: Bearer {}\r\nContent-Type: multipart/form-data; boundary=x\r\n{told}\r\n\r\n",
            gateway.port, gateway.owner
        )?;
        let mut upload = Self { stream, framing };
        upload.piece(HEAD.as_bytes())?;
        Ok(upload)
    }

    fn piece(&mut self, bytes: &[u8]) -> Result<()> {
        if self.framing == Framing::Chunked {
            write!(self.stream, "{:x}\r\n", bytes.len())?;
        }
        self.stream.write_all(bytes)?;
        if self.framing == Framing::Chunked {
            self.stream.write_all(b"\r\n")?;
        }
        Ok(())
    }

    fn end(mut self) -> Result<Answer> {
        self.piece(TAIL.as_bytes())?;
        if self.framing == Framing::Chunked {
            self.stream.write_all(b"0\r\n\r\n")?;
        }
        self.answer()
    }

    fn answer(mut self) -> Result<Answer> {
        let mut bytes = Vec::new();
        let ended = self.stream.read_to_end(&mut bytes);
        read_answer(&bytes, false).with_context(|| format!("{ended:?}"))
    }
}

/// Resident memory of the gateway, kB.
fn memory(gateway: &Gateway) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let line = line.context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Files below the data directory with this name, and their sizes.
fn files(gateway: &Gateway, name: &str) -> Vec<(PathBuf, u64)> {
    fn look(directory: PathBuf, name: &str, found: &mut Vec<(PathBuf, u64)>) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => look(entry.path(), name, found),
                Ok(metadata) if entry.file_name() == name => {
                    found.push((entry.path(), metadata.len()));
                }
                Ok(_) | Err(_) => {}
            }
        }
    }
    let mut found = Vec::new();
    look(gateway.data.path().to_owned(), name, &mut found);
    found
}

#[test]
fn r14_uploads_beyond_comfyuis_limit_arrive_in_constant_memory() -> Result<()> {
    const SIZE: usize = 160 * MIB;
    for framing in [Framing::Length, Framing::Chunked] {
        let gateway = Gateway::start(Options::default())?;
        let mut upload = Upload::begin(&gateway, "/upload/image", SIZE, framing)?;
        let piece = vec![7; MIB];
        let mut most = 0;
        for turn in 0..SIZE / MIB {
            upload.piece(&piece)?;
            if turn % 16 == 0 {
                most = most.max(memory(&gateway)?);
            }
        }
        let answer = upload.end()?;
        ensure!(answer.status == 200, "{framing:?}: {}", answer.text());
        let size = u64::try_from(SIZE)?;
        let found = files(&gateway, "big.bin");
        ensure!(
            found.iter().map(|(_, size)| *size).eq([size]),
            "{framing:?}: {found:?}"
        );
        ensure!(most < 60 * 1024, "{framing:?}: {most} kB");
    }
    Ok(())
}

#[test]
fn r14_a_refusal_tells_limit_and_key() -> Result<()> {
    let options = Options::default()
        .engine_argument("--max-upload-size")
        .engine_argument("1");
    let gateway = Gateway::start(options)?;
    let ask = Ask::post("/api/upload/image").bearer(&gateway.owner);
    let body = [HEAD.as_bytes(), &vec![1; 2 * MIB], TAIL.as_bytes()].concat();
    let answer = gateway.ask(&ask.body("multipart/form-data; boundary=x", body))?;
    ensure!(answer.status == 413, "{}", answer.status);
    let told = answer.json();
    ensure!(told["code"] == "too_large", "{told}");
    ensure!(told["limit_bytes"] == MIB, "{told}");
    ensure!(told["key"] == "comfyui.args", "{told}");
    let text = told["error"].as_str().unwrap_or_default();
    ensure!(text.contains("--max-upload-size"), "{told}");
    Ok(())
}

#[test]
fn r14_what_comfyui_keeps_whole_in_memory_keeps_its_limit() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let target = "/api/userdata/big.json";
    let refused = |answer: Answer| -> Result<()> {
        let told: Value = answer.json();
        ensure!(answer.status == 413, "{}: {told}", answer.status);
        ensure!(told["limit_bytes"] == 100 * MIB, "{told}");
        Ok(())
    };
    // Told beforehand: nothing is read.
    refused(Upload::begin(&gateway, target, 101 * MIB, Framing::Length)?.answer()?)?;
    let mut upload = Upload::begin(&gateway, target, 0, Framing::Chunked)?;
    let piece = vec![7; MIB];
    for _ in 0..101 {
        // It may be broken off before its end.
        if upload.piece(&piece).is_err() {
            break;
        }
    }
    refused(upload.answer()?)?;
    ensure!(files(&gateway, "big.json").is_empty());
    Ok(())
}

#[test]
fn r14_an_upload_that_breaks_off_leaves_nothing() -> Result<()> {
    for framing in [Framing::Length, Framing::Chunked] {
        let gateway = Gateway::start(Options::default())?;
        let mut upload = Upload::begin(&gateway, "/upload/image", 64 * MIB, framing)?;
        upload.piece(&vec![7; 8 * MIB])?;
        drop(upload);
        // The next one of the same name gets it as it is.
        let mut next = Upload::begin(&gateway, "/upload/image", MIB, framing)?;
        next.piece(&vec![8; MIB])?;
        let answer = next.end()?;
        ensure!(answer.json()["name"] == "big.bin", "{}", answer.text());
        let is_alone = || {
            let found = files(&gateway, "big.bin");
            Ok(found.iter().map(|(_, size)| *size).eq([1024 * 1024]))
        };
        eventually(PATIENCE, is_alone).with_context(|| format!("{framing:?}"))?;
    }
    Ok(())
}
