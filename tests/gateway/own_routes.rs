//! Addresses in ComfyUI's own name space: what is announced, what only its cloud has, and what is
//! harmless in an engine of one's own alone.

use crate::streams::{Engine, MODEL, PICTURE, POLICY};
use anyhow::{Result, ensure};
use sentinel_tests::{Answer, Ask, Gateway, Options, eventually};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A gateway with the user alice, whose engine answers.
fn start(settings: &[&str]) -> Result<(Gateway, String)> {
    let options = settings
        .iter()
        .fold(Options::default(), |options, setting| options.set(setting));
    let gateway = Gateway::start(options)?;
    gateway.add_user("alice")?;
    let alice = gateway.make_token("alice")?;
    eventually(PATIENCE, || {
        let ask = Ask::get("/system_stats").bearer(&alice);
        Ok(gateway.ask(&ask)?.status == 200)
    })?;
    Ok((gateway, alice))
}

/// Refusals of which the audit tells. It is written behind the answers, so the last refusal, of an
/// address made for that, has to be there first.
fn refusals(gateway: &Gateway, alice: &str) -> Result<Vec<String>> {
    let last = Ask::post("/api/assets/prune").bearer(alice);
    ensure!(gateway.ask(&last)?.status == 403);
    let mut told = Vec::new();
    eventually(PATIENCE, || {
        let audit = gateway.admin("GET", "audit?limit=100", None)?.json();
        let entries = audit["entries"].as_array().cloned().unwrap_or_default();
        told = entries
            .iter()
            .filter(|entry| entry["event"] == "refused")
            .map(ToString::to_string)
            .collect();
        Ok(told.iter().any(|entry| entry.contains("/api/assets/prune")))
    })?;
    told.retain(|entry| !entry.contains("/api/assets/prune"));
    Ok(told)
}

fn is_absent(answer: &Answer, what: &str) -> Result<()> {
    ensure!(answer.status == 404, "{what}: {}", answer.status);
    ensure!(
        answer.text() == "404: Not Found",
        "{what}: {}",
        answer.text()
    );
    Ok(())
}

#[test]
fn v2_no_job_goes_past_queue_policy_and_ownership() -> Result<()> {
    // Even where custom nodes' addresses are open.
    let (gateway, alice) = start(&["custom_node_routes=allow", "separate_users=true"])?;
    for (method, target) in [
        ("GET", "/api/v2/jobs"),
        ("POST", "/api/v2/jobs"),
        ("POST", "/v2/jobs/x/cancel"),
        ("POST", "/api/v2/prompt"),
        ("POST", "/%76%32/prompts"),
        ("GET", "//api//v2//queue"),
        ("GET", "/api/v2/events"),
        ("GET", "/api/v2/assets/x/content"),
        ("GET", "/api/jobs/x/assets"),
        ("POST", "/api/jobs/x/retry"),
        ("GET", "/api/job/x/status"),
        ("GET", "/api/history_v2"),
        ("POST", "/prompt/x"),
    ] {
        for token in [&alice, &gateway.owner] {
            let answer = gateway.ask(&Ask::new(method, target).bearer(token))?;
            is_absent(&answer, target)?;
        }
    }
    ensure!(refusals(&gateway, &alice)?.is_empty());
    // What custom nodes have below v2 stays theirs, and so does ComfyUI's own.
    let answer = gateway.ask(&Ask::get("/v2/comfygit/status").bearer(&alice))?;
    ensure!(answer.status == 404 && answer.text() != "404: Not Found.");
    let answer = gateway.ask(&Ask::get("/api/v2/userdata?path=").bearer(&alice))?;
    ensure!(answer.status == 200, "{}", answer.text());
    Ok(())
}

#[test]
fn b10_what_only_the_cloud_has_is_absent_and_no_news() -> Result<()> {
    let (gateway, alice) = start(&["custom_node_routes=deny"])?;
    for target in [
        "/api/workspace/provider-policy",
        "/api/user",
        "/api/secrets",
        "/api/agent/x",
        "/api/hub/x",
        "/api/providers",
        "/api/deploy/bundle",
    ] {
        is_absent(&gateway.ask(&Ask::get(target).bearer(&alice))?, target)?;
    }
    ensure!(refusals(&gateway, &alice)?.is_empty());
    // A custom node's address is refused as before, and told.
    let answer = gateway.ask(&Ask::get("/demo/echo").bearer(&alice))?;
    ensure!(answer.status == 403 && answer.code() == "route_not_allowed");
    let answer = gateway.ask(&Ask::get("/v2/unknown").bearer(&alice))?;
    ensure!(answer.status == 403 && answer.code() == "route_not_allowed");
    let told = refusals(&gateway, &alice)?;
    ensure!(told.len() == 2, "{told:?}");
    Ok(())
}

#[test]
fn b6_a6_what_is_harmless_in_an_engine_of_ones_own() -> Result<()> {
    let own = [
        ("POST", "/api/assets/export"),
        ("GET", "/api/assets/exports/a.zip"),
        ("DELETE", "/api/tasks/x"),
    ];
    for is_separate in [true, false] {
        let setting = format!("separate_users={is_separate}");
        let (gateway, alice) = start(&[&setting])?;
        let ask = |method: &str, target: &str| {
            let ask = Ask::new(method, target).bearer(&alice);
            gateway.ask(&ask.body("application/json", "{}"))
        };
        for (method, target) in own {
            let answer = ask(method, target)?;
            let is_refused = answer.status == 403;
            ensure!(
                is_refused != is_separate,
                "{setting} {target}: {}",
                answer.status
            );
        }
        // The page asks at every refresh: no news where it is refused.
        let scan = ask("POST", "/api/assets/seed")?;
        ensure!(
            (scan.status == 403) != is_separate,
            "{setting}: {}",
            scan.status
        );
        let told = refusals(&gateway, &alice)?;
        ensure!(!told.iter().any(|entry| entry.contains("seed")), "{told:?}");
        for (method, target) in [
            ("POST", "/api/assets/seed/cancel"),
            ("GET", "/api/assets/remote-metadata?url=http://10.0.0.1/"),
        ] {
            ensure!(ask(method, target)?.status == 403, "{setting} {target}");
        }
    }
    Ok(())
}

#[test]
fn a5_models_are_downloaded_by_admins_unless_a_setting_allows() -> Result<()> {
    let engine = Engine::start()?;
    let gateway = engine.gateway()?;
    gateway.add_user("alice")?;
    let alice = gateway.make_token("alice")?;
    let get = |id: &str, token: &str| {
        let target = format!("/api/assets/{id}/content?disposition=inline");
        gateway.ask(&Ask::get(&target).bearer(token))
    };
    let refused = get(MODEL, &alice)?;
    ensure!(refused.status == 403, "{}", refused.status);
    ensure!(
        refused.text().contains("model_downloads"),
        "{}",
        refused.text()
    );
    ensure!(get(&MODEL.to_uppercase(), &alice)?.status == 403);
    for (id, token) in [(PICTURE, &alice), (MODEL, &gateway.owner)] {
        let answer = get(id, token)?;
        ensure!(answer.status == 200 && answer.body == b"bytes", "{id}");
    }
    ensure!(get("33333333-3333-4333-8333-333333333333", &alice)?.status == 403);
    let setting = serde_json::json!({ "model_downloads": true });
    let changed = gateway.admin("PUT", "config", Some(&setting))?;
    ensure!(changed.status == 200, "{}", changed.text());
    eventually(PATIENCE, || Ok(get(MODEL, &alice)?.status == 200))
}

#[test]
fn a6_the_page_is_framed_by_nobody_whatever_policy_comfyui_sends() -> Result<()> {
    let engine = Engine::start()?;
    let gateway = engine.gateway()?;
    let page = gateway.ask(&Ask::get("/").bearer(&gateway.owner).browser())?;
    ensure!(page.status == 200, "{}", page.text());
    let policies: Vec<&str> = page
        .headers
        .iter()
        .filter(|(name, _)| name == "content-security-policy")
        .map(|(_, value)| value.as_str())
        .collect();
    ensure!(
        policies == [POLICY, "frame-ancestors 'self'"],
        "{policies:?}"
    );
    Ok(())
}
