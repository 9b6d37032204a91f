//! Programs that the work needs beside Rust: their versions, and those that cargo installs.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::packages::{self, Purpose};
use crate::process::{self, Program};
use crate::progress;
use crate::workspace::Workspace;

/// The oldest Node.js that the pages' build tools take.
const NODE: Version = Version(20, 19);

/// A program's version, as far as it matters here.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Version(u32, u32);

/// A developer tool from crates.io.
#[derive(Debug)]
pub(crate) struct CargoTool {
    name: &'static str,
    /// What is installed when there is none.
    install: &'static str,
    /// What somebody may have installed and is taken as it is.
    oldest: Version,
    /// For what the user reads while it builds.
    takes: &'static str,
}

/// Judges licences, sources, duplicates and advisories of the dependencies.
pub(crate) const CARGO_DENY: CargoTool = CargoTool {
    name: "cargo-deny",
    install: "0.20.2",
    oldest: Version(0, 18),
    takes: "about two minutes",
};

/// Builds and runs fuzz targets.
pub(crate) const CARGO_FUZZ: CargoTool = CargoTool {
    name: "cargo-fuzz",
    install: "0.13.2",
    oldest: Version(0, 12),
    takes: "about a minute",
};

/// Installs what building needs and makes sure that it is recent enough.
pub(crate) fn prepare(purposes: &[Purpose]) -> Result<()> {
    packages::install(purposes)?;
    if purposes.contains(&Purpose::Build) {
        let found = Program::new("node")
            .arg("--version")
            .output()
            .context("Node.js does not run")?;
        let version =
            Version::parse(&found).with_context(|| format!("node --version printed {found:?}"))?;
        ensure!(
            version >= NODE,
            "Node.js {}.{} or newer is needed and {} is installed; see https://nodejs.org/en/download",
            NODE.0,
            NODE.1,
            found.trim()
        );
    }
    Ok(())
}

impl CargoTool {
    /// Finds the tool, or builds it into the target directory.
    pub(crate) fn get(&self, workspace: &Workspace) -> Result<PathBuf> {
        let tools = workspace.tools();
        let own = tools
            .join("bin")
            .join(self.name)
            .with_extension(env::consts::EXE_EXTENSION);
        for candidate in [Some(own.clone()), process::find(self.name)]
            .into_iter()
            .flatten()
        {
            let version = Program::new(&candidate).arg("--version").output().ok();
            if version
                .as_deref()
                .and_then(Version::parse)
                .is_some_and(|version| version >= self.oldest)
            {
                return Ok(candidate);
            }
        }
        progress::notice(&format!(
            "Building {} {}, once, for {} …",
            self.name, self.install, self.takes
        ));
        // Its speed hardly matters and its build time does.
        Program::new("cargo")
            .args([
                "install",
                self.name,
                "--version",
                self.install,
                "--locked",
                "--no-default-features",
                "--root",
            ])
            .arg(&tools)
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "false")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .without_env("CARGO_TARGET_DIR")
            .arg("--quiet")
            .run()?;
        Ok(own)
    }
}

impl Version {
    /// Reads the first `major.minor` in a text such as `v20.20.2` or `cargo-deny 0.20.2`.
    fn parse(text: &str) -> Option<Self> {
        text.split(|character: char| !character.is_ascii_digit() && character != '.')
            .find_map(|word| {
                let mut parts = word.split('.').map(str::parse);
                Some(Self(parts.next()?.ok()?, parts.next()?.ok()?))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_tools_print() {
        assert_eq!(Version::parse("v20.20.2\n"), Some(Version(20, 20)));
        assert_eq!(Version::parse("cargo-deny 0.20.2"), Some(Version(0, 20)));
        assert_eq!(Version::parse("cargo-fuzz-tool"), None);
        assert!(Version(20, 9) < NODE);
        assert!(Version(22, 0) > NODE);
    }
}
