//! The engine's life: started, restarted, explained, and gone when the gateway is.

use anyhow::Result;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sentinel_tests::{Ask, Gateway, Options, eventually};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn s37_kill_9_of_the_gateway_leaves_nothing() -> Result<()> {
    for fault in [None, Some("fork-grandchild"), Some("ignore-sigterm")] {
        let options = Options::default();
        let options = match fault {
            Some(fault) => options.fault(fault),
            None => options,
        };
        let mut gateway = Gateway::start(options)?;
        if fault == Some("fork-grandchild") {
            eventually(SOON, || Ok(gateway.engine_processes().len() >= 2))?;
        }
        assert!(!gateway.engine_processes().is_empty());
        gateway.signal(Signal::SIGKILL)?;
        gateway.ended_within(SOON)?;
        eventually(SOON, || Ok(gateway.descendants().is_empty()))?;
    }
    Ok(())
}

#[test]
fn d1_sigterm_ends_everything_even_a_deaf_engine() -> Result<()> {
    let mut gateway = Gateway::start(
        Options::default()
            .fault("ignore-sigterm")
            .fault("fork-grandchild"),
    )?;
    let started = Instant::now();
    gateway.signal(Signal::SIGTERM)?;
    let status = gateway.ended_within(Duration::from_secs(15))?;
    assert!(status.success(), "{status}");
    assert!(started.elapsed() < Duration::from_secs(15));
    eventually(Duration::from_secs(1), || {
        Ok(gateway.descendants().is_empty())
    })
}

#[test]
fn a_crashed_engine_is_started_again() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let first = gateway.engine_processes();
    for id in &first {
        kill(Pid::from_raw(i32::try_from(*id)?), Signal::SIGKILL)?;
    }
    eventually(Duration::from_secs(20), || {
        let now = gateway.engine_processes();
        Ok(!now.is_empty()
            && now.iter().all(|id| !first.contains(id))
            && gateway.engine()?["state"] == "ready")
    })?;
    assert_eq!(
        gateway
            .ask(&Ask::get("/system_stats").bearer(&gateway.owner))?
            .status,
        200
    );
    Ok(())
}

#[test]
fn a_crashing_engine_is_told_of() -> Result<()> {
    let gateway = Gateway::start(Options::default().fault("crash-after=0.2").without_engine())?;
    let mut seen = serde_json::Value::Null;
    eventually(Duration::from_secs(20), || {
        seen = gateway.engine()?;
        Ok(seen["state"] == "crashed" || seen["state"] == "failed")
    })?;
    assert!(
        !seen["message"].as_str().unwrap_or_default().is_empty(),
        "{seen}"
    );
    Ok(())
}

#[test]
fn listen_and_port_in_the_arguments_are_refused_with_a_reason() -> Result<()> {
    for argument in ["--listen", "--listen=0.0.0.0", "--port=80"] {
        let gateway = Gateway::start(
            Options::default()
                .engine_argument(argument)
                .without_engine(),
        )?;
        let engine = gateway.await_state("failed")?;
        let message = engine["message"].as_str().unwrap_or_default();
        let flag = argument.split('=').next().unwrap_or_default();
        assert!(message.contains(flag), "{argument}: {engine}");
        assert!(gateway.engine_processes().is_empty());
    }
    Ok(())
}

#[test]
fn while_stopped_people_get_a_page_and_programs_json() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    assert_eq!(gateway.admin("POST", "engine/stop", None)?.status, 202);
    gateway.await_state("stopped")?;
    let page = gateway.ask(&Ask::get("/").browser().cookie(&gateway.owner))?;
    assert_eq!(page.status, 503);
    assert!(page.header("retry-after").is_some());
    assert!(
        page.header("content-type")
            .unwrap_or_default()
            .starts_with("text/html")
    );
    assert!(page.text().contains("sentinel-state"));
    let answer = gateway.ask(&Ask::get("/system_stats").bearer(&gateway.owner))?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "engine_stopped")
    );
    assert!(answer.header("retry-after").is_some());
    assert!(answer.json()["retry_after"].is_u64());
    assert_eq!(
        gateway.ask(&Ask::get("/system_stats"))?.status,
        401,
        "signing in comes first"
    );
    assert_eq!(gateway.admin("POST", "engine/start", None)?.status, 202);
    gateway.await_state("ready")?;
    assert_eq!(
        gateway
            .ask(&Ask::get("/system_stats").bearer(&gateway.owner))?
            .status,
        200
    );
    assert_eq!(gateway.admin("POST", "engine/restart", None)?.status, 202);
    eventually(SOON, || Ok(gateway.engine()?["state"] != "ready"))?;
    gateway.await_state("ready")?;
    Ok(())
}

#[test]
fn a_slow_start_is_shown() -> Result<()> {
    let gateway = Gateway::start(Options::default().fault("slow-start=2").without_engine())?;
    let answer = gateway.ask(&Ask::get("/system_stats").bearer(&gateway.owner))?;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "engine_starting")
    );
    gateway.await_state("ready")?;
    Ok(())
}
