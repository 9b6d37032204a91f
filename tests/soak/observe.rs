//! What a process and a directory hold at a moment.

use anyhow::{Context as _, Result};
use sentinel_tests::Gateway;
use std::fs;

/// One look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Proportional memory of the gateway, KiB.
    pub(crate) memory: u64,
    /// Open files and sockets of the gateway.
    pub(crate) files: usize,
    /// Threads of the gateway.
    pub(crate) threads: usize,
    /// Processes that it started and that live.
    pub(crate) processes: usize,
    /// Directories below `users`.
    pub(crate) directories: usize,
}

impl Look {
    pub(crate) fn at(gateway: &Gateway) -> Result<Self> {
        let id = gateway.id();
        let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup"))?;
        let memory = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
            .context("the memory of the gateway")?;
        let count = |path: String| -> Result<usize> { Ok(fs::read_dir(path)?.count()) };
        let users = gateway.data.path().join("users");
        Ok(Self {
            memory,
            files: count(format!("/proc/{id}/fd"))?,
            threads: count(format!("/proc/{id}/task"))?,
            processes: gateway.descendants().len(),
            directories: fs::read_dir(users)?.count(),
        })
    }
}
