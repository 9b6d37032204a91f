//! A walk over all routes of ComfyUI without a session.

use anyhow::{Context as _, Result};
use sentinel_gateway::http::PUBLIC_PATHS;
use sentinel_tests::{Ask, Gateway, Options};
use serde_json::Value;
use std::collections::BTreeSet;

const METHODS: [&str; 6] = ["GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE"];

fn table() -> Result<BTreeSet<String>> {
    let mut rows: Vec<Value> = Vec::new();
    for table in [
        include_str!("../contract/transcripts/0.12.1/00-route-table.json"),
        include_str!("../contract/transcripts/0.33.0/00-route-table.json"),
    ] {
        let table: Value = serde_json::from_str(table)?;
        rows.extend(table.as_array().context("a list")?.iter().cloned());
    }
    let mut paths = BTreeSet::new();
    for path in rows.iter().filter_map(|row| row["path"].as_str()) {
        let mut concrete = String::new();
        for (index, part) in path.split('{').enumerate() {
            let rest = if index == 0 {
                part
            } else {
                part.split_once('}').map_or("", |(_, rest)| rest)
            };
            if index > 0 {
                concrete.push('x');
            }
            concrete.push_str(rest);
        }
        paths.insert(concrete);
    }
    Ok(paths)
}

/// Bare, below `/api`, and with a letter escaped.
fn spellings(path: &str) -> Vec<String> {
    let mut all = vec![path.to_owned()];
    all.push(
        path.strip_prefix("/api")
            .map_or_else(|| format!("/api{path}"), str::to_owned),
    );
    if let Some(letter) = path.chars().nth(1).filter(char::is_ascii_alphabetic) {
        all.push(format!("/%{:02x}{}", u32::from(letter), &path[2..]));
    }
    all.retain(|spelling| spelling.starts_with('/'));
    all
}

#[test]
fn s37_u1_u6_u7_no_route_answers_without_a_session() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let paths = table()?;
    assert!(paths.len() > 50, "{}", paths.len());
    let mut asked = 0;
    for path in &paths {
        for spelling in spellings(path) {
            for method in METHODS {
                let answer = gateway.ask(&Ask::new(method, &spelling))?;
                assert_eq!(answer.status, 401, "{method} {spelling}: {}", answer.text());
                assert_eq!(
                    answer.header("content-type"),
                    Some("application/json"),
                    "{method} {spelling}"
                );
                asked += 1;
            }
        }
    }
    assert!(asked > 500, "{asked}");
    Ok(())
}

#[test]
fn no_route_of_the_demo_engine_or_our_own_answers_without_a_session() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let document = gateway
        .ask(&Ask::get("/sentinel/api/openapi.json").bearer(&gateway.owner))?
        .json();
    let own = document["paths"]
        .as_object()
        .context("paths")?
        .keys()
        .map(|path| path.replace(['{', '}'], ""));
    let others = [
        "/demo/echo",
        "/demo/huge?bytes=5",
        "/demo/echo-socket",
        "/",
        "/index.html",
        "/sentinel/",
        "/sentinel/account",
        "/sentinel/gallery",
    ];
    for path in own.chain(others.map(str::to_owned)) {
        for method in METHODS {
            let answer = gateway.ask(&Ask::new(method, &path))?;
            assert_eq!(answer.status, 401, "{method} {path}: {}", answer.text());
        }
    }
    Ok(())
}

#[test]
fn the_public_paths_answer_and_are_all_there_are() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    assert_eq!(
        PUBLIC_PATHS,
        [
            "/login",
            "/register",
            "/generate_token",
            "/logout",
            "/join",
            "/enter",
            "/trust",
            "/trust/certificate.crt",
            "/sentinel/health",
            "/sentinel/assets/{*path}"
        ]
    );
    for path in [
        "/login",
        "/register",
        "/generate_token",
        "/join",
        "/trust",
        "/sentinel/health",
        "/sentinel/assets/overlay.js",
    ] {
        for method in ["GET", "HEAD"] {
            let answer = gateway.ask(&Ask::new(method, path))?;
            assert_eq!(answer.status, 200, "{method} {path}");
        }
        for method in ["PUT", "DELETE", "PATCH"] {
            let answer = gateway.ask(&Ask::new(method, path))?;
            assert!(
                matches!(answer.status, 401 | 405),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
    assert_eq!(gateway.ask(&Ask::get("/logout"))?.status, 302);
    assert_eq!(gateway.ask(&Ask::get("/enter"))?.status, 403);
    assert_eq!(
        gateway.ask(&Ask::get("/trust/certificate.crt"))?.status,
        404
    );
    assert_eq!(
        gateway.ask(&Ask::get("/sentinel/health"))?.json(),
        serde_json::json!({"status": "ok"})
    );
    Ok(())
}

#[test]
fn our_pages_have_the_strict_policy() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    for path in ["/login", "/register", "/generate_token"] {
        let answer = gateway.ask(&Ask::get(path).browser())?;
        let policy = answer
            .header("content-security-policy")
            .unwrap_or_default()
            .to_owned();
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe-inline"), "{path}: {policy}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert!(answer.text().contains("sentinel-state"), "{path}");
    }
    Ok(())
}
