//! From outside the gateway's own page: X1-X5.

use crate::graphs::{picture, slow};
use crate::world::{alone, together};
use anyhow::{Result, ensure};
use sentinel_tests::{Ask, exchange};
use serde_json::{Value, json};
use std::time::Duration;

#[test]
fn x1_x2_forms_and_scripts_of_foreign_pages_change_nothing() -> Result<()> {
    let (_guard, world) = alone()?;
    let running = world.queue(&world.alice, &json!({ "prompt": slow(2.0, "x1") }))?;
    let own = format!("http://localhost:{}", world.gateway.port);
    let neighbour = format!("http://localhost:{}", world.direct(&world.bob)?);
    let prompt = json!({ "prompt": picture("x1", 1) }).to_string();
    let attempts = [
        ("POST", "/prompt", prompt.as_str()),
        ("POST", "/api/prompt", prompt.as_str()),
        ("POST", "/interrupt", ""),
        ("POST", "/queue", r#"{"clear":true}"#),
        ("POST", "/history", r#"{"clear":true}"#),
        ("POST", "/settings/x1", r#""foreign""#),
        ("POST", "/userdata/x1.json", "{}"),
        ("GET", "/history", ""),
        ("GET", "/queue", ""),
        ("GET", "/v2/manager/reboot", ""),
    ];
    let before = world.get(&world.alice, "/history")?.json();
    for (method, target, body) in attempts {
        for (name, value) in [
            ("Origin", "null"),
            ("Origin", "https://evil.example"),
            ("Origin", neighbour.as_str()),
            ("Sec-Fetch-Site", "cross-site"),
            ("Sec-Fetch-Site", "same-site"),
            ("Referer", "https://evil.example/page"),
        ] {
            if method == "GET" && name == "Referer" {
                continue;
            }
            let ask = Ask::new(method, target)
                .cookie(&world.alice.cookie)
                .header(name, value)
                .body("text/plain", body);
            let answer = world.ask(&ask)?;
            ensure!(
                answer.status == 403,
                "{method} {target} {name}: {value}: {}",
                answer.status
            );
            ensure!(answer.header("access-control-allow-origin").is_none());
        }
    }
    ensure!(
        world.ended(&world.alice, &running)?.succeeded(),
        "not interrupted"
    );
    let mut after = world.get(&world.alice, "/history")?.json();
    if let Some(entries) = after.as_object_mut() {
        entries.remove(&running);
    }
    ensure!(after == before);
    let setting = world.get(&world.alice, "/settings/x1")?;
    ensure!(!setting.text().contains("foreign"), "{}", setting.text());
    let good = Ask::post("/prompt")
        .cookie(&world.alice.cookie)
        .header("Origin", &own)
        .header("Sec-Fetch-Site", "same-origin")
        .body("text/plain", prompt.as_str());
    ensure!(world.ask(&good)?.status == 200);
    // ComfyUI takes it from anywhere that hides its origin.
    let bare = Ask::post("/prompt")
        .header("Origin", "null")
        .body("text/plain", prompt.as_str());
    ensure!(bare.send(world.direct(&world.alice)?)?.status == 200);
    world.await_idle(&world.alice)
}

#[test]
fn x4_a_foreign_name_that_leads_here_is_not_answered() -> Result<()> {
    let (_guard, world) = together()?;
    let port = world.gateway.port;
    for host in [
        format!("evil.example:{port}"),
        "evil.example".to_owned(),
        format!("127.0.0.1.evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
    ] {
        for target in ["/queue", "/", "/sentinel/api/me"] {
            let ask = Ask::get(target)
                .cookie(&world.alice.cookie)
                .header("Host", &host);
            let answer = world.ask(&ask)?;
            ensure!(
                matches!(answer.status, 400 | 403 | 421),
                "{host}: {}",
                answer.status
            );
        }
        // ComfyUI answers any name.
        let bare = Ask::get("/queue")
            .header("Host", &host)
            .send(world.direct(&world.alice)?)?;
        ensure!(bare.status == 200, "{host}");
    }
    let good = Ask::get("/queue")
        .cookie(&world.alice.cookie)
        .header("Host", &format!("127.0.0.1:{port}"));
    ensure!(world.ask(&good)?.status == 200);
    Ok(())
}

#[test]
fn x5_nothing_of_one_is_smuggled_into_the_engine_of_another() -> Result<()> {
    let (_guard, world) = together()?;
    let port = world.gateway.port;
    let hers = world.run(&world.alice, &picture("x5_alice", 5))?;
    let bearer = format!("Authorization: Bearer {}", world.bob.token);
    let hidden = format!(
        "GET /history/{} HTTP/1.1\r\nHost: localhost:{port}\r\nComfy-User: {}\r\n\r\n",
        hers.id, world.alice.id
    );
    let length = hidden.len() + 5;
    for framing in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}"),
        "Content-Length: 5\r\nContent-Length: 0".to_owned(),
        format!("Transfer-Encoding: xchunked\r\nContent-Length: {length}"),
        "Transfer-Encoding : chunked".to_owned(),
        "Transfer-Encoding: identity, chunked".to_owned(),
    ] {
        let bytes = format!(
            "POST /queue HTTP/1.1\r\nHost: localhost:{port}\r\n{bearer}\r\n{framing}\r\n\r\n0\r\n\r\n{hidden}"
        );
        let came = exchange(port, bytes.as_bytes(), Duration::from_millis(300))?;
        let came = String::from_utf8_lossy(&came).into_owned();
        ensure!(
            !came.contains("x5_alice") && !came.contains(&hers.id),
            "{framing}: {came}"
        );
    }
    // Two users on one connection to the gateway, as behind a proxy: each request is its own.
    let mut bytes = Vec::new();
    for user in [&world.alice, &world.bob, &world.alice] {
        let ask = Ask::get(&format!("/history/{}", hers.id))
            .bearer(&user.token)
            .header("Connection", "keep-alive");
        bytes.extend(ask.bytes(port));
    }
    let came = exchange(port, &bytes, Duration::from_secs(1))?;
    let came = String::from_utf8_lossy(&came).into_owned();
    ensure!(came.matches("HTTP/1.1 200").count() == 3, "{came}");
    ensure!(came.matches("x5_alice_").count() > 0);
    let middle = came.split("HTTP/1.1 200").nth(2).unwrap_or_default();
    ensure!(!middle.contains("x5_alice"), "{middle}");
    // What a client says about the way does not reach an engine.
    let ask = Ask::post("/demo/echo")
        .bearer(&world.owner.token)
        .header("comfy-user", &world.alice.id)
        .header("X-Forwarded-For", "10.0.0.1")
        .header("Proxy-Connection", "keep-alive")
        .header("TE", "trailers");
    if !world.is_real {
        let echoed = world.ask(&ask)?;
        ensure!(echoed.status == 200, "{}", echoed.text());
        for name in [
            "comfy-user",
            "x-forwarded-for",
            "proxy-connection",
            "te",
            "authorization",
        ] {
            ensure!(echoed.echoed(name).is_empty(), "{name}");
        }
        ensure!(echoed.json()["method"] == Value::from("POST"));
    }
    Ok(())
}
