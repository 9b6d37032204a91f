//! The border behind which an engine is started: this machine today, a cluster some day.

#[cfg(unix)]
mod guarded;
#[cfg(windows)]
mod job;

#[cfg(unix)]
use std::ffi::OsString;
use std::fmt;
use std::future::Future;
use std::io;
#[cfg(unix)]
use std::path::Path;
use std::path::PathBuf;
use std::pin::Pin;

use thiserror::Error;
use tokio::io::AsyncRead;

use super::launch::LaunchPlan;
use crate::sandbox::SandboxReport;

/// A future behind a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Starts engine processes.
pub trait Spawner: Send + Sync {
    /// Starts what `plan` says and returns as soon as the program runs.
    ///
    /// # Errors
    /// [`SpawnError::Program`] when no further try can help, [`SpawnError::System`] otherwise.
    fn spawn<'a>(
        &'a self,
        plan: &'a LaunchPlan,
    ) -> BoxFuture<'a, Result<RunningProcess, SpawnError>>;
}

/// Why a process did not start.
#[derive(Debug, Error)]
pub enum SpawnError {
    /// The program or its directory is missing or not executable.
    #[error("{} cannot be started: {reason}", program.display())]
    Program {
        /// The program that was to be started.
        program: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The system refused for another reason; a later try may work.
    #[error("the system did not start the engine")]
    System(#[source] io::Error),
}

/// A started engine with everything it and its children will ever print.
pub struct RunningProcess {
    /// Process id of the engine itself.
    pub pid: Option<u32>,
    /// How far it is confined.
    pub sandbox: SandboxReport,
    /// Its standard output.
    pub output: Box<dyn AsyncRead + Send + Unpin>,
    /// Its standard error.
    pub errors: Box<dyn AsyncRead + Send + Unpin>,
    /// The way to end it.
    pub control: Box<dyn ProcessControl>,
}

impl fmt::Debug for RunningProcess {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RunningProcess")
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

/// Ends a started engine. Dropping it kills the engine with its whole tree, without waiting.
pub trait ProcessControl: Send {
    /// Asks the engine to end. Where the system knows no such request it is killed.
    fn terminate(&mut self);

    /// Kills the engine and every process it started.
    fn kill(&mut self);

    /// Waits until the engine and every process it started are gone. Safe to cancel and to call
    /// again; gives the same answer from then on.
    fn wait(&mut self) -> BoxFuture<'_, ProcessExit>;
}

/// How an engine process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessExit {
    /// With this exit code.
    Code(i32),
    /// By this Unix signal.
    Signal(i32),
    /// Nobody could tell.
    Unknown,
}

/// Starts engines on this machine, each under a guard that outlives neither it nor us.
///
/// On Unix the guard is our own program run again (see [`super::guard_main`]); on Windows a job
/// object does the same without a second process.
#[derive(Debug, Clone)]
pub struct LocalSpawner {
    #[cfg(unix)]
    guard: GuardCommand,
}

/// How to run [`super::guard_main`].
#[cfg(unix)]
#[derive(Debug, Clone)]
pub(super) struct GuardCommand {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<OsString>,
}

/// Our program without a window.
#[cfg(unix)]
const HEADLESS_PROGRAM: &str = "sentineld";

impl LocalSpawner {
    /// Uses `sentineld` beside the running program as guard, else the running program itself,
    /// whose `main` must then call [`super::guard_main`] when its first argument is
    /// [`super::GUARD_SUBCOMMAND`].
    ///
    /// A guard lives as long as its engine and should be small: the desktop app would load a whole
    /// browser engine into each of them.
    ///
    /// # Errors
    /// When the system does not tell the path of the running program.
    #[cfg(unix)]
    pub fn from_current_executable() -> io::Result<Self> {
        let small = std::env::current_exe()?.with_file_name(HEADLESS_PROGRAM);
        if std::env::current_exe()? != small && small.is_file() {
            return Ok(Self::with_guard(small, [super::GUARD_SUBCOMMAND]));
        }
        // This link leads to the running program even after its file was replaced by an update.
        let link = Path::new("/proc/self/exe");
        let program = if cfg!(target_os = "linux") && link.exists() {
            link.to_path_buf()
        } else {
            std::env::current_exe()?
        };
        Ok(Self::with_guard(program, [super::GUARD_SUBCOMMAND]))
    }

    /// Needs no guard program here.
    ///
    /// # Errors
    /// None on this system.
    #[cfg(windows)]
    pub fn from_current_executable() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Uses another program as guard, which has to call [`super::guard_main`].
    #[cfg(unix)]
    pub fn with_guard(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self {
            guard: GuardCommand {
                program: program.into(),
                arguments: arguments.into_iter().map(Into::into).collect(),
            },
        }
    }
}

impl Spawner for LocalSpawner {
    fn spawn<'a>(
        &'a self,
        plan: &'a LaunchPlan,
    ) -> BoxFuture<'a, Result<RunningProcess, SpawnError>> {
        Box::pin(async move {
            check_directory(plan)?;
            #[cfg(unix)]
            let started = guarded::spawn(&self.guard, plan).await;
            #[cfg(windows)]
            let started = job::spawn(plan);
            started
        })
    }
}

/// A missing directory and a missing program give the same system error; tell them apart first.
fn check_directory(plan: &LaunchPlan) -> Result<(), SpawnError> {
    if plan.working_directory.is_dir() {
        return Ok(());
    }
    Err(SpawnError::Program {
        program: plan.program.clone(),
        reason: format!(
            "the directory {} does not exist",
            plan.working_directory.display()
        ),
    })
}
