//! Puts the parts together, and takes them apart in the right order.

use crate::access::origins::{RefusedNames, ReportedNames, follow_tailscale};
use crate::access::{AccessLists, Attempts};
use crate::accounts::{Database, Hasher};
use crate::app::{App, Live};
use crate::auth::{KeyError, SessionKind, Sessions, SetupCode, SignInLinks, Tickets, signing_key};
use crate::clock_trust::ClockTrust;
use crate::config::{ConfigFile, ConfigFileError};
use crate::control::{Announcements, Command, Event, LocalAnswer, SignedInUser, Status};
use crate::directory_lock::{DirectoryLock, DirectoryLockError};
use crate::engine::Engines;
use crate::files::DataDirectory;
use crate::gallery::Gallery;
use crate::http::tls::TlsError;
use crate::http::{Connections, Server, ServerError, Waiting, router};
use crate::jobs::{self, Notifier, Queue};
use crate::local::LocalApi;
use crate::server::PortTaken;
use crate::setup::{self, Setup};
use crate::sharing::Sharing;
use crate::statistics::{self, Statistics};
use crate::store::{Store, StoreError};
use crate::supervisor::{EngineState, EngineStatus};
use crate::watcher;
use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The platform has no place for data, and none was given.
    #[error("there is no place for data; give one with --data-dir")]
    NoDataDirectory,
    /// A file or directory cannot be used.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: String,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Another gateway works on the data directory.
    #[error(transparent)]
    Directory(#[from] DirectoryLockError),
    /// The settings have faults.
    #[error("the settings cannot be used")]
    Config(#[from] ConfigFileError),
    /// The signing key cannot be used.
    #[error("the signing key cannot be used")]
    Key(#[from] KeyError),
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// No certificate.
    #[error("encryption cannot be set up")]
    Tls(#[from] TlsError),
    /// Cannot listen.
    #[error(transparent)]
    Server(#[from] ServerError),
}

impl GatewayError {
    /// The port that another program holds, if that is why.
    pub fn taken_port(&self) -> Option<&PortTaken> {
        match self {
            Self::Server(ServerError::Taken(taken)) => Some(taken),
            _ => None,
        }
    }
}

/// The running gateway.
#[derive(Debug)]
pub struct Gateway {
    app: Arc<App>,
    local: LocalApi,
    /// Owns the server and stops it; taken by the first stop.
    serving: Mutex<Option<JoinHandle<()>>>,
    stopping: CancellationToken,
    tasks: TaskTracker,
    /// Given back last.
    _lock: DirectoryLock,
}

impl Gateway {
    /// Starts everything; returns when requests are answered. ComfyUI may still be starting.
    /// Needs a tokio runtime that lives as long as the gateway.
    pub fn start(
        data: &DataDirectory,
        config: ConfigFile,
        listen: Option<SocketAddr>,
    ) -> Result<Self, GatewayError> {
        let started_with = config.current();
        // Before anything there is read or written.
        let lock = DirectoryLock::acquire(data)?;
        let (sharing, sharing_task, tls) = Sharing::open(&started_with, data, listen)?;
        // Before anything is started or changed: without its port there is no gateway, not half of one.
        let listeners = Server::listen(&sharing_task.addresses(&started_with))?;
        crate::files::remove_leftovers(data.root());
        let io = |path: PathBuf| {
            let path = path.display().to_string();
            move |source| GatewayError::Io { path, source }
        };
        let open_files = crate::platform::raise_open_files();
        crate::platform::outlive_limits().map_err(io(data.root().to_path_buf()))?;
        let key = signing_key(&started_with.secret_key_env, &data.secret_key())?;
        let store = Arc::new(Store::open(&data.database())?);
        let config = Arc::new(config);
        let accounts = Arc::new(Database::open(data.resolve(&started_with.users_db)));
        let clock_trust = ClockTrust::open(&store)?;
        let known = accounts.current();
        let there = known.iter().map(|account| account.id.clone());
        store.take_deletions_back_blocking(there.collect())?;
        let sessions = Sessions::load(Arc::clone(&store), &key, &known)?;
        let setup_code = if accounts.awaits_first_account() {
            SetupCode::generate()
        } else {
            SetupCode::default()
        };
        let lists = AccessLists::open(
            data.resolve(&started_with.whitelist),
            data.resolve(&started_with.blacklist),
        );
        let reader = Store::open(&data.database())?;
        let queue = Queue::open(
            Arc::clone(&store),
            reader,
            &started_with,
            crate::clock::local_day(),
        )?;
        let engines = Engines::open(&config, data, &accounts, &store).map_err(io(data.logs()))?;
        let reported_names = ReportedNames::default();
        let app = Arc::new(App {
            data: data.clone(),
            live: ArcSwap::from_pointee(Live::of(&started_with, &reported_names)),
            reported_names: reported_names.clone(),
            refused_names: RefusedNames::default(),
            hasher: Arc::new(Hasher::start().map_err(io(data.root().to_path_buf()))?),
            config: Arc::clone(&config),
            started_with: Arc::clone(&started_with),
            store,
            accounts,
            sessions,
            setup_code,
            attempts: Attempts::default(),
            waiting_sign_ins: Waiting::default(),
            lists,
            connections: Connections::within(open_files),
            engines,
            jobs: queue,
            clock_trust,
            notifier: Notifier::start({
                let config = Arc::clone(&config);
                move || config.current().queue.notify_hosts.clone()
            }),
            links: SignInLinks::default(),
            tickets: Tickets::default(),
            announcements: Announcements::default(),
            sharing,
            tls: ArcSwapOption::new(tls),
            gallery: Gallery::new(data),
            statistics: Statistics::default(),
            owner_present_at: AtomicI64::default(),
            setup: Setup::default(),
        });
        let server = Server::start(&app, &router(&app), listeners)?;
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(setup::run(Arc::clone(&app), stopping.clone()));
        tasks.spawn(statistics::run(Arc::clone(&app), stopping.clone()));
        let attendant = sharing_task.attend(Arc::clone(&app), server);
        let serving = tokio::spawn(attendant.run(stopping.clone()));
        tasks.spawn(follow_tailscale(reported_names, stopping.clone()));
        tasks.spawn(watcher::run(Arc::clone(&app), stopping.clone()));
        tasks.spawn({
            let (app, stopping) = (Arc::clone(&app), stopping.clone());
            async move {
                let writing = app.sessions.write_refused_ends();
                stopping.run_until_cancelled(writing).await;
            }
        });
        tasks.spawn(announce_engine(Arc::clone(&app), stopping.clone()));
        let local = LocalApi::new(&app);
        #[cfg(unix)]
        tasks.spawn(crate::control_socket::serve(
            data.control_socket(),
            local.clone(),
            stopping.clone(),
        ));
        tasks.spawn(jobs::run(Arc::clone(&app)));
        tasks.close();
        for warning in app.warnings() {
            tracing::warn!("{warning}");
        }
        lock.tell(&app.sharing.state().local_url());
        Ok(Self {
            local,
            app,
            serving: Mutex::new(Some(serving)),
            stopping,
            tasks,
            _lock: lock,
        })
    }

    /// Carries a command out; returns when it is accepted.
    pub fn command(&self, command: Command) {
        match command {
            Command::StartEngine => self.app.engines.start(),
            Command::StopEngine => self.app.engines.stop(),
            Command::RestartEngine => self.app.engines.restart(),
            Command::FreeMemory => self.app.engines.free(true, true),
            Command::PauseQueue { now } => crate::api::hold_jobs(&self.app, None, false, now),
            Command::ResumeQueue => {
                self.app.jobs.hold_for_owner(None);
                self.app.announcements.changed();
            }
            Command::Share(is_shared) => self.app.sharing.share(is_shared),
        }
    }

    /// What is known now.
    pub fn status(&self) -> Status {
        let sharing = self.app.sharing.state();
        Status {
            engine: self.app.engines.primary_status(),
            is_demo: self.app.engines.is_demo(),
            local_url: sharing.local_url(),
            sharing: sharing.status(),
            is_https: sharing.is_https,
            listening: sharing.listening,
            setup_code: self
                .app
                .accounts
                .awaits_first_account()
                .then(|| self.app.setup_code.text())
                .flatten(),
            warnings: self.app.warnings(),
            signed_in: self.signed_in(),
            is_queue_paused: self.app.jobs.owner_hold().is_some(),
            jobs_waiting: self.app.jobs.waiting(),
            has_account: !self.app.accounts.current().is_empty(),
        }
    }

    /// Counts up whenever the status may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.app.announcements.changes()
    }

    /// What happens from now on; a listener that falls behind misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.app.announcements.events()
    }

    /// The API below `/sentinel/api` as the machine's owner, who needs no password: the same
    /// handlers, in process. `path_and_query` is what comes after that prefix, e.g. `/users`.
    pub async fn local_api(
        &self,
        method: http::Method,
        path_and_query: &str,
        body: Vec<u8>,
    ) -> LocalAnswer {
        self.local.ask(method, path_and_query, body).await
    }

    /// A link that signs the first admin in once, from this machine, within a minute; `None` while
    /// there is no admin.
    pub fn sign_in_link(&self) -> Option<String> {
        self.app.accounts.current().owner()?;
        let sharing = self.app.sharing.state();
        // Only over loopback is it sure that it is this machine.
        if !sharing.has_loopback() {
            return None;
        }
        let code = self.app.links.make(Instant::now());
        Some(format!("{}/enter?code={code}", sharing.local_url()))
    }

    fn signed_in(&self) -> Vec<SignedInUser> {
        let accounts = self.app.accounts.current();
        let mut live = self.app.sessions.live();
        live.retain(|session| session.kind == SessionKind::Browser);
        live.sort_by_key(|session| std::cmp::Reverse(session.last_used_at()));
        let mut users: Vec<SignedInUser> = Vec::new();
        for session in live {
            let Some(account) = accounts.get(&session.user) else {
                continue;
            };
            let known = users
                .iter_mut()
                .find(|user| user.username == account.username);
            match known {
                Some(user) if user.addresses.contains(&session.address) => {}
                Some(user) => user.addresses.push(session.address.clone()),
                None => users.push(SignedInUser {
                    username: account.username.clone(),
                    addresses: vec![session.address.clone()],
                }),
            }
        }
        users
    }

    /// Changes of ComfyUI's state.
    pub fn engine_changes(&self) -> watch::Receiver<EngineStatus> {
        self.app.engines.primary_changes()
    }

    /// Somebody uses this machine's keyboard or mouse: a pause that ends when the owner is away goes on.
    pub fn owner_is_present(&self) {
        let now = crate::clock::now();
        self.app.owner_present_at.store(now, Ordering::Relaxed);
    }

    /// Stops accepting, ends tunnels, stops ComfyUI and waits until its process tree is gone, and
    /// writes down what is in memory.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.app.connections.end_all();
        let serving = self.serving.lock().take();
        if let Some(serving) = serving
            && let Err(error) = serving.await
        {
            tracing::error!(%error, "the server ended badly");
        }
        // Before the engines: whatever ends now is nobody's fault.
        self.app.jobs.stop().await;
        self.app.engines.shutdown().await;
        self.app.notifier.stop().await;
        self.tasks.wait().await;
    }

    /// What makes ComfyUI hurry while the gateway stops.
    pub fn hurrier(&self) -> impl Fn() + use<> {
        let app = Arc::clone(&self.app);
        move || app.engines.hurry()
    }
}

/// Tells of ComfyUI's changes until `stopping`.
async fn announce_engine(app: Arc<App>, stopping: CancellationToken) {
    let mut changes = app.engines.primary_changes();
    let mut before = changes.borrow_and_update().state;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = changes.changed() => if changed.is_err() {
                return;
            },
        }
        let status = changes.borrow_and_update().clone();
        let state = std::mem::replace(&mut before, status.state);
        match status.state {
            now if now == state => app.announcements.changed(),
            EngineState::Ready => app.announcements.happened(Event::EngineReady),
            EngineState::Crashed | EngineState::Failed => {
                app.announcements.happened(Event::EngineCrashed {
                    reason: status.message,
                });
            }
            EngineState::Stopped | EngineState::Starting | EngineState::Stopping => {
                app.announcements.changed();
            }
        }
    }
}
