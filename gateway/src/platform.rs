//! What each operating system does in its own way and concerns the whole program.

use std::io;
use tokio::process::Command;
#[cfg(windows)]
use windows::Win32::System::Threading::CREATE_NO_WINDOW;

/// Open files that no work of ours exceeds.
#[cfg(unix)]
const MAX_OPEN_FILES: u64 = 65_536;
/// What systems allow if nobody says otherwise.
#[cfg(unix)]
const USUAL_OPEN_FILES: u64 = 1024;

/// Lets other threads of the machine go first; without effect where the system has no such thing
/// for a single thread.
pub(crate) fn lower_thread_priority() {
    #[cfg(target_os = "linux")]
    // On Linux `nice` counts for the calling thread alone.
    let _ = rustix::process::nice(10);
}

/// Has limits that another process of this account sets on this one (`prlimit`) refuse calls instead
/// of ending it. Handlers do that, and unlike ignored signals they are not handed to engines. Needs
/// a tokio runtime.
pub(crate) fn outlive_limits() -> io::Result<()> {
    #[cfg(unix)]
    for number in [libc::SIGXFSZ, libc::SIGXCPU] {
        use tokio::signal::unix::{SignalKind, signal};
        // The handler stays when the stream of signals is dropped.
        drop(signal(SignalKind::from_raw(number))?);
    }
    Ok(())
}

/// Opens as many files as the system allows an ordinary program, within reason; returns how many
/// that are. The usual limit is for programs of the nineties.
pub(crate) fn raise_open_files() -> u64 {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, getrlimit, setrlimit};
        let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
            return USUAL_OPEN_FILES;
        };
        let wanted = hard.min(MAX_OPEN_FILES).max(soft);
        match setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) {
            Ok(()) => wanted,
            Err(_) => soft,
        }
    }
    #[cfg(not(unix))]
    u64::MAX
}

/// Lets a console program be started without a console window of its own, which the app, having
/// none to share, would else pop up on Windows. It also leaves Ctrl-C at our console to us.
pub(crate) fn without_window(command: &mut Command) {
    #[cfg(windows)]
    command.creation_flags(CREATE_NO_WINDOW.0);
    #[cfg(not(windows))]
    let _ = command;
}

/// The machine's own name, or nothing.
pub(crate) fn host_name() -> String {
    #[cfg(unix)]
    {
        nix::unistd::gethostname()
            .ok()
            .and_then(|name| name.into_string().ok())
            .unwrap_or_default()
    }
    #[cfg(not(unix))]
    {
        std::env::vars_os()
            .find(|(name, _)| name.eq_ignore_ascii_case("COMPUTERNAME"))
            .and_then(|(_, value)| value.into_string().ok())
            .unwrap_or_default()
    }
}
