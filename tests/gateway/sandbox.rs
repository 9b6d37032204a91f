//! A hostile node in a confined engine: what it reaches for it does not get, and the admin sees it.
//!
//! Skipped, with a word on the console, where the system confines nothing.

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use sentinel_gateway::sandbox::{SandboxState, support};
use sentinel_tests::{Ask, Gateway, Options, eventually};
use serde_json::json;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

#[expect(
    clippy::print_stderr,
    reason = "a test that proves nothing must not look like one that does"
)]
fn can_confine() -> bool {
    let support = support();
    let can = support.state == SandboxState::Confined;
    if !can {
        eprintln!("skipped: {}", support.detail);
    }
    can
}

fn hostile() -> Options {
    Options::default().fault("hostile-node")
}

/// Has the node try these things; its answers in the same order.
fn attempt(gateway: &Gateway, attempts: &[String]) -> Result<Vec<String>> {
    let workflow = json!({
        "1": {"class_type": "SentinelProbe", "inputs": {"attempts": attempts.join("\n")}},
    });
    let ask = Ask::post("/prompt")
        .bearer(&gateway.owner)
        .json(&json!({"prompt": workflow}));
    let answer = gateway.ask(&ask)?;
    let id = answer.json()["prompt_id"]
        .as_str()
        .with_context(|| answer.text())?
        .to_owned();
    let mut answers = Vec::new();
    eventually(Duration::from_secs(30), || {
        let history = Ask::get(&format!("/history/{id}")).bearer(&gateway.owner);
        let entry = gateway.ask(&history)?.json()[&id].clone();
        let lines = entry["outputs"]["1"]["text"].as_array().cloned();
        answers = lines
            .unwrap_or_default()
            .iter()
            .filter_map(|line| Some(line.as_str()?.to_owned()))
            .collect();
        Ok(answers.len() == attempts.len())
    })?;
    let told = attempts.iter().zip(&answers).map(|(attempt, answer)| {
        let told = answer.strip_prefix(attempt.as_str()).unwrap_or(answer);
        told.trim_start_matches(": ").to_owned()
    });
    Ok(told.collect())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// What is tried from the shared engine of a gateway, with a path of the data directory that
/// belongs to another user.
fn attempts(gateway: &Gateway, foreign: &Path, victim: u32, port: u16) -> Vec<String> {
    let data = gateway.data.path();
    let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
    vec![
        format!("read {}", shown(foreign)),
        format!("append {}", shown(foreign)),
        format!("list {}", shown(&data.join("users"))),
        format!("read {}", shown(&data.join("sentinel.db"))),
        format!("append {}", shown(&data.join("sentinel.db"))),
        format!("read {}", shown(&data.join("secret.key"))),
        format!("read {}", shown(&data.join("users_db.json"))),
        format!("write {}", shown(&data.join("planted"))),
        format!("list {home}"),
        "list /tmp".to_owned(),
        format!("connect {port}"),
        format!("connect {}", gateway.port),
        format!("signal {victim}"),
        format!("read /proc/{victim}/environ"),
        format!("read /proc/{}/environ", gateway.id()),
        format!("signal {}", gateway.id()),
    ]
}

#[test]
fn custom_routes_are_open_only_where_the_engine_has_a_users_rights() -> Result<()> {
    if !can_confine() {
        return Ok(());
    }
    // A confined engine for all may still change ComfyUI, which is then run unconfined.
    let ask = |gateway: &Gateway, token: &str| gateway.ask(&Ask::get("/demo/echo").bearer(token));
    let (shared, _, bob) = Gateway::with_two(Options::default())?;
    let refused = ask(&shared, &bob)?;
    ensure!(
        refused.status == 403 && refused.code() == "route_not_allowed",
        "{} {}",
        refused.status,
        refused.text()
    );
    ensure!(ask(&shared, &shared.owner)?.status == 200);
    let separate = Options::default().set("separate_users=true");
    let (separate, _, bob) = Gateway::with_two(separate)?;
    // The page brings the engine; such a route alone starts none.
    let page = separate.ask(&Ask::get("/system_stats").bearer(&bob))?;
    ensure!(page.status == 200, "{} {}", page.status, page.text());
    let allowed = ask(&separate, &bob)?;
    ensure!(
        allowed.status == 200,
        "{} {}",
        allowed.status,
        allowed.text()
    );
    Ok(())
}

#[test]
fn a_hostile_node_reaches_nothing_of_others_and_the_admin_sees_it() -> Result<()> {
    if !can_confine() {
        return Ok(());
    }
    for setting in ["sandbox=require", "sandbox=off"] {
        let gateway = Gateway::start(hostile().set(setting))?;
        let is_confined = setting == "sandbox=require";
        let foreign = gateway.data.path().join("users/other/input/a.png");
        fs::create_dir_all(foreign.parent().context("a folder")?)?;
        fs::write(&foreign, "a picture")?;
        let other_engine = TcpListener::bind(("127.0.0.1", 0))?;
        let port = other_engine.local_addr()?.port();
        let mut victim = std::process::Command::new("sleep").arg("1000").spawn()?;
        let attempts = attempts(&gateway, &foreign, victim.id(), port);
        let told = attempt(&gateway, &attempts);
        victim.kill()?;
        victim.wait()?;
        let told = told?;
        for (attempt, told) in attempts.iter().zip(&told) {
            // Unconfined each of them works, so that it is the confinement that refuses them.
            let expected = if is_confined { "refused" } else { "ok" };
            assert!(told.starts_with(expected), "{setting}: {attempt}: {told}");
        }
        let warned = gateway.console().contains("sandbox_allow_read");
        assert_eq!(warned, is_confined, "{}", gateway.console());
        assert_eq!(fs::read_to_string(&foreign)?, "a picture");
    }
    Ok(())
}

#[test]
fn a_hostile_node_can_still_work() -> Result<()> {
    if !can_confine() {
        return Ok(());
    }
    let gateway = Gateway::start(hostile().set("sandbox=require"))?;
    let own = gateway.data.path().join("demo");
    let attempts = [
        format!("write {}", shown(&own.join("output/a.txt"))),
        format!("read {}", shown(&own.join("output/a.txt"))),
        format!("remove {}", shown(&own.join("output/a.txt"))),
        format!(
            "write {}",
            shown(&gateway.data.path().join("private/tmp/a"))
        ),
        "append /dev/null".to_owned(),
        "read /etc/hosts".to_owned(),
        "run true".to_owned(),
    ];
    for (attempt, told) in attempts.iter().zip(attempt(&gateway, &attempts)?) {
        assert!(told.starts_with("ok"), "{attempt}: {told}");
    }
    Ok(())
}

#[test]
fn a_process_that_forks_away_ends_with_its_engine() -> Result<()> {
    if !can_confine() {
        return Ok(());
    }
    let gateway = Gateway::start(hostile().fault("ignore-sigterm").set("sandbox=require"))?;
    let written = gateway.data.path().join("demo/output/pid");
    let told = attempt(&gateway, &[format!("fork-away {}", shown(&written))])?;
    assert_eq!(told, ["ok"]);
    let mut runaway = None;
    eventually(SOON, || {
        let text = fs::read_to_string(&written).unwrap_or_default();
        runaway = text.strip_suffix('\n').and_then(|text| text.parse().ok());
        Ok(runaway.is_some())
    })?;
    let runaway = Pid::from_raw(runaway.context("a process id")?);
    assert!(kill(runaway, None).is_ok());
    assert_eq!(gateway.admin("POST", "engine/stop", None)?.status, 202);
    gateway.await_state("stopped")?;
    eventually(SOON, || Ok(kill(runaway, None).is_err()))
}

#[test]
fn ports_that_are_allowed_are_reached() -> Result<()> {
    if !can_confine() {
        return Ok(());
    }
    let model_server = TcpListener::bind(("127.0.0.1", 0))?;
    let port = model_server.local_addr()?.port();
    let gateway = Gateway::start(hostile().set(&format!("sandbox_allow_ports={port}")))?;
    assert_eq!(attempt(&gateway, &[format!("connect {port}")])?, ["ok"]);
    Ok(())
}

#[test]
#[ignore = "needs a real ComfyUI: set COMFYUI_DIR and COMFYUI_PYTHON"]
fn a_hostile_custom_node_of_comfyui_reaches_nothing_of_others() -> Result<()> {
    if !can_confine() {
        return Ok(());
    }
    let nodes = tempfile::tempdir()?;
    let node = nodes.path().join("custom_nodes/hostile-node");
    fs::create_dir_all(&node)?;
    fs::write(
        node.join("__init__.py"),
        include_str!("../hostile-node/__init__.py"),
    )?;
    let paths = nodes.path().join("paths.yaml");
    let base = nodes.path().display();
    fs::write(
        &paths,
        format!("hostile:\n  base_path: {base}\n  custom_nodes: custom_nodes\n"),
    )?;
    let options = Options::real_comfyui()?.context("COMFYUI_DIR is not set")?;
    let options = options
        .engine_argument("--extra-model-paths-config")
        .engine_argument(&shown(&paths))
        .set("sandbox=require");
    let gateway = Gateway::start(options)?;
    let foreign = gateway.data.path().join("users/other/input/a.png");
    fs::create_dir_all(foreign.parent().context("a folder")?)?;
    fs::write(&foreign, "a picture")?;
    let other_engine = TcpListener::bind(("127.0.0.1", 0))?;
    let port = other_engine.local_addr()?.port();
    let mut victim = std::process::Command::new("sleep").arg("1000").spawn()?;
    let mut attempts = attempts(&gateway, &foreign, victim.id(), port);
    attempts.push(format!("connect-multipath {port}"));
    attempts.push(format!("connect-fast {port}"));
    let told = attempt(&gateway, &attempts);
    victim.kill()?;
    victim.wait()?;
    for (attempt, told) in attempts.iter().zip(told?) {
        assert!(told.starts_with("refused"), "{attempt}: {told}");
    }
    let warned = gateway.console().contains("sandbox_allow_read");
    assert!(warned, "{}", gateway.console());
    let own = format!(
        "write {}",
        shown(&gateway.data.path().join("comfyui/output/a"))
    );
    assert!(attempt(&gateway, &[own])?[0].starts_with("ok"));
    Ok(())
}

#[test]
fn without_confinement_the_admin_is_told() -> Result<()> {
    let gateway = Gateway::start(Options::default().set("sandbox=off"))?;
    let warnings = gateway.admin("GET", "status", None)?.json()["warnings"].clone();
    let warnings = warnings.as_array().cloned().unwrap_or_default();
    let is_told = |warning: &serde_json::Value| {
        warning
            .as_str()
            .is_some_and(|text| text.starts_with("sandbox is \"off\""))
    };
    assert!(warnings.iter().any(is_told), "{warnings:?}");
    Ok(())
}
