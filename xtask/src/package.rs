//! `cargo xtask package`: what people install.

use std::env::consts::EXE_SUFFIX;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;

use crate::packages::Purpose;
use crate::process::Program;
use crate::progress::{self, Steps};
use crate::workspace::{Profile, Programs, Workspace};
use crate::{pages, tools};

/// The bundler, of the same version as the crate.
const BUNDLER: &str = "@tauri-apps/cli@2.12.5";

/// Name of the demo engine where it lies among other people's programs.
const DEMO_ENGINE: &str = "comfyui-sentinel-demo";

/// What `cargo xtask package` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Kinds of packages: deb, appimage, nsis, dmg; what this system installs if none is given
    #[arg(value_name = "KIND")]
    kinds: Vec<String>,
}

/// Builds the programs as they are shipped and packs them.
pub(crate) fn package(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let mut steps = Steps::new(4);
    steps.step("Checking tools", || {
        tools::prepare(&[Purpose::Build, Purpose::Desktop])
    })?;
    steps.step("Building the pages", || {
        pages::install_packages(&workspace.pages())?;
        pages::build(workspace)
    })?;
    let programs = steps.step("Building the programs (long the first time)", || {
        workspace.build_desktop(Profile::Release)
    })?;
    let packages = steps.step("Packing", || pack(workspace, &programs, &options.kinds()))?;
    for path in packages {
        progress::line(&path.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}

impl Options {
    fn kinds(&self) -> Vec<String> {
        if !self.kinds.is_empty() {
            return self.kinds.clone();
        }
        let kind = if cfg!(windows) {
            "nsis"
        } else if cfg!(target_os = "macos") {
            "dmg"
        } else {
            "deb"
        };
        vec![kind.to_owned()]
    }
}

fn pack(workspace: &Workspace, programs: &Programs, kinds: &[String]) -> Result<Vec<PathBuf>> {
    let folder = workspace.packing();
    fs::create_dir_all(&folder)?;
    let further = [
        (&programs.sentineld, "sentineld"),
        (&programs.demo_engine, DEMO_ENGINE),
    ]
    .map(|(program, name)| beside(&folder, program, name))
    .into_iter()
    .collect::<Result<Vec<_>>>()?;
    // They are named here and not in the app's own settings, because building the app would ask for
    // them before they are there.
    let settings = folder.join("bundle.json");
    let text = json!({ "bundle": { "externalBin": further } }).to_string();
    fs::write(&settings, text)?;
    let output = programs
        .sentineld
        .parent()
        .context("the programs have no folder")?
        .join("bundle");
    let before = files(&output);
    Program::npm(workspace.root())
        .args([
            "exec",
            "--yes",
            "--package",
            BUNDLER,
            "--",
            "tauri",
            "bundle",
        ])
        .args(["--bundles", &kinds.join(","), "--ci", "--config"])
        .arg(&settings)
        .run()?;
    let after = files(&output);
    let made: Vec<_> = after
        .into_iter()
        .filter(|file| !before.contains(file))
        .map(|(path, _)| path)
        .collect();
    ensure!(!made.is_empty(), "no package was made");
    Ok(made)
}

/// Copies a program under a name to where the bundler looks for it, which wants the system in that
/// name, and returns the path without it.
fn beside(folder: &Path, program: &Path, name: &str) -> Result<PathBuf> {
    let plain = folder.join(name);
    let system = Program::new("rustc")
        .args(["--print", "host-tuple"])
        .output()?;
    let mut full = plain.clone().into_os_string();
    full.push(format!("-{}{EXE_SUFFIX}", system.trim()));
    fs::copy(program, full)?;
    Ok(plain)
}

/// The packages of all kinds, with the time of their making.
fn files(folder: &Path) -> Vec<(PathBuf, Option<std::time::SystemTime>)> {
    let folders = fs::read_dir(folder).into_iter().flatten().flatten();
    folders
        .flat_map(|kind| fs::read_dir(kind.path()).into_iter().flatten().flatten())
        .filter(|entry| entry.path().is_file())
        .map(|entry| {
            let modified = entry.metadata().and_then(|data| data.modified()).ok();
            (entry.path(), modified)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_that_are_named_are_taken() {
        let kinds = vec!["deb".to_owned(), "appimage".to_owned()];
        let options = Options {
            kinds: kinds.clone(),
        };
        assert_eq!(options.kinds(), kinds);
        assert_eq!(Options { kinds: vec![] }.kinds().len(), 1);
    }
}
