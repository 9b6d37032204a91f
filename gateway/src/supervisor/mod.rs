//! Engines: starting, watching and stopping ComfyUI processes.
//!
//! Invariants kept here:
//! - one task (the actor in `actor.rs`) owns the state of an engine; everybody else sees a
//!   [`tokio::sync::watch`] copy of its [`EngineStatus`];
//! - an engine never outlives the gateway: it runs under a small guard process that kills the
//!   whole process tree as soon as the gateway is gone, however it went (see [`guard_main`]);
//! - a new engine process is started only after every process of the last one is gone;
//! - no output of an engine, however much, makes memory grow or lets the gateway wait.

mod actor;
mod attach;
mod explain;
mod guard;
mod handle;
mod launch;
#[cfg(target_os = "linux")]
mod listener;
mod liveness;
mod log;
mod once;
mod progress;
mod readiness;
mod restart;
mod settings;
mod spawn;
mod status;

#[cfg(test)]
#[cfg(unix)]
mod process_tests;

pub use attach::Attached;
pub use explain::{Explanation, explain_exit};
pub use guard::{GUARD_SUBCOMMAND, guard_main};
pub use handle::{Supervisor, SupervisorGone, SupervisorHandle};
pub use launch::{LaunchError, LaunchPlan, Launcher, free_loopback_port};
pub use log::{LogEntry, LogLimits, LogRing, LogStream, mask_secrets};
pub use once::{Ended, run_to_end};
pub use restart::{Exit, RestartPolicy, Step, next_step};
pub use settings::SupervisorSettings;
pub use spawn::{
    BoxFuture, LocalSpawner, ProcessControl, ProcessExit, RunningProcess, SpawnError, Spawner,
};
pub use status::{EngineState, EngineStatus};
