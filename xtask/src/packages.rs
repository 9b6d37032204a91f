//! Debian packages that this project needs: the one list, and how they are installed.

use std::path::Path;

use anyhow::{Result, bail};

use crate::process::Program;
use crate::progress;
use crate::workspace;

/// What a package is needed for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    Build,
    Test,
    Bench,
}

/// A package, and the commands of which one shows that it, or its like, is there.
#[derive(Debug)]
struct Package {
    debian: &'static str,
    commands: &'static [&'static str],
    purpose: Purpose,
}

/// The one list. What is found under any of the commands is not installed again.
const PACKAGES: &[Package] = &[
    Package {
        debian: "gcc",
        commands: &["cc", "gcc", "clang", "cl"],
        purpose: Purpose::Build,
    },
    // Linking needs the C library's start files, which gcc alone does not bring.
    Package {
        debian: "libc6-dev",
        commands: &["ld", "link"],
        purpose: Purpose::Build,
    },
    Package {
        debian: "nodejs",
        commands: &["node"],
        purpose: Purpose::Build,
    },
    Package {
        debian: "npm",
        commands: &["npm", "npm.cmd"],
        purpose: Purpose::Build,
    },
    Package {
        debian: "chromium",
        commands: CHROMIUM,
        purpose: Purpose::Test,
    },
    Package {
        debian: "curl",
        commands: &["curl"],
        purpose: Purpose::Test,
    },
    Package {
        debian: "nginx",
        commands: &["nginx"],
        purpose: Purpose::Bench,
    },
];

/// The names under which systems install Chromium or a browser of its family.
pub(crate) const CHROMIUM: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// Installs the packages that are missing for these purposes.
pub(crate) fn install(purposes: &[Purpose]) -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|package| {
            purposes.contains(&package.purpose)
                && workspace::first_installed(package.commands).is_none()
        })
        .map(|package| package.debian)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if workspace::first_installed(&["apt-get"]).is_none() {
        // Only Linux has these names; elsewhere the tests that lack a program say so themselves.
        if cfg!(target_os = "linux") {
            bail!("these programs are missing, install them with your package manager: {names}");
        }
        progress::notice(&format!(
            "Not found here: {names}. What needs them will be left out or fail."
        ));
        return Ok(());
    }
    let Some(prefix) = rights() else {
        bail!(
            "packages are missing; install them with this line and start again:\n  {}",
            by_hand(&names)
        );
    };
    progress::notice(&format!("Installing {names} …"));
    apt_get(prefix, &["update", "--quiet"])?;
    apt_get(
        prefix,
        &[
            &["install", "--quiet", "--yes", "--no-install-recommends"],
            missing.as_slice(),
        ]
        .concat(),
    )
}

/// What to put before a command so that it runs as root; nothing when there is no way without a password.
fn rights() -> Option<&'static [&'static str]> {
    let identity = Program::new("id").arg("-u").output().ok()?;
    if identity.trim() == "0" {
        return Some(&[]);
    }
    Program::new("sudo").args(["-n", "true"]).output().ok()?;
    Some(&["sudo", "-n"])
}

fn apt_get(prefix: &[&str], arguments: &[&str]) -> Result<()> {
    // sudo drops the environment, so the variable is set behind it.
    let environment = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    let options = [
        "-o",
        "Acquire::Retries=3",
        "-o",
        "DPkg::Lock::Timeout=300",
        "-o",
        "Dpkg::Use-Pty=0",
    ];
    let line = [prefix, &environment, &options, arguments].concat();
    let (program, rest) = line.split_first().unwrap_or((&"apt-get", &[]));
    Program::new(Path::new(program)).args(rest).run()
}

fn by_hand(names: &str) -> String {
    format!("sudo apt-get update && sudo apt-get install --yes {names}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_can_be_recognised() {
        for package in PACKAGES {
            assert!(!package.commands.is_empty(), "{}", package.debian);
        }
    }

    #[test]
    fn the_line_to_run_by_hand_is_one_line() {
        let line = by_hand("chromium curl");
        assert_eq!(
            line,
            "sudo apt-get update && sudo apt-get install --yes chromium curl"
        );
    }
}
