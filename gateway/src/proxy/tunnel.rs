//! WebSockets and other upgrades: bytes both ways, untouched, until either side ends, the session
//! ends, or the caller's address is denied.

use crate::access::ClientIp;
use crate::app::App;
use crate::auth::Session;
use crate::engine::InUse;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::time::{sleep, timeout};

/// Buffer of each direction, bytes. tokio's 8 KiB cost more than half of the throughput of large
/// frames; the pages of an unused buffer are never touched.
const BUFFER: usize = 128 * 1024;
/// Time for both sides to finish the upgrade.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// tokio's timer reaches about two years; a token never lives longer than that in one tunnel.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Carries bytes between the two sides until the first reason to end.
pub(super) async fn run(
    app: Arc<App>,
    address: ClientIp,
    session: Arc<Session>,
    client: OnUpgrade,
    engine: OnUpgrade,
    _in_use: InUse,
) {
    let Ok((Ok(client), Ok(engine))) =
        timeout(UPGRADE_TIMEOUT, async { tokio::join!(client, engine) }).await
    else {
        tracing::debug!("an upgrade was not finished");
        return;
    };
    let mut client = TokioIo::new(client);
    let mut engine = TokioIo::new(engine);
    let place = app.connections.enter(address);
    tokio::select! {
        result = copy_bidirectional_with_sizes(&mut client, &mut engine, BUFFER, BUFFER) => {
            if let Err(error) = result {
                tracing::debug!(%error, "a tunnel broke");
            }
        }
        () = session.ended().cancelled() => tracing::debug!("a tunnel was closed: its session ended"),
        () = sleep(session.remaining().min(LONGEST)) => tracing::debug!("a tunnel was closed: its session ran out"),
        () = place.ended() => tracing::debug!("a tunnel was closed: its address was denied or Sentinel stops"),
    }
}
