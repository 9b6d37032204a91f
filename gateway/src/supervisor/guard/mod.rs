//! The guard process: it stands between the gateway and one engine and sees to it that the engine
//! and everything it started are gone as soon as the gateway wishes so or is gone itself.
//!
//! The gateway runs its own program again with [`GUARD_SUBCOMMAND`] and a socket as standard
//! input. The orders come through that socket, so the guard needs no further arguments; when the
//! gateway dies, `kill -9` included, the system closes the socket and the guard clears the tree.
//!
//! On Linux the guard is a child subreaper: processes of the tree that lost their parent, even
//! those that made a session of their own, become its children and cannot get away. A guard
//! that is itself killed takes at least the engine process with it (`PR_SET_PDEATHSIG`).
//! Elsewhere on Unix only the engine's process group can be reached.
//!
//! The engine is started by one more run of this program (the *stage*), which sets the death
//! signal on itself and then becomes the engine by `exec`. So no `unsafe` code has to run
//! between `fork` and `exec`.

#[cfg(unix)]
mod protocol;
#[cfg(unix)]
mod stage;
#[cfg(unix)]
mod tree;
#[cfg(unix)]
mod watch;

#[cfg(unix)]
pub(super) use protocol::{Event, KILL, Order, Plan, TERMINATE, send_order};

use std::process::ExitCode;

/// First argument that makes our program a guard.
pub const GUARD_SUBCOMMAND: &str = "guard-engine";

/// The whole life of a guard process. To be called first thing in `main`, before threads, signal
/// handlers, logging or another runtime exist.
///
/// Returns when no process of the engine's tree is left. Prints nothing, as its output streams
/// are the engine's. Called by hand it fails at once.
#[cfg(unix)]
pub fn guard_main() -> ExitCode {
    match protocol::take_order() {
        Ok((Order::Guard(plan), socket)) => watch::guard(plan, socket),
        Ok((Order::Become(plan), socket)) => stage::become_engine(plan, socket),
        Err(_) => ExitCode::from(protocol::USAGE_ERROR),
    }
}

/// There is no guard process here: a job object guards the engine.
#[cfg(not(unix))]
pub fn guard_main() -> ExitCode {
    ExitCode::from(64)
}
