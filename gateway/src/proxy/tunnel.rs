//! WebSockets and other upgrades: bytes both ways until either side ends, the session ends, or the
//! caller's address is denied. Untouched, but for ComfyUI's events ([`super::frames`]).

use super::frames::{self, Feed};
use super::pings::Pinged;
use crate::access::ClientIp;
use crate::app::App;
use crate::auth::Session;
use crate::engine::InUse;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{
    AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, copy_bidirectional_with_sizes, copy_buf,
    split,
};
use tokio::time::{sleep, timeout};

/// Buffer of each direction, bytes. tokio's 8 KiB cost more than half of the throughput of large
/// frames; the pages of an unused buffer are never touched.
const BUFFER: usize = 128 * 1024;
/// Time for both sides to finish the upgrade.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// tokio's timer reaches about two years; a token never lives longer than that in one tunnel.
pub(super) const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// The two ends of a tunnel.
pub(super) struct Sides {
    pub(super) client: OnUpgrade,
    pub(super) engine: OnUpgrade,
    /// Whether they speak WebSocket, which is pinged.
    pub(super) is_websocket: bool,
}

/// Carries bytes between the two sides until the first reason to end.
pub(super) async fn run(
    app: Arc<App>,
    address: ClientIp,
    session: Arc<Session>,
    sides: Sides,
    _in_use: InUse,
    feed: Option<Feed>,
) {
    let upgraded = async { tokio::join!(sides.client, sides.engine) };
    let Ok((Ok(client), Ok(engine))) = timeout(UPGRADE_TIMEOUT, upgraded).await else {
        tracing::debug!("an upgrade was not finished");
        return;
    };
    let mut client = TokioIo::new(client);
    let mut engine = Pinged::new(TokioIo::new(engine), sides.is_websocket);
    let place = app.connections.enter(address);
    tokio::select! {
        result = carry(&mut client, &mut engine, feed) => {
            if let Err(error) = result {
                tracing::debug!(%error, "a tunnel broke");
            }
        }
        () = session.ended().cancelled() => tracing::debug!("a tunnel was closed: its session ended"),
        () = sleep(session.remaining().min(LONGEST)) => tracing::debug!("a tunnel was closed: its session ran out"),
        () = place.ended() => tracing::debug!("a tunnel was closed: its address was denied or Sentinel stops"),
    }
}

async fn carry(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    engine: &mut (impl AsyncRead + AsyncWrite + Unpin),
    feed: Option<Feed>,
) -> std::io::Result<()> {
    let Some(feed) = feed else {
        copy_bidirectional_with_sizes(client, engine, BUFFER, BUFFER).await?;
        return Ok(());
    };
    let (from_client, mut to_client) = split(client);
    let mut from_client = BufReader::with_capacity(BUFFER, from_client);
    let (mut from_engine, mut to_engine) = split(engine);
    let up = async {
        copy_buf(&mut from_client, &mut to_engine).await?;
        to_engine.shutdown().await
    };
    let down = frames::carry(&mut from_engine, &mut to_client, feed);
    tokio::try_join!(up, down).map(|_| ())
}
