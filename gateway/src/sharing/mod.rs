//! How other devices reach the gateway: what is listened on, encrypted and announced. One task owns
//! it and follows the settings and the network adapters while everything runs.
//!
//! A change that cannot be made leaves what there was, is told as a fault, and is tried again.

mod adapters;
pub(crate) mod doctor;
mod encryption;
mod mdns;

pub(crate) use adapters::Adapter;
pub(crate) use mdns::{Mdns, MdnsState};

use crate::app::App;
use crate::config::{Config, ConfigFileError, Settings};
use crate::control::SharingStatus;
use crate::files::DataDirectory;
use crate::http::tls::{Tls, TlsError};
use crate::http::{Server, ServerError, chain};
use crate::server::PortTaken;
use adapters::{host, url};
use mdns::{Announcement, Wanted};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Requests that may wait for the task.
const QUEUE: usize = 16;
/// Whoever changes something waits so long for it to be in force.
const APPLY_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks at the network adapters.
const ADAPTER_INTERVAL: Duration = Duration::from_secs(5);
/// Between two tries after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);
/// Certificates and settings, read or written on a thread of their own.
const FILE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at the certificate's end.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(6 * 3600);
/// Until connections end that the new settings do not allow: the answer to whoever ordered it goes
/// out first.
const ANSWER_GRACE: Duration = Duration::from_millis(500);

const LISTEN_GIVEN: &str = "Where Sentinel listens was given on the command line (--listen), which wins over the settings.";
const SET_ON_COMMAND_LINE: &str =
    "Whether it is shared was given on the command line (--set), which wins over the settings.";

#[derive(Debug)]
enum Request {
    /// Put the settings as they are now in force.
    Apply { done: Option<oneshot::Sender<()>> },
    /// Write down whether it is shared, and put that in force.
    Share(bool),
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SharingState {
    pub(crate) listening: Vec<SocketAddr>,
    pub(crate) is_https: bool,
    /// Name in the LAN, without `.local`.
    pub(crate) name: String,
    pub(crate) adapters: Vec<Adapter>,
    pub(crate) mdns: Mdns,
    pub(crate) fault: Option<String>,
    /// The port of the settings, if another program holds it.
    pub(crate) taken: Option<PortTaken>,
}

impl SharingState {
    /// Whether other devices can connect.
    pub(crate) fn is_shared(&self) -> bool {
        self.listening
            .iter()
            .any(|address| !address.ip().is_loopback())
    }

    /// Whether this machine reaches it over loopback.
    pub(crate) fn has_loopback(&self) -> bool {
        self.listening
            .first()
            .is_some_and(|address| address.ip().is_loopback() || address.ip().is_unspecified())
    }

    pub(crate) fn port(&self) -> u16 {
        self.listening.first().map_or(0, SocketAddr::port)
    }

    /// Whether one of the listeners takes connections to this address of the machine.
    pub(crate) fn listens_on(&self, adapter: &Adapter) -> bool {
        self.listening.iter().any(|listening| {
            let ip = listening.ip();
            ip == adapter.address
                || ip.is_unspecified() && ip.is_ipv4() == adapter.address.is_ipv4()
        })
    }

    pub(crate) fn url_of(&self, adapter: &Adapter) -> String {
        url(&host(adapter.address), self.port(), self.is_https)
    }

    /// Addresses for other devices, best first; none while it is not shared.
    pub(crate) fn urls(&self) -> Vec<String> {
        if !self.is_shared() {
            return Vec::new();
        }
        let name = (self.mdns.state == MdnsState::Announced)
            .then(|| url(&format!("{}.local", self.name), self.port(), self.is_https));
        let addresses = self
            .adapters
            .iter()
            .filter(|adapter| self.listens_on(adapter))
            .map(|adapter| self.url_of(adapter));
        name.into_iter().chain(addresses).collect()
    }

    /// Address to open on this machine.
    pub(crate) fn local_url(&self) -> String {
        match self.listening.first() {
            Some(address) if address.ip().is_loopback() || address.ip().is_unspecified() => {
                let scheme = if self.is_https { "https" } else { "http" };
                format!("{scheme}://localhost:{}", address.port())
            }
            Some(address) => {
                let scheme = if self.is_https { "https" } else { "http" };
                format!("{scheme}://{address}")
            }
            None => String::new(),
        }
    }

    pub(crate) fn status(&self) -> SharingStatus {
        SharingStatus {
            is_enabled: self.is_shared(),
            urls: self.urls(),
            fault: self.fault.clone(),
        }
    }
}

/// Handle on the task.
#[derive(Debug)]
pub(crate) struct Sharing {
    requests: mpsc::Sender<Request>,
    state: watch::Receiver<SharingState>,
    listen: Option<SocketAddr>,
}

/// What the task is made from, besides the server.
#[derive(Debug)]
pub(crate) struct SharingTask {
    received: mpsc::Receiver<Request>,
    publisher: watch::Sender<SharingState>,
    listen: Option<SocketAddr>,
}

impl Sharing {
    /// Loads or makes the certificate. `listen` is the command line's address, which wins over the
    /// settings.
    pub(crate) fn open(
        config: &Config,
        data: &DataDirectory,
        listen: Option<SocketAddr>,
    ) -> Result<(Self, SharingTask, Option<Arc<Tls>>), TlsError> {
        let adapters = Adapter::list();
        let tls = encryption::certificate_source(config, data, &adapters)
            .map(|source| Tls::open(source).map(Arc::new))
            .transpose()?;
        let (requests, received) = mpsc::channel(QUEUE);
        let (publisher, state) = watch::channel(SharingState {
            is_https: tls.is_some(),
            name: config.sharing.name.clone(),
            adapters,
            ..SharingState::default()
        });
        let task = SharingTask {
            received,
            publisher,
            listen,
        };
        let sharing = Self {
            requests,
            state,
            listen,
        };
        Ok((sharing, task, tls))
    }

    /// What is in force.
    pub(crate) fn state(&self) -> SharingState {
        self.state.borrow().clone()
    }

    /// The command line's address, if it gave one.
    pub(crate) fn listen(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// Puts the settings as they are now in force, soon.
    pub(crate) fn apply_soon(&self) {
        self.tell(Request::Apply { done: None });
    }

    /// Puts the settings as they are now in force and waits for it.
    pub(crate) async fn apply(&self) {
        let (done, finished) = oneshot::channel();
        self.tell(Request::Apply { done: Some(done) });
        if timeout(APPLY_TIMEOUT, finished).await.is_err() {
            tracing::warn!("sharing takes long to change");
        }
    }

    /// Shares on the LAN or stops that, soon.
    pub(crate) fn share(&self, is_shared: bool) {
        self.tell(Request::Share(is_shared));
    }

    fn tell(&self, request: Request) {
        if let Err(error) = self.requests.try_send(request) {
            tracing::warn!(%error, "a change of sharing was dropped");
        }
    }
}

impl SharingTask {
    /// Addresses to listen on at the start.
    pub(crate) fn addresses(&self, config: &Config) -> Vec<SocketAddr> {
        self.listen
            .map_or_else(|| wanted_addresses(config), |address| vec![address])
    }

    /// Takes the server over, and publishes what it listens on.
    pub(crate) fn attend(self, app: Arc<App>, server: Server) -> Attendant {
        let config = app.config.current();
        let attendant = Attendant {
            good_addresses: server.addresses(),
            app,
            server,
            task: self,
            announcement: None,
            fault: None,
            taken: None,
            applied: config,
            shut_out_at: None,
        };
        attendant.publish();
        attendant
    }
}

/// This machine alone, or all its addresses.
fn wanted_addresses(config: &Config) -> Vec<SocketAddr> {
    let port = config.sharing.port;
    let (v4, v6) = if config.sharing.enabled {
        (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED)
    } else {
        (Ipv4Addr::LOCALHOST, Ipv6Addr::LOCALHOST)
    };
    vec![SocketAddr::from((v4, port)), SocketAddr::from((v6, port))]
}

/// The task.
#[derive(Debug)]
pub(crate) struct Attendant {
    app: Arc<App>,
    server: Server,
    task: SharingTask,
    announcement: Option<Announcement>,
    fault: Option<String>,
    taken: Option<PortTaken>,
    /// The settings that were put in force last.
    applied: Arc<Config>,
    /// What was listened on when that last succeeded.
    good_addresses: Vec<SocketAddr>,
    /// When connections of other devices end that the settings do not allow any more.
    shut_out_at: Option<Instant>,
}

impl Attendant {
    /// Attends until `stopping`, then stops the server.
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        let mut look = interval(ADAPTER_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut renewal = interval(RENEWAL_INTERVAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = Instant::now() + RETRY_INTERVAL;
        self.announce().await;
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                request = self.task.received.recv() => match request {
                    Some(request) => {
                        let (done, note) = self.take(request).await;
                        self.apply().await;
                        self.add_fault(note);
                        retry = Instant::now() + RETRY_INTERVAL;
                        if let Some(done) = done {
                            let _ = done.send(());
                        }
                    }
                    None => break,
                },
                () = change_of(self.announcement.as_mut()) => self.note_announcement().await,
                _ = look.tick() => self.follow_adapters().await,
                _ = renewal.tick() => self.renew().await,
                () = sleep_until(retry), if self.needs_retry() => {
                    self.apply().await;
                    retry = Instant::now() + RETRY_INTERVAL;
                }
                () = sleep_until(self.shut_out_at.unwrap_or(retry)), if self.shut_out_at.is_some() => {
                    self.shut_out_at = None;
                    self.app.connections.end_where(|address| !address.address().is_loopback());
                }
            }
        }
        let announcement = self.announcement.take();
        let farewell = async {
            if let Some(announcement) = announcement {
                announcement.stop().await;
            }
        };
        tokio::join!(farewell, self.server.stop());
    }

    /// Whom to tell when the request is in force, and what stands against it.
    async fn take(
        &mut self,
        request: Request,
    ) -> (Option<oneshot::Sender<()>>, Option<&'static str>) {
        match request {
            Request::Apply { done } => (done, None),
            Request::Share(_) if self.app.config.is_overridden("sharing.enabled") => {
                (None, Some(SET_ON_COMMAND_LINE))
            }
            Request::Share(is_shared) => {
                self.write_down(is_shared).await;
                (None, None)
            }
        }
    }

    fn add_fault(&mut self, fault: Option<&str>) {
        if let Some(fault) = fault.filter(|_| self.fault.is_none()) {
            tracing::warn!("{fault}");
            self.fault = Some(fault.to_owned());
            self.publish();
        }
    }

    /// Writes `sharing.enabled` to the settings.
    async fn write_down(&self, is_shared: bool) {
        let app = Arc::clone(&self.app);
        let written = tokio::task::spawn_blocking(move || {
            let mut settings = Settings::default();
            settings
                .set(&format!("sharing.enabled={is_shared}"))
                .map_err(ConfigFileError::from)?;
            app.config.change(&settings)
        });
        let fault = match timeout(FILE_TIMEOUT, written).await {
            Ok(Ok(Ok(()))) => return self.app.config_changed(),
            Ok(Ok(Err(error))) => chain(&error),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "not written in time".to_owned(),
        };
        tracing::error!(%fault, "sharing could not be written to config.json");
    }

    /// Puts the settings in force, as far as that can be done.
    async fn apply(&mut self) {
        let config = self.app.config.current();
        let before = std::mem::replace(&mut self.applied, Arc::clone(&config));
        let was_shared = self.is_shared();
        let was_forced = before.force_https && self.app.tls.load().is_some();
        let known_fault = self.fault.take();
        self.taken = None;
        self.apply_encryption(&config).await;
        let lacks_encryption = config.tls_enabled() && self.app.tls.load().is_none();
        if lacks_encryption && config.sharing.enabled {
            // Fails closed: nothing is opened without the encryption that was asked for.
            tracing::warn!("listening stays as it is until there is a certificate");
        } else if self.task.listen.is_none() {
            self.apply_addresses(&config).await;
        } else if config.sharing.enabled != before.sharing.enabled
            || config.sharing.port != before.sharing.port
        {
            self.fault = Some(LISTEN_GIVEN.to_owned());
        }
        self.announce().await;
        if let Some(fault) = self.fault.as_ref().filter(|_| self.fault != known_fault) {
            tracing::warn!("{fault}");
        }
        let is_forced = config.force_https && self.app.tls.load().is_some();
        if was_shared && (!self.is_shared() || is_forced && !was_forced) {
            self.shut_out_at = Some(Instant::now() + ANSWER_GRACE);
        }
    }

    /// What cannot be had leaves the encryption that there is.
    async fn apply_encryption(&mut self, config: &Config) {
        let adapters = Adapter::list();
        let source = encryption::certificate_source(config, &self.app.data, &adapters);
        let current = self.app.tls.load_full();
        if current.as_ref().map(|tls| tls.source()) == source.as_ref() {
            return;
        }
        let Some(source) = source else {
            self.app.tls.store(None);
            return;
        };
        let opened = tokio::task::spawn_blocking(move || Tls::open(source));
        let fault = match timeout(FILE_TIMEOUT, opened).await {
            Ok(Ok(Ok(tls))) => {
                self.app.tls.store(Some(Arc::new(tls)));
                return;
            }
            Ok(Ok(Err(error))) => chain(&error),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "its files cannot be read or written in time".to_owned(),
        };
        self.fault = Some(format!("HTTPS cannot be set up: {fault}."));
    }

    async fn apply_addresses(&mut self, config: &Config) {
        let wanted = wanted_addresses(config);
        let before = self.server.addresses();
        if let Err(error) = self.server.listen_on(&wanted).await {
            self.fault.get_or_insert(match &error {
                ServerError::Taken(taken) => {
                    format!("The {taken}. What there was before stays.")
                }
                _ => format!(
                    "Port {} cannot be used: {}. What there was before stays.",
                    config.sharing.port,
                    chain(&error)
                ),
            });
            self.taken = match error {
                ServerError::Taken(taken) => Some(taken),
                _ => None,
            };
            // Somebody may have been quicker to take the old port; it is tried for each time.
            if self.server.addresses().is_empty() {
                let _ = self.server.listen_on(&self.good_addresses).await;
            }
        } else {
            self.good_addresses = self.server.addresses();
        }
        let now = self.server.addresses();
        if now != before {
            tracing::info!(addresses = ?now, "listening");
        }
    }

    /// Announces the name while it is shared, and publishes the state.
    async fn announce(&mut self) {
        let adapters = Adapter::list();
        let wanted = self.is_shared().then(|| {
            let listening = self.state(adapters.clone());
            let reachable: Vec<_> = adapters
                .iter()
                .filter(|adapter| listening.listens_on(adapter))
                .cloned()
                .collect();
            Wanted::new(
                &self.app.config.current().sharing.name,
                listening.port(),
                listening.is_https,
                &reachable,
            )
        });
        let wanted = wanted.filter(|wanted| wanted.has_addresses());
        let is_right = match (&self.announcement, &wanted) {
            (None, None) => true,
            (Some(announcement), Some(wanted)) => {
                announcement.wanted() == wanted && !announcement.is_over()
            }
            _ => false,
        };
        if !is_right {
            let mut known = Mdns::default();
            if let Some(announcement) = self.announcement.take() {
                // A try again is no news until something comes of it.
                if wanted.as_ref() == Some(announcement.wanted()) {
                    known = announcement.known().clone();
                }
                announcement.stop().await;
            }
            self.announcement =
                wanted.and_then(|wanted| match Announcement::start(wanted, known) {
                    Ok(announcement) => Some(announcement),
                    Err(error) => {
                        tracing::warn!(%error, "the name cannot be announced in the LAN");
                        None
                    }
                });
        }
        self.publish_with(adapters);
    }

    async fn note_announcement(&self) {
        if let Some(announcement) = &self.announcement {
            if let Some(fault) = &announcement.known().fault {
                tracing::warn!("{fault}");
            }
            if announcement.is_over() {
                announcement.withdraw().await;
            }
        }
        self.publish();
    }

    async fn follow_adapters(&mut self) {
        if !self.is_shared() {
            return;
        }
        let before = self.task.publisher.borrow().adapters.clone();
        if Adapter::list() != before {
            tracing::info!("the network adapters have changed");
            self.apply().await;
        }
    }

    async fn renew(&self) {
        let Some(tls) = self.app.tls.load_full() else {
            return;
        };
        let renewed = tokio::task::spawn_blocking(move || tls.renew_if_needed());
        if let Ok(Ok(Err(error))) = timeout(FILE_TIMEOUT, renewed).await {
            tracing::error!(error = %chain(&error), "the certificate could not be renewed");
        }
    }

    fn needs_retry(&self) -> bool {
        let wants_name =
            self.is_shared() && self.announcement.as_ref().is_none_or(Announcement::is_over);
        self.task.listen.is_none() && self.fault.is_some() || wants_name
    }

    fn is_shared(&self) -> bool {
        self.server
            .addresses()
            .iter()
            .any(|address| !address.ip().is_loopback())
    }

    fn state(&self, adapters: Vec<Adapter>) -> SharingState {
        SharingState {
            listening: self.server.addresses(),
            is_https: self.app.tls.load().is_some(),
            name: self.applied.sharing.name.to_ascii_lowercase(),
            adapters,
            mdns: match &self.announcement {
                Some(announcement) => announcement.known().clone(),
                None if self.is_shared() => Mdns {
                    state: MdnsState::Failed,
                    fault: Some("There is no network adapter to announce the name on.".to_owned()),
                },
                None => Mdns::default(),
            },
            fault: self.fault.clone(),
            taken: self.taken.clone(),
        }
    }

    fn publish(&self) {
        self.publish_with(Adapter::list());
    }

    fn publish_with(&self, adapters: Vec<Adapter>) {
        let state = self.state(adapters);
        let changed = self.task.publisher.send_if_modified(|known| {
            let differs = *known != state;
            *known = state;
            differs
        });
        if changed {
            self.app.announcements.changed();
        }
    }
}

async fn change_of(announcement: Option<&mut Announcement>) {
    match announcement {
        Some(announcement) => announcement.change().await,
        None => std::future::pending().await,
    }
}
