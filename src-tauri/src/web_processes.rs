//! What WebKitGTK leaves behind: its network process stays for as long as the app lives, with some
//! 35 MiB, although no window is open. WebKit starts a new one when it needs it again, as after a
//! crash.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;

/// Its name as the kernel shortens it.
const NETWORK_PROCESS: &str = "WebKitNetworkPr";

/// Ends the network process. Only while no window is open.
pub(crate) fn end() {
    let ended = children().map(|children| {
        for id in children {
            let name = fs::read_to_string(format!("/proc/{}/comm", id.as_raw_nonzero()));
            if name.is_ok_and(|name| name.trim_end() == NETWORK_PROCESS)
                && let Err(error) = kill_process(id, Signal::TERM)
            {
                tracing::debug!(%error, "WebKit's network process stays");
            }
        }
    });
    if let Err(error) = ended {
        tracing::debug!(%error, "the processes of the window are not known");
    }
}

/// The processes that this one has started and that are not yet waited for.
fn children() -> io::Result<Vec<Pid>> {
    let mut children = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        // A thread may end meanwhile.
        let listed = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        let ids = listed
            .split_ascii_whitespace()
            .filter_map(|id| id.parse().ok());
        children.extend(ids.filter_map(Pid::from_raw));
    }
    Ok(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_is_known_and_one_of_another_name_stays() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = Pid::from_raw(child.id().cast_signed());
        assert!(children().unwrap().contains(&id.unwrap()));
        end();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
