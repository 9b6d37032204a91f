//! What became of the confinement of an engine.

use serde::{Deserialize, Serialize};

use crate::config::Sandbox;

/// How far an engine is confined. Serialised in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxState {
    /// In everything that was planned.
    Confined,
    /// In a part of it; the detail says what is missing.
    Partly,
    /// Not at all, as the configuration says so.
    Off,
    /// Not at all, as this system cannot.
    Unavailable,
}

impl SandboxState {
    /// The lower-case name used on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confined => "confined",
            Self::Partly => "partly",
            Self::Off => "off",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How far an engine is confined, and why not further.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxReport {
    /// In one word.
    pub state: SandboxState,
    /// Version of the kernel's Landlock; 0 where there is none.
    pub abi: u32,
    /// In a sentence or two for people.
    pub detail: String,
}

impl SandboxReport {
    /// A report that nothing is confined because nobody wants it.
    pub fn off() -> Self {
        Self {
            state: SandboxState::Off,
            abi: 0,
            detail: "The operating system does not confine ComfyUI: sandbox is \"off\".".to_owned(),
        }
    }

    /// A report that nothing can be confined, and why.
    pub fn unavailable(reason: &str) -> Self {
        Self {
            state: SandboxState::Unavailable,
            abi: 0,
            detail: format!("The operating system does not confine ComfyUI: {reason}."),
        }
    }

    /// What can be said of an engine that was never started.
    pub fn not_started() -> Self {
        Self {
            state: SandboxState::Off,
            abi: 0,
            detail: "ComfyUI has not been started yet.".to_owned(),
        }
    }

    /// Whether files, the least that counts, are held back.
    pub fn holds_files(&self) -> bool {
        matches!(self.state, SandboxState::Confined | SandboxState::Partly)
    }
}

/// What `sentineld check` and the admin's warnings say about the setting on this system.
pub fn config_warning(setting: Sandbox) -> Option<String> {
    let report = super::support();
    match (setting, report.state) {
        (Sandbox::Off, _) => Some(
            "sandbox is \"off\": workflows and custom nodes can read and write whatever you can."
                .to_owned(),
        ),
        (Sandbox::Auto | Sandbox::Require, SandboxState::Confined) => None,
        (Sandbox::Require, SandboxState::Unavailable) => Some(format!(
            "{} ComfyUI does not start, as sandbox is \"require\".",
            report.detail
        )),
        (Sandbox::Auto | Sandbox::Require, _) => Some(report.detail),
    }
}
