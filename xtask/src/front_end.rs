//! ComfyUI's own front end, for the demo engine.
//!
//! It is a package of its own and not part of this repository. Nothing needs it: without it the demo engine shows a
//! small page instead.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{self, Program};
use crate::progress;
use crate::workspace::Workspace;

/// The version that ComfyUI 0.33.0, the demo engine's model, asks for.
pub(crate) const VERSION: &str = "1.49.6";

/// The newest version that was tried. Tests of ComfyUI's page run with it as well.
pub(crate) const NEWEST: &str = "1.58.1";

const PACKAGE: &str = "comfyui-frontend-package";

/// The folder inside the package that a server gives out.
const CONTENT: &str = "comfyui_frontend_package/static";

/// Names the folder to the demo engine and to the tests.
pub(crate) const VARIABLE: &str = "DEMO_ENGINE_FRONT_END";

/// Names the folder of the newest version to the tests.
pub(crate) const NEWEST_VARIABLE: &str = "DEMO_ENGINE_FRONT_END_NEWEST";

/// Some 20 MB over a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(600);

/// A version as the package index writes it: numbers with dots between them.
pub(crate) fn version(text: &str) -> Result<String, String> {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if text.split('.').count() == 3 && text.split('.').all(is_number) {
        Ok(text.to_owned())
    } else {
        Err(format!("a version looks like {VERSION}"))
    }
}

/// Gives the folder of a version of the front end, which is fetched once; when that fails the user is told and the
/// work goes on.
pub(crate) fn get(workspace: &Workspace, version: &str) -> Option<PathBuf> {
    let folder = workspace.front_ends().join(version);
    if folder.join("index.html").is_file() {
        return Some(folder);
    }
    match fetch(&workspace.front_ends(), version, &folder) {
        Ok(()) => Some(folder),
        Err(error) => {
            progress::notice(&format!(
                "ComfyUI's front end {version} cannot be had: {error:#}"
            ));
            progress::notice("The demo engine shows a small page of its own instead.");
            None
        }
    }
}

fn fetch(parent: &Path, version: &str, folder: &Path) -> Result<()> {
    let python = process::find("python3")
        .or_else(|| process::find("python"))
        .context("there is no Python")?;
    let work = parent.join("download");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(&work)?;
    Program::new(&python)
        .args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "--dest",
        ])
        .arg(&work)
        .arg(format!("{PACKAGE}=={version}"))
        .run_within(DOWNLOAD_LIMIT)?;
    let wheel = fs::read_dir(&work)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip left no wheel")?;
    let unpacked = work.join("unpacked");
    Program::new(&python)
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(&unpacked)
        .run()?;
    let content = unpacked.join(CONTENT);
    ensure!(
        content.join("index.html").is_file(),
        "the package has no {CONTENT}/index.html"
    );
    // Renamed whole, so that an interrupted download never looks like a finished one.
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::rename(&content, folder)?;
    fs::remove_dir_all(&work).context("the download cannot be cleared away")
}

#[cfg(test)]
mod tests {
    use super::{NEWEST, VERSION, version};

    #[test]
    fn only_plain_versions_are_asked_for() {
        for (text, is_version) in [
            (VERSION, true),
            (NEWEST, true),
            ("1.58", false),
            ("1.58.1.2", false),
            ("1.58.x", false),
            ("1.58.1 --index-url=x", false),
            ("", false),
        ] {
            assert_eq!(version(text).is_ok(), is_version, "{text}");
        }
    }
}
