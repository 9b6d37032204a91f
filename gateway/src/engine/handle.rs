//! One engine: found, prepared, started and watched; or one that somebody else runs. One task owns
//! it and takes commands, another attends it.

use super::activity::Activity;
use super::attendant::{Attendant, count_jobs};
use super::client::{self, ClientError};
use super::devices::Devices;
use super::event_stream::{self, QueueSignal};
use super::knowledge::Knowledge;
use super::places::{self, Places};
use super::prepare::{PreparedLauncher, Sources, Tenant};
use crate::accounts::UserId;
use crate::config::ConfigFile;
use crate::files::DataDirectory;
use crate::http::chain;
use crate::jobs::{Catalogue, Prompt};
use crate::supervisor::{
    Attached, EngineState, EngineStatus, LocalSpawner, LogLimits, LogRing, RestartPolicy,
    Supervisor, SupervisorHandle, SupervisorSettings,
};
use parking_lot::Mutex;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Names an engine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EngineId {
    /// The one for all.
    Shared,
    /// A user's own.
    User(UserId),
}

impl fmt::Display for EngineId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shared => formatter.write_str("shared"),
            Self::User(id) => id.fmt(formatter),
        }
    }
}

/// Commands that may wait.
const QUEUE: usize = 32;

/// What an engine can be told.
#[derive(Debug)]
enum Command {
    Start(Tenant),
    Stop,
    Restart(Tenant),
    Free {
        unload_models: bool,
        free_memory: bool,
    },
    Shutdown {
        done: oneshot::Sender<()>,
    },
}

/// What all engines share.
#[derive(Debug)]
pub(super) struct Surroundings {
    pub(super) config: Arc<ConfigFile>,
    pub(super) data: DataDirectory,
    pub(super) sources: Sources,
    pub(super) spawner: Arc<LocalSpawner>,
    /// Which engine is bound to which GPU.
    pub(super) devices: Devices,
    /// Wakes the registry.
    pub(super) wake: Arc<Notify>,
}

/// Handle on an engine; its tasks end with [`Engine::shutdown`].
#[derive(Debug)]
pub struct Engine {
    id: EngineId,
    commands: mpsc::Sender<Command>,
    /// Reaches the supervisor past the commands that wait; `None` when somebody else runs ComfyUI.
    supervisor: Option<SupervisorHandle>,
    status: watch::Receiver<EngineStatus>,
    log: LogRing,
    is_demo: Arc<AtomicBool>,
    activity: Arc<Activity>,
    asked: Arc<Notify>,
    /// Wakes the registry.
    wake: Arc<Notify>,
    prepared_for: Arc<Mutex<Option<(Tenant, Places)>>>,
    knowledge: Arc<Knowledge>,
    queue_signal: watch::Receiver<QueueSignal>,
    _task: JoinHandle<()>,
    attendant: JoinHandle<()>,
    event_stream: JoinHandle<()>,
}

impl Engine {
    /// Makes an engine for `tenant`; nothing is started yet. Needs a tokio runtime.
    pub(super) fn open(surroundings: &Arc<Surroundings>, id: EngineId) -> Self {
        let (commands, received) = mpsc::channel(QUEUE);
        let (publisher, status) = watch::channel(EngineStatus::stopped("ComfyUI is stopped."));
        let log = LogRing::with_file(
            LogLimits::default(),
            places::log_file(&surroundings.data, &id),
        );
        let is_demo = Arc::new(AtomicBool::new(false));
        let settings = surroundings.config.current();
        let source = if settings.comfyui.attach.is_empty() {
            let launcher = Arc::new(PreparedLauncher::default());
            let supervisor_settings = SupervisorSettings {
                restart: RestartPolicy {
                    enabled: settings.comfyui.restart,
                    ..RestartPolicy::default()
                },
                ..SupervisorSettings::default()
            };
            let supervisor = Supervisor::launch(
                supervisor_settings,
                launcher.clone(),
                surroundings.spawner.clone(),
                log.clone(),
            );
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
        let prepared_for = Arc::new(Mutex::new(None));
        let activity = Arc::new(Activity::default());
        let asked = Arc::new(Notify::new());
        let knowledge = Arc::new(Knowledge::new(Arc::clone(&asked)));
        let actor = Actor {
            id: id.clone(),
            source,
            surroundings: Arc::clone(surroundings),
            publisher,
            is_demo: Arc::clone(&is_demo),
            prepared_for: Arc::clone(&prepared_for),
        };
        let attendant = Attendant {
            id: id.clone(),
            status: status.clone(),
            activity: Arc::clone(&activity),
            asked: Arc::clone(&asked),
            wake: Arc::clone(&surroundings.wake),
            knowledge: Arc::clone(&knowledge),
        };
        let (signal, queue_signal) = watch::channel(QueueSignal::default());
        let event_stream = tokio::spawn(event_stream::follow(status.clone(), signal));
        Self {
            id,
            commands,
            supervisor: own,
            status,
            log,
            is_demo,
            activity,
            asked,
            wake: Arc::clone(&surroundings.wake),
            prepared_for,
            knowledge,
            _task: tokio::spawn(actor.run(received)),
            attendant: tokio::spawn(attendant.run()),
            queue_signal,
            event_stream,
        }
    }

    /// Its name.
    pub fn id(&self) -> &EngineId {
        &self.id
    }

    /// Whether it can be started and stopped, and is not somebody else's.
    pub(crate) fn is_ours(&self) -> bool {
        self.supervisor.is_some()
    }

    /// What it is used for at the moment.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// A prompt was passed to it: its jobs have changed.
    pub(crate) fn prompt_was_passed(&self) {
        self.activity.prompt_was_passed();
    }

    /// A job that was passed to it has ended or was not taken: its jobs have changed.
    pub(crate) fn job_has_ended(&self) {
        self.asked.notify_one();
    }

    /// Asks for the number of its jobs, and remembers it.
    pub(crate) async fn count_jobs(&self, address: SocketAddr) -> Result<u32, ClientError> {
        count_jobs(address, &self.activity, &self.wake).await
    }

    /// Asks for the end of a job, whether it waits or runs there.
    pub(crate) async fn end_job(&self, address: SocketAddr, job: &str) {
        for ended in [
            client::unqueue(address, job).await,
            client::interrupt(address, job).await,
        ] {
            if let Err(error) = ended {
                tracing::warn!(engine = %self.id, error = %chain(&error), "ComfyUI did not end a job");
            }
        }
    }

    /// Whether it has no job; asked if that is not known. One that does not answer may have some.
    pub(super) async fn is_idle(&self) -> bool {
        match (self.activity.jobs(), self.address()) {
            (Some(0), _) => true,
            (_, Some(address)) => self.count_jobs(address).await.is_ok_and(|jobs| jobs == 0),
            (_, None) => false,
        }
    }

    /// What its nodes take, to judge `prompt` by; `None`: it has told nothing since its start. Waits
    /// a few seconds where it is about to tell.
    pub(crate) async fn catalogue_for(&self, prompt: &Prompt<'_>) -> Option<Arc<Catalogue>> {
        self.knowledge.catalogue_for(prompt).await
    }

    /// Jobs that wait for it in the gateway: it is needed.
    pub(crate) fn note_waiting(&self, jobs: usize) {
        self.activity.set_waiting(jobs);
    }

    /// For whom it was started last, and where its files are.
    pub(super) fn prepared_for(&self) -> Option<(Tenant, Places)> {
        self.prepared_for.lock().clone()
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

    /// Changes of its queue, as it tells them itself.
    pub(crate) fn queue_signal(&self) -> watch::Receiver<QueueSignal> {
        self.queue_signal.clone()
    }

    /// What it printed.
    pub fn log(&self) -> &LogRing {
        &self.log
    }

    /// Whether it is the demo engine.
    pub fn is_demo(&self) -> bool {
        self.is_demo.load(Ordering::Relaxed)
    }

    /// Starts it for `tenant`; returns when the command is accepted.
    pub(super) fn start(&self, tenant: Tenant) {
        self.tell(Command::Start(tenant));
    }

    /// Stops it; told again while it stops, it hurries.
    pub fn stop(&self) {
        self.tell(Command::Stop);
    }

    /// Stops and starts it, with the settings as they are now.
    pub(super) fn restart(&self, tenant: Tenant) {
        self.tell(Command::Restart(tenant));
    }

    /// Asks it to unload models and free memory.
    pub fn free(&self, unload_models: bool, free_memory: bool) {
        self.tell(Command::Free {
            unload_models,
            free_memory,
        });
    }

    /// Asks it to unload its models, and waits for the answer.
    pub(super) async fn unload(&self) {
        self.activity.note_models(false);
        if let Some(address) = self.address()
            && let Err(error) = client::free(address, true, false).await
        {
            tracing::warn!(engine = %self.id, error = %chain(&error), "ComfyUI did not unload its models");
        }
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
        self.attendant.abort();
        self.event_stream.abort();
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
    id: EngineId,
    source: Source,
    surroundings: Arc<Surroundings>,
    publisher: watch::Sender<EngineStatus>,
    is_demo: Arc<AtomicBool>,
    prepared_for: Arc<Mutex<Option<(Tenant, Places)>>>,
}

impl Actor {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut status = match &self.source {
            Source::Own { handle, .. } => handle.status(),
            Source::Attached(attached) => attached.status(),
        };
        self.publish(status.borrow_and_update().clone());
        loop {
            tokio::select! {
                changed = status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = status.borrow_and_update().clone();
                    tracing::info!(engine = %self.id, state = now.state.as_str(), message = %now.message, "ComfyUI");
                    self.publish(now);
                }
                command = commands.recv() => match command {
                    Some(Command::Start(tenant)) => self.start(tenant, false).await,
                    Some(Command::Restart(tenant)) => {
                        self.surroundings.sources.forget().await;
                        self.start(tenant, true).await;
                    }
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
                            tracing::warn!(engine = %self.id, error = %chain(&error), "ComfyUI did not free its memory");
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

    fn publish(&self, status: EngineStatus) {
        self.publisher.send_replace(status);
        self.surroundings.wake.notify_one();
    }

    /// Prepares what is to be launched as the settings are now, then hands over to the supervisor.
    async fn start(&mut self, tenant: Tenant, again: bool) {
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
            let mut status = self.publisher.borrow().clone();
            status.state = EngineState::Starting;
            status.since = OffsetDateTime::now_utc();
            status.message = "Looking for ComfyUI".to_owned();
            status.progress = Some(0.0);
            self.publish(status);
        }
        let Surroundings {
            config,
            data,
            sources,
            ..
        } = &*self.surroundings;
        let settings = config.current();
        let device = match self.id {
            EngineId::Shared => None,
            EngineId::User(_) => {
                self.surroundings
                    .devices
                    .bind(&self.id, self.publisher.subscribe(), &settings.gpus)
            }
        };
        let prepared = sources
            .prepare(&settings, data, &tenant, device.as_deref())
            .await;
        if let Ok(prepared) = &prepared {
            self.is_demo.store(prepared.is_demo(), Ordering::Relaxed);
            *self.prepared_for.lock() = Some((tenant, prepared.places().clone()));
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
        self.surroundings.devices.release(&self.id);
        self.surroundings.wake.notify_one();
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
