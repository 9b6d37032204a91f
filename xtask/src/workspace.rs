//! Where things lie in this repository.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::{self, Program};

/// The packages whose programs people and tests start.
const PROGRAM_PACKAGES: [&str; 2] = ["sentinel-gateway", "demo-engine"];

/// The app with a window, which needs more to be built.
const DESKTOP_PACKAGE: &str = "sentinel-desktop";

/// The optimisation that programs are built with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Profile {
    /// Quick to build; dependencies are optimised all the same.
    Debug,
    /// Slow to build, as it is shipped.
    Release,
}

/// The built programs.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) sentineld: PathBuf,
    pub(crate) demo_engine: PathBuf,
    /// The app with a window, if it was built.
    pub(crate) desktop: Option<PathBuf>,
}

/// The checkout that this program was started in.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Asks cargo, which knows about a moved target directory too.
    pub(crate) fn find() -> Result<Self> {
        let output = Program::new("cargo")
            .args(["metadata", "--no-deps", "--format-version=1"])
            .output()?;
        let metadata: Value =
            serde_json::from_str(&output).context("cargo metadata printed no JSON")?;
        let path = |key: &str| -> Result<PathBuf> {
            let text = metadata.get(key).and_then(Value::as_str);
            Ok(PathBuf::from(text.with_context(|| {
                format!("cargo metadata names no {key}")
            })?))
        };
        Ok(Self {
            root: path("workspace_root")?,
            target: path("target_directory")?,
        })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The Svelte project with all pages.
    pub(crate) fn pages(&self) -> PathBuf {
        self.root.join("ui")
    }

    /// The tests that drive a browser; present only when they are written.
    pub(crate) fn browser_tests(&self) -> Option<PathBuf> {
        let folder = self.root.join("tests").join("browser");
        folder.join("package.json").is_file().then_some(folder)
    }

    /// Where developer tools are installed, so that nothing outside this checkout changes.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// Where packages are prepared.
    pub(crate) fn packing(&self) -> PathBuf {
        self.target.join("packing")
    }

    /// Where ComfyUI's own front end is unpacked for the demo engine.
    pub(crate) fn front_ends(&self) -> PathBuf {
        self.target.join("front-end")
    }

    /// A cargo command that runs at the root and, under CI, leaves the lock file as it is.
    ///
    /// `subcommand` is one word, or several where a tool has subcommands of its own.
    pub(crate) fn cargo(&self, subcommand: &str) -> Program {
        let program = Program::new("cargo")
            .args(subcommand.split(' '))
            .directory(&self.root);
        if is_ci() && subcommand != "fmt" {
            program.arg("--locked")
        } else {
            program
        }
    }

    /// Builds the programs without a window and nothing else.
    pub(crate) fn build_programs(&self, profile: Profile) -> Result<Programs> {
        self.build(profile, false)
    }

    /// Builds the programs and the desktop app, and nothing else.
    pub(crate) fn build_desktop(&self, profile: Profile) -> Result<Programs> {
        self.build(profile, true)
    }

    fn build(&self, profile: Profile, with_desktop: bool) -> Result<Programs> {
        let mut build = self.cargo("build").arg("--bins");
        if with_desktop {
            build = build.args(["--package", DESKTOP_PACKAGE]);
        }
        for package in PROGRAM_PACKAGES {
            build = build.args(["--package", package]);
        }
        if profile == Profile::Release {
            build = build.arg("--release");
        }
        build.run()?;
        self.programs(profile, with_desktop)
    }

    /// Builds the programs with the features that the tests' build gives their dependencies, so that those are compiled once.
    pub(crate) fn build_programs_for_tests(&self) -> Result<Programs> {
        // A running xtask.exe cannot be written over, so Windows leaves it out.
        self.cargo("build")
            .args(["--workspace", "--bins", "--exclude", "xtask"])
            .run()?;
        self.programs(Profile::Debug, true)
    }

    fn programs(&self, profile: Profile, with_desktop: bool) -> Result<Programs> {
        let folder = self.target.join(match profile {
            Profile::Debug => "debug",
            Profile::Release => "release",
        });
        let program = |name: &str| -> Result<PathBuf> {
            let path = folder.join(name).with_extension(env::consts::EXE_EXTENSION);
            anyhow::ensure!(path.is_file(), "the build left no {}", path.display());
            Ok(path)
        };
        Ok(Programs {
            sentineld: program("sentineld")?,
            demo_engine: program("demo-engine")?,
            desktop: with_desktop
                .then(|| program("comfyui-sentinel"))
                .transpose()?,
        })
    }
}

/// Whether this is a CI run: set by every CI service.
pub(crate) fn is_ci() -> bool {
    env::var_os("CI").is_some_and(|value| value != "false" && !value.is_empty())
}

/// The first of these commands that is installed.
pub(crate) fn first_installed(commands: &[&str]) -> Option<PathBuf> {
    commands.iter().find_map(|command| process::find(command))
}
