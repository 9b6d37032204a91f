//! `cargo xtask run`: everything that is needed, and then the main job itself.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::packages::Purpose;
use crate::process::Program;
use crate::progress::{self, Steps};
use crate::workspace::{Profile, Programs, Workspace};
use crate::{front_end, pages, tools};

/// What `--comfyui` says when the demo engine is asked for.
const DEMO: &str = "demo";

/// What `cargo xtask run` takes.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// ComfyUI's folder, or `demo`; without it Sentinel looks in the usual places and then takes the demo
    #[arg(long, value_name = "DIR")]
    comfyui: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Where accounts, settings and logs are kept
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A setting for this run; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Version of ComfyUI's front end for the demo
    #[arg(long, value_name = "VERSION", default_value = front_end::VERSION, value_parser = front_end::version)]
    front_end: String,
    /// Start without a window even where there is a display
    #[arg(long)]
    headless: bool,
    /// Build as it is shipped: slower to build, faster to run
    #[arg(long, conflicts_with = "debug")]
    release: bool,
    /// Build quickly (the default)
    #[arg(long)]
    debug: bool,
    /// Passed to the program as they are, see `sentineld run --help`
    #[arg(last = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// Sets everything up and becomes the started program.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    let profile = if options.release {
        Profile::Release
    } else {
        Profile::Debug
    };
    let mut steps = Steps::new(6);
    let has_window = steps.step("Checking tools", || {
        tools::prepare(&[Purpose::Build])?;
        Ok(options.wants_window() && can_have_window())
    })?;
    steps.step("Installing the pages' packages", || {
        pages::install_packages(&workspace.pages())
    })?;
    steps.step("Building the pages", || pages::build(workspace))?;
    let programs = steps.step(
        "Building the programs (some minutes the first time)",
        || {
            if has_window {
                workspace.build_desktop(profile)
            } else {
                workspace.build_programs(profile)
            }
        },
    )?;
    let front_end = steps.step("Getting ComfyUI's front end for the demo", || {
        Ok(if options.may_need_demo() {
            front_end::get(workspace, &options.front_end)
        } else {
            None
        })
    })?;
    steps.step("Starting Sentinel", || {
        if !options.headless && !has_display() {
            progress::notice("There is no display, so it starts without a window.");
        }
        progress::notice(if has_window {
            "It shows a window and then waits in the tray. To stop it, quit there or press Ctrl-C here."
        } else {
            "It prints the address to open. To stop it, press Ctrl-C here."
        });
        let mut job = main_job(&programs, options);
        if let Some(folder) = front_end {
            job = job.env(front_end::VARIABLE, folder);
        }
        job.become_it()
    })
}

/// The program that this command ends in: the one place that decides between a window and none.
fn main_job(programs: &Programs, options: &Options) -> Program {
    match &programs.desktop {
        Some(desktop) => Program::new(desktop).args(options.run_arguments()),
        None => Program::new(&programs.sentineld)
            .arg("run")
            .args(options.run_arguments()),
    }
}

/// Whether the desktop app can be built here; what it lacks is installed if that is possible.
fn can_have_window() -> bool {
    match tools::prepare(&[Purpose::Desktop]) {
        Ok(()) => true,
        Err(error) => {
            progress::notice(&format!("It starts without a window: {error:#}"));
            false
        }
    }
}

impl Options {
    fn may_need_demo(&self) -> bool {
        self.comfyui
            .as_ref()
            .is_none_or(|folder| folder.as_os_str() == DEMO)
    }

    fn wants_window(&self) -> bool {
        !self.headless && has_display()
    }

    /// What the program is started with, with a window or without.
    fn run_arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        if let Some(folder) = &self.comfyui {
            add("--comfyui", folder.display().to_string());
        }
        if let Some(address) = &self.listen {
            add("--listen", address.clone());
        }
        if let Some(folder) = &self.data_dir {
            add("--data-dir", folder.display().to_string());
        }
        for setting in &self.set {
            add("--set", setting.clone());
        }
        arguments.extend_from_slice(&self.arguments);
        arguments
    }
}

fn has_display() -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(any(windows, target_os = "macos")) || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Probe {
        #[command(flatten)]
        options: Options,
    }

    fn options(line: &str) -> Options {
        Probe::try_parse_from(std::iter::once("run").chain(line.split_whitespace()))
            .unwrap()
            .options
    }

    #[test]
    fn arguments_reach_the_program() {
        let options = options(
            "--comfyui demo --listen 127.0.0.1:9000 --set a=1 --set b=2 -- --python /usr/bin/python3",
        );
        assert_eq!(
            options.run_arguments().join(" "),
            "--comfyui demo --listen 127.0.0.1:9000 --set a=1 --set b=2 --python /usr/bin/python3"
        );
    }

    #[test]
    fn the_demo_is_prepared_unless_a_comfyui_is_named() {
        assert!(options("").may_need_demo());
        assert!(options("--comfyui demo").may_need_demo());
        assert!(!options("--comfyui /srv/ComfyUI").may_need_demo());
    }
}
