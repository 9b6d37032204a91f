//! Requests that two programs could read in two ways: never two answers, never a second request.

use anyhow::Result;
use sentinel_tests::{Ask, Gateway, Options, exchange};
use std::time::Duration;

const REST: Duration = Duration::from_millis(700);

/// How many answers came.
fn answers(bytes: &[u8]) -> usize {
    String::from_utf8_lossy(bytes).matches("HTTP/1.1 ").count()
}

fn status(bytes: &[u8]) -> u16 {
    let text = String::from_utf8_lossy(bytes);
    text.split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_hidden_second_request_is_never_answered() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let host = format!("localhost:{}", gateway.port);
    let token = &gateway.owner;
    let hidden = format!(
        "GET /demo/echo/hidden HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let length = hidden.len();
    let plain = exchange(gateway.port, hidden.repeat(2).as_bytes(), REST)?;
    assert_eq!(answers(&plain), 2, "what is not hidden is answered");
    let cases = [
        (
            "length and chunks",
            format!(
                "Content-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}",
                length + 5
            ),
        ),
        (
            "chunks and length",
            format!("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "two lengths",
            format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{hidden}"),
        ),
        (
            "a list of lengths",
            format!("Content-Length: 0, {length}\r\n\r\n{hidden}"),
        ),
        (
            "a signed length",
            format!("Content-Length: +0\r\n\r\n{hidden}"),
        ),
        (
            "a hexadecimal length",
            format!("Content-Length: 0x0\r\n\r\n{hidden}"),
        ),
        (
            "a negative length",
            format!("Content-Length: -1\r\n\r\n{hidden}"),
        ),
        (
            "unknown coding",
            format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "two codings",
            format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "space before the colon of chunks",
            format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "space before the colon of length",
            format!("Content-Length : 5\r\n\r\n{hidden}"),
        ),
        (
            "folded coding",
            format!("X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "folded chunked",
            format!("Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "bare carriage return",
            format!("X-A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        ("NUL in a value", format!("X-A: b\0c\r\n\r\n{hidden}")),
        (
            "vertical tab before chunked",
            format!("Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "broken chunk size",
            format!("Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n{hidden}"),
        ),
        (
            "huge chunk size",
            format!("Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n\r\n{hidden}"),
        ),
        (
            "chunk without its end",
            format!("Transfer-Encoding: chunked\r\n\r\n1\r\nZZ\r\n0\r\n\r\n{hidden}"),
        ),
    ];
    for (name, rest) in cases {
        let request = format!(
            "POST /demo/echo/first HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n{rest}"
        );
        let bytes = exchange(gateway.port, request.as_bytes(), REST)?;
        let text = String::from_utf8_lossy(&bytes);
        assert!(answers(&bytes) <= 1, "{name}: {text}");
        assert!(!text.contains("echo/hidden"), "{name}: {text}");
    }
    Ok(())
}

#[test]
fn odd_request_lines_and_hosts_are_refused() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let host = format!("localhost:{}", gateway.port);
    let token = &gateway.owner;
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let cases = [
        (
            "two hosts",
            format!(
                "GET /demo/echo HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\n{bearer}\r\n"
            ),
        ),
        (
            "no host",
            format!("GET /demo/echo HTTP/1.1\r\n{bearer}\r\n"),
        ),
        (
            "another host in the absolute form",
            format!("GET http://evil.example/demo/echo HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\n"),
        ),
        (
            "foreign host",
            format!("GET /demo/echo HTTP/1.1\r\nHost: evil.example\r\n{bearer}\r\n"),
        ),
        (
            "user in the host",
            format!("GET /demo/echo HTTP/1.1\r\nHost: x@{host}\r\n{bearer}\r\n"),
        ),
        (
            "NUL in the path",
            format!("GET /demo/echo\0 HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\n"),
        ),
        (
            "space in the path",
            format!("GET /demo/echo /x HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\n"),
        ),
        ("no version", "GET /demo/echo\r\n\r\n".to_owned()),
        (
            "a version of the future",
            format!("GET /demo/echo HTTP/3.0\r\nHost: {host}\r\n{bearer}\r\n"),
        ),
        (
            "connect",
            format!("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n{bearer}\r\n"),
        ),
        (
            "trace",
            format!("TRACE /demo/echo HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\n"),
        ),
        (
            "header of a megabyte",
            format!(
                "GET /demo/echo HTTP/1.1\r\nHost: {host}\r\n{bearer}X-Big: {}\r\n\r\n",
                "x".repeat(1 << 20)
            ),
        ),
        (
            "many headers",
            format!(
                "GET /demo/echo HTTP/1.1\r\nHost: {host}\r\n{bearer}{}\r\n",
                "X-A: b\r\n".repeat(5000)
            ),
        ),
        (
            "a path of a megabyte",
            format!(
                "GET /demo/echo/{} HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\n",
                "x".repeat(1 << 20)
            ),
        ),
        (
            "HTTP/2 without asking",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        ),
    ];
    for (name, request) in cases {
        let bytes = exchange(gateway.port, request.as_bytes(), REST)?;
        let text = String::from_utf8_lossy(&bytes);
        let status = status(&bytes);
        // An upload that is cut off in its middle may lose its refusal.
        assert!(
            bytes.is_empty() || (400..=505).contains(&status),
            "{name}: {text}"
        );
        assert!(answers(&bytes) <= 1, "{name}: {text}");
    }
    assert_eq!(
        gateway.ask(&Ask::get("/demo/echo").bearer(token))?.status,
        200,
        "it still serves"
    );
    Ok(())
}

#[test]
fn chunks_and_bare_line_feeds_end_where_they_end() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let host = format!("localhost:{}", gateway.port);
    let token = &gateway.owner;
    let head =
        format!("POST /demo/echo HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n");
    let chunked = format!(
        "{head}Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
    );
    let bytes = exchange(gateway.port, chunked.as_bytes(), REST)?;
    assert_eq!(status(&bytes), 200);
    assert!(
        String::from_utf8_lossy(&bytes).contains("\"body_length\": 5"),
        "{}",
        String::from_utf8_lossy(&bytes)
    );
    let bare = format!("GET /demo/echo HTTP/1.1\nHost: {host}\nAuthorization: Bearer {token}\n\n");
    let bytes = exchange(gateway.port, bare.as_bytes(), REST)?;
    assert!(answers(&bytes) <= 1);
    // With an absolute form of our own host the path counts.
    let absolute = format!(
        "GET http://{host}/demo/echo HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    );
    let bytes = exchange(gateway.port, absolute.as_bytes(), REST)?;
    assert_eq!(status(&bytes), 200);
    assert!(String::from_utf8_lossy(&bytes).contains("\"path\": \"/demo/echo\""));
    Ok(())
}
