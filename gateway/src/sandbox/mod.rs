//! Confinement of engines by the operating system: what an engine may touch, and holding it to that.
//!
//! On Linux three parts of the kernel work together, none of which needs privileges. Landlock
//! allows files by directory, TCP by port, and keeps signals and abstract sockets inside. A
//! system call filter (seccomp) shuts what Landlock leaves open: the sockets of other programs in
//! the file system, through which a session bus would start anything, and kinds of connections
//! that Landlock does not see. Resource limits do the rest. An engine cannot shed any of them, nor
//! can what it starts, and it gains no privileges by set-user-id programs.
//!
//! Invariants kept here:
//! - what an engine may do is data, a [`SandboxPlan`], made by the pure function [`plan()`] from
//!   what [`Confinement`] finds on this machine;
//! - it is applied by the engine's own process just before it becomes the engine, never to ours;
//! - nothing is granted that contains Sentinel's data or the owner's home without being said in
//!   the [`SandboxReport`].

#[cfg(target_os = "linux")]
mod apply;
mod arguments;
mod confinement;
mod environment;
#[cfg(target_os = "linux")]
mod filter;
mod links;
mod model_paths;
mod plan;
mod refusals;
mod report;
#[cfg(not(target_os = "linux"))]
mod unavailable;

#[cfg(target_os = "linux")]
pub use apply::{apply, support};
pub use confinement::{Confinement, Purpose};
pub use plan::{Profile, SandboxInputs, SandboxPlan, plan};
pub(crate) use refusals::Refusals;
pub use refusals::refused_path;
pub use report::{SandboxReport, SandboxState, config_warning};
#[cfg(not(target_os = "linux"))]
pub use unavailable::{apply, support};
