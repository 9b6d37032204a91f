//! `cargo xtask bench`: the measurements of the `bench` program in the tests' package, on release builds.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::packages::Purpose;
use crate::progress::Steps;
use crate::workspace::{Profile, Workspace};
use crate::{pages, tools};

/// What `cargo xtask bench` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Passed to the bench program as they are
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds what is measured and what measures, and runs it.
pub(crate) fn bench(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let mut steps = Steps::new(4);
    steps.step("Installing what the measurements need", || {
        tools::prepare(&[Purpose::Build, Purpose::Bench])
    })?;
    steps.step("Building the pages", || {
        pages::install_packages(&workspace.pages())?;
        pages::build(workspace)
    })?;
    let programs = steps.step("Building the release programs", || {
        workspace.build_programs(Profile::Release)
    })?;
    steps.step("Measuring", || {
        workspace
            .cargo("run")
            .args([
                "--release",
                "--package",
                "sentinel-tests",
                "--bin",
                "bench",
                "--",
            ])
            .args(&options.arguments)
            .env("SENTINELD", &programs.sentineld)
            .env("DEMO_ENGINE", &programs.demo_engine)
            .run()
    })?;
    Ok(ExitCode::SUCCESS)
}
