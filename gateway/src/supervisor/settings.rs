//! Every time-out of the supervisor in one place.

use std::time::Duration;

use super::restart::RestartPolicy;

/// How patient the supervisor is. All times are real time.
#[derive(Debug, Clone, PartialEq)]
pub struct SupervisorSettings {
    /// What to do when an engine ends unasked.
    pub restart: RestartPolicy,
    /// How long a starting engine may be silent. Every new line of output renews it, because a
    /// first start may download for an hour and says so.
    pub ready_timeout: Duration,
    /// How long a start may take however much it talks.
    pub ready_limit: Duration,
    /// Pause between two questions whether the engine answers.
    pub poll_interval: Duration,
    /// Time-out of one such question.
    pub probe_timeout: Duration,
    /// How long an engine may take to end after being asked.
    pub stop_grace: Duration,
    /// How long to wait for killed processes before giving up on them.
    pub kill_limit: Duration,
}

impl Default for SupervisorSettings {
    fn default() -> Self {
        Self {
            restart: RestartPolicy::default(),
            ready_timeout: Duration::from_secs(300),
            ready_limit: Duration::from_secs(3600),
            poll_interval: Duration::from_millis(200),
            probe_timeout: Duration::from_secs(5),
            stop_grace: Duration::from_secs(10),
            kill_limit: Duration::from_secs(15),
        }
    }
}
