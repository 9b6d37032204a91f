//! Follows what an engine tells of its queue by itself, over one socket of our own that stays open as
//! long as the engine answers.

use super::events::Events;
use crate::supervisor::EngineStatus;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Between two tries to open the socket.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// What the socket has told so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueSignal {
    /// Counts the changes of the engine's queue.
    pub(crate) changes: u64,
    /// Returns false while changes may happen that nobody tells.
    pub(crate) is_connected: bool,
}

/// Keeps the socket open until the engine's task ends.
pub(super) async fn follow(
    mut status: watch::Receiver<EngineStatus>,
    signal: watch::Sender<QueueSignal>,
) {
    loop {
        let address = status.borrow_and_update().address;
        let ended = match address {
            None => status.changed().await.is_err(),
            Some(address) => {
                tokio::select! {
                    changed = status.changed() => changed.is_err(),
                    () = listen(address, &signal) => {
                        sleep(OPEN_AGAIN).await;
                        false
                    }
                }
            }
        };
        signal.send_if_modified(|signal| std::mem::take(&mut signal.is_connected));
        if ended {
            return;
        }
    }
}

/// Listens until the socket breaks.
async fn listen(address: SocketAddr, signal: &watch::Sender<QueueSignal>) {
    let mut events = match Events::open(address).await {
        Ok(events) => events,
        Err(error) => {
            tracing::debug!(%error, "ComfyUI's events cannot be heard");
            return;
        }
    };
    let count = |signal: &mut QueueSignal| {
        signal.changes = signal.changes.wrapping_add(1);
        signal.is_connected = true;
    };
    // Changes may have been missed.
    signal.send_modify(count);
    while events.next_count().await.is_ok() {
        signal.send_modify(count);
    }
}
