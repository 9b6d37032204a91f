//! What everybody else sees of an engine.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use crate::sandbox::SandboxReport;

/// Where an engine stands. Serialised in lower case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineState {
    /// Not running, and nobody asked for it.
    Stopped,
    /// The process runs but does not answer yet.
    Starting,
    /// Answers requests.
    Ready,
    /// Asked to end; some of its processes may still live.
    Stopping,
    /// Ended unasked; another try follows after a pause.
    Crashed,
    /// Given up; starts again only when asked.
    Failed,
}

impl EngineState {
    /// The lower-case name used on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stopping => "stopping",
            Self::Crashed => "crashed",
            Self::Failed => "failed",
        }
    }
}

/// A snapshot of one engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineStatus {
    /// Where it stands.
    pub state: EngineState,
    /// When it came into this state.
    pub since: OffsetDateTime,
    /// For people: what is going on while starting, else one or two sentences. Holds no secrets.
    pub message: String,
    /// Estimated part of the start that is done, 0 to 1; only while starting.
    pub progress: Option<f32>,
    /// Pause before the next try, counted from `since`; only when crashed.
    pub retry_in: Option<Duration>,
    /// Where requests go; only when ready.
    pub address: Option<SocketAddr>,
    /// Counts the processes started, from 1; 0 before the first.
    pub generation: u64,
    /// Process id of the engine while it lives.
    pub pid: Option<u32>,
    /// ComfyUI's version as it tells it itself; known once ready, kept afterwards.
    pub version: Option<String>,
    /// Tries made by ourselves since somebody last asked for a start.
    pub restarts: u32,
    /// How far the process started last is confined by the operating system.
    pub sandbox: SandboxReport,
}

impl EngineStatus {
    /// The status before anything was started.
    pub fn stopped(message: impl Into<String>) -> Self {
        Self {
            state: EngineState::Stopped,
            since: OffsetDateTime::now_utc(),
            message: message.into(),
            progress: None,
            retry_in: None,
            address: None,
            generation: 0,
            pid: None,
            version: None,
            restarts: 0,
            sandbox: SandboxReport::not_started(),
        }
    }

    /// Whether requests can be passed on.
    pub fn is_ready(&self) -> bool {
        self.state == EngineState::Ready
    }

    /// What is left at `now` of the pause before the next try.
    pub fn retry_remaining(&self, now: OffsetDateTime) -> Option<Duration> {
        let pause = self.retry_in?;
        let passed = Duration::try_from(now - self.since).unwrap_or_default();
        Some(pause.saturating_sub(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_runs_down_and_never_below_zero() {
        let mut status = EngineStatus::stopped("");
        assert_eq!(status.retry_remaining(status.since), None);
        status.retry_in = Some(Duration::from_secs(4));
        let at = |seconds: i64| status.since + time::Duration::seconds(seconds);
        let left = |seconds| status.retry_remaining(at(seconds)).unwrap().as_secs();
        assert_eq!([left(-3), left(0), left(1), left(9)], [4, 4, 3, 0]);
    }
}
