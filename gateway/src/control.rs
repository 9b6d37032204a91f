//! The one interface between the gateway and what steers it: the tray, the window, the command
//! line. Commands in, status and events out.

use crate::supervisor::EngineStatus;
use std::net::SocketAddr;
use tokio::sync::{broadcast, watch};

/// Events that a slow listener may be behind; it misses the oldest then.
const EVENTS: usize = 64;

/// What can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start ComfyUI.
    StartEngine,
    /// Stop ComfyUI; ordered again, hurry.
    StopEngine,
    /// Stop ComfyUI and start it with the settings as they are now.
    RestartEngine,
    /// Unload models and free memory.
    FreeMemory,
    /// The owner needs his GPU: jobs of others are held back, after those that run, or now.
    PauseQueue {
        /// Jobs of others are interrupted and run again later.
        now: bool,
    },
    /// Jobs run again.
    ResumeQueue,
    /// Be reachable from the LAN, or from this machine alone; written to the settings.
    Share(bool),
}

/// What happened and may be worth a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// ComfyUI answers.
    EngineReady,
    /// ComfyUI ended unasked.
    EngineCrashed {
        /// In plain words.
        reason: String,
    },
    /// An address was put on the deny list after too many failures.
    AddressBanned {
        /// The address.
        address: String,
    },
    /// An admin signed in from an address and browser that his account has not used before.
    AdminFromNewDevice {
        /// User name.
        username: String,
        /// From where.
        address: String,
    },
}

/// What is known now.
#[derive(Clone, Debug)]
pub struct Status {
    /// ComfyUI.
    pub engine: EngineStatus,
    /// Whether it is the demo engine.
    pub is_demo: bool,
    /// Addresses that are listened on.
    pub listening: Vec<SocketAddr>,
    /// Whether they speak HTTPS.
    pub is_https: bool,
    /// Address to open on this machine.
    pub local_url: String,
    /// The set-up code, while there is no account.
    pub setup_code: Option<String>,
    /// Weak settings and damaged files, in plain words.
    pub warnings: Vec<String>,
    /// The LAN.
    pub sharing: SharingStatus,
    /// Who is signed in, by name.
    pub signed_in: Vec<SignedInUser>,
    /// Whether the owner has asked for his GPU.
    pub is_queue_paused: bool,
    /// Jobs that wait in the gateway.
    pub jobs_waiting: usize,
    /// Whether there is an account at all.
    pub has_account: bool,
}

/// How other devices reach the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharingStatus {
    /// Whether they can.
    pub is_enabled: bool,
    /// Addresses for other devices, best first.
    pub urls: Vec<String>,
    /// Why sharing is not what the settings ask for.
    pub fault: Option<String>,
}

/// Somebody with an open session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedInUser {
    /// User name.
    pub username: String,
    /// Addresses of his sessions, the one used last first.
    pub addresses: Vec<String>,
}

/// What the API answered to the machine's owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAnswer {
    /// HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
    /// Its type; empty when there is no body.
    pub content_type: String,
}

/// Tells listeners that the status may have changed, and what happened.
#[derive(Debug)]
pub(crate) struct Announcements {
    changes: watch::Sender<u64>,
    events: broadcast::Sender<Event>,
}

impl Default for Announcements {
    fn default() -> Self {
        Self {
            changes: watch::Sender::new(0),
            events: broadcast::Sender::new(EVENTS),
        }
    }
}

impl Announcements {
    /// The status may have changed.
    pub(crate) fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Something happened; the status has changed too.
    pub(crate) fn happened(&self, event: Event) {
        // Nobody listens in the headless program.
        let _ = self.events.send(event);
        self.changed();
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }
}
