//! `cargo xtask clients`: the `clients` program in the tests' package, on builds for tests.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::packages::Purpose;
use crate::progress::Steps;
use crate::workspace::Workspace;
use crate::{pages, tools};

/// What `cargo xtask clients` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Passed to the clients program as they are, e.g. --only comfykit --jobs 20
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the programs and runs it.
pub(crate) fn clients(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let mut steps = Steps::new(4);
    steps.step("Installing what is needed to build", || {
        tools::prepare(&[Purpose::Build])
    })?;
    steps.step("Building the pages", || {
        pages::install_packages(&workspace.pages())?;
        pages::build(workspace)
    })?;
    let programs = steps.step("Building the programs", || {
        workspace.build_programs_for_tests()
    })?;
    steps.step("Running the clients", || {
        workspace
            .cargo("run")
            .args(["--package", "sentinel-tests", "--bin", "clients", "--"])
            .args(&options.arguments)
            .env("SENTINELD", &programs.sentineld)
            .run()
    })?;
    Ok(ExitCode::SUCCESS)
}
