//! The handles through which everybody else sees and steers an engine.

use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::actor::Actor;
use super::launch::Launcher;
use super::log::LogRing;
use super::settings::SupervisorSettings;
use super::spawn::Spawner;
use super::status::EngineStatus;

/// Wishes that may wait for the actor, which takes them at once in every state.
const COMMAND_QUEUE: usize = 16;

/// The task that watches one engine is gone: the program is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the supervisor has ended")]
pub struct SupervisorGone;

/// A wish, taken by the actor in every state.
#[derive(Debug, Clone, Copy)]
pub(super) enum Command {
    Start,
    Stop,
    Restart,
    Hurry,
}

/// One engine under supervision. Owns the task; others get a [`SupervisorHandle`].
///
/// End it with [`shutdown`](Self::shutdown). Dropped instead, the task still stops the engine in
/// good order by itself if the runtime lives on, and the engine is killed if it does not.
#[derive(Debug)]
pub struct Supervisor {
    handle: SupervisorHandle,
    task: JoinHandle<()>,
    end: DropGuard,
}

impl Supervisor {
    /// Begins supervision; nothing is started yet. Needs a tokio runtime.
    pub fn launch(
        settings: SupervisorSettings,
        launcher: Arc<dyn Launcher>,
        spawner: Arc<dyn Spawner>,
        log: LogRing,
    ) -> Self {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (sender, status) = watch::channel(EngineStatus::stopped("ComfyUI is stopped."));
        let end = CancellationToken::new();
        let actor = Actor {
            settings,
            launcher,
            spawner,
            log: log.clone(),
            commands: receiver,
            status: sender,
            end: end.clone(),
            history: Vec::new(),
            generation: 0,
            restarts: 0,
        };
        Self {
            handle: SupervisorHandle {
                commands,
                status,
                log,
            },
            task: tokio::spawn(actor.run()),
            end: end.drop_guard(),
        }
    }

    /// A handle for everybody who wants to see or to steer the engine.
    pub fn handle(&self) -> SupervisorHandle {
        self.handle.clone()
    }

    /// Stops the engine by the ladder (ask, wait, kill the whole tree) and returns when all its
    /// processes are gone and the task has ended. [`SupervisorHandle::hurry`] shortens it.
    pub async fn shutdown(self) {
        drop(self.end);
        if self.task.await.is_err() {
            tracing::error!("the supervisor's task died");
        }
    }
}

/// Sees and steers one engine. Its commands return when they are accepted, not when they are
/// carried out; [`wait_for`](Self::wait_for) waits for the outcome.
#[derive(Debug, Clone)]
pub struct SupervisorHandle {
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<EngineStatus>,
    log: LogRing,
}

impl SupervisorHandle {
    /// Starts the engine unless it runs. Cuts the pause after a crash short; while the engine is
    /// stopping, it is started again afterwards.
    ///
    /// # Errors
    /// [`SupervisorGone`] after the end of the supervisor.
    pub async fn start(&self) -> Result<(), SupervisorGone> {
        self.send(Command::Start).await
    }

    /// Stops the engine; asked again while it is stopping, kills it at once.
    ///
    /// # Errors
    /// [`SupervisorGone`] after the end of the supervisor.
    pub async fn stop(&self) -> Result<(), SupervisorGone> {
        self.send(Command::Stop).await
    }

    /// Stops the engine if it runs, then starts it.
    ///
    /// # Errors
    /// [`SupervisorGone`] after the end of the supervisor.
    pub async fn restart(&self) -> Result<(), SupervisorGone> {
        self.send(Command::Restart).await
    }

    /// Kills an engine that is stopping at once; does nothing in any other state.
    ///
    /// # Errors
    /// [`SupervisorGone`] after the end of the supervisor.
    pub async fn hurry(&self) -> Result<(), SupervisorGone> {
        self.send(Command::Hurry).await
    }

    /// The status, always the newest.
    pub fn status(&self) -> watch::Receiver<EngineStatus> {
        self.status.clone()
    }

    /// A copy of the status as it is now.
    pub fn current(&self) -> EngineStatus {
        self.status.borrow().clone()
    }

    /// The engine's output.
    pub fn log(&self) -> &LogRing {
        &self.log
    }

    /// Waits until the status satisfies `condition` and returns it. Has no time limit of its own.
    ///
    /// # Errors
    /// [`SupervisorGone`] when the supervisor ends before that.
    pub async fn wait_for(
        &self,
        condition: impl FnMut(&EngineStatus) -> bool,
    ) -> Result<EngineStatus, SupervisorGone> {
        let mut status = self.status.clone();
        let found = status.wait_for(condition).await;
        found
            .map(|status| status.clone())
            .map_err(|_| SupervisorGone)
    }

    async fn send(&self, command: Command) -> Result<(), SupervisorGone> {
        self.commands
            .send(command)
            .await
            .map_err(|_| SupervisorGone)
    }
}
