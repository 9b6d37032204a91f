//! Each client in a folder of its own, so that their needs do not meet.

use crate::catalogue::{Client, HELPERS, Registry};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Tells that the folder is whole, and of which versions.
const MARK: &str = "installed.txt";

/// A client that can be run.
#[derive(Debug)]
pub(crate) struct Installed {
    pub(crate) client: &'static Client,
    pub(crate) folder: PathBuf,
}

/// What of the programs that install is not there.
pub(crate) fn missing() -> Option<&'static str> {
    let tools = [("python3", "Python"), ("node", "Node.js"), ("npm", "npm")];
    let is_there = |program: &str| {
        Command::new(program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    };
    let missing = tools.iter().find(|(program, _)| !is_there(program));
    missing.map(|(_, name)| *name)
}

/// Installs a client below `parent`, or finds it there.
pub(crate) fn install(client: &'static Client, parent: &Path) -> Result<Installed> {
    let folder = parent.join(client.name.replace(['@', '/'], "_"));
    let mark = folder.join(MARK);
    let packages = packages(client);
    let wanted = packages.join("\n");
    if fs::read_to_string(&mark).ok().as_deref() != Some(wanted.as_str()) {
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        match client.registry {
            Registry::Pypi => {
                run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
                run(Command::new(folder.join("bin/python"))
                    .args([
                        "-m",
                        "pip",
                        "install",
                        "--quiet",
                        "--disable-pip-version-check",
                    ])
                    .args(&packages))?;
            }
            Registry::Npm => {
                fs::write(folder.join("package.json"), "{\"private\": true}\n")?;
                run(Command::new("npm")
                    .args([
                        "install",
                        "--silent",
                        "--no-audit",
                        "--no-fund",
                        "--ignore-scripts",
                    ])
                    .args(&packages)
                    .current_dir(&folder))?;
            }
        }
        fs::write(&mark, wanted)?;
    }
    for (name, text) in HELPERS.iter().chain([&client.driver]) {
        fs::write(folder.join(name), text)?;
    }
    Ok(Installed { client, folder })
}

fn packages(client: &Client) -> Vec<String> {
    let Client { name, version, .. } = client;
    let own = match client.registry {
        Registry::Pypi => format!("{name}=={version}"),
        Registry::Npm => format!("{name}@{version}"),
    };
    let besides = client.besides.iter().map(|package| (*package).to_owned());
    std::iter::once(own).chain(besides).collect()
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
