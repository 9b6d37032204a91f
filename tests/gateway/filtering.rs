//! Address lists, the guard against foreign pages, ComfyUI-Manager, HTTPS.

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use sentinel_tests::{Ask, Gateway, Options, Socket, ended_within, eventually, read_answer};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_millis(1500);
/// A file that was not written to for this long may count as whole.
const WRITING_PAUSE: Duration = Duration::from_millis(80);

fn status_from(gateway: &Gateway, address: &str) -> Result<u16> {
    // A banned address may get no answer at all.
    Ok(gateway
        .ask(&Ask::get("/sentinel/health").from(address))
        .map_or(403, |answer| answer.status))
}

#[tokio::test]
async fn an_edit_of_the_deny_list_counts_within_a_second() -> Result<()> {
    let gateway = Gateway::start(Options::default().behind_a_proxy())?;
    let cookie = format!("jwt_token={}", gateway.owner);
    let banned = Socket::open(
        gateway.port,
        "/ws",
        &[("Cookie", &cookie), ("X-Forwarded-For", "192.168.1.50")],
    )
    .await?;
    let mut other = Socket::open(
        gateway.port,
        "/ws",
        &[("Cookie", &cookie), ("X-Forwarded-For", "192.168.1.51")],
    )
    .await?;
    assert_eq!(status_from(&gateway, "192.168.1.50")?, 200);
    let path = gateway.data.path().join("blacklist.txt");
    fs::write(
        &path,
        "# away with him\n192.168.1.50\n10.0.0.0/8\n2001:db8::/32\n",
    )?;
    assert!(ended_within(banned, SECOND).await);
    for address in [
        "192.168.1.50",
        "::ffff:192.168.1.50",
        "10.200.3.4",
        "2001:db8:1::9",
    ] {
        eventually(SECOND, || Ok(status_from(&gateway, address)? == 403))?;
    }
    assert_eq!(status_from(&gateway, "192.168.1.51")?, 200);
    other.next().await?;
    fs::write(&path, "")?;
    eventually(SECOND, || Ok(status_from(&gateway, "192.168.1.50")? == 200))
}

/// Cuts a file off and writes it over and over, as a slow network drive may; the longest pause it made.
fn write_slowly(path: &Path, is_over: &AtomicBool) -> Result<Duration> {
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    while !is_over.load(Ordering::Relaxed) {
        fs::write(path, "# written slowly\n")?;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        std::thread::yield_now();
    }
    Ok(longest)
}

#[test]
fn a_list_that_an_editor_is_writing_lets_nobody_in() -> Result<()> {
    let gateway = Gateway::start(Options::default().behind_a_proxy())?;
    let path = gateway.data.path().join("blacklist.txt");
    let is_banned = |address| Ok(status_from(&gateway, address)? == 403);
    // On a busy machine the writing itself may pause for so long that it looks finished.
    for _ in 0..5 {
        fs::write(&path, "192.168.1.50\n")?;
        eventually(SECOND, || is_banned("192.168.1.50"))?;
        let is_over = AtomicBool::new(false);
        let (was_let_in, longest_pause) = std::thread::scope(|scope| -> Result<_> {
            let writer = scope.spawn(|| write_slowly(&path, &is_over));
            let begun = Instant::now();
            let mut was_let_in = false;
            while begun.elapsed() < SECOND && !was_let_in {
                was_let_in = !is_banned("192.168.1.50")?;
            }
            is_over.store(true, Ordering::Relaxed);
            let pause = writer
                .join()
                .map_err(|_| anyhow::anyhow!("the writer died"))??;
            Ok((was_let_in, pause))
        })?;
        if was_let_in && longest_pause >= WRITING_PAUSE {
            continue;
        }
        ensure!(!was_let_in, "he was let in");
        fs::write(&path, "# written slowly\n192.168.1.51\n")?;
        eventually(SECOND, || is_banned("192.168.1.51"))?;
        ensure!(!is_banned("192.168.1.50")?, "the whole list counts");
        return Ok(());
    }
    anyhow::bail!("this machine is too busy for this test")
}

#[test]
fn s11_s13_an_allow_list_of_networks_shuts_the_others_out() -> Result<()> {
    let lists = Options::default().file("whitelist.txt", "192.168.1.0/24\n2001:db8::/64\n");
    let gateway = Gateway::start(lists.behind_a_proxy().without_owner())?;
    for (address, expected) in [
        ("192.168.1.7", 200),
        ("::ffff:192.168.1.7", 200),
        ("2001:db8::77", 200),
        ("192.168.2.7", 403),
        ("2001:db8:0:1::7", 403),
        ("203.0.113.5", 403),
    ] {
        assert_eq!(status_from(&gateway, address)?, expected, "{address}");
    }
    Ok(())
}

#[test]
fn a_bad_line_keeps_what_was_last_good() -> Result<()> {
    let gateway = Gateway::start(
        Options::default()
            .behind_a_proxy()
            .file("blacklist.txt", "192.168.1.50\n"),
    )?;
    assert_eq!(status_from(&gateway, "192.168.1.50")?, 403);
    fs::write(
        gateway.data.path().join("blacklist.txt"),
        "192.168.1.51\nnonsense/99\n",
    )?;
    eventually(Duration::from_secs(3), || {
        let access = gateway.admin("GET", "access", None)?.json();
        Ok(!access["blacklist"]["error"].is_null())
    })?;
    assert_eq!(status_from(&gateway, "192.168.1.50")?, 403);
    assert_eq!(status_from(&gateway, "192.168.1.52")?, 200);
    Ok(())
}

#[tokio::test]
async fn foreign_pages_reach_nothing() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let port = gateway.port;
    let own = format!("http://localhost:{port}");
    let other_port = format!("http://localhost:{}", port.wrapping_add(1).max(1));
    let foreign = [
        "null",
        "https://evil.example",
        &other_port,
        &format!("https://localhost:{port}"),
        "http://localhost",
        "http://localhost.evil.example",
    ];
    for origin in foreign {
        for (method, path) in [
            ("POST", "/prompt"),
            ("GET", "/queue"),
            ("POST", "/login"),
            ("POST", "/register"),
            ("OPTIONS", "/prompt"),
        ] {
            let answer = gateway.ask(
                &Ask::new(method, path)
                    .cookie(&gateway.owner)
                    .header("Origin", origin),
            )?;
            assert_eq!(answer.status, 403, "{origin} {method} {path}");
            assert_eq!(
                answer.header("access-control-allow-origin"),
                None,
                "{origin}"
            );
        }
        let cookie = format!("jwt_token={}", gateway.owner);
        let refused =
            Socket::attempt(port, "/ws", &[("Cookie", &cookie), ("Origin", origin)]).await?;
        assert_eq!(refused.err(), Some(403), "{origin}");
    }
    assert_eq!(
        gateway
            .ask(
                &Ask::get("/queue")
                    .cookie(&gateway.owner)
                    .header("Origin", &own)
            )?
            .status,
        200
    );
    let cross = Ask::get("/logout")
        .cookie(&gateway.owner)
        .header("Sec-Fetch-Site", "cross-site")
        .header("Sec-Fetch-Mode", "navigate");
    assert_eq!(gateway.ask(&cross)?.status, 403);
    assert_eq!(
        gateway
            .ask(&Ask::get("/queue").cookie(&gateway.owner))?
            .status,
        200,
        "still signed in"
    );
    Ok(())
}

#[test]
fn only_our_names_are_answered() -> Result<()> {
    let gateway = Gateway::start(
        Options::default()
            .without_engine()
            .set("allowed_hosts=studio.example"),
    )?;
    let port = gateway.port;
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        "localhost.evil.example",
        "",
        "localhost/evil",
    ] {
        let answer = gateway.ask(&Ask::get("/sentinel/health").header("Host", host))?;
        assert!(
            matches!(answer.status, 400 | 403),
            "{host}: {}",
            answer.status
        );
    }
    for host in [
        "127.0.0.1",
        "[::1]",
        "192.168.1.9",
        "localhost",
        "LOCALHOST",
        "studio.example",
        "comfyui.local",
    ] {
        let answer =
            gateway.ask(&Ask::get("/sentinel/health").header("Host", &format!("{host}:{port}")))?;
        assert_eq!(answer.status, 200, "{host}");
    }
    Ok(())
}

#[test]
fn s14_u10_u11_the_manager_is_for_admins_in_every_spelling() -> Result<()> {
    let options = Options::default()
        .set("manager_admin_only=true")
        .engine_argument("--enable-manager");
    let gateway = Gateway::start(options)?;
    gateway.add_user("anna")?;
    let anna = gateway.sign_in("anna")?;
    let paths = [
        "/customnode/install/git_url",
        "/api/customnode/install/git_url",
        "/%63ustomnode/install/git_url",
        "/v2/manager/reboot",
        "/api/v2/manager/reboot",
        "/manager/reboot",
        "/api/manager/reboot",
        "/m%61nager/reboot",
        "/%6Danager/%72eboot",
        "/snapshot/remove",
        "/v2/snapshot/restore",
        "/api/snapshot/get_list",
        "/externalmodel/getlist",
        "/comfyui_manager/x",
        "/v2/customnode/getmappings",
        "/v2/manager/queue/install",
        "/Manager/reboot",
        "//manager/reboot",
        "/manager%2Freboot",
        "/a%70i/manager/reboot",
        "/extensions/comfyui-manager/x.js",
        "/extensions/ComfyUI-Manager/x.js",
        "/api/extensions/comfyui-manager/x.js",
    ];
    for path in paths {
        for method in ["GET", "HEAD", "POST", "OPTIONS", "PUT"] {
            let answer = gateway.ask(&Ask::new(method, path).bearer(&anna))?;
            assert_eq!(answer.status, 403, "{method} {path}");
        }
    }
    for path in [
        "/v2/manager/version",
        "/v2/customnode/getmappings?mode=local",
        "/extensions/comfyui-manager/x.js",
    ] {
        let answer = gateway.ask(&Ask::get(path).bearer(&gateway.owner))?;
        assert_ne!(answer.status, 403, "{path}");
    }
    assert_eq!(gateway.ask(&Ask::get("/queue").bearer(&anna))?.status, 200);
    Ok(())
}

#[test]
fn s49_plain_http_is_sent_to_https() -> Result<()> {
    let gateway = Gateway::start(Options::default().set("force_https=true").without_owner())?;
    let port = gateway.port;
    let answer = gateway.ask(&Ask::get("/login?next=%2Fx"))?;
    assert_eq!(answer.status, 308);
    assert_eq!(
        answer.header("location"),
        Some(format!("https://localhost:{port}/login?next=%2Fx").as_str())
    );
    let answer = gateway
        .ask(&Ask::post("/login").json(&serde_json::json!({"username": "a", "password": "b"})))?;
    assert_eq!(answer.status, 308);

    let authority = gateway.data.path().join("tls/authority.pem");
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost")?)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", port))?);
    let body = serde_json::json!({"new_user_username": "owner", "new_user_password": sentinel_tests::PASSWORD});
    stream
        .write_all(&Ask::post("/register").json(&body).bytes(port))
        .context("TLS")?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    assert_eq!(read_answer(&bytes, false)?.status, 200);
    Ok(())
}

/// What a program does that looks through a whole network for open ports.
#[test]
fn probes_of_the_tls_port_ban_nobody_and_fill_no_log() -> Result<()> {
    let options = Options::default()
        .set("sharing.tls.enabled=true")
        .set("blacklist_after_attempts=3")
        .without_engine();
    let gateway = Gateway::start(options)?;
    let address = ("127.0.0.1", gateway.port);
    let log_lines = || -> Result<usize> {
        let mut lines = gateway.console().lines().count();
        for entry in fs::read_dir(gateway.data.path().join("logs"))? {
            lines += fs::read_to_string(entry?.path())?.lines().count();
        }
        Ok(lines)
    };
    let before = log_lines()?;
    // The beginning of a TLS greeting, nonsense, plain HTTP to an address that is none, and nothing.
    let probes: [&[u8]; 5] = [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x16\x03\x01\x00\x02\x01\x00",
        b"\x00\x01\x02nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 192.168.1.77:1\r\n\r\n",
    ];
    for probe in probes.iter().cycle().take(254) {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(probe)?;
        drop(stream);
    }
    assert_eq!(
        gateway.login("owner", sentinel_tests::PASSWORD)?.status,
        200
    );
    let access = gateway.admin("GET", "access", None)?.json();
    assert_eq!(access["bans"], serde_json::json!([]), "{access}");
    assert_eq!(access["lockouts"], serde_json::json!([]), "{access}");
    let added = log_lines()? - before;
    assert!(added < 10, "{added} lines: {}", gateway.console());
    // Who asks in clear gets an answer, not a broken connection.
    assert_eq!(gateway.ask(&Ask::get("/login"))?.status, 200);
    Ok(())
}

#[test]
fn an_allow_list_that_vanishes_or_is_written_anew_in_steps_lets_nobody_else_in() -> Result<()> {
    let options = Options::default()
        .behind_a_proxy()
        .file("whitelist.txt", "192.168.1.0/24\n");
    let gateway = Gateway::start(options.without_engine())?;
    let path = gateway.data.path().join("whitelist.txt");
    assert_eq!(status_from(&gateway, "172.16.0.9")?, 403);
    fs::remove_file(&path)?;
    let fault = || -> Result<bool> {
        let status = gateway.admin("GET", "status", None)?;
        Ok(status.text().contains("had entries and is missing"))
    };
    eventually(SECOND * 4, || {
        assert_eq!(status_from(&gateway, "172.16.0.9")?, 403);
        fault()
    })?;
    // Each time there are moments without a file and with an empty one.
    let begun = Instant::now();
    while begun.elapsed() < SECOND * 3 {
        let _ = fs::remove_file(&path);
        let mut file = fs::File::create(&path)?;
        assert_eq!(status_from(&gateway, "172.16.0.9")?, 403);
        file.write_all(b"192.168.1.0/24\n10.0.0.0/8\n")?;
        assert_eq!(status_from(&gateway, "172.16.0.9")?, 403);
    }
    eventually(SECOND * 4, || {
        Ok(status_from(&gateway, "10.1.1.1")? != 403 && !fault()?)
    })?;
    assert_eq!(status_from(&gateway, "172.16.0.9")?, 403);
    Ok(())
}
