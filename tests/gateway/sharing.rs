//! What is shared where changes while everything runs.

use anyhow::{Context as _, Result};
use sentinel_tests::{Answer, Ask, Gateway, Options, Socket, eventually};
use serde_json::{Value, json};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(5);

fn gateway() -> Result<Gateway> {
    Gateway::start(Options::default().listening_by_settings())
}

fn change(gateway: &Gateway, body: &Value) -> Result<Value> {
    let answer = gateway.admin("PUT", "sharing", Some(body))?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    Ok(answer.json())
}

fn loopback(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// A port that is free now.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("0.0.0.0:0")?.local_addr()?.port())
}

fn authority(gateway: &Gateway) -> Result<Answer> {
    gateway.ask(&Ask::get("/trust/certificate.crt"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sharing_goes_on_and_off_and_this_machine_stays_connected() -> Result<()> {
    let gateway = gateway()?;
    let shown = gateway.admin("GET", "sharing", None)?.json();
    assert_eq!(
        (&shown["enabled"], &shown["urls"]),
        (&json!(false), &json!([]))
    );
    assert_eq!(
        shown["mdns"],
        json!({"name": "comfyui.local", "state": "off", "fault": null})
    );
    let cookie = format!("jwt_token={}", gateway.owner);
    let mut socket = Socket::open(gateway.port, "/ws", &[("Cookie", &cookie)]).await?;
    for enabled in [true, false, true, false] {
        let shown = change(&gateway, &json!({"enabled": enabled}))?;
        assert_eq!(
            (&shown["enabled"], &shown["port"], &shown["fault"]),
            (&json!(enabled), &json!(gateway.port), &Value::Null)
        );
        let urls = shown["urls"].as_array().context("urls")?;
        let addresses = shown["addresses"].as_array().context("addresses")?;
        if enabled {
            for address in addresses {
                assert!(urls.contains(&address["url"]), "{shown}");
            }
        } else {
            assert!(urls.is_empty(), "{shown}");
        }
        let listening = gateway.admin("GET", "status", None)?.json()["listening"].to_string();
        assert_eq!(listening.contains("0.0.0.0"), enabled, "{listening}");
    }
    // The first message waits since before the changes; the socket was never cut.
    socket.next().await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let free = gateway.admin("POST", "engine/free", Some(&json!({})))?;
    assert_eq!(free.status, 204);
    assert!(
        socket
            .send(tokio_tungstenite::tungstenite::Message::Text("{}".into()))
            .await
            .is_ok()
    );
    let config = gateway.admin("GET", "config", None)?.json();
    assert_eq!(config["restart_required"], json!([]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_port_changes_by_api_and_by_editing_the_file() -> Result<()> {
    let mut gateway = gateway()?;
    let old = gateway.port;
    let cookie = format!("jwt_token={}", gateway.owner);
    let mut socket = Socket::open(old, "/ws", &[("Cookie", &cookie)]).await?;
    let new = free_port()?;
    let shown = change(&gateway, &json!({"port": new}))?;
    assert_eq!(
        (&shown["port"], &shown["fault"]),
        (&json!(new), &Value::Null)
    );
    gateway.port = new;
    assert_eq!(gateway.ask(&Ask::get("/sentinel/health"))?.status, 200);
    assert!(
        TcpStream::connect(loopback(old)).is_err(),
        "the old port is closed"
    );
    socket.next().await?;

    let third = free_port()?;
    let file = gateway.data.path().join("config.json");
    fs::write(&file, json!({"sharing": {"port": third}}).to_string())?;
    eventually(SOON, || Ok(TcpStream::connect(loopback(third)).is_ok()))?;
    eventually(SOON, || Ok(TcpStream::connect(loopback(new)).is_err()))?;
    Ok(())
}

#[test]
fn a_port_that_is_taken_loses_nothing_and_is_told() -> Result<()> {
    let mut gateway = gateway()?;
    let taken = TcpListener::bind("0.0.0.0:0")?;
    let port = taken.local_addr()?.port();
    let shown = change(&gateway, &json!({"port": port}))?;
    let fault = shown["fault"].as_str().context("a fault")?.to_owned();
    assert!(fault.contains(&port.to_string()), "{fault}");
    assert_eq!(shown["port"], gateway.port);
    let warnings = gateway.admin("GET", "status", None)?.json()["warnings"].to_string();
    assert!(warnings.contains(&port.to_string()), "{warnings}");
    // The same with an address of all adapters, where the old listeners have to go first.
    let other = TcpListener::bind("127.0.0.2:0")?;
    let shared = other.local_addr()?.port();
    let shown = change(&gateway, &json!({"port": shared}))?;
    assert_eq!(
        (&shown["port"], &shown["fault"]),
        (&json!(shared), &Value::Null)
    );
    gateway.port = shared;
    let shown = change(&gateway, &json!({"enabled": true}))?;
    assert_eq!(shown["enabled"], false, "{shown}");
    assert!(shown["fault"].is_string(), "{shown}");
    assert_eq!(gateway.ask(&Ask::get("/sentinel/health"))?.status, 200);
    drop((taken, other));
    let shown = change(&gateway, &json!({"enabled": true}))?;
    assert_eq!(
        (&shown["enabled"], &shown["fault"]),
        (&json!(true), &Value::Null)
    );
    assert_eq!(gateway.ask(&Ask::get("/sentinel/health"))?.status, 200);
    Ok(())
}

#[test]
fn encryption_goes_on_and_off_and_helps_to_be_trusted() -> Result<()> {
    let gateway = gateway()?;
    let port = gateway.port;
    let page = gateway.ask(&Ask::get("/trust").browser())?.text();
    assert!(page.contains("&quot;certificate&quot;:null"), "{page}");
    assert_eq!(authority(&gateway)?.status, 404);
    assert_eq!(
        gateway.admin("GET", "sharing", None)?.json()["tls"],
        Value::Null
    );

    let shown = change(&gateway, &json!({"tls": true, "name": "Studio"}))?;
    assert_eq!(shown["name"], "studio");
    let tls = &shown["tls"];
    assert_eq!(
        (&tls["enabled"], &tls["forced"], &tls["made"]),
        (&json!(true), &json!(false), &json!(true))
    );
    let sha256 = tls["sha256"].as_str().context("a fingerprint")?.to_owned();
    let certificate = authority(&gateway)?;
    assert_eq!(
        certificate.header("content-type"),
        Some("application/x-x509-ca-cert")
    );
    let health = Ask::get("/sentinel/health");
    for name in ["localhost", "studio.local", "127.0.0.1"] {
        let answer = health.send_over_tls(loopback(port), name, &certificate.body)?;
        assert_eq!(answer.status, 200, "{name}");
    }
    assert_eq!(
        gateway.ask(&health)?.status,
        200,
        "plain HTTP still answers"
    );

    let answer = gateway.admin("PUT", "sharing", Some(&json!({"force_https": true})))?;
    assert_eq!(answer.json()["tls"]["forced"], true, "{}", answer.text());
    assert_eq!(gateway.ask(&Ask::get("/login"))?.status, 308);
    for path in [
        "/trust/",
        "/trust/x",
        "/sentinel/assets/../../login",
        "/%74rust",
        "//trust",
    ] {
        assert_ne!(gateway.ask(&Ask::get(path))?.status, 200, "{path}");
    }
    assert_eq!(gateway.ask(&Ask::post("/trust"))?.status, 308);
    let page = gateway.ask(&Ask::get("/trust").browser())?;
    assert_eq!(page.status, 200);
    assert!(page.text().contains(&sha256), "{}", page.text());
    assert!(page.text().contains("studio.local"));
    assert_eq!(
        gateway
            .ask(&Ask::get("/sentinel/assets/overlay.js"))?
            .status,
        200
    );
    assert_eq!(authority(&gateway)?.body, certificate.body);

    let ask = Ask::new("PUT", "/sentinel/api/sharing").bearer(&gateway.owner);
    let step_up = Ask::post("/sentinel/api/step-up")
        .bearer(&gateway.owner)
        .json(&json!({"password": sentinel_tests::PASSWORD}))
        .send_over_tls(loopback(port), "localhost", &certificate.body)?
        .json();
    let proof = step_up["proof"].as_str().context("a proof")?;
    let answer = ask
        .header("X-Sentinel-Proof", proof)
        .json(&json!({"tls": false}))
        .send_over_tls(loopback(port), "localhost", &certificate.body)?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["tls"], Value::Null);
    assert_eq!(gateway.ask(&Ask::get("/login"))?.status, 200);
    assert!(
        health
            .send_over_tls(loopback(port), "localhost", &certificate.body)
            .is_err()
    );
    // The authority stays, so that a device that trusts it goes on doing so.
    change(&gateway, &json!({"tls": true, "name": "other"}))?;
    assert_eq!(authority(&gateway)?.body, certificate.body);
    let answer = health.send_over_tls(loopback(port), "other.local", &certificate.body)?;
    assert_eq!(answer.status, 200);
    Ok(())
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_all_as_it_is() -> Result<()> {
    let gateway = gateway()?;
    fs::write(gateway.data.path().join("own.pem"), "nonsense")?;
    fs::write(gateway.data.path().join("own.key"), "nonsense")?;
    let files = json!({"sharing": {
        "enabled": true,
        "tls": {"enabled": true, "certificate": "own.pem", "key": "own.key"},
    }});
    let answer = gateway.admin("PUT", "config", Some(&files))?;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let shown = gateway.admin("GET", "sharing", None)?.json();
    assert!(
        shown["fault"]
            .as_str()
            .is_some_and(|fault| fault.contains("own.pem")),
        "{shown}"
    );
    assert_eq!(
        (&shown["enabled"], &shown["tls"]),
        (&json!(false), &Value::Null)
    );
    // Turning sharing off, or on without encryption, works all the same.
    for (enabled, tls) in [(false, true), (true, false), (false, true)] {
        let body = json!({"enabled": enabled, "tls": tls});
        let answer = gateway.admin("PUT", "sharing", Some(&body))?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["enabled"], enabled, "{}", answer.text());
    }
    Ok(())
}

#[test]
fn the_command_line_wins_and_says_so() -> Result<()> {
    let gateway = Gateway::start(Options::default().set("force_https=false").without_engine())?;
    for body in [json!({"enabled": true}), json!({"port": 9000, "name": "x"})] {
        let answer = gateway.admin("PUT", "sharing", Some(&body))?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (409, "listen_given")
        );
    }
    let answer = gateway.admin("PUT", "sharing", Some(&json!({"force_https": true})))?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (409, "set_on_command_line")
    );
    assert_eq!(answer.json()["keys"], json!(["force_https"]));
    let shown = change(&gateway, &json!({"enabled": false, "name": "studio"}))?;
    assert_eq!(shown["mdns"]["name"], "studio.local");
    let answer = gateway.ask(&Ask::get("/sentinel/health").header("Host", "studio.local"))?;
    assert_eq!(answer.status, 200);
    for body in [
        json!({"port": 70000}),
        json!({"name": "no name"}),
        json!({"name": ""}),
    ] {
        let answer = gateway.admin("PUT", "sharing", Some(&body))?;
        let expected = if body["port"].is_null() { 400 } else { 409 };
        assert_eq!(answer.status, expected, "{}", answer.text());
    }
    Ok(())
}

#[test]
fn the_doctor_looks_at_everything() -> Result<()> {
    let options = Options::default()
        .listening_by_settings()
        .file("whitelist.txt", "203.0.113.7\n127.0.0.1\n");
    let gateway = Gateway::start(options)?;
    let found = |gateway: &Gateway| -> Result<Value> {
        let checks = gateway.admin("GET", "sharing/doctor", None)?.json();
        let mut found = serde_json::Map::new();
        for check in checks["checks"].as_array().context("checks")? {
            for name in ["title", "detail", "code"] {
                assert!(
                    check[name].as_str().is_some_and(|text| !text.is_empty()),
                    "{check}"
                );
            }
            assert!(
                check["hint"].is_string() && check["values"].is_object(),
                "{check}"
            );
            let id = check["id"].as_str().context("an id")?.to_owned();
            assert!(found.insert(id, check.clone()).is_none(), "{check}");
        }
        Ok(found.into())
    };
    let checks = found(&gateway)?;
    assert_eq!(checks["listening"]["code"], "listening_local");
    for id in [
        "listening",
        "lan_address",
        "self_connection",
        "firewall",
        "allow_list",
        "deny_list",
        "mdns",
        "encryption",
        "ipv6_only",
        "vpn",
    ] {
        assert!(checks[id].is_object(), "{id}");
    }
    change(&gateway, &json!({"enabled": true}))?;
    let checks = found(&gateway)?;
    assert_eq!(checks["listening"]["state"], "ok");
    assert_eq!(checks["allow_list"]["code"], "allow_list_none");
    assert_eq!(checks["encryption"]["code"], "encryption_off");
    // A file without a byte is one that is just being written: nobody is let in by it.
    fs::write(gateway.data.path().join("whitelist.txt"), "# everybody\n")?;
    eventually(SOON, || Ok(found(&gateway)?["allow_list"]["state"] == "ok"))?;
    let shown = gateway.admin("GET", "sharing", None)?.json();
    if shown["addresses"] != json!([]) {
        assert_eq!(
            found(&gateway)?["self_connection"]["code"],
            "self_connection_ok"
        );
    }
    Ok(())
}
