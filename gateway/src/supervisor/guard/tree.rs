//! Killing a whole process tree from its root.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long to fight a tree that does not go, e.g. processes in an uninterruptible disk wait.
const CLEAR_LIMIT: Duration = Duration::from_secs(10);
/// Pause between two rounds.
const ROUND: Duration = Duration::from_millis(5);

/// Reaps every child that ended and calls `ended` for each. `false` when there are no children.
pub(super) fn reap(mut ended: impl FnMut(WaitStatus)) -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return true,
            Ok(status) => ended(status),
            Err(Errno::EINTR) => {}
            Err(_) => return false,
        }
    }
}

/// Kills the engine's process group and every child of ours until none is left, reaping on the
/// way. Blocks, [`CLEAR_LIMIT`] at most; `false` if processes are left even then.
///
/// Only direct children are killed by id: nobody but us reaps them, so their ids cannot have
/// passed to a stranger. Their own children become ours (subreaper) and go in the next round.
pub(super) fn clear(group: Pid, mut ended: impl FnMut(WaitStatus)) -> bool {
    let deadline = Instant::now() + CLEAR_LIMIT;
    let mut group_left = true;
    loop {
        // Once the group is gone its number may pass to strangers and is not touched again.
        group_left = group_left && killpg(group, Signal::SIGKILL) != Err(Errno::ESRCH);
        for child in direct_children() {
            let _already_dead = nix::sys::signal::kill(child, Signal::SIGKILL);
        }
        let children_left = reap(&mut ended);
        group_left = group_left && killpg(group, None) != Err(Errno::ESRCH);
        if !children_left && !group_left {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(ROUND);
    }
}

/// Process ids of this process's children, from `/proc`.
#[cfg(target_os = "linux")]
fn direct_children() -> Vec<Pid> {
    let own = std::process::id();
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| parent_of(*pid) == Some(own))
        .map(Pid::from_raw)
        .collect()
}

/// Without a subreaper no stranger becomes our child; the group is all there is.
#[cfg(not(target_os = "linux"))]
fn direct_children() -> Vec<Pid> {
    Vec::new()
}

#[cfg(target_os = "linux")]
fn parent_of(pid: i32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parent_in(&stat)
}

/// The fourth field of `/proc/<pid>/stat`; the second is a name in brackets that may hold
/// anything, brackets and spaces included.
#[cfg(target_os = "linux")]
fn parent_in(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        let table = [
            ("7 (sh) S 42 7 7 0 -1", Some(42)),
            ("7 (a) b (c)) R 1 7 7", Some(1)),
            ("7 () Z 5 7", Some(5)),
            ("", None),
            ("7 (sh", None),
        ];
        for (stat, expected) in table {
            assert_eq!(parent_in(stat), expected, "{stat}");
        }
    }
}
