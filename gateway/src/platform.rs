//! What each operating system does in its own way and concerns the whole program.

use std::io;
use tokio::process::Command;
#[cfg(windows)]
use windows::Win32::System::Threading::CREATE_NO_WINDOW;

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
