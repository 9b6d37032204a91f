//! Child processes, and what `/proc` knows of them.

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

/// A child that ends with this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
    /// Run before the kill, for a program that has children of its own.
    stop: Option<Command>,
    /// Asked by a signal to end, for a program that ends its children then.
    is_asked: bool,
}

impl Process {
    pub(crate) fn start(mut command: Command, stop: Option<Command>) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        let output = child.stdout.take().context("its output")?;
        Ok(Self {
            child,
            output: BufReader::new(output),
            stop,
            is_asked: false,
        })
    }

    /// From now on it is asked to end, and waited for.
    pub(crate) fn ask_to_end(&mut self) {
        self.is_asked = true;
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "a program ended before it was ready");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let asked = self
            .stop
            .as_mut()
            .is_some_and(|stop| stop.status().is_ok_and(|status| status.success()));
        if self.is_asked
            && let Ok(id) = self.id().try_into()
            && kill(Pid::from_raw(id), Signal::SIGTERM).is_ok()
        {
            let _ = self.child.wait();
            return;
        }
        if !asked {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// These processes and all below them.
fn trees(roots: &[u32]) -> Vec<u32> {
    let mut all = roots.to_vec();
    let mut next = 0;
    while let Some(id) = all.get(next).copied() {
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        all.extend(
            children
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|child| child.parse::<u32>().ok()),
        );
        next += 1;
    }
    all
}

/// Processor time that the processes and all below them have used, in clock ticks.
pub(crate) fn ticks(roots: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for id in trees(roots) {
        let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
        // The name before it may hold spaces; utime and stime are the 14th and 15th field.
        let (_, fields) = stat.rsplit_once(')').context("a name in stat")?;
        for field in fields.split_whitespace().skip(11).take(2) {
            sum += field.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// Proportional set size of the processes and all below them, MiB.
pub(crate) fn memory(roots: &[u32]) -> Result<f64> {
    trees(roots).into_iter().map(own_memory).sum()
}

/// Proportional set size of one process, without those below it, MiB.
pub(crate) fn own_memory(id: u32) -> Result<f64> {
    let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
    let pss = rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss:"))
        .context("Pss in smaps_rollup")?;
    let kibibytes: u32 = pss.trim().trim_end_matches(" kB").parse()?;
    Ok(f64::from(kibibytes) / 1024.0)
}

/// The `sentineld` of `SENTINELD`, else the one that lies beside this program.
pub(crate) fn sentineld() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("SENTINELD") {
        return Ok(path.into());
    }
    let path = std::env::current_exe()?.with_file_name("sentineld");
    anyhow::ensure!(
        path.exists(),
        "build it first: cargo build --release -p sentinel-gateway"
    );
    Ok(path)
}
