//! The ways in which programs and pages show who they are, and what each of them can do.

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sentinel_tests::{Answer, Ask, Gateway, Options, PASSWORD, Socket, ended_within};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(2);

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn status(gateway: &Gateway, path: &str, lines: &[(&str, &str)]) -> Result<u16> {
    Ok(gateway.ask(&with(Ask::get(path), lines))?.status)
}

fn with(ask: Ask, lines: &[(&str, &str)]) -> Ask {
    lines
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, value))
}

fn ticket(gateway: &Gateway, token: &str, path: &str) -> Result<String> {
    let ask = Ask::post("/sentinel/api/tickets").bearer(token);
    let answer = gateway.ask(&ask.json(&json!({ "path": path })))?;
    ensure!(answer.status == 200, "{}", answer.text());
    ensure!(answer.json()["expires_in"] == 600, "{}", answer.text());
    let ticket = answer.json()["ticket"].as_str().map(str::to_owned);
    ticket.context("a ticket")
}

#[test]
fn r1_a_foreign_scheme_hides_no_good_cookie() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let cookie = format!("jwt_token={}", gateway.owner);
    for foreign in [
        "Basic dTpw",
        "Basic",
        "Basic ***",
        "Negotiate abc",
        "Digest username=\"u\"",
        "NTLM TlRMTVNTUAABAAAA",
        "opaque",
    ] {
        let lines = [("Authorization", foreign), ("Cookie", cookie.as_str())];
        assert_eq!(
            status(&gateway, "/sentinel/api/me", &lines)?,
            200,
            "{foreign}"
        );
        assert_eq!(
            status(&gateway, "/sentinel/api/me", &lines[..1])?,
            401,
            "{foreign}"
        );
    }
    for bad in ["Bearer nonsense", "bearer", "Bearer "] {
        let lines = [("Authorization", bad), ("Cookie", cookie.as_str())];
        assert_eq!(status(&gateway, "/sentinel/api/me", &lines)?, 401, "{bad}");
    }
    Ok(())
}

#[test]
fn r4_r5_an_api_token_counts_as_basic_password_and_as_api_key() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    gateway.add_user("anna")?;
    let token = gateway.make_token("anna")?;
    let good = [
        ("Authorization", basic("", &token)),
        ("Authorization", basic("anna", &token)),
        ("Authorization", basic("somebody", &token)),
        ("X-API-Key", token.clone()),
    ];
    for (name, value) in &good {
        let answer = gateway.ask(&Ask::get("/sentinel/api/me").header(name, value))?;
        assert_eq!(
            answer.json()["username"],
            "anna",
            "{name}: {}",
            answer.text()
        );
    }
    // The account's password never counts, nor does the token of a browser's session.
    let session = gateway.sign_in("anna")?;
    let cut = &token[..token.len() - 1];
    let cookie = format!("jwt_token={session}");
    for (name, value, hides_the_cookie) in [
        ("Authorization", basic("anna", PASSWORD), false),
        ("X-API-Key", PASSWORD.to_owned(), false),
        ("Authorization", basic("anna", &session), true),
        ("X-API-Key", session.clone(), true),
        ("Authorization", basic("anna", cut), true),
        ("X-API-Key", cut.to_owned(), true),
    ] {
        let line = (name, value.as_str());
        assert_eq!(
            status(&gateway, "/sentinel/api/me", &[line])?,
            401,
            "{name}"
        );
        let beside = status(&gateway, "/sentinel/api/me", &[line, ("Cookie", &cookie)])?;
        assert_eq!(beside, if hides_the_cookie { 401 } else { 200 }, "{name}");
    }
    // A password sent as Basic is looked at by nobody, so it locks nobody out.
    for _ in 0..5 {
        let line = ("Authorization", basic("anna", "wrong-Guess-1"));
        status(&gateway, "/queue", &[(line.0, &line.1)])?;
    }
    assert_eq!(gateway.login("anna", PASSWORD)?.status, 200);
    Ok(())
}

#[test]
fn basic_that_a_browser_sends_for_another_page_does_not_count() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let own = format!("http://localhost:{}", gateway.port);
    let basic = basic("owner", &gateway.make_token("owner")?);
    let browser = "Mozilla/5.0 (X11; Linux x86_64) Chrome/140.0";
    let table: [(&[(&str, &str)], u16); 9] = [
        (&[], 200),
        (&[("Origin", &own)], 200),
        (&[("Sec-Fetch-Site", "same-origin")], 200),
        (&[("Origin", "http://evil.example")], 403),
        (&[("Referer", "http://evil.example/")], 403),
        (
            &[
                ("Sec-Fetch-Site", "cross-site"),
                ("Sec-Fetch-Mode", "no-cors"),
            ],
            403,
        ),
        (
            &[("Sec-Fetch-Site", "same-site"), ("Sec-Fetch-Mode", "cors")],
            403,
        ),
        // Over plain HTTP a browser can hide the page it asks for.
        (&[("User-Agent", browser), ("Accept-Language", "en")], 401),
        (
            &[
                ("User-Agent", browser),
                ("Accept-Language", "en"),
                ("Origin", &own),
            ],
            200,
        ),
    ];
    for (lines, expected) in table {
        let mut all = vec![("Authorization", basic.as_str())];
        all.extend(lines);
        assert_eq!(status(&gateway, "/queue", &all)?, expected, "{lines:?}");
    }
    // A link elsewhere may lead to the page, but not into the account.
    let visit = [
        ("Authorization", basic.as_str()),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Mode", "navigate"),
    ];
    assert_eq!(status(&gateway, "/", &visit)?, 401);
    let answer = gateway.ask(&with(Ask::get("/logout"), &visit[..1]))?;
    assert_eq!(answer.status, 302);
    assert_eq!(
        status(&gateway, "/queue", &visit[..1])?,
        200,
        "not signed out"
    );
    Ok(())
}

#[test]
fn only_bearer_and_a_programs_api_key_carry_admin_rights() -> Result<()> {
    let gateway = Gateway::start(Options::default().set("manager_admin_only=true"))?;
    let token = gateway.admin_token()?;
    let bearer = format!("Bearer {token}");
    let basic = basic("owner", &token);
    let own = format!("http://localhost:{}", gateway.port);
    let ways: [(&[(&str, &str)], bool); 6] = [
        (&[("Authorization", &bearer)], true),
        (&[("X-API-Key", &token)], true),
        (&[("X-API-Key", &token), ("Origin", &own)], false),
        (
            &[("X-API-Key", &token), ("Sec-Fetch-Site", "same-origin")],
            false,
        ),
        (&[("Authorization", &basic)], false),
        (&[("Authorization", &basic), ("Origin", &own)], false),
    ];
    for (lines, is_admin) in ways {
        assert_eq!(status(&gateway, "/queue", lines)?, 200, "{lines:?}");
        let users = status(&gateway, "/sentinel/api/users", lines)?;
        assert_eq!(users == 200, is_admin, "{lines:?}: {users}");
        let manager = status(&gateway, "/manager/reboot", lines)?;
        assert_eq!(manager != 403, is_admin, "{lines:?}: {manager}");
    }
    Ok(())
}

#[test]
fn no_credential_reaches_comfyui() -> Result<()> {
    let gateway = Gateway::start(Options::default().set("custom_node_routes=allow"))?;
    let token = gateway.admin_token()?;
    let ticket = ticket(&gateway, &token, "/view")?;
    let (bearer, basic) = (format!("Bearer {token}"), basic("owner", &token));
    let cookie = format!("jwt_token={token}; theme=dark");
    let target = format!("/demo/echo/x?a=1&token={token}&ticket=12345&b=2");
    let referer = format!("http://localhost:{}/view?ticket={ticket}&a=1", gateway.port);
    for way in [
        ("Authorization", bearer.as_str()),
        ("Authorization", basic.as_str()),
        ("X-API-Key", token.as_str()),
        ("Cookie", cookie.as_str()),
    ] {
        let lines = [
            way,
            ("Proxy-Authorization", "Basic c2VjcmV0"),
            ("Referer", referer.as_str()),
        ];
        let answer = gateway.ask(&with(Ask::get(&target), &lines))?;
        assert_eq!(answer.status, 200, "{way:?}: {}", answer.text());
        let shown = answer.text();
        for secret in [token.as_str(), ticket.as_str(), "c2VjcmV0", "uthorization"] {
            assert!(!shown.contains(secret), "{} in {shown}", way.0);
        }
        assert!(shown.contains("a=1&ticket=12345&b=2"), "{shown}");
        assert!(answer.echoed("x-api-key").is_empty());
    }
    // The key of another service passes.
    let lines = [("Authorization", bearer.as_str()), ("X-API-Key", "other")];
    let answer = gateway.ask(&with(Ask::get("/demo/echo"), &lines))?;
    assert_eq!(answer.echoed("x-api-key"), ["other"]);
    Ok(())
}

#[tokio::test]
async fn r3_a_ticket_opens_one_path_to_reading_and_ends_with_its_session() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let session = gateway.sign_in("owner")?;
    let (view, socket) = (
        ticket(&gateway, &session, "/view")?,
        ticket(&gateway, &session, "/ws")?,
    );
    let foreign = [("Origin", "http://elsewhere.example")];
    let ask =
        |method: &str, target: String| gateway.ask(&with(Ask::new(method, &target), &foreign));
    for method in ["GET", "HEAD"] {
        let answer = ask(method, format!("/view?filename=none.png&ticket={view}"))?;
        assert_eq!(answer.status, 404, "{method}: ComfyUI has no such file");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    }
    let opens = format!("/ws?clientId=a&ticket={socket}");
    let open = Socket::open(gateway.port, &opens, &foreign).await?;
    let cookie = format!("jwt_token={}", gateway.owner);
    let own = format!("http://localhost:{}", gateway.port);
    for (method, target) in [
        ("GET", format!("/queue?ticket={view}")),
        ("GET", format!("/api/view?filename=none.png&ticket={view}")),
        ("GET", format!("/view?filename=none.png&ticket={socket}")),
        (
            "GET",
            format!("/view?filename=none.png&ticket={view}&ticket={view}"),
        ),
        ("GET", format!("/view?filename=none.png&other={view}")),
        ("GET", format!("/sentinel/api/me?ticket={view}")),
        ("GET", format!("/sentinel/api/users?ticket={view}")),
        ("POST", format!("/view?ticket={view}")),
        ("POST", format!("/prompt?ticket={view}")),
        ("OPTIONS", format!("/view?ticket={view}")),
        ("DELETE", format!("/userdata/a?ticket={view}")),
    ] {
        // It decides alone: a cookie beside it does not help.
        let ask = Ask::new(method, &target).header("Origin", &own);
        let answer = gateway.ask(&ask.header("Cookie", &cookie))?;
        assert_eq!(answer.status, 401, "{method} {target}");
        assert!(!answer.text().contains(&view));
    }
    let body = json!({ "path": "/view" });
    let by_ticket = Ask::post(&format!("/sentinel/api/tickets?ticket={view}")).json(&body);
    assert_eq!(gateway.ask(&by_ticket)?.status, 401);
    gateway.ask(&Ask::get("/logout").cookie(&session))?;
    let answer = gateway.ask(&Ask::get(&format!("/view?filename=none.png&ticket={view}")))?;
    assert_eq!(answer.status, 401);
    assert!(ended_within(open, SOON).await);
    assert!(Socket::attempt(gateway.port, &opens, &[]).await?.is_err());
    Ok(())
}

#[test]
fn tickets_are_for_listed_paths_and_some_minutes() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let make = |body: &Value| {
        let ask = Ask::post("/sentinel/api/tickets").bearer(&gateway.owner);
        gateway.ask(&ask.json(body))
    };
    for path in [
        "/",
        "/prompt",
        "/sentinel/api",
        "/view/../prompt",
        "view",
        "",
    ] {
        let answer = make(&json!({ "path": path }))?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_path"),
            "{path}"
        );
    }
    for minutes in [0, 61, 4_000_000] {
        let answer = make(&json!({ "path": "/view", "minutes": minutes }))?;
        assert_eq!(answer.code(), "invalid_minutes", "{minutes}");
    }
    let answer = make(&json!({ "path": "/api/view", "minutes": 1 }))?;
    assert_eq!(answer.json()["expires_in"], 60);
    assert_eq!(make(&json!({}))?.status, 400);
    let unsigned = Ask::post("/sentinel/api/tickets").json(&json!({ "path": "/view" }));
    assert_eq!(gateway.ask(&unsigned)?.status, 401);
    Ok(())
}

#[test]
fn no_ticket_and_no_token_of_an_address_is_written_anywhere() -> Result<()> {
    let gateway = Gateway::start(Options::default().set("log_levels=DEBUG,INFO,WARNING,ERROR"))?;
    let token = gateway.make_token("owner")?;
    let ticket = ticket(&gateway, &token, "/view")?;
    for target in [
        format!("/view?filename=none.png&ticket={ticket}"),
        format!("/manager/reboot?ticket={ticket}"),
        format!("/?ticket={ticket}"),
        format!("/?token={token}"),
        format!("/queue?token={token}"),
        format!("/a/../b?ticket={ticket}"),
    ] {
        let answer = gateway.ask(&Ask::get(&target).browser())?;
        let shown = format!("{:?} {}", answer.headers, answer.text());
        assert!(
            !shown.contains(&ticket) && !shown.contains(&token),
            "{shown}"
        );
    }
    for (place, bytes) in gateway.everything_written()? {
        for secret in [&ticket, &token] {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "in {}", place.display());
        }
    }
    Ok(())
}

#[test]
fn r2_programs_are_told_401_in_json_whatever_they_accept() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let upgrade = [
        ("Connection", "close, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let is_told = |answer: &Answer, what: &str| {
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (401, Some("application/json")),
            "{what}"
        );
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}");
        assert_eq!(answer.header("location"), None, "{what}");
    };
    for path in ["/ws?clientId=x", "/api/ws", "/", "/sd-ppp/?EIO=4"] {
        for ask in [Ask::get(path), Ask::get(path).browser()] {
            is_told(&gateway.ask(&with(ask, &upgrade))?, path);
        }
    }
    for path in [
        "/object_info",
        "/system_stats",
        "/queue",
        "/history/x",
        "/prompt",
        "/view?filename=a.png",
        "/ws",
        "/api/anything",
        "/sentinel/api/me",
        "/sentinel/metrics",
        "/easyuse/prompt/styles",
    ] {
        for method in ["GET", "HEAD", "POST"] {
            let answer = gateway.ask(&Ask::new(method, path).browser())?;
            is_told(&answer, &format!("{method} {path}"));
        }
    }
    is_told(&gateway.ask(&Ask::post("/").browser())?, "POST /");
    let by_script = Ask::get("/").browser().header("Sec-Fetch-Mode", "cors");
    is_told(&gateway.ask(&by_script)?, "a script");
    for path in [
        "/",
        "/index.html",
        "/sentinel/",
        "/sentinel/account",
        "/sentinel/gallery",
    ] {
        for method in ["GET", "HEAD"] {
            let answer = gateway.ask(&Ask::new(method, path).browser())?;
            assert_eq!(answer.status, 302, "{method} {path}");
        }
    }
    for (path, status) in [
        ("/easyuse/page", 302),
        ("/view?filename=a.png", 302),
        ("/queue", 401),
        ("/api/easyuse/page", 401),
        ("/sentinel/api/me", 401),
    ] {
        let visit = Ask::get(path)
            .browser()
            .header("Sec-Fetch-Site", "none")
            .header("Sec-Fetch-Mode", "navigate")
            .header("Sec-Fetch-Dest", "document");
        assert_eq!(gateway.ask(&visit)?.status, status, "{path}");
    }
    Ok(())
}

#[test]
fn refusals_of_a_prompt_have_comfyuis_form_before_comfyui_is_asked() -> Result<()> {
    let options = Options::default()
        .behind_a_proxy()
        .file("blacklist.txt", "203.0.113.0/24\n");
    let gateway = Gateway::start(options)?;
    let bearer = format!("Bearer {}", gateway.owner);
    type Case<'case> = (
        &'case str,
        &'case [(&'case str, &'case str)],
        u16,
        &'case str,
    );
    let cases: [Case<'_>; 6] = [
        ("no session", &[], 401, "sign_in_required"),
        (
            "a bad token",
            &[("Authorization", "Bearer x")],
            401,
            "sign_in_required",
        ),
        (
            "another page",
            &[
                ("Authorization", &bearer),
                ("Origin", "http://evil.example"),
            ],
            403,
            "foreign_origin",
        ),
        (
            "a denied address",
            &[("X-Forwarded-For", "203.0.113.9")],
            403,
            "address_refused",
        ),
        (
            "a browser",
            &[("Accept", "text/html,*/*")],
            401,
            "sign_in_required",
        ),
        (
            "another encoding",
            &[("Authorization", &bearer), ("Content-Encoding", "gzip")],
            415,
            "unsupported_encoding",
        ),
    ];
    for path in ["/prompt", "/api/prompt", "/%70rompt"] {
        for (what, lines, status, code) in cases {
            let ask = Ask::post(path).json(&json!({ "prompt": {} }));
            let answer = gateway.ask(&with(ask, lines))?;
            assert_eq!(answer.status, status, "{what}: {}", answer.text());
            let body = answer.json();
            assert_eq!(body["error"]["type"], code, "{what}: {body}");
            assert_eq!(body["code"], code, "{what}");
            assert!(body["error"]["message"].is_string(), "{what}: {body}");
            assert_eq!(body["error"]["details"], "", "{what}");
            assert!(body["error"]["extra_info"].is_object(), "{what}: {body}");
            assert_eq!(body["node_errors"], json!({}), "{what}");
        }
    }
    // Elsewhere `error` stays the original's text.
    let answer = gateway.ask(&Ask::get("/prompt"))?;
    assert!(answer.json()["error"].is_string());
    Ok(())
}
