//! `cargo xtask soak`: the `soak` program in the tests' package, on release builds.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::packages::Purpose;
use crate::progress::Steps;
use crate::workspace::{Profile, Workspace};
use crate::{pages, tools};

/// What `cargo xtask soak` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Passed to the soak program as they are, e.g. --minutes 30 --kills 100
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the programs and runs it.
pub(crate) fn soak(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let mut steps = Steps::new(4);
    steps.step("Installing what is needed to build", || {
        tools::prepare(&[Purpose::Build])
    })?;
    steps.step("Building the pages", || {
        pages::install_packages(&workspace.pages())?;
        pages::build(workspace)
    })?;
    let programs = steps.step("Building the release programs", || {
        workspace.build_programs(Profile::Release)
    })?;
    steps.step("Soaking", || {
        workspace
            .cargo("run")
            .args([
                "--release",
                "--package",
                "sentinel-tests",
                "--bin",
                "soak",
                "--",
            ])
            .args(&options.arguments)
            .env("SENTINELD", &programs.sentineld)
            .run()
    })?;
    Ok(ExitCode::SUCCESS)
}
