//! The one interface between the gateway and what steers it: the tray, the window, the command
//! line. Commands in, status out.

use crate::supervisor::EngineStatus;
use std::net::SocketAddr;

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
}
