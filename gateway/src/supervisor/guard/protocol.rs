//! What gateway, guard and stage tell each other over their sockets.
//!
//! First an [`Order`], as JSON after its length in four bytes; then, gateway to guard, single
//! bytes ([`TERMINATE`], [`KILL`]) and, guard to gateway, one [`Event`] a line.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sandbox::{SandboxPlan, SandboxReport};
use crate::supervisor::launch::LaunchPlan;

/// Ask the engine to end.
pub(crate) const TERMINATE: u8 = b't';
/// Kill the whole tree.
pub(crate) const KILL: u8 = b'k';
/// Exit code of a guard that was not called by a gateway (`EX_USAGE`).
pub(super) const USAGE_ERROR: u8 = 64;
/// Bound for an order; a command line cannot be longer on any system we run on.
const ORDER_LIMIT: u32 = 4 << 20;

/// The first message on a socket.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Be the guard of an engine.
    Guard(Plan),
    /// Become the engine.
    Become(Plan),
}

/// The part of a [`LaunchPlan`] a process needs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
    pub(super) working_directory: PathBuf,
    pub(super) environment: Vec<(OsString, OsString)>,
    pub(super) removed_environment: Vec<OsString>,
    /// How to run the stage: the guard's own program and arguments.
    pub(super) stage: (PathBuf, Vec<OsString>),
    /// Process id of the guard, filled in by it for the stage.
    pub(super) guard: u32,
    pub(super) sandbox: Option<SandboxPlan>,
}

impl Plan {
    pub(crate) fn new(plan: &LaunchPlan, stage: (PathBuf, Vec<OsString>)) -> Self {
        Self {
            program: plan.program.clone(),
            arguments: plan.arguments.clone(),
            working_directory: plan.working_directory.clone(),
            environment: plan.environment.clone(),
            removed_environment: plan.removed_environment.clone(),
            stage,
            guard: 0,
            sandbox: plan.sandbox.clone(),
        }
    }
}

/// News from the guard, one JSON value a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Event {
    /// The stage is confined, and about to become the engine.
    Confined(SandboxReport),
    /// The engine runs under this process id.
    Started { pid: u32, sandbox: SandboxReport },
    /// It could not be started; `permanent` when no further try can help.
    NotStarted { permanent: bool, reason: String },
    /// The engine itself ended with this code; the rest of its tree is being cleared.
    Exited(i32),
    /// The same by a signal.
    Signalled(i32),
}

/// Sends the first message. Blocks until the other side has taken it.
pub(crate) fn send_order(socket: &mut UnixStream, order: &Order) -> io::Result<()> {
    let text = serde_json::to_vec(order)?;
    let length = u32::try_from(text.len())
        .ok()
        .filter(|length| *length <= ORDER_LIMIT)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "command line too long"))?;
    socket.write_all(&length.to_be_bytes())?;
    socket.write_all(&text)
}

/// Reads the first message from standard input, which has to be a socket.
pub(super) fn take_order() -> io::Result<(Order, UnixStream)> {
    // The copy is closed by `exec`, standard input itself is replaced there.
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails for a terminal, a file or a pipe: somebody called the guard by hand.
    socket.peer_addr()?;
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > ORDER_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "order too long"));
    }
    let mut text = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    socket.read_exact(&mut text)?;
    Ok((serde_json::from_slice(&text)?, socket))
}

/// The line for an event.
pub(super) fn event_line(event: &Event) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line)
}

/// Whether starting a program failed for a reason that will still hold next time.
pub(super) fn is_permanent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::ArgumentListTooLong
    ) || error.raw_os_error() == Some(libc::ENOEXEC)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn arguments_that_are_no_text_survive() {
        let plan = Plan {
            program: "/bin/true".into(),
            arguments: vec![OsString::from_vec(vec![b'a', 0xff, b'\n'])],
            working_directory: "/".into(),
            environment: vec![("A".into(), OsString::from_vec(vec![0xfe]))],
            removed_environment: Vec::new(),
            stage: ("/proc/self/exe".into(), Vec::new()),
            guard: 0,
            sandbox: None,
        };
        let text = serde_json::to_vec(&Order::Guard(plan)).unwrap();
        let Order::Guard(back) = serde_json::from_slice(&text).unwrap() else {
            panic!("another order");
        };
        assert_eq!(back.arguments[0].clone().into_vec(), [b'a', 0xff, b'\n']);
        assert_eq!(back.environment[0].1.clone().into_vec(), [0xfe]);
    }
}
