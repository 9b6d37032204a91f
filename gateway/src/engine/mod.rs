//! The ComfyUI behind the gateway: found, prepared, started and watched; or one that somebody else
//! runs. One task owns it and takes commands.

mod client;
mod prepare;

pub use prepare::{DEMO, EngineError};

use crate::config::ConfigFile;
use crate::files::DataDirectory;
use crate::supervisor::{
    Attached, EngineState, EngineStatus, LocalSpawner, LogLimits, LogRing, RestartPolicy,
    Supervisor, SupervisorHandle, SupervisorSettings,
};
use prepare::PreparedLauncher;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Commands that may wait.
const QUEUE: usize = 32;

/// What an engine can be told.
#[derive(Debug)]
enum Command {
    Start,
    Stop,
    Restart,
    Free {
        unload_models: bool,
        free_memory: bool,
    },
    Shutdown {
        done: oneshot::Sender<()>,
    },
}

/// Handle on the engine; its task ends with [`Engine::shutdown`].
#[derive(Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    /// Reaches the supervisor past the commands that wait; `None` when somebody else runs ComfyUI.
    supervisor: Option<SupervisorHandle>,
    status: watch::Receiver<EngineStatus>,
    log: LogRing,
    is_demo: Arc<AtomicBool>,
    _task: JoinHandle<()>,
}

impl Engine {
    /// Makes the engine as the configuration says, and starts it if it shall start by itself.
    /// Needs a tokio runtime.
    pub fn open(config: &Arc<ConfigFile>, data: &DataDirectory) -> std::io::Result<Self> {
        let (commands, received) = mpsc::channel(QUEUE);
        let (publisher, status) = watch::channel(EngineStatus::stopped("ComfyUI is stopped."));
        let log = LogRing::with_file(LogLimits::default(), data.logs().join("comfyui.log"));
        let is_demo = Arc::new(AtomicBool::new(false));
        let settings = config.current();
        let source = if settings.comfyui.attach.is_empty() {
            let launcher = Arc::new(PreparedLauncher::default());
            let supervisor_settings = SupervisorSettings {
                restart: RestartPolicy {
                    enabled: settings.comfyui.restart,
                    ..RestartPolicy::default()
                },
                ..SupervisorSettings::default()
            };
            let spawner = Arc::new(LocalSpawner::from_current_executable()?);
            let supervisor =
                Supervisor::launch(supervisor_settings, launcher.clone(), spawner, log.clone());
            Source::Own {
                handle: supervisor.handle(),
                supervisor,
                launcher,
            }
        } else {
            let target = settings
                .comfyui
                .attach
                .trim_start_matches("http://")
                .trim_end_matches('/')
                .to_owned();
            Source::Attached(Attached::watch(with_port(&target)))
        };
        let own = match &source {
            Source::Own { handle, .. } => Some(handle.clone()),
            Source::Attached(_) => None,
        };
        let actor = Actor {
            source,
            config: Arc::clone(config),
            data: data.clone(),
            publisher,
            is_demo: Arc::clone(&is_demo),
        };
        let begins = settings.comfyui.autostart;
        let task = tokio::spawn(actor.run(received, begins));
        Ok(Self {
            commands,
            supervisor: own,
            status,
            log,
            is_demo,
            _task: task,
        })
    }

    /// Where it answers, while it does.
    pub fn address(&self) -> Option<SocketAddr> {
        self.status.borrow().address
    }

    /// What is known of it.
    pub fn status(&self) -> EngineStatus {
        self.status.borrow().clone()
    }

    /// Changes of the status.
    pub fn watch(&self) -> watch::Receiver<EngineStatus> {
        self.status.clone()
    }

    /// What it printed.
    pub fn log(&self) -> &LogRing {
        &self.log
    }

    /// Whether it is the demo engine.
    pub fn is_demo(&self) -> bool {
        self.is_demo.load(Ordering::Relaxed)
    }

    /// Starts it; returns when the command is accepted.
    pub fn start(&self) {
        self.tell(Command::Start);
    }

    /// Stops it; told again while it stops, it hurries.
    pub fn stop(&self) {
        self.tell(Command::Stop);
    }

    /// Stops and starts it, with the settings as they are now.
    pub fn restart(&self) {
        self.tell(Command::Restart);
    }

    /// Asks it to unload models and free memory.
    pub fn free(&self, unload_models: bool, free_memory: bool) {
        self.tell(Command::Free {
            unload_models,
            free_memory,
        });
    }

    fn tell(&self, command: Command) {
        if let Err(error) = self.commands.try_send(command) {
            tracing::warn!(%error, "a command for ComfyUI was dropped");
        }
    }

    /// Ends the patience of a stop that is under way.
    pub fn hurry(&self) {
        if let Some(supervisor) = self.supervisor.clone() {
            tokio::spawn(async move {
                let _ = supervisor.hurry().await;
            });
        }
    }

    /// Stops it and waits until its whole process tree is gone.
    pub async fn shutdown(&self) {
        let (done, finished) = oneshot::channel();
        if self.commands.send(Command::Shutdown { done }).await.is_ok() {
            let _ = finished.await;
        }
        self.log.close().await;
    }
}

fn with_port(target: &str) -> String {
    let has_port = target
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if has_port {
        target.to_owned()
    } else {
        format!("{target}:80")
    }
}

enum Source {
    Own {
        handle: SupervisorHandle,
        supervisor: Supervisor,
        launcher: Arc<PreparedLauncher>,
    },
    Attached(Attached),
}

struct Actor {
    source: Source,
    config: Arc<ConfigFile>,
    data: DataDirectory,
    publisher: watch::Sender<EngineStatus>,
    is_demo: Arc<AtomicBool>,
}

impl Actor {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, begins: bool) {
        let mut status = match &self.source {
            Source::Own { handle, .. } => handle.status(),
            Source::Attached(attached) => attached.status(),
        };
        if begins {
            self.start(false).await;
        }
        self.publisher
            .send_replace(status.borrow_and_update().clone());
        loop {
            tokio::select! {
                changed = status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = status.borrow_and_update().clone();
                    tracing::info!(state = now.state.as_str(), message = %now.message, "ComfyUI");
                    self.publisher.send_replace(now);
                }
                command = commands.recv() => match command {
                    Some(Command::Start) => self.start(false).await,
                    Some(Command::Restart) => self.start(true).await,
                    Some(Command::Stop) => {
                        if let Source::Own { handle, .. } = &self.source {
                            let _ = handle.stop().await;
                        }
                    }
                    Some(Command::Free { unload_models, free_memory }) => {
                        let address = self.publisher.borrow().address;
                        if let Some(address) = address
                            && let Err(error) = client::free(address, unload_models, free_memory).await
                        {
                            tracing::warn!(error = %crate::http::chain(&error), "ComfyUI did not free its memory");
                        }
                    }
                    Some(Command::Shutdown { done }) => {
                        self.shutdown().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return self.shutdown().await,
                },
            }
        }
    }

    /// Prepares what is to be launched as the settings are now, then hands over to the supervisor.
    async fn start(&mut self, again: bool) {
        let Source::Own {
            handle, launcher, ..
        } = &self.source
        else {
            return;
        };
        if !again
            && matches!(
                handle.current().state,
                EngineState::Ready | EngineState::Starting
            )
        {
            return;
        }
        if !again {
            self.publisher.send_modify(|status| {
                status.state = EngineState::Starting;
                status.since = OffsetDateTime::now_utc();
                status.message = "Looking for ComfyUI".to_owned();
                status.progress = Some(0.0);
            });
        }
        let prepared = prepare::prepare(&self.config.current(), &self.data).await;
        if let Ok(prepared) = &prepared {
            self.is_demo.store(prepared.is_demo(), Ordering::Relaxed);
        }
        launcher.set(prepared);
        let _ = if again {
            handle.restart().await
        } else {
            handle.start().await
        };
    }

    async fn shutdown(self) {
        match self.source {
            Source::Own { supervisor, .. } => supervisor.shutdown().await,
            Source::Attached(attached) => attached.shutdown().await,
        }
        self.publisher
            .send_replace(EngineStatus::stopped("ComfyUI is stopped."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attached_address_has_a_port() {
        assert_eq!(with_port("127.0.0.1:8188"), "127.0.0.1:8188");
        assert_eq!(with_port("studio"), "studio:80");
        assert_eq!(with_port("[::1]"), "[::1]:80");
    }
}
