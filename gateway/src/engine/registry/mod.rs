//! Who has which engine. Requests read a table; one task changes it: it starts engines in the
//! order of visits, stops idle ones, and follows the settings and the accounts.

mod keeper;

use super::client;
use super::devices::Devices;
use super::files_of_user::{FilesError, FilesFate, finish_deletions};
use super::gpu;
use super::handle::{Engine, EngineId, Surroundings};
use super::memory::Gauge;
use super::places::Places;
use super::prepare::{Sources, Tenant};
use crate::accounts::{Database, UserId};
use crate::config::ConfigFile;
use crate::files::DataDirectory;
use crate::store::Store;
use crate::supervisor::{EngineState, EngineStatus, LocalSpawner};
use arc_swap::ArcSwap;
use futures_util::future::join_all;
use keeper::Keeper;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Orders that may wait.
const QUEUE: usize = 256;
/// A visitor brings an engine back that was given up, but not in the same moment.
const FAILED_PAUSE: time::Duration = time::Duration::seconds(20);
/// Waiting jobs bring it back ever more rarely, but at least so often.
const LONGEST_FAILED_PAUSE: time::Duration = time::Duration::hours(1);
/// Time for other engines to unload their models before a job starts.
const UNLOAD_LIMIT: Duration = Duration::from_secs(3);
/// Time for an engine to end for good, longer than its own limits take.
const RETIRE_LIMIT: Duration = Duration::from_secs(120);
/// Name under which the store keeps who has ComfyUI's own directories.
const OWNER: &str = "owner";

/// Who comes to an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// Somebody opened a page or queued a prompt.
    Person,
    /// A program with an API token.
    Program,
    /// A page that is open already and asks by itself.
    Background,
    /// A job that waits in the line.
    Job,
}

/// Why an engine does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Idle,
    Room,
    Admin,
}

impl Rest {
    fn message(self) -> &'static str {
        match self {
            Self::Idle => {
                "ComfyUI was stopped because nobody used it. It starts again when you open it."
            }
            Self::Room => {
                "ComfyUI was stopped to make room for somebody else. It starts again when you open it."
            }
            Self::Admin => "An admin has stopped ComfyUI. It starts again when you open it.",
        }
    }
}

/// Returns true if such a visit starts an engine that was stopped: an open page and a waiting job do not
/// undo what an admin has done.
fn brings_back_a_stopped_one(visit: Visit, rest: Option<Rest>) -> bool {
    match visit {
        Visit::Person | Visit::Program => true,
        Visit::Job => rest != Some(Rest::Admin),
        Visit::Background => matches!(rest, None | Some(Rest::Idle)),
    }
}

/// Returns true if such a visit starts an engine that was given up `rests_for` ago. `tries`: starts for
/// waiting jobs that have failed so far; their pause doubles each time.
fn brings_back_a_failed_one(visit: Visit, rests_for: time::Duration, tries: u32) -> bool {
    let pause = match visit {
        Visit::Background => return false,
        Visit::Person | Visit::Program => FAILED_PAUSE,
        Visit::Job => {
            let factor = 2_i32.saturating_pow(tries.min(16));
            FAILED_PAUSE
                .checked_mul(factor)
                .map_or(LONGEST_FAILED_PAUSE, |pause| {
                    pause.min(LONGEST_FAILED_PAUSE)
                })
        }
    };
    rests_for > pause
}

/// One engine as admins see it.
#[derive(Clone, Debug)]
pub struct EngineSight {
    /// Its name.
    pub id: EngineId,
    /// State, message, process id, version.
    pub status: EngineStatus,
    /// Memory of its processes, bytes.
    pub memory: Option<u64>,
    /// Memory of its processes on NVIDIA cards, bytes.
    pub gpu_memory: Option<u64>,
    /// Jobs running or waiting in it.
    pub jobs: Option<u32>,
    /// Prompts that wait for the GPU before it.
    pub waiting: usize,
    /// Open WebSockets.
    pub sockets: u32,
    /// Last use, seconds since 1970.
    pub last_used: i64,
}

#[derive(Debug)]
enum Order {
    Start(EngineId),
    Stop(EngineId),
    Restart(EngineId),
    StopAll,
    RestartAll,
    /// Ends an engine for good and tells when it is gone.
    Retire(EngineId, oneshot::Sender<()>),
}

#[derive(Debug)]
struct Inner {
    surroundings: Arc<Surroundings>,
    accounts: Arc<Database>,
    store: Arc<Store>,
    gauge: Gauge,
    table: ArcSwap<HashMap<EngineId, Arc<Engine>>>,
    is_separate: AtomicBool,
    /// Whether visits start engines: not after an admin stopped ComfyUI as a whole.
    is_open: AtomicBool,
    line: Mutex<Vec<EngineId>>,
    rests: Mutex<HashMap<EngineId, Rest>>,
    /// How often waiting jobs have started an engine since it answered last, or somebody came to it.
    job_starts: Mutex<HashMap<EngineId, u32>>,
    owner: Mutex<Option<UserId>>,
    primary: watch::Sender<EngineStatus>,
    /// Counts the rounds: something may have changed.
    rounds: watch::Sender<u64>,
}

/// The registry of engines.
#[derive(Debug)]
pub struct Engines {
    inner: Arc<Inner>,
    orders: mpsc::Sender<Order>,
    end: Mutex<Option<oneshot::Sender<()>>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Engines {
    /// Makes the registry as the configuration says, and starts the first engine if it shall start
    /// by itself. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the system does not tell the path of the running program.
    pub fn open(
        config: &Arc<ConfigFile>,
        data: &DataDirectory,
        accounts: &Arc<Database>,
        store: &Arc<Store>,
    ) -> io::Result<Self> {
        let settings = config.current();
        let owner = store
            .fact(OWNER)
            .inspect_err(|error| {
                tracing::error!(error = %crate::http::chain(error), "the owner could not be read");
            })
            .ok()
            .flatten()
            .and_then(|text| UserId::parse(&text))
            .filter(|owner| !store.is_deleted(owner.clone()).unwrap_or(false));
        finish_deletions(data);
        let wake = Arc::new(Notify::new());
        let surroundings = Arc::new(Surroundings {
            config: Arc::clone(config),
            data: data.clone(),
            sources: Sources::default(),
            spawner: Arc::new(LocalSpawner::from_current_executable()?),
            devices: Devices::default(),
            wake: Arc::clone(&wake),
        });
        let inner = Arc::new(Inner {
            surroundings,
            accounts: Arc::clone(accounts),
            store: Arc::clone(store),
            gauge: Gauge::default(),
            table: ArcSwap::default(),
            is_separate: AtomicBool::new(settings.separate_users),
            is_open: AtomicBool::new(settings.comfyui.autostart),
            line: Mutex::default(),
            rests: Mutex::default(),
            job_starts: Mutex::default(),
            owner: Mutex::new(owner),
            primary: watch::Sender::new(EngineStatus::stopped("ComfyUI is stopped.")),
            rounds: watch::Sender::new(0),
        });
        let (orders, received) = mpsc::channel(QUEUE);
        let (end, ended) = oneshot::channel();
        let keeper = Keeper::new(Arc::clone(&inner), &settings);
        let task = tokio::spawn(keeper.run(received, ended, wake));
        Ok(Self {
            inner,
            orders,
            end: Mutex::new(Some(end)),
            task: Mutex::new(Some(task)),
        })
    }

    /// Whether each user has an engine of his own.
    pub fn is_separate(&self) -> bool {
        self.inner.is_separate.load(Ordering::Relaxed)
    }

    /// Name of the engine of a user.
    pub fn id_of(&self, user: &UserId) -> EngineId {
        if self.is_separate() {
            EngineId::User(user.clone())
        } else {
            EngineId::Shared
        }
    }

    /// Whether `name`, as found in an address, names an engine that is or was there.
    pub fn parse(&self, name: &str) -> Option<EngineId> {
        let id = match name {
            "shared" if !self.is_separate() => EngineId::Shared,
            _ => EngineId::User(UserId::parse(name)?),
        };
        let is_account = match &id {
            EngineId::Shared => true,
            EngineId::User(user) => {
                self.is_separate() && self.inner.accounts.peek().get(user).is_some()
            }
        };
        is_account.then_some(id)
    }

    /// The engine of a user, if there is one.
    pub fn of(&self, user: &UserId) -> Option<Arc<Engine>> {
        self.get(&self.id_of(user))
    }

    /// An engine by its name.
    pub fn get(&self, id: &EngineId) -> Option<Arc<Engine>> {
        self.inner.table.load().get(id).cloned()
    }

    /// Somebody wants a user's engine that does not answer yet: it is put in line if such a visit
    /// brings it back.
    pub fn visit(&self, user: &UserId, visit: Visit) {
        if !self.is_separate() || !self.inner.is_open.load(Ordering::Relaxed) {
            return;
        }
        let id = self.id_of(user);
        let starts = match self.get(&id).map(|engine| engine.status()) {
            None => true,
            Some(status) => match status.state {
                EngineState::Stopped | EngineState::Stopping => {
                    let rest = self.inner.rests.lock().get(&id).copied();
                    brings_back_a_stopped_one(visit, rest)
                }
                EngineState::Failed => {
                    let tries = self.inner.job_starts.lock().get(&id).copied();
                    let rests_for = OffsetDateTime::now_utc() - status.since;
                    brings_back_a_failed_one(visit, rests_for, tries.unwrap_or(0))
                }
                EngineState::Starting | EngineState::Ready | EngineState::Crashed => false,
            },
        };
        if starts && self.inner.put_in_line(id.clone()) {
            let mut tries = self.inner.job_starts.lock();
            if visit == Visit::Job {
                let count = tries.entry(id).or_default();
                *count = count.saturating_add(1);
            } else {
                tries.remove(&id);
            }
        }
    }

    /// A user's engine answers: its failures before count no more.
    pub(crate) fn note_ready(&self, user: &UserId) {
        self.inner.job_starts.lock().remove(&self.id_of(user));
    }

    /// Waits until a user's engine answers, at most `limit`; earlier if it will not without
    /// another order.
    pub(crate) async fn wait_until_ready(&self, user: &UserId, limit: Duration) {
        let mut rounds = self.inner.rounds.subscribe();
        let wait = async {
            loop {
                let status = self.status_of(user);
                let will_not = match status.state {
                    EngineState::Ready | EngineState::Failed | EngineState::Stopped => true,
                    EngineState::Starting | EngineState::Stopping | EngineState::Crashed => false,
                };
                if will_not || rounds.changed().await.is_err() {
                    return;
                }
            }
        };
        let _ = timeout(limit, wait).await;
    }

    /// State of a user's engine, also before it was ever started.
    pub fn status_of(&self, user: &UserId) -> EngineStatus {
        let id = self.id_of(user);
        // Before the status: an engine leaves the line only when its status shows that it starts, so
        // that it never seems to be neither.
        let place = self.place_of(user);
        let status = self.get(&id).map(|engine| engine.status());
        let mut status = status.unwrap_or_else(|| EngineStatus::stopped("ComfyUI is stopped."));
        if status.state == EngineState::Stopped {
            if let Some(place) = place {
                status.state = EngineState::Starting;
                status.progress = Some(0.0);
                status.message = match place {
                    1 => "Your ComfyUI is about to start".to_owned(),
                    _ => format!("Waiting for a place: number {place} in line"),
                };
            } else if !self.inner.is_open.load(Ordering::Relaxed) {
                "ComfyUI is stopped. An admin can start it.".clone_into(&mut status.message);
            } else if let Some(rest) = self.inner.rests.lock().get(&id) {
                rest.message().clone_into(&mut status.message);
            }
        }
        status
    }

    /// Place of a user's engine in the line for its start, from 1.
    pub fn place_of(&self, user: &UserId) -> Option<usize> {
        let id = self.id_of(user);
        let line = self.inner.line.lock();
        line.iter()
            .position(|other| *other == id)
            .map(|place| place + 1)
    }

    /// Who waits for a start, first come first.
    pub fn line(&self) -> Vec<EngineId> {
        self.inner.line.lock().clone()
    }

    /// The engine that stands for ComfyUI as a whole: the one for all, or the owner's.
    pub fn primary(&self) -> Option<Arc<Engine>> {
        self.get(&self.inner.primary_id()?)
    }

    /// State of the primary engine.
    pub fn primary_status(&self) -> EngineStatus {
        self.inner.primary.borrow().clone()
    }

    /// Changes of the primary engine's state.
    pub fn primary_changes(&self) -> watch::Receiver<EngineStatus> {
        self.inner.primary.subscribe()
    }

    /// Whether the demo engine is what starts.
    pub fn is_demo(&self) -> bool {
        self.inner
            .table
            .load()
            .values()
            .any(|engine| engine.is_demo())
    }

    /// Whether the system holds the engine of a user to what that user may do. The shared engine and
    /// the owner's may change ComfyUI itself, however confined they are.
    pub fn holds_to_a_user(&self, user: &UserId) -> bool {
        let Some(engine) = self.of(user) else {
            return false;
        };
        let is_theirs = engine
            .prepared_for()
            .is_some_and(|(tenant, _)| tenant.user.as_ref() == Some(user));
        is_theirs && engine.status().sandbox.holds_files()
    }

    /// Who has ComfyUI's own directories when users are separate.
    pub fn owner(&self) -> Option<UserId> {
        self.inner.owner()
    }

    /// An admin has deleted an account: if it was the owner's, another admin is the owner now.
    pub(crate) fn account_is_deleted(&self, user: &UserId) {
        let mut owner = self.inner.owner.lock();
        if owner.as_ref() == Some(user) {
            *owner = None;
        }
    }

    /// The first account was made, by somebody who showed that this machine is theirs.
    pub(crate) fn first_account_is_made(&self, user: &UserId) {
        *self.inner.owner.lock() = Some(user.clone());
        self.inner.store.set_fact(OWNER, user.as_str());
    }

    /// Where the files of a user are; `None`: ComfyUI's own, and it was not started yet.
    pub fn places_of(&self, user: &UserId) -> Option<Places> {
        if self.is_separate() && self.inner.owner().as_ref() != Some(user) {
            return Some(Places::of_user(&self.inner.surroundings.data, user));
        }
        let (_, places) = self.of(user)?.prepared_for()?;
        Some(places)
    }

    /// Deals with the files of a user whose engine is gone.
    ///
    /// # Errors
    /// [`FilesError`] when a file refuses.
    pub async fn settle_files(&self, user: &UserId, fate: FilesFate) -> Result<(), FilesError> {
        let (data, user) = (self.inner.surroundings.data.clone(), user.clone());
        let carried_out = tokio::task::spawn_blocking(move || fate.carry_out(&data, &user));
        carried_out.await.unwrap_or(Err(FilesError::Interrupted))
    }

    /// All engines. Looks at all processes of the machine: not for the way of a request.
    pub async fn sights(&self) -> Vec<EngineSight> {
        let on_gpu = gpu::memory_by_process().await;
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || inner.sights(&on_gpu))
            .await
            .inspect_err(|error| tracing::error!(%error, "the engines could not be looked at"))
            .unwrap_or_default()
    }

    /// Counts up whenever the state of an engine may have changed.
    pub(crate) fn rounds(&self) -> watch::Receiver<u64> {
        self.inner.rounds.subscribe()
    }

    /// Before a job runs in `engine`, others that have nothing to do give the GPU's memory back.
    pub(crate) async fn make_room_for(&self, engine: &Engine) {
        let table = self.inner.table.load();
        let with_models = table
            .values()
            .filter(|other| other.id() != engine.id() && other.activity().has_models());
        let with_models: Vec<Arc<Engine>> = with_models.cloned().collect();
        drop(table);
        if with_models.is_empty() || gpu::has_room().await {
            return;
        }
        let unloads = with_models.iter().map(async |other| {
            if other.is_idle().await {
                other.unload().await;
            }
        });
        let _ = timeout(UNLOAD_LIMIT, join_all(unloads)).await;
    }

    /// Starts ComfyUI: the engine for all, or the owner's; others start on a visit again.
    pub fn start(&self) {
        self.inner.is_open.store(true, Ordering::Relaxed);
        if let Some(id) = self.inner.primary_id() {
            self.tell(Order::Start(id));
        }
    }

    /// Stops all engines; told again while they stop, they hurry.
    pub fn stop(&self) {
        self.inner.is_open.store(false, Ordering::Relaxed);
        self.tell(Order::StopAll);
    }

    /// Stops and starts the engines that run, with the settings as they are now.
    pub fn restart(&self) {
        self.inner.is_open.store(true, Ordering::Relaxed);
        self.tell(Order::RestartAll);
    }

    /// The GPU an engine is bound to, if engines are spread over several.
    pub(crate) fn device_of(&self, id: &EngineId) -> Option<String> {
        self.inner.surroundings.devices.of(id)
    }

    /// States of all engines.
    pub(crate) fn states(&self) -> Vec<EngineState> {
        let table = self.inner.table.load();
        table.values().map(|engine| engine.status().state).collect()
    }

    /// Process ids of all engines that live.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let table = self.inner.table.load();
        table
            .values()
            .filter_map(|engine| engine.status().pid)
            .collect()
    }

    /// What the first engine that is ready tells of the machine.
    pub(crate) async fn system_stats(&self) -> Option<serde_json::Value> {
        let address = {
            let table = self.inner.table.load();
            table.values().find_map(|engine| engine.address())?
        };
        client::system_stats(address).await.ok()
    }

    /// Asks all engines to unload models and free memory.
    pub fn free(&self, unload_models: bool, free_memory: bool) {
        for engine in self.inner.table.load().values() {
            engine.free(unload_models, free_memory);
        }
    }

    /// Starts one engine, past the line's rules for visits.
    pub fn start_one(&self, id: EngineId) {
        self.inner.is_open.store(true, Ordering::Relaxed);
        self.tell(Order::Start(id));
    }

    /// Stops one engine.
    pub fn stop_one(&self, id: EngineId) {
        self.tell(Order::Stop(id));
    }

    /// Stops and starts one engine.
    pub fn restart_one(&self, id: EngineId) {
        self.tell(Order::Restart(id));
    }

    /// The settings or the accounts have changed.
    pub fn look_again(&self) {
        self.inner.surroundings.wake.notify_one();
    }

    /// Ends a user's engine for good; returns when its processes are gone. False if that could not be
    /// seen in time.
    pub async fn retire(&self, user: &UserId) -> bool {
        let (done, gone) = oneshot::channel();
        let order = Order::Retire(EngineId::User(user.clone()), done);
        let retired = async { self.orders.send(order).await.is_ok() && gone.await.is_ok() };
        timeout(RETIRE_LIMIT, retired).await.unwrap_or(false)
    }

    fn tell(&self, order: Order) {
        if let Err(error) = self.orders.try_send(order) {
            tracing::warn!(%error, "an order for an engine was dropped");
        }
    }

    /// Ends the patience of all stops that are under way.
    pub fn hurry(&self) {
        for engine in self.inner.table.load().values() {
            engine.hurry();
        }
    }

    /// Stops all engines and waits until their process trees are gone.
    pub async fn shutdown(&self) {
        drop(self.end.lock().take());
        let task = self.task.lock().take();
        if let Some(task) = task
            && task.await.is_err()
        {
            tracing::error!("the registry of engines died");
        }
    }
}

impl Inner {
    fn sights(&self, on_gpu: &HashMap<u32, u64>) -> Vec<EngineSight> {
        let table = self.table.load();
        let roots: Vec<u32> = table
            .values()
            .filter_map(|engine| engine.status().pid)
            .collect();
        let trees = self.gauge.trees(&roots, on_gpu);
        let mut sights: Vec<EngineSight> = table
            .values()
            .map(|engine| {
                let status = engine.status();
                let activity = engine.activity();
                let tree = status.pid.and_then(|pid| trees.get(&pid).copied());
                EngineSight {
                    id: engine.id().clone(),
                    memory: tree.map(|tree| tree.memory),
                    gpu_memory: tree.and_then(|tree| tree.gpu_memory),
                    jobs: activity.jobs(),
                    waiting: usize::try_from(activity.waiting()).unwrap_or(0),
                    sockets: activity.sockets(),
                    last_used: activity.last_used(),
                    status,
                }
            })
            .collect();
        sights.sort_by(|one, other| one.id.cmp(&other.id));
        sights
    }

    /// Returns false if it stands in line already.
    fn put_in_line(&self, id: EngineId) -> bool {
        let mut line = self.line.lock();
        let is_new = !line.contains(&id);
        if is_new {
            line.push(id);
            drop(line);
            self.surroundings.wake.notify_one();
        }
        is_new
    }

    fn primary_id(&self) -> Option<EngineId> {
        if self.is_separate.load(Ordering::Relaxed) {
            self.owner().map(EngineId::User)
        } else {
            Some(EngineId::Shared)
        }
    }

    /// The first admin of all, remembered even when others become admins before them in the file, or
    /// when the file does not hold them: a damaged or older file hands nobody's directories to another.
    fn owner(&self) -> Option<UserId> {
        let accounts = self.accounts.peek();
        let mut owner = self.owner.lock();
        if owner.is_some() {
            return owner.clone();
        }
        let first = accounts.owner()?.id.clone();
        self.store.set_fact(OWNER, first.as_str());
        *owner = Some(first.clone());
        Some(first)
    }

    fn tenant(&self, id: &EngineId) -> Tenant {
        match id {
            EngineId::Shared => Tenant {
                user: None,
                has_manager: true,
            },
            EngineId::User(user) => {
                let is_admin = self
                    .accounts
                    .peek()
                    .get(user)
                    .is_some_and(|account| account.admin);
                let is_owner = self.owner().as_ref() == Some(user);
                Tenant {
                    user: (!is_owner).then(|| user.clone()),
                    has_manager: is_admin || !self.surroundings.config.current().manager_admin_only,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_job_undoes_no_stop_and_tries_a_broken_engine_ever_more_rarely() {
        let table = [
            (Visit::Person, Some(Rest::Admin), true),
            (Visit::Program, Some(Rest::Admin), true),
            (Visit::Job, Some(Rest::Admin), false),
            (Visit::Job, Some(Rest::Idle), true),
            (Visit::Job, Some(Rest::Room), true),
            (Visit::Job, None, true),
            (Visit::Background, Some(Rest::Room), false),
            (Visit::Background, Some(Rest::Idle), true),
        ];
        for (visit, rest, expected) in table {
            assert_eq!(
                brings_back_a_stopped_one(visit, rest),
                expected,
                "{visit:?} {rest:?}"
            );
        }
        let seconds = time::Duration::seconds;
        let table = [
            (Visit::Person, seconds(21), 9, true),
            (Visit::Background, seconds(9999), 0, false),
            (Visit::Job, seconds(21), 0, true),
            (Visit::Job, seconds(21), 1, false),
            (Visit::Job, seconds(41), 1, true),
            (Visit::Job, seconds(3599), 30, false),
            (Visit::Job, seconds(3601), 30, true),
        ];
        for (visit, rests_for, tries, expected) in table {
            assert_eq!(
                brings_back_a_failed_one(visit, rests_for, tries),
                expected,
                "{visit:?} {rests_for} {tries}"
            );
        }
    }
}
