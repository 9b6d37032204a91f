//! What is started: program, arguments, directory, environment and address.

use std::error::Error;
use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use thiserror::Error;

use crate::sandbox::SandboxPlan;

/// Everything needed to start one engine process once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchPlan {
    /// The program itself; never run through a shell.
    pub program: PathBuf,
    /// Its arguments, without the program.
    pub arguments: Vec<OsString>,
    /// Directory the program starts in.
    pub working_directory: PathBuf,
    /// Variables set on top of the gateway's own environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Variables of the gateway's environment the engine must not see.
    pub removed_environment: Vec<OsString>,
    /// Loopback address the engine is told to listen on.
    pub address: SocketAddr,
    /// What the engine may do; `None` leaves it unconfined.
    pub sandbox: Option<SandboxPlan>,
}

/// Makes the [`LaunchPlan`] anew for every start, as the port changes each time.
///
/// Called on the supervisor's task: creating a few directories is fine, long work is not.
pub trait Launcher: Send + Sync {
    /// Says how to start the engine so that it listens on `address`.
    ///
    /// # Errors
    /// [`LaunchError`] when it cannot be started at all; its text is shown to people, and the
    /// supervisor does not try again by itself.
    fn plan(&self, address: SocketAddr) -> Result<LaunchPlan, LaunchError>;
}

/// Why an engine cannot be started, as a sentence for people.
#[derive(Debug, Error)]
#[error("{message}")]
pub struct LaunchError {
    message: String,
    #[source]
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl LaunchError {
    /// An error with nothing underneath.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            source: None,
        }
    }

    /// An error caused by another one.
    pub fn with_source(
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            message: message.into(),
            source: Some(source.into()),
        }
    }
}

/// A port on 127.0.0.1 that nobody listened on a moment ago.
///
/// The port is free again when this returns, so somebody else may take it first; the engine then
/// ends with "port in use" and the next start picks another one.
///
/// # Errors
/// When the system has no port left or refuses loopback sockets.
pub fn free_loopback_port() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_on_loopback_and_can_be_bound() {
        let address = free_loopback_port().unwrap();
        assert!(address.ip().is_loopback());
        assert_ne!(address.port(), 0);
        TcpListener::bind(address).unwrap();
    }
}
