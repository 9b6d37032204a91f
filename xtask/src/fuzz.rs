//! `cargo xtask fuzz`: every fuzz target for a while.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::process::Program;
use crate::progress::Steps;
use crate::tools::CARGO_FUZZ;
use crate::workspace::Workspace;

/// What `cargo xtask fuzz` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How long each target runs
    #[arg(default_value_t = 60)]
    seconds: u32,
}

/// Runs the targets one after the other; the first input that breaks one ends the task and is kept by cargo-fuzz.
pub(crate) fn fuzz(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let folder = workspace.root().join("fuzz");
    ensure!(
        folder.join("Cargo.toml").is_file(),
        "there are no fuzz targets in {}",
        folder.display()
    );
    nightly(&folder, None).arg("--version").output().context(
        "fuzzing needs a nightly toolchain; install it with: rustup toolchain install nightly",
    )?;
    let tool = CARGO_FUZZ.get(workspace)?;
    let listed = nightly(&folder, tool.parent())
        .args(["fuzz", "list"])
        .output()?;
    let targets: Vec<&str> = listed
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    ensure!(!targets.is_empty(), "cargo fuzz lists no targets");
    let mut steps = Steps::new(targets.len());
    for target in targets {
        steps.step(
            &format!("Fuzzing {target} for {} s", options.seconds),
            || {
                nightly(&folder, tool.parent())
                    .args(["fuzz", "run", target, "--"])
                    .arg(format!("-max_total_time={}", options.seconds))
                    .run()
            },
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A cargo command of the nightly toolchain that finds subcommands in `tools` too.
fn nightly(folder: &Path, tools: Option<&Path>) -> Program {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = tools
        .map(Path::to_path_buf)
        .into_iter()
        .chain(env::split_paths(&path));
    let searched: OsString = env::join_paths(folders).unwrap_or(path.clone());
    Program::new("rustup")
        .args(["run", "nightly", "cargo"])
        .env("PATH", searched)
        .directory(folder)
}
