//! The stage: becomes the engine by `exec`, having tied its life to the guard's.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use crate::sandbox::{self, SandboxPlan, SandboxReport};

use super::protocol::{Event, Plan, event_line, is_permanent};

/// Does not return if all goes well: the caller is told so by the socket closing at `exec`.
pub(super) fn become_engine(plan: Plan, mut socket: UnixStream) -> ExitCode {
    if !die_with(plan.guard) {
        return ExitCode::FAILURE;
    }
    let mut command = Command::new(&plan.program);
    command
        .args(&plan.arguments)
        .current_dir(&plan.working_directory)
        .stdin(Stdio::null());
    for name in &plan.removed_environment {
        command.env_remove(name);
    }
    command.envs(plan.environment);
    let error = match confine(plan.sandbox.as_ref(), &mut socket) {
        Ok(()) => command.exec(),
        Err(error) => error,
    };
    tell(
        &mut socket,
        &Event::NotStarted {
            permanent: is_permanent(&error),
            reason: error.to_string(),
        },
    );
    ExitCode::FAILURE
}

/// Confines this process for good, and says how far that went.
fn confine(plan: Option<&SandboxPlan>, socket: &mut UnixStream) -> io::Result<()> {
    let report = match plan {
        Some(plan) => sandbox::apply(plan)?,
        None => SandboxReport::off(),
    };
    tell(socket, &Event::Confined(report));
    Ok(())
}

/// If the guard is gone there is nobody left to tell.
fn tell(socket: &mut UnixStream, event: &Event) {
    if let Ok(line) = event_line(event) {
        let _gone = socket.write_all(&line);
    }
}

/// Has the system kill this process, and the engine it becomes, when the guard dies. `false` if
/// the guard died before that took hold.
#[cfg(target_os = "linux")]
fn die_with(guard: u32) -> bool {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).is_ok()
        && u32::try_from(nix::unistd::getppid().as_raw()) == Ok(guard)
}

#[cfg(not(target_os = "linux"))]
fn die_with(_guard: u32) -> bool {
    true
}
