//! Linux: GNOME's idle monitor, else the X server. Behind other Wayland desktops' X server the keys of Wayland's own windows
//! are not seen, so there nothing is said.

use std::time::Duration;
use tokio::time::timeout;
use x11rb::connection::{Connection as _, RequestConnection as _};
use x11rb::protocol::screensaver::{ConnectionExt as _, X11_EXTENSION_NAME};
use x11rb::rust_connection::RustConnection;
use zbus::{Connection, Proxy};

const MONITOR: &str = "org.gnome.Mutter.IdleMonitor";
const MONITOR_PATH: &str = "/org/gnome/Mutter/IdleMonitor/Core";
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Who knows when keys were last pressed.
pub(super) enum Seat {
    Gnome(Proxy<'static>),
    Screen(Box<RustConnection>, u32),
    Unknown,
}

impl Seat {
    /// Looks for somebody who knows.
    pub(super) async fn open() -> Self {
        if let Some(monitor) = timeout(ANSWER_LIMIT, monitor()).await.ok().flatten() {
            return Self::Gnome(monitor);
        }
        let is_wayland = std::env::var_os("WAYLAND_DISPLAY").is_some_and(|name| !name.is_empty());
        if is_wayland {
            return Self::Unknown;
        }
        match tokio::task::spawn_blocking(screen).await.ok().flatten() {
            Some((connection, root)) => Self::Screen(Box::new(connection), root),
            None => Self::Unknown,
        }
    }

    /// Time since keyboard or mouse were used.
    pub(super) async fn idle(&self) -> Option<Duration> {
        match self {
            Self::Gnome(monitor) => {
                let asked = monitor.call::<_, _, u64>("GetIdletime", &());
                let milliseconds = timeout(ANSWER_LIMIT, asked).await.ok()?.ok()?;
                Some(Duration::from_millis(milliseconds))
            }
            Self::Screen(connection, root) => {
                // The X server is on this machine and answers at once.
                let asked = connection.screensaver_query_info(*root).ok()?;
                let answer = asked.reply().ok()?;
                Some(Duration::from_millis(answer.ms_since_user_input.into()))
            }
            Self::Unknown => None,
        }
    }
}

async fn monitor() -> Option<Proxy<'static>> {
    let session = Connection::session().await.ok()?;
    let monitor = Proxy::new(&session, MONITOR, MONITOR_PATH, MONITOR)
        .await
        .ok()?;
    monitor.call::<_, _, u64>("GetIdletime", &()).await.ok()?;
    Some(monitor)
}

fn screen() -> Option<(RustConnection, u32)> {
    let (connection, index) = x11rb::connect(None).ok()?;
    connection
        .extension_information(X11_EXTENSION_NAME)
        .ok()??;
    let root = connection.setup().roots.get(index)?.root;
    Some((connection, root))
}
