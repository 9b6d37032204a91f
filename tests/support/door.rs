//! A real `sentineld connect` that leads to a gateway under test.

use crate::client::{Answer, Ask};
use crate::gateway::program;
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(40);
const PAUSE: Duration = Duration::from_millis(20);
const READY: &str = "Programs on this computer reach ComfyUI at http://127.0.0.1:";

/// A running door; it ends with this value.
#[derive(Debug)]
pub struct Door {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    child: Child,
    folder: TempDir,
}

impl Door {
    /// Opens a door on any free port to the gateway at this address, with a token in a file.
    pub fn open(address: &str, token: &str, arguments: &[&str]) -> Result<Self> {
        Self::start(address, Some(token), arguments, &[])?.opened()
    }

    /// The same with the token in a variable.
    pub fn open_with_variable(address: &str, token: &str) -> Result<Self> {
        Self::start(address, None, &[], &[("SENTINEL_TOKEN", token)])?.opened()
    }

    fn opened(mut self) -> Result<Self> {
        let started = Instant::now();
        loop {
            let text = self.console();
            let line = text.lines().find_map(|line| line.strip_prefix(READY));
            if let (Some(rest), true) = (line, text.ends_with('\n')) {
                let digits = rest.split(',').next().context("a port")?;
                self.port = digits.parse()?;
                return Ok(self);
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the door ended with {status}: {}", self.console());
            }
            ensure!(started.elapsed() < PATIENCE, "no door: {text}");
            sleep(PAUSE);
        }
    }

    /// Starts one that will not open, and returns what it said.
    pub fn refused(address: &str, token: Option<&str>, arguments: &[&str]) -> Result<String> {
        let mut door = Self::start(address, token, arguments, &[])?;
        let status = door.ended_within(PATIENCE)?;
        ensure!(!status.success(), "it ended well: {}", door.console());
        Ok(door.console())
    }

    fn start(
        address: &str,
        token: Option<&str>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(program()?);
        command
            .args(["connect", address])
            .args(arguments)
            .env_remove("SENTINEL_TOKEN")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.path().join("stdout"))?)
            .stderr(fs::File::create(folder.path().join("stderr"))?);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        if let Some(token) = token {
            let file = folder.path().join("token");
            write_closed(&file, token)?;
            command.arg("--token-file").arg(file);
        }
        let child = command.spawn().context("starting sentineld connect")?;
        Ok(Self {
            port: 0,
            child,
            folder,
        })
    }

    /// What it wrote to standard output and error.
    pub fn console(&self) -> String {
        ["stdout", "stderr"]
            .iter()
            .map(|name| fs::read(self.folder.path().join(name)).unwrap_or_default())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .collect()
    }

    /// Sends a request to it, called 127.0.0.1 with its port.
    pub fn ask(&self, ask: &Ask) -> Result<Answer> {
        ask.clone()
            .header("Host", &format!("127.0.0.1:{}", self.port))
            .send(self.port)
    }

    /// Sends a signal to it.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(self.child.id().try_into()?), signal)?)
    }

    /// Waits for its end.
    pub fn ended_within(&mut self, patience: Duration) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                started.elapsed() < patience,
                "the door still runs: {}",
                self.console()
            );
            sleep(PAUSE);
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Writes a file that its owner alone can read.
fn write_closed(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("{text}\n"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}
