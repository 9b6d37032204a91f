//! Whether somebody sits at this machine, for a pause that ends when the owner is away: his requests alone do not tell, as
//! he may be in a game.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
use linux as system;
#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
use macos as system;
#[cfg(windows)]
mod windows;
#[cfg(windows)]
use windows as system;

use sentinel_gateway::Gateway;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks.
const ROUND: Duration = Duration::from_secs(20);

/// Tells the gateway whenever keyboard or mouse were used, for as long as it is polled. Where the system does not say, the
/// gateway goes by the owner's requests.
pub(crate) async fn follow(gateway: Arc<Gateway>) {
    let seat = system::Seat::open().await;
    loop {
        if seat.idle().await.is_some_and(|idle| idle < ROUND) {
            gateway.owner_is_present();
        }
        sleep(ROUND).await;
    }
}
