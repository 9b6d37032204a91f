//! What tray and menu show, taken from the gateway's status.

use sentinel_gateway::control::{SignedInUser, Status};
use sentinel_gateway::supervisor::EngineState;

/// All that menu and icon depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) engine: EngineState,
    /// Part of the start that is done, in percent.
    pub(crate) percent: Option<u8>,
    pub(crate) is_demo: bool,
    pub(crate) is_shared: bool,
    /// Address for other devices, else the one for this machine.
    pub(crate) address: String,
    pub(crate) has_account: bool,
    pub(crate) signed_in: Vec<SignedInUser>,
    /// Whether the owner has taken the GPU for himself.
    pub(crate) is_queue_paused: bool,
    pub(crate) jobs_waiting: usize,
    pub(crate) starts_with_computer: bool,
    pub(crate) life: Life,
}

/// Whether the app is about to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    Quitting,
}

impl View {
    pub(crate) fn new(status: &Status, starts_with_computer: bool, life: Life) -> Self {
        let is_shared = status.sharing.is_enabled && status.sharing.fault.is_none();
        let address = status.sharing.urls.first().filter(|_| is_shared);
        Self {
            engine: status.engine.state,
            percent: status.engine.progress.map(percent),
            is_demo: status.is_demo,
            is_shared: status.sharing.is_enabled,
            address: address.unwrap_or(&status.local_url).clone(),
            has_account: status.has_account,
            signed_in: status.signed_in.clone(),
            is_queue_paused: status.is_queue_paused,
            jobs_waiting: status.jobs_waiting,
            starts_with_computer,
            life,
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what fits"
)]
fn percent(part: f32) -> u8 {
    (part.clamp(0.0, 1.0) * 100.0) as u8
}
