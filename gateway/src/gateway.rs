//! Puts the parts together, and takes them apart in the right order.

use crate::access::{AccessLists, Attempts, ClientIp};
use crate::accounts::{Database, Hasher};
use crate::app::{App, Live};
use crate::auth::{KeyError, SessionKind, Sessions, SetupCode, SignInLinks, signing_key};
use crate::config::{Config, ConfigFile, ConfigFileError};
use crate::control::{
    Announcements, Command, Event, LocalAnswer, SharingStatus, SignedInUser, Status,
};
use crate::engine::Engines;
use crate::files::DataDirectory;
use crate::gallery::Gallery;
use crate::http::tls::{CertificateSource, Tls, TlsError};
use crate::http::{Connections, Server, ServerError, Waiting, router};
use crate::local::LocalApi;
use crate::setup::{self, Setup};
use crate::statistics::{self, Statistics};
use crate::store::{Store, StoreError};
use crate::supervisor::{EngineState, EngineStatus};
use crate::{platform, watcher};
use arc_swap::ArcSwap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Instant;
use tokio::sync::{broadcast, watch};
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

/// The running gateway.
#[derive(Debug)]
pub struct Gateway {
    app: Arc<App>,
    local: LocalApi,
    server: Server,
    stopping: CancellationToken,
    tasks: TaskTracker,
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
        let io = |path: PathBuf| {
            let path = path.display().to_string();
            move |source| GatewayError::Io { path, source }
        };
        let key = signing_key(&started_with.secret_key_env, &data.secret_key())?;
        let store = Arc::new(Store::open(&data.database())?);
        let sessions = Sessions::load(Arc::clone(&store), &key)?;
        let config = Arc::new(config);
        let accounts = Arc::new(Database::open(data.resolve(&started_with.users_db)));
        let setup_code = if accounts.awaits_first_account() {
            SetupCode::generate()
        } else {
            SetupCode::default()
        };
        let lists = AccessLists::open(
            data.resolve(&started_with.whitelist),
            data.resolve(&started_with.blacklist),
        );
        let engines = Engines::open(&config, data, &accounts, &store).map_err(io(data.logs()))?;
        let tls = tls(&started_with, data)?;
        let app = Arc::new(App {
            live: ArcSwap::from_pointee(Live::of(&started_with)),
            hasher: Arc::new(Hasher::start().map_err(io(data.root().to_path_buf()))?),
            config,
            started_with: Arc::clone(&started_with),
            store,
            accounts,
            sessions,
            setup_code,
            attempts: Attempts::default(),
            waiting_sign_ins: Waiting::default(),
            lists,
            connections: Connections::default(),
            engines,
            links: SignInLinks::default(),
            announcements: Announcements::default(),
            gallery: Gallery::new(data),
            statistics: Statistics::default(),
            setup: Setup::default(),
            listening: OnceLock::new(),
        });
        let addresses = listen.map_or_else(|| addresses(&started_with), |address| vec![address]);
        let server = Server::start(&app, &router(&app), tls.as_ref(), &addresses)?;
        let _ = app.listening.set(server.addresses().to_vec());
        let stopping = CancellationToken::new();
        let tasks = TaskTracker::new();
        tasks.spawn(watcher::run(Arc::clone(&app), tls, stopping.clone()));
        tasks.spawn(setup::run(Arc::clone(&app), stopping.clone()));
        tasks.spawn(statistics::run(Arc::clone(&app), stopping.clone()));
        tasks.spawn(announce_engine(Arc::clone(&app), stopping.clone()));
        tasks.close();
        for warning in app.warnings() {
            tracing::warn!("{warning}");
        }
        Ok(Self {
            local: LocalApi::new(&app),
            app,
            server,
            stopping,
            tasks,
        })
    }

    /// Carries a command out; returns when it is accepted.
    pub fn command(&self, command: Command) {
        match command {
            Command::StartEngine => self.app.engines.start(),
            Command::StopEngine => self.app.engines.stop(),
            Command::RestartEngine => self.app.engines.restart(),
            Command::FreeMemory => self.app.engines.free(true, true),
            Command::Share(is_shared) => self.share(is_shared),
        }
    }

    /// What is known now.
    pub fn status(&self) -> Status {
        let is_https = self.app.started_with.tls_enabled();
        let listening = self.server.addresses().to_vec();
        Status {
            engine: self.app.engines.primary_status(),
            is_demo: self.app.engines.is_demo(),
            local_url: local_url(&listening, is_https),
            listening,
            is_https,
            setup_code: self.app.setup_code.text(),
            warnings: self.app.warnings(),
            sharing: SharingStatus {
                is_enabled: self.app.config.current().sharing.enabled,
                ..SharingStatus::default()
            },
            signed_in: self.signed_in(),
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
        let code = self.app.links.make(Instant::now());
        Some(format!("{}/enter?code={code}", self.status().local_url))
    }

    fn share(&self, is_shared: bool) {
        let assignment = format!("sharing.enabled={is_shared}");
        let mut settings = crate::config::Settings::default();
        let result = settings
            .set(&assignment)
            .map_err(ConfigFileError::from)
            .and_then(|()| self.app.config.change(&settings));
        if let Err(error) = result {
            tracing::error!(error = %crate::http::chain(&error), "sharing could not be changed");
        }
        self.app.announcements.changed();
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

    /// Stops accepting, ends tunnels, stops ComfyUI and waits until its process tree is gone, and
    /// writes down what is in memory.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.app.connections.end_all();
        self.server.stop().await;
        self.app.engines.shutdown().await;
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

/// This machine alone, or all its addresses.
fn addresses(config: &Config) -> Vec<SocketAddr> {
    let port = config.sharing.port;
    let (v4, v6) = if config.sharing.enabled {
        (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
    } else {
        (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
    };
    vec![SocketAddr::from((v4, port)), SocketAddr::from((v6, port))]
}

fn local_url(listening: &[SocketAddr], is_https: bool) -> String {
    let scheme = if is_https { "https" } else { "http" };
    match listening.first() {
        Some(address) if address.ip().is_loopback() || address.ip().is_unspecified() => {
            format!("{scheme}://localhost:{}", address.port())
        }
        Some(address) => format!("{scheme}://{address}"),
        None => String::new(),
    }
}

fn tls(config: &Config, data: &DataDirectory) -> Result<Option<Arc<Tls>>, TlsError> {
    if !config.tls_enabled() {
        return Ok(None);
    }
    let own = &config.sharing.tls;
    let source = if own.certificate.is_empty() {
        let mut names = vec!["localhost".to_owned()];
        for name in [platform::host_name(), config.sharing.name.clone()] {
            let name = name.trim_end_matches(".local").to_ascii_lowercase();
            if !name.is_empty() && name != "localhost" {
                names.extend([name.clone(), format!("{name}.local")]);
            }
        }
        names.extend(config.allowed_hosts.iter().cloned());
        names.sort();
        names.dedup();
        CertificateSource::Made {
            directory: data.tls(),
            names,
            addresses: own_addresses(),
        }
    } else {
        CertificateSource::Files {
            certificate: data.resolve(&own.certificate),
            key: data.resolve(&own.key),
        }
    };
    Tls::open(source).map(|tls| Some(Arc::new(tls)))
}

fn own_addresses() -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = if_addrs::get_if_addrs()
        .unwrap_or_default()
        .into_iter()
        .map(|interface| ClientIp::new(interface.ip()).address())
        .chain([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()])
        .collect();
    addresses.sort();
    addresses.dedup();
    addresses
}
