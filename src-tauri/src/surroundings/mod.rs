//! The desktop around the app: whether it shows tray icons, and on which colour.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(windows)]
mod windows;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is known of the desktop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Whether tray icons are shown; `None` until it is known.
    pub(crate) has_tray: Option<bool>,
    pub(crate) panel: Panel,
}

/// What the tray's icon lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Panel {
    Dark,
    #[cfg_attr(
        target_os = "macos",
        expect(dead_code, reason = "macOS does not tell the colour of its menu bar")
    )]
    Light,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            // Only on Linux are there desktops without a tray.
            has_tray: (!cfg!(target_os = "linux")).then_some(true),
            // The panels of most desktops are dark, also under a light theme.
            panel: Panel::Dark,
        }
    }
}

/// Follows the desktop until `stopping`.
pub(crate) async fn follow(known: watch::Sender<Surroundings>, stopping: CancellationToken) {
    #[cfg(target_os = "linux")]
    linux::follow(known, stopping).await;
    #[cfg(windows)]
    windows::follow(known, stopping).await;
    #[cfg(not(any(target_os = "linux", windows)))]
    {
        // What they say at first stays true; listeners must not see the sender end.
        stopping.cancelled().await;
        drop(known);
    }
}
