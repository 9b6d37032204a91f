//! By which names it is called, and what is said and remembered of names that are refused.

use anyhow::{Context as _, Result};
use sentinel_tests::{Answer, Ask, Gateway, Options, Socket, eventually};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(10);

fn called(gateway: &Gateway, host: &str) -> Result<Answer> {
    let host = format!("{host}:{}", gateway.port);
    gateway.ask(
        &Ask::get("/queue")
            .bearer(&gateway.owner)
            .header("Host", &host),
    )
}

#[tokio::test]
async fn a_container_calls_its_host_with_a_token() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    for name in [
        "host.docker.internal",
        "gateway.docker.internal",
        "host.containers.internal",
        "172.17.0.1",
    ] {
        assert_eq!(called(&gateway, name)?.status, 200, "{name}");
    }
    for name in ["other.docker.internal", "host.docker.internal.evil.example"] {
        assert_eq!(called(&gateway, name)?.status, 403, "{name}");
    }
    Ok(())
}

/// A folder with a `tailscale` that answers as the real one does.
fn tailscale(answer: &str) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("tailscale");
    fs::write(folder.path().join("answer.json"), answer)?;
    let script = "#!/bin/sh\n[ \"$1 $2\" = 'status --json' ] && cat \"${0%/*}/answer.json\"\n";
    fs::write(&program, script)?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

#[test]
fn the_name_that_tailscale_reports_is_its_own_and_no_other_of_that_network() -> Result<()> {
    let folder = tailscale(
        &json!({
            "BackendState": "Running",
            "Self": {"HostName": "Studio", "DNSName": "studio-pc.tail1a2b3c.ts.net."},
            "Peer": {"nodekey:1": {"DNSName": "other.tail1a2b3c.ts.net."}},
            "MagicDNSSuffix": "tail1a2b3c.ts.net",
        })
        .to_string(),
    )?;
    let path = std::env::var("PATH")?;
    let path = format!("{}:{path}", folder.path().display());
    let gateway = Gateway::start(Options::default().environment("PATH", &path))?;
    eventually(SOON, || {
        Ok(called(&gateway, "studio-pc.tail1a2b3c.ts.net")?.status == 200)
    })?;
    assert_eq!(called(&gateway, "studio-pc")?.status, 200);
    for name in [
        "other.tail1a2b3c.ts.net",
        "tail1a2b3c.ts.net",
        "studio-pc.tail9z9z9z.ts.net",
        "a.studio-pc.tail1a2b3c.ts.net",
    ] {
        assert_eq!(called(&gateway, name)?.status, 403, "{name}");
    }
    Ok(())
}

fn refused_names(gateway: &Gateway) -> Result<Vec<Value>> {
    let shown = gateway.admin("GET", "access", None)?.json();
    Ok(shown["refused_names"].as_array().context("a list")?.clone())
}

#[test]
fn a_refused_name_says_what_to_do_and_the_owner_allows_it_with_one_click() -> Result<()> {
    let gateway = Gateway::start(Options::default().listening_by_settings())?;
    let host = |name: &str| format!("{name}:{}", gateway.port);
    let ask = |name: &str| {
        Ask::get("/queue")
            .bearer(&gateway.owner)
            .header("Host", &host(name))
    };
    let told = gateway.ask(&ask("studio.tail1.ts.net"))?;
    assert_eq!((told.status, told.code().as_str()), (403, "foreign_host"));
    let body = told.json();
    assert_eq!(
        (&body["key"], &body["value"]),
        (&json!("allowed_hosts"), &json!("studio.tail1.ts.net"))
    );
    for (language, words) in [
        ("en-GB,en;q=0.9", "Sentinel does not know this name"),
        ("de-DE,de;q=0.9", "Sentinel kennt diesen Namen nicht"),
        ("zh-CN,zh;q=0.9", "Sentinel 不认识这个名称"),
    ] {
        let page = gateway.ask(
            &ask("studio.tail1.ts.net")
                .browser()
                .header("Accept-Language", language),
        )?;
        let text = page.text();
        assert_eq!(page.status, 403);
        assert!(text.contains(words), "{text}");
        assert!(
            text.contains("studio.tail1.ts.net") && text.contains("allowed_hosts"),
            "{text}"
        );
        // Whatever else it would load is refused as it was.
        assert!(
            !text.contains("<script") && !text.contains("<link"),
            "{text}"
        );
        let policy = page.header("content-security-policy").unwrap_or_default();
        assert!(policy.contains("default-src 'none'"), "{policy}");
    }

    gateway.ask(&ask("words.trycloudflare.com"))?;
    let listed = refused_names(&gateway)?;
    let facts: Vec<_> = listed
        .iter()
        .map(|entry| {
            (
                entry["value"].clone(),
                entry["count"].clone(),
                entry["public"].clone(),
            )
        })
        .collect();
    assert_eq!(
        facts,
        [
            (json!("words.trycloudflare.com"), json!(1), json!(true)),
            (json!("studio.tail1.ts.net"), json!(4), json!(false)),
        ]
    );
    let doctor = gateway.admin("GET", "sharing/doctor", None)?.text();
    assert!(doctor.contains("refused_names_some"), "{doctor}");

    let answer = |method: &str, value: &str| {
        let body = json!({"key": "allowed_hosts", "value": value});
        gateway.admin(method, "access/refused-names", Some(&body))
    };
    assert_eq!(answer("POST", "never-asked.example")?.status, 404);
    assert_eq!(answer("DELETE", "words.trycloudflare.com")?.status, 204);
    assert_eq!(answer("POST", "words.trycloudflare.com")?.status, 404);
    assert_eq!(answer("POST", "studio.tail1.ts.net")?.status, 204);
    assert!(refused_names(&gateway)?.is_empty());
    assert_eq!(gateway.ask(&ask("studio.tail1.ts.net"))?.status, 200);
    assert_eq!(gateway.ask(&ask("words.trycloudflare.com"))?.status, 403);
    let settings = fs::read_to_string(gateway.data.path().join("config.json"))?;
    assert!(settings.contains("studio.tail1.ts.net"), "{settings}");
    Ok(())
}

#[test]
fn strangers_put_no_name_on_the_owners_list_and_ten_are_kept() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine().behind_a_proxy())?;
    let ask = |name: &str, address: &str| {
        gateway.ask(&Ask::get("/login").header("Host", name).from(address))
    };
    assert_eq!(ask("evil.example", "203.0.113.9")?.status, 403);
    assert!(refused_names(&gateway)?.is_empty());
    for number in 0..14 {
        ask(&format!("name{number}.example"), "192.168.1.7")?;
    }
    let listed = refused_names(&gateway)?;
    assert_eq!(listed.len(), 10);
    assert_eq!(listed[0]["value"], "name13.example");
    // Somebody who is signed in from far away is no stranger.
    let body = json!({"username": "owner", "password": sentinel_tests::PASSWORD});
    let entered = gateway.ask(&Ask::post("/login").json(&body).from("203.0.113.10"))?;
    assert_eq!(entered.status, 200);
    ask("mine.example", "203.0.113.10")?;
    assert_eq!(refused_names(&gateway)?[0]["value"], "mine.example");
    Ok(())
}

#[test]
fn only_admins_see_and_answer_the_list() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    gateway.add_user("anna")?;
    let anna = gateway.make_token("anna")?;
    gateway.ask(&Ask::get("/").header("Host", "evil.example"))?;
    let body = json!({"key": "allowed_hosts", "value": "evil.example"});
    for method in ["POST", "DELETE"] {
        let ask = Ask::new(method, "/sentinel/api/access/refused-names").json(&body);
        assert_eq!(
            gateway.ask(&ask.clone().bearer(&anna))?.status,
            403,
            "{method}"
        );
        assert_eq!(gateway.ask(&ask)?.status, 401, "{method}");
    }
    // A signed-in admin without a proof: a script of ComfyUI's page could be that.
    let ask = Ask::post("/sentinel/api/access/refused-names").json(&body);
    assert_eq!(gateway.ask(&ask.cookie(&gateway.owner))?.status, 403);
    assert_eq!(called(&gateway, "evil.example")?.status, 403);
    Ok(())
}

#[tokio::test]
async fn an_origin_that_the_browser_changed_is_named_as_such() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let origin = "http://127.0.0.1:11434";
    for (method, path) in [
        ("POST", "/prompt"),
        ("GET", "/scripts/app.js"),
        ("GET", "/queue"),
    ] {
        let ask = Ask::new(method, path)
            .cookie(&gateway.owner)
            .header("Origin", origin);
        let answer = gateway.ask(&ask)?;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "changed_origin"),
            "{method} {path}"
        );
        assert_eq!(answer.json()["origin"], origin);
        let page = gateway.ask(&ask.browser())?;
        assert!(page.text().contains("private window"), "{}", page.text());
    }
    let cookie = format!("jwt_token={}", gateway.owner);
    let headers = [("Cookie", cookie.as_str()), ("Origin", origin)];
    let refused = Socket::attempt(gateway.port, "/ws", &headers).await?;
    assert_eq!(refused.err(), Some(403));
    // Our own script is public and loads all the same, so that it can say why the page stays empty.
    let script = Ask::get("/sentinel/assets/overlay.js").header("Origin", origin);
    let script = gateway.ask(&script)?;
    assert_eq!(script.status, 200);
    assert_eq!(script.header("access-control-allow-origin"), None);
    assert!(
        refused_names(&gateway)?.is_empty(),
        "no setting would mend it"
    );
    Ok(())
}
