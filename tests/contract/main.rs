//! The contract with ComfyUI: recorded exchanges of real servers, replayed against the demo engine, so that
//! what is tested with it holds with the real one. With `COMFYUI_DIR` (and `COMFYUI_PYTHON`) set they are
//! replayed against that ComfyUI as well, which shows that the replayer asks for the right things.

mod compare;
mod exceptions;
mod replay;
mod requests;
mod scene;
mod server;
mod weaknesses;
mod wire;

use anyhow::{Context as _, Result, ensure};
use replay::Replay;
use server::Server;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

#[tokio::test]
async fn demo_engine_answers_as_recorded_from_0_12_1() -> Result<()> {
    let server = Server::demo(&[]).await?;
    replay_all(&server, "0.12.1").await
}

#[tokio::test]
async fn real_comfyui_answers_as_recorded() -> Result<()> {
    let Some(comfyui) = std::env::var_os("COMFYUI_DIR").map(PathBuf::from) else {
        skipped("COMFYUI_DIR is not set, so no real ComfyUI was asked");
        return Ok(());
    };
    let python =
        std::env::var_os("COMFYUI_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let version = std::fs::read_to_string(comfyui.join("comfyui_version.py"))
        .context("comfyui_version.py")?;
    let version = version.split('"').nth(1).context("the version")?.to_owned();
    if !transcripts().join(&version).is_dir() {
        skipped(&format!("there are no recordings of ComfyUI {version}"));
        return Ok(());
    }
    let server = Server::real(&comfyui, &python).await?;
    replay_all(&server, &version).await
}

fn transcripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contract/transcripts")
}

async fn replay_all(server: &Server, version: &str) -> Result<()> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(transcripts().join(version))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    let mut replay = Replay::new(server);
    let mut used = Vec::new();
    let (mut summary, mut differences) = (String::new(), Vec::new());
    for path in paths {
        let name = path
            .file_name()
            .context("a name")?
            .to_string_lossy()
            .into_owned();
        let recording: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        // The list of routes has no exchanges.
        if recording.get("exchanges").is_none() {
            continue;
        }
        if name.starts_with("14") && !has_manager(server).await? {
            writeln!(
                summary,
                "{name}: SKIPPED, the manager's package is not installed there"
            )?;
            continue;
        }
        let outcome = replay.file(version, &name, &recording).await?;
        writeln!(
            summary,
            "{name}: {} exchanges, {} differences",
            outcome.exchanges,
            outcome.differences.len()
        )?;
        differences.extend(outcome.differences);
        used.extend(outcome.used);
    }
    let mut needed: Vec<&str> = Vec::new();
    for (index, exception) in exceptions::EXCEPTIONS.iter().enumerate() {
        if used.contains(&index) {
            needed.push(exception.reason);
        }
    }
    needed.retain(|reason| *reason != "the same");
    writeln!(summary, "excepted: {}", needed.join("; "))?;
    note(&summary);
    ensure!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
    Ok(())
}

async fn has_manager(server: &Server) -> Result<bool> {
    let answer = wire::ask(
        server.port,
        "GET",
        "/v2/manager/version",
        &server::close(),
        None,
    )
    .await?;
    Ok(server.kind == server::Kind::Demo || answer.status == 200)
}

#[expect(clippy::print_stderr, reason = "a test that was not run has to say so")]
fn skipped(reason: &str) {
    eprintln!("SKIPPED: {reason}");
}

#[expect(
    clippy::print_stderr,
    reason = "shown when a test fails or is asked to show its output"
)]
fn note(text: &str) {
    eprintln!("{text}");
}
