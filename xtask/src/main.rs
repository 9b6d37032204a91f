//! Set-up and everything a developer runs, behind `cargo xtask`.
//!
//! One command does one whole job: it installs what is missing, says what it is doing, and ends with a program running
//! or with one line that tells how it went.

mod bench;
mod check;
mod clients;
mod front_end;
mod fuzz;
mod icons;
mod nodes;
mod package;
mod packages;
mod pages;
mod process;
mod progress;
mod run;
mod soak;
mod test;
mod tools;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Debug, Parser)]
#[command(
    bin_name = "cargo xtask",
    about = "Sets up, starts, tests and checks ComfyUI Sentinel",
    disable_help_subcommand = true
)]
struct CommandLine {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Builds everything and starts Sentinel
    Run(run::Options),
    /// Installs what the tests need and runs all of them
    Test(test::Options),
    /// Checks format, lints, documentation, dependencies and pages
    Check,
    /// Measures the gateway against a direct connection and nginx
    Bench(bench::Options),
    /// Lets random users in for half an hour, then kills the gateway a hundred times
    Soak(soak::Options),
    /// Runs real clients from PyPI and npm before Sentinel and a real ComfyUI
    Clients(clients::Options),
    /// Builds what people install on this system
    Package(package::Options),
    /// Draws the pictures of the desktop app anew (needs rsvg-convert)
    Icons,
    /// Prints nodes of a ComfyUI or a pack that open files, fetch addresses or run code and are not judged yet
    Nodes(nodes::Options),
    /// Runs the fuzz targets (needs a nightly toolchain)
    Fuzz(fuzz::Options),
}

fn main() -> ExitCode {
    let command_line = CommandLine::parse();
    match perform(&command_line.task) {
        Ok(code) => code,
        Err(error) => {
            progress::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn perform(task: &Task) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match task {
        Task::Run(options) => run::run(&workspace, options),
        Task::Test(options) => test::test(&workspace, options),
        Task::Check => check::check(&workspace),
        Task::Bench(options) => bench::bench(&workspace, options),
        Task::Soak(options) => soak::soak(&workspace, options),
        Task::Clients(options) => clients::clients(&workspace, options),
        Task::Package(options) => package::package(&workspace, options),
        Task::Icons => icons::icons(&workspace),
        Task::Nodes(options) => nodes::nodes(options),
        Task::Fuzz(options) => fuzz::fuzz(&workspace, options),
    }
}
