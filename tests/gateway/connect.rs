//! `sentineld connect`: a real gateway, a real door on this computer, and programs that know host and
//! port alone.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sentinel_tests::{Ask, Door, Gateway, Options, Socket, ended_within, eventually, exchange};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::net::TcpListener;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const REST: Duration = Duration::from_millis(500);

fn graph(color: u32) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 24, "height": 16, "batch_size": 1, "color": color}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "door"}},
    })
}

/// A gateway, the token of an account without an admin's rights, and a door over plain HTTP.
fn open(options: Options) -> Result<(Gateway, String, Door)> {
    let gateway = Gateway::start(options)?;
    gateway.add_user("alice")?;
    let token = gateway.make_token("alice")?;
    let door = Door::open(&plain(&gateway), &token, &[])?;
    Ok((gateway, token, door))
}

fn plain(gateway: &Gateway) -> String {
    format!("http://localhost:{}", gateway.port)
}

/// Queues a graph through a door, waits for its end on the door's socket, and reads the picture.
async fn make_a_picture(door: &Door, color: u32) -> Result<()> {
    let origin = format!("http://127.0.0.1:{}", door.port);
    let host = format!("127.0.0.1:{}", door.port);
    // As websocket-client sends it.
    let mut socket = Socket::open_as(
        door.port,
        &host,
        "/ws?clientId=program",
        &[("Origin", &origin)],
    )
    .await?;
    let body = json!({"prompt": graph(color), "client_id": "program"});
    let answer = door.ask(&Ask::post("/prompt").json(&body))?;
    ensure!(answer.status == 200, "{}", answer.text());
    let id = answer.json()["prompt_id"]
        .as_str()
        .context("an id")?
        .to_owned();
    loop {
        let event = socket.next_json().await?;
        if event["type"] == "executing" && event["data"]["node"].is_null() {
            break;
        }
    }
    let mut image = Value::Null;
    eventually(PATIENCE, || {
        let history = door.ask(&Ask::get(&format!("/history/{id}")))?.json();
        image = history[&id]["outputs"]["2"]["images"][0].clone();
        Ok(!image.is_null())
    })?;
    let name = image["filename"].as_str().context("a name")?;
    let view = door.ask(&Ask::get(&format!("/view?filename={name}&type=output")))?;
    ensure!(view.status == 200, "{}", view.text());
    ensure!(view.body.starts_with(b"\x89PNG"), "{}", view.text());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_without_a_credential_makes_and_reads_a_picture() -> Result<()> {
    for options in [
        Options::default(),
        Options::default().set("separate_users=true"),
    ] {
        let (gateway, _, door) = open(options)?;
        make_a_picture(&door, 1).await?;
        ensure!(door.console().contains("as alice of http://localhost:"));
        let direct = gateway.ask(&Ask::get("/queue"))?;
        ensure!(direct.status == 401, "the gateway itself stays closed");
    }
    Ok(())
}

#[test]
fn bodies_pass_whole_both_ways() -> Result<()> {
    let (_gateway, _, door) = open(Options::default().set("custom_node_routes=allow"))?;
    let big = vec![b'x'; 3 << 20];
    let echoed = door.ask(&Ask::post("/demo/echo").body("application/octet-stream", big))?;
    ensure!(echoed.json()["body_length"] == 3 << 20, "{}", echoed.text());
    let chunked = format!(
        "POST /demo/echo HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        door.port
    );
    let bytes = exchange(door.port, chunked.as_bytes(), REST)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    ensure!(text.contains("\"body_length\": 3"), "{text}");
    Ok(())
}

#[test]
fn the_doors_credential_replaces_the_programs_and_no_session_comes_out() -> Result<()> {
    let (gateway, _, door) = open(Options::default())?;
    let owner = &gateway.owner;
    for ask in [
        Ask::get("/sentinel/api/me").bearer(owner),
        Ask::get("/sentinel/api/me").cookie(owner),
        Ask::get("/sentinel/api/me").header("X-API-Key", owner),
        Ask::get("/sentinel/api/me").header("Authorization", "Basic eDp5"),
    ] {
        let me = door.ask(&ask)?.json();
        ensure!(me["username"] == "alice", "{me}");
        ensure!(me["admin_rights"] == false, "{me}");
    }
    let body = json!({"username": "alice", "password": sentinel_tests::PASSWORD});
    let answer = door.ask(&Ask::post("/login").json(&body))?;
    ensure!(answer.status == 200, "{}", answer.text());
    ensure!(
        answer.header("set-cookie").is_none(),
        "{:?}",
        answer.headers
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_web_page_gets_nothing() -> Result<()> {
    let (_gateway, _, door) = open(Options::default())?;
    let port = door.port;
    let own = format!("127.0.0.1:{port}");
    let pages: [(&str, &[(&str, &str)]); 7] = [
        ("a foreign origin", &[("Origin", "http://evil.example")]),
        ("a sandboxed frame", &[("Origin", "null")]),
        (
            "another port of this computer",
            &[("Origin", "http://127.0.0.1:3000")],
        ),
        (
            "a picture of another site",
            &[
                ("Sec-Fetch-Site", "cross-site"),
                ("Sec-Fetch-Mode", "no-cors"),
            ],
        ),
        (
            "a link of another site",
            &[
                ("Sec-Fetch-Site", "cross-site"),
                ("Sec-Fetch-Mode", "navigate"),
            ],
        ),
        (
            "another port, same site",
            &[("Sec-Fetch-Site", "same-site")],
        ),
        ("an old browser", &[("Referer", "http://evil.example/page")]),
    ];
    let body = json!({"prompt": graph(2)});
    for (name, headers) in pages {
        for ask in [
            Ask::get("/view?filename=a.png"),
            Ask::get("/history"),
            Ask::post("/prompt").json(&body),
            Ask::new("OPTIONS", "/prompt").header("Access-Control-Request-Method", "POST"),
        ] {
            let ask = headers
                .iter()
                .fold(ask, |ask, (name, value)| ask.header(name, value));
            let answer = door.ask(&ask)?;
            let text = answer.text();
            ensure!(answer.status == 403, "{name}: {} {text}", answer.status);
            ensure!(
                answer.json()["error"]["type"] == "foreign_page",
                "{name}: {text}"
            );
            let allows = answer.header("access-control-allow-origin");
            ensure!(allows.is_none(), "{name}: {allows:?}");
        }
        let socket = Socket::attempt_as(port, &own, "/ws", headers).await?;
        ensure!(socket.err() == Some(403), "{name}: a socket was opened");
    }
    for host in [
        "evil.example",
        "evil.example:80",
        "127.0.0.1",
        "localhost:1",
    ] {
        let answer = Ask::get("/history").header("Host", host).send(port)?;
        ensure!(answer.status == 403, "{host}: {}", answer.text());
        ensure!(answer.json()["error"]["type"] == "foreign_host", "{host}");
    }
    for request in [
        format!("CONNECT {own} HTTP/1.1\r\nHost: {own}\r\n\r\n"),
        format!("GET http://{own}/history HTTP/1.1\r\nHost: {own}\r\n\r\n"),
        format!("GET http://evil.example/ HTTP/1.1\r\nHost: {own}\r\n\r\n"),
        format!("GET /history HTTP/1.1\r\nHost: {own}\r\nHost: {own}\r\n\r\n"),
        "GET /history HTTP/1.0\r\n\r\n".to_owned(),
        "GET /history HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        let bytes = exchange(port, request.as_bytes(), REST)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let status = text.split(' ').nth(1).unwrap_or_default().to_owned();
        ensure!(
            ["400", "403", "405"].contains(&status.as_str()),
            "{request}: {text}"
        );
    }
    let answer = door.ask(&Ask::get("/history"))?;
    ensure!(
        answer.status == 200 && answer.json() == json!({}),
        "nothing was queued"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_trusted_by_its_fingerprint_alone() -> Result<()> {
    let gateway = Gateway::start(Options::default().set("sharing.tls.enabled=true"))?;
    gateway.add_user("alice")?;
    let token = gateway.make_token("alice")?;
    let address = format!("https://localhost:{}", gateway.port);
    let sha256 = |name: &str| -> Result<String> {
        let file = gateway.data.path().join("tls").join(name);
        let digest = Sha256::digest(CertificateDer::from_pem_file(file)?);
        let pairs: Vec<_> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        Ok(pairs.join(":"))
    };
    let authority = sha256("authority.pem")?;

    let said = Door::refused(&address, Some(&token), &[])?;
    ensure!(
        said.contains(&format!("--fingerprint {authority}")),
        "{said}"
    );
    ensure!(said.contains("/trust"), "{said}");

    let other = authority.replace(|digit: char| digit.is_ascii_hexdigit(), "0");
    let said = Door::refused(&address, Some(&token), &["--fingerprint", &other])?;
    ensure!(
        said.contains("another fingerprint") && said.contains(&authority),
        "{said}"
    );
    let said = Door::refused(&address, Some(&token), &["--fingerprint", "AB:CD"])?;
    ensure!(said.contains("SHA-256"), "{said}");

    for fingerprint in [authority.clone(), sha256("certificate.pem")?] {
        let door = Door::open(&address, &token, &["--fingerprint", &fingerprint])?;
        make_a_picture(&door, 3).await?;
        ensure!(!door.console().contains("Warning"), "{}", door.console());
    }
    let by_address = format!("https://127.0.0.1:{}", gateway.port);
    let bare = authority.replace(':', "").to_lowercase();
    let door = Door::open(&by_address, &token, &["--fingerprint", &bare])?;
    ensure!(door.ask(&Ask::get("/queue"))?.status == 200);
    Ok(())
}

#[test]
fn what_cannot_be_safe_does_not_open() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    gateway.add_user("alice")?;
    let token = gateway.make_token("alice")?;
    let address = plain(&gateway);
    let refused = |token: Option<&str>, arguments: &[&str], expected: &str| -> Result<()> {
        let said = Door::refused(&address, token, arguments)?;
        ensure!(said.contains(expected), "{expected}: {said}");
        ensure!(
            token.is_none_or(|token| !said.contains(token)),
            "it shows the token"
        );
        Ok(())
    };
    let admin = gateway.admin_token()?;
    refused(Some(&admin), &[], "an admin's rights")?;
    refused(Some(&gateway.owner), &[], "an admin's rights")?;
    refused(Some("nonsense"), &[], "does not accept the token")?;
    refused(Some("two words"), &[], "not an API token")?;
    refused(None, &[], "--token-file")?;
    for open in ["0.0.0.0:0", "[::]:0", "192.168.1.5:8188"] {
        refused(Some(&token), &["--listen", open], "open to other machines")?;
    }
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    refused(Some(&token), &["--listen", &taken], "choose another port")?;

    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    for (wrong, expected) in [
        (
            format!("http://localhost:{nobody}"),
            "no connection to Sentinel",
        ),
        (
            format!("https://localhost:{}", gateway.port),
            "no encrypted connection",
        ),
        ("studio.local:8189".to_owned(), "https://"),
        (
            "https://bob:secret@studio".to_owned(),
            "user name or password",
        ),
    ] {
        let said = Door::refused(&wrong, Some(&token), &[])?;
        ensure!(said.contains(expected), "{wrong}: {said}");
    }
    let door = Door::open(&address, &token, &[])?;
    ensure!(
        door.console().contains("not encrypted"),
        "{}",
        door.console()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_gone_and_a_token_that_has_ended_are_told() -> Result<()> {
    let (gateway, token, door) = open(Options::default())?;
    let out = gateway.ask(&Ask::get("/logout").bearer(&token))?;
    ensure!(out.status < 400, "{}", out.text());
    for _ in 0..3 {
        let answer = door.ask(&Ask::get("/queue"))?;
        ensure!(answer.status == 401, "{}", answer.text());
        ensure!(
            answer.json()["code"] == "sign_in_required",
            "{}",
            answer.text()
        );
    }
    let told = door.console().matches("does not accept the token").count();
    ensure!(told == 1, "{}", door.console());

    gateway.stop()?;
    for _ in 0..3 {
        let answer = door.ask(&Ask::post("/prompt").json(&json!({"prompt": graph(4)})))?;
        let body = answer.json();
        ensure!(answer.status == 502, "{}", answer.text());
        ensure!(body["error"]["type"] == "sentinel_unreachable", "{body}");
        ensure!(
            body["error"]["message"].is_string() && body["node_errors"].is_object(),
            "{body}"
        );
    }
    let told = door.console().matches("no answer from the gateway").count();
    ensure!(told == 1, "{}", door.console());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_at_once_on_an_interrupt_and_takes_its_sockets_along() -> Result<()> {
    let (_gateway, _, mut door) = open(Options::default())?;
    let host = format!("127.0.0.1:{}", door.port);
    let mut socket = Socket::open_as(door.port, &host, "/ws", &[]).await?;
    socket.next_json().await?;
    door.signal(Signal::SIGINT)?;
    let status = door.ended_within(Duration::from_secs(5))?;
    ensure!(status.success(), "{status}: {}", door.console());
    ensure!(ended_within(socket, PATIENCE).await);
    Ok(())
}

#[test]
fn a_token_file_that_others_can_read_is_refused_and_the_variable_is_read() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let gateway = Gateway::start(Options::default())?;
    gateway.add_user("alice")?;
    let token = gateway.make_token("alice")?;
    let file = gateway.data.path().join("token-of-alice");
    std::fs::write(&file, &token)?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644))?;
    let path = file.display().to_string();
    let said = Door::refused(&plain(&gateway), None, &["--token-file", &path])?;
    ensure!(said.contains("chmod 600"), "{said}");
    let door = Door::open_with_variable(&plain(&gateway), &token)?;
    ensure!(door.ask(&Ask::get("/queue"))?.status == 200);
    Ok(())
}
