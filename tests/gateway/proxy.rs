//! What passes the gateway, and what does not.

use anyhow::{Context as _, Result};
use sentinel_tests::{Answer, Ask, Gateway, Options, Socket, eventually};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

fn start() -> Result<Gateway> {
    Gateway::start(Options::default())
}

fn workflow() -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "walk"}},
    })
}

/// Makes a picture and returns the query that views it.
fn make_picture(gateway: &Gateway) -> Result<String> {
    let ask = Ask::post("/prompt").bearer(&gateway.owner);
    let body = json!({"prompt": workflow(), "client_id": "walker"});
    let answer = gateway.ask(&ask.json(&body))?;
    let id = answer.json()["prompt_id"]
        .as_str()
        .with_context(|| answer.text())?
        .to_owned();
    let mut image = Value::Null;
    eventually(Duration::from_secs(20), || {
        let history = gateway
            .ask(&Ask::get(&format!("/history/{id}")).bearer(&gateway.owner))?
            .json();
        image = history[&id]["outputs"]["2"]["images"][0].clone();
        Ok(!image.is_null())
    })?;
    let name = image["filename"].as_str().context("a file name")?;
    Ok(format!("/view?filename={name}&type=output&subfolder="))
}

#[test]
fn credentials_and_forged_headers_do_not_reach_comfyui() -> Result<()> {
    let gateway = start()?;
    let ask = Ask::get("/demo/echo?a=1&b=%20%2F")
        .bearer(&gateway.owner)
        .header(
            "Cookie",
            &format!("theme=dark; jwt_token={}; other=2", gateway.owner),
        )
        .header("Comfy-User", "admin")
        .header("X-Forwarded-For", "1.2.3.4")
        .header("X-Forwarded-Host", "evil.example")
        .header("X-Forwarded-Proto", "https")
        .header("X-Real-IP", "1.2.3.4")
        .header("Forwarded", "for=1.2.3.4")
        .header("Via", "1.1 evil")
        .header("X-Sentinel-Proof", "proof")
        .header("Proxy-Authorization", "Basic eDp5")
        .header("Proxy-Connection", "keep-alive")
        .header("Keep-Alive", "timeout=5")
        .header("TE", "trailers")
        .header("X-Named", "by connection")
        .header("Connection", "close, X-Named")
        .header("Origin", &format!("http://localhost:{}", gateway.port))
        .header("X-Custom", "stays")
        .header("Accept-Language", "de");
    let answer = gateway.ask(&ask)?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["query"], "a=1&b=%20%2F");
    for name in [
        "authorization",
        "comfy-user",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "forwarded",
        "via",
        "x-sentinel-proof",
        "proxy-authorization",
        "proxy-connection",
        "keep-alive",
        "te",
        "x-named",
        "upgrade",
    ] {
        assert_eq!(answer.echoed(name), Vec::<String>::new(), "{name}");
    }
    assert_eq!(answer.echoed("cookie"), ["theme=dark; other=2"]);
    assert_eq!(answer.echoed("x-custom"), ["stays"]);
    assert_eq!(answer.echoed("accept-language"), ["de"]);
    let host = answer.echoed("host");
    assert!(host[0].starts_with("127.0.0.1:"), "{host:?}");
    assert_eq!(answer.echoed("origin"), [format!("http://{}", host[0])]);
    assert!(!answer.text().contains(&gateway.owner), "{}", answer.text());
    Ok(())
}

#[test]
fn b4_how_a_browser_came_is_judged_here_and_does_not_reach_comfyui() -> Result<()> {
    let gateway = start()?;
    let ask = |target: &str| {
        Ask::get(target)
            .bearer(&gateway.owner)
            .header("Sec-Fetch-Site", "cross-site")
            .header("Sec-Fetch-Mode", "navigate")
            .header("Sec-Fetch-User", "?1")
            .header("Sec-Fetch-Dest", "document")
    };
    // A link from elsewhere leads to the page.
    let page = gateway.ask(&ask("/").browser())?;
    assert_eq!(page.status, 200, "{}", page.text());
    let echo = gateway.ask(
        &Ask::get("/demo/echo")
            .bearer(&gateway.owner)
            .header("Sec-Fetch-Site", "same-origin")
            .header("Sec-Fetch-Mode", "no-cors")
            .header("Sec-Fetch-User", "?1")
            .header("Sec-Fetch-Dest", "image"),
    )?;
    assert_eq!(echo.status, 200, "{}", echo.text());
    for name in ["sec-fetch-site", "sec-fetch-mode", "sec-fetch-user"] {
        assert_eq!(echo.echoed(name), Vec::<String>::new(), "{name}");
    }
    assert_eq!(echo.echoed("sec-fetch-dest"), ["image"]);
    Ok(())
}

#[test]
fn the_token_in_any_cookie_spelling_does_not_reach_comfyui() -> Result<()> {
    let gateway = start()?;
    let token = &gateway.owner;
    for cookie in [
        format!("jwt_token ={token}; jwt_token={token}"),
        format!("a=1;jwt_token={token}"),
        format!("jwt_token={token};;b=2"),
    ] {
        let answer = gateway.ask(
            &Ask::get("/demo/echo")
                .bearer(token)
                .header("Cookie", &cookie),
        )?;
        assert_eq!(answer.status, 200);
        assert!(
            !answer.text().contains(token.as_str()),
            "{cookie}: {}",
            answer.text()
        );
    }
    Ok(())
}

#[test]
fn all_methods_and_paths_pass_as_they_are() -> Result<()> {
    let gateway = start()?;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = gateway.ask(&Ask::new(method, "/demo/echo").bearer(&gateway.owner))?;
        assert_eq!(
            (answer.status, answer.json()["method"].as_str()),
            (200, Some(method))
        );
    }
    for (sent, arrives) in [
        ("/demo/echo/a%2Fb", "/demo/echo/a%2Fb"),
        ("/demo/echo/a%2fb%252Fc", "/demo/echo/a%2Fb%252Fc"),
        ("/demo/echo/%61//b/", "/demo/echo/a//b/"),
        ("/demo/echo/caf%C3%A9;x=1", "/demo/echo/caf%C3%A9;x=1"),
        ("/demo/echo/a+b%20c", "/demo/echo/a+b%20c"),
    ] {
        let answer = gateway.ask(&Ask::get(sent).bearer(&gateway.owner))?;
        assert_eq!(answer.json()["path"], arrives, "{sent}");
    }
    for bad in [
        "/demo/echo/%zz",
        "/demo/echo/%",
        "/demo/echo/%00",
        "/demo/echo/../echo",
        "/demo/echo/%2e%2e/echo",
        "/demo/echo/a%0d%0aX:1",
    ] {
        let answer = gateway.ask(&Ask::get(bad).bearer(&gateway.owner))?;
        assert_eq!(answer.status, 400, "{bad}");
    }
    Ok(())
}

#[test]
fn pictures_come_whole_in_parts_and_not_at_all() -> Result<()> {
    let gateway = start()?;
    let path = make_picture(&gateway)?;
    let get = |headers: &[(&str, &str)]| -> Result<Answer> {
        let ask = headers.iter().fold(
            Ask::get(&path).bearer(&gateway.owner),
            |ask, (name, value)| ask.header(name, value),
        );
        gateway.ask(&ask)
    };
    let whole = get(&[])?;
    assert_eq!(
        (whole.status, whole.header("content-type")),
        (200, Some("image/png"))
    );
    assert!(whole.body.starts_with(b"\x89PNG"));
    let cache = whole.header("cache-control").unwrap_or_default();
    assert!(
        cache.contains("private") || cache.contains("no-store"),
        "{cache}"
    );
    let head = gateway.ask(&Ask::new("HEAD", &path).bearer(&gateway.owner))?;
    assert_eq!(
        head.header("content-length"),
        Some(whole.body.len().to_string().as_str())
    );
    let part = get(&[("Range", "bytes=1-3")])?;
    assert_eq!(
        (part.status, part.body.as_slice()),
        (206, b"PNG".as_slice())
    );
    assert_eq!(
        part.header("content-range"),
        Some(format!("bytes 1-3/{}", whole.body.len()).as_str())
    );
    assert_eq!(get(&[("Range", "bytes=9999999-")])?.status, 416);
    if let Some(tag) = whole.header("etag") {
        assert_eq!(get(&[("If-None-Match", tag)])?.status, 304);
    }
    let modified = whole.header("last-modified").context("a time")?;
    assert_eq!(get(&[("If-Modified-Since", modified)])?.status, 304);
    Ok(())
}

/// Resident memory of the gateway, kB.
fn memory(gateway: &Gateway) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

#[test]
fn a_big_download_is_streamed() -> Result<()> {
    const SIZE: usize = 200 * 1024 * 1024;
    let gateway = start()?;
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(
        &Ask::get(&format!("/demo/huge?bytes={SIZE}"))
            .bearer(&gateway.owner)
            .bytes(gateway.port),
    )?;
    let mut piece = vec![0; 256 * 1024];
    let (mut total, mut most) = (0, 0);
    let mut turn = 0;
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            break;
        }
        total += length;
        turn += 1;
        if turn % 200 == 0 {
            most = most.max(memory(&gateway)?);
        }
    }
    assert!(total > SIZE && total < SIZE + 4096, "{total}");
    assert!(most > 0 && most < 60 * 1024, "{most} kB");
    Ok(())
}

#[test]
fn a_big_upload_arrives_whole() -> Result<()> {
    let gateway = start()?;
    let body: Vec<u8> = (0..50_u32 * 1024 * 256)
        .flat_map(u32::to_le_bytes)
        .collect();
    let expected: String = Sha256::digest(&body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let length = body.len();
    let answer = gateway.ask(
        &Ask::post("/demo/echo")
            .bearer(&gateway.owner)
            .body("application/octet-stream", body),
    )?;
    assert_eq!(answer.json()["body_length"], length);
    assert_eq!(answer.json()["body_sha256"], expected);
    let used = memory(&gateway)?;
    assert!(used < 60 * 1024, "{used} kB");
    Ok(())
}

#[test]
fn s46_a_body_without_a_session_is_not_consumed() -> Result<()> {
    let gateway = start()?;
    let mut stream = TcpStream::connect(("127.0.0.1", gateway.port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let head = format!(
        "POST /upload/image HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 104857600\r\n\r\n",
        gateway.port
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    assert_eq!(&answer, b"HTTP/1.1 401");
    Ok(())
}

#[tokio::test]
async fn a_socket_passes_text_and_binary_both_ways() -> Result<()> {
    let gateway = start()?;
    let bearer = format!("Bearer {}", gateway.owner);
    let mut socket = Socket::open(
        gateway.port,
        "/demo/echo-socket",
        &[("Authorization", &bearer)],
    )
    .await?;
    for size in [0, 1, 125, 126, 65_535, 65_536, 1_000_000] {
        let text = "x".repeat(size);
        socket.send(Message::text(text.clone())).await?;
        assert_eq!(socket.next().await?, Message::text(text));
        let bytes: Vec<u8> = (0..size)
            .map(|at| u8::try_from(at % 251).unwrap_or(0))
            .collect();
        socket.send(Message::binary(bytes.clone())).await?;
        assert_eq!(socket.next().await?, Message::binary(bytes));
    }
    Ok(())
}

#[tokio::test]
async fn a_socket_needs_a_session() -> Result<()> {
    let gateway = start()?;
    for target in ["/ws", "/api/ws", "/demo/echo-socket", "/%77s"] {
        let refused =
            Socket::attempt(gateway.port, target, &[("Authorization", "Bearer x")]).await?;
        assert_eq!(refused.err(), Some(401), "{target}");
        let query = format!("{target}?token={}", gateway.owner);
        assert_eq!(
            Socket::attempt(gateway.port, &query, &[]).await?.err(),
            Some(401),
            "{target}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_events_of_a_prompt_arrive() -> Result<()> {
    let gateway = start()?;
    let cookie = format!("jwt_token={}", gateway.owner);
    let origin = format!("http://localhost:{}", gateway.port);
    let mut socket = Socket::open(
        gateway.port,
        "/ws?clientId=walker",
        &[("Cookie", &cookie), ("Origin", &origin)],
    )
    .await?;
    let body = json!({"prompt": workflow(), "client_id": "walker"});
    assert_eq!(
        gateway
            .ask(&Ask::post("/prompt").bearer(&gateway.owner).json(&body))?
            .status,
        200
    );
    let mut seen = Vec::new();
    loop {
        let event = socket.next_json().await?;
        let kind = event["type"].as_str().unwrap_or_default().to_owned();
        seen.push(kind.clone());
        if kind == "execution_success" {
            break;
        }
    }
    for kind in ["status", "execution_start", "executing", "executed"] {
        assert!(seen.iter().any(|seen| seen == kind), "{kind} in {seen:?}");
    }
    Ok(())
}

#[test]
fn one_connection_serves_many_requests() -> Result<()> {
    let gateway = start()?;
    let ask = Ask::get("/demo/echo")
        .bearer(&gateway.owner)
        .header("Connection", "keep-alive")
        .bytes(gateway.port);
    let answers = sentinel_tests::exchange(gateway.port, &ask.repeat(5), Duration::from_secs(1))?;
    let text = String::from_utf8_lossy(&answers).into_owned();
    assert_eq!(text.matches("HTTP/1.1 200").count(), 5, "{text}");
    Ok(())
}

#[test]
fn s50_logging_out_frees_memory_where_that_is_wished() -> Result<()> {
    for is_wished in [true, false] {
        let wish = format!("free_memory_on_logout={is_wished}");
        let gateway = Gateway::start(Options::default().set(&wish))?;
        let first = make_picture(&gateway)?;
        assert_eq!(
            make_picture(&gateway)?,
            first,
            "ComfyUI's cache is not empty"
        );
        let leaving = gateway.sign_in("owner")?;
        gateway.ask(&Ask::get("/logout").bearer(&leaving))?;
        let freed = eventually(Duration::from_secs(5), || {
            Ok(make_picture(&gateway)? != first)
        });
        assert_eq!(
            freed.is_ok(),
            is_wished,
            "free_memory_on_logout: {is_wished}"
        );
    }
    Ok(())
}
