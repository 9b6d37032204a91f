//! The contract with ComfyUI: recorded exchanges of real servers, replayed against the demo engine, so that
//! what is tested with it holds with the real one. With `COMFYUI_DIR` (and `COMFYUI_PYTHON`) set they are
//! replayed against that ComfyUI as well, which shows that the replayer asks for the right things.

mod compare;
mod exceptions;
mod record;
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

/// The version that the demo engine is a look-alike of.
const MODEL: &str = "0.33.0";

/// Recordings of the manager's package, which has not changed since and was not installed beside the model.
const WITH_MANAGER: &str = "0.12.1";

#[tokio::test]
async fn demo_engine_answers_as_recorded_from_0_33_0() -> Result<()> {
    let server = Server::demo(&[]).await?;
    replay(&server, list_of(&[MODEL, WITH_MANAGER])?).await
}

#[tokio::test]
async fn real_comfyui_answers_as_recorded() -> Result<()> {
    let Some((comfyui, python, version)) = real()? else {
        skipped("COMFYUI_DIR is not set, so no real ComfyUI was asked");
        return Ok(());
    };
    if !transcripts().join(&version).is_dir() {
        skipped(&format!("there are no recordings of ComfyUI {version}"));
        return Ok(());
    }
    let server = Server::real(&comfyui, &python, &[]).await?;
    replay(&server, list_of(&[&version, WITH_MANAGER])?).await
}

#[tokio::test]
async fn demo_engine_lists_assets_as_recorded_from_0_33_0() -> Result<()> {
    let server = Server::demo(&["--enable-assets"]).await?;
    let folder = format!("{MODEL}-assets");
    replay(&server, list_of(&[&folder])?).await
}

/// Asks a real ComfyUI everything that is in the recordings of `CONTRACT_RECORD`, a folder, and writes the
/// answers as the recordings of its own version. A folder whose name ends in `assets` is asked with the asset
/// system switched on.
#[tokio::test]
#[ignore = "writes new recordings of the ComfyUI of COMFYUI_DIR"]
async fn record_a_real_comfyui() -> Result<()> {
    let Some(questions) = std::env::var_os("CONTRACT_RECORD").map(PathBuf::from) else {
        skipped("CONTRACT_RECORD names no folder of recordings to ask again");
        return Ok(());
    };
    let (comfyui, python, version) = real()?.context("COMFYUI_DIR is not set")?;
    let (more, suffix) = if questions.to_string_lossy().ends_with("assets") {
        (&["--enable-assets"][..], "-assets")
    } else {
        (&[][..], "")
    };
    let server = Server::real(&comfyui, &python, more).await?;
    let version = format!("{version}{suffix}");
    let mut replay = Replay::new(&server);
    std::fs::create_dir_all(transcripts().join(&version))?;
    for (name, recording) in recordings(&questions)? {
        if name.starts_with("14") && !has_manager(&server).await? {
            continue;
        }
        replay.made = Some(std::collections::BTreeMap::new());
        let outcome = replay.file(&version, &name, &recording).await?;
        let made = replay.made.take().unwrap_or_default();
        let label = format!("ComfyUI {version} --multi-user");
        let made: Vec<_> = made.into_values().collect();
        let bytes = record::file(&label, &name, &made)?;
        std::fs::write(transcripts().join(&version).join(&name), bytes)?;
        note(&format!(
            "{name}: {} differences:\n{}",
            outcome.differences.len(),
            outcome.differences.join("\n")
        ));
    }
    Ok(())
}

/// The ComfyUI of `COMFYUI_DIR`, the Python for it and its version.
fn real() -> Result<Option<(PathBuf, PathBuf, String)>> {
    let Some(comfyui) = std::env::var_os("COMFYUI_DIR").map(PathBuf::from) else {
        return Ok(None);
    };
    let python =
        std::env::var_os("COMFYUI_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let version = std::fs::read_to_string(comfyui.join("comfyui_version.py"))
        .context("comfyui_version.py")?;
    let version = version.split('"').nth(1).context("the version")?.to_owned();
    Ok(Some((comfyui, python, version)))
}

/// The recordings of a folder with their names; the list of routes has no exchanges and is left out.
fn recordings(folder: &Path) -> Result<Vec<(String, serde_json::Value)>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        let recording: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        if recording.get("exchanges").is_some() {
            let name = path.file_name().context("a name")?.to_string_lossy();
            found.push((name.into_owned(), recording));
        }
    }
    Ok(found)
}

fn transcripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("contract/transcripts")
}

/// A recording with the folder and the name of its file.
type Recording = (String, String, serde_json::Value);

/// The recordings of these folders. A theme that an earlier folder has is left out of the later ones.
fn list_of(folders: &[&str]) -> Result<Vec<Recording>> {
    let mut all: Vec<Recording> = Vec::new();
    for folder in folders {
        for (name, recording) in recordings(&transcripts().join(folder))? {
            if all.iter().all(|(_, known, _)| *known != name) {
                all.push(((*folder).to_owned(), name, recording));
            }
        }
    }
    Ok(all)
}

async fn replay(server: &Server, all: Vec<Recording>) -> Result<()> {
    let mut replay = Replay::new(server);
    let mut used = Vec::new();
    let (mut summary, mut differences) = (String::new(), Vec::new());
    for (version, name, recording) in all {
        if name.starts_with("14") && !has_manager(server).await? {
            writeln!(
                summary,
                "{name}: SKIPPED, the manager's package is not installed there"
            )?;
            continue;
        }
        let outcome = replay.file(&version, &name, &recording).await?;
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
