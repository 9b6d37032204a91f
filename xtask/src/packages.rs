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
    /// Building the desktop app.
    Desktop,
    Test,
    Bench,
}

/// A package, and what shows that it, or its like, is there.
#[derive(Debug)]
struct Package {
    debian: &'static str,
    sign: Sign,
    purpose: Purpose,
}

/// What shows that a package is there.
#[derive(Debug)]
enum Sign {
    /// One of these commands.
    Command(&'static [&'static str]),
    /// A library that pkg-config knows.
    Library(&'static str),
}

impl Package {
    fn is_installed(&self) -> bool {
        match self.sign {
            Sign::Command(commands) => workspace::first_installed(commands).is_some(),
            // Other systems bring what a window needs.
            Sign::Library(name) => {
                !cfg!(target_os = "linux")
                    || Program::new("pkg-config")
                        .args(["--exists", name])
                        .output()
                        .is_ok()
            }
        }
    }
}

/// The one list. What is there already is not installed again.
const PACKAGES: &[Package] = &[
    Package {
        debian: "gcc",
        sign: Sign::Command(&["cc", "gcc", "clang", "cl"]),
        purpose: Purpose::Build,
    },
    // Linking needs the C library's start files, which gcc alone does not bring.
    Package {
        debian: "libc6-dev",
        sign: Sign::Command(&["ld", "link"]),
        purpose: Purpose::Build,
    },
    Package {
        debian: "nodejs",
        sign: Sign::Command(&["node"]),
        purpose: Purpose::Build,
    },
    Package {
        debian: "npm",
        sign: Sign::Command(&["npm", "npm.cmd"]),
        purpose: Purpose::Build,
    },
    Package {
        debian: "pkg-config",
        sign: Sign::Command(if cfg!(target_os = "linux") {
            &["pkg-config"]
        } else {
            &["cargo"]
        }),
        purpose: Purpose::Desktop,
    },
    Package {
        debian: "libwebkit2gtk-4.1-dev",
        sign: Sign::Library("webkit2gtk-4.1"),
        purpose: Purpose::Desktop,
    },
    Package {
        debian: "libdbus-1-dev",
        sign: Sign::Library("dbus-1"),
        purpose: Purpose::Desktop,
    },
    // The tray; loaded when the app starts.
    Package {
        debian: "libayatana-appindicator3-dev",
        sign: Sign::Library("ayatana-appindicator3-0.1"),
        purpose: Purpose::Desktop,
    },
    Package {
        debian: "xvfb",
        sign: Sign::Command(&["Xvfb"]),
        purpose: Purpose::Test,
    },
    Package {
        debian: "dbus",
        sign: Sign::Command(&["dbus-daemon"]),
        purpose: Purpose::Test,
    },
    Package {
        debian: "webkit2gtk-driver",
        sign: Sign::Command(&["WebKitWebDriver"]),
        purpose: Purpose::Test,
    },
    Package {
        debian: "chromium",
        sign: Sign::Command(CHROMIUM),
        purpose: Purpose::Test,
    },
    Package {
        debian: "curl",
        sign: Sign::Command(&["curl"]),
        purpose: Purpose::Test,
    },
    Package {
        debian: "nginx",
        sign: Sign::Command(&["nginx"]),
        purpose: Purpose::Test,
    },
    Package {
        debian: "nginx",
        sign: Sign::Command(&["nginx"]),
        purpose: Purpose::Bench,
    },
];

/// The names under which systems install Chromium or a browser of its family.
pub(crate) const CHROMIUM: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// Installs the packages that are missing for these purposes.
pub(crate) fn install(purposes: &[Purpose]) -> Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|package| purposes.contains(&package.purpose) && !package.is_installed())
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
            let is_empty = match package.sign {
                Sign::Command(commands) => commands.is_empty(),
                Sign::Library(name) => name.is_empty(),
            };
            assert!(!is_empty, "{}", package.debian);
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
