//! The name in the LAN: `NAME.local` and a service that browsers of services find. Whatever fails
//! here is a state to be shown, never an error of the gateway.

use super::adapters::Adapter;
use mdns_sd::{DaemonEvent, IfKind, RRType, Receiver, ServiceDaemon, ServiceInfo};
use std::net::IpAddr;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Browsers of web pages look for the first part; our own kind is its subtype, because a type of
/// its own may not be longer than 15 letters.
const SERVICE: &str = "_comfyui-sentinel._sub._http._tcp.local.";
/// Asking whether a name is free and telling it takes about a second.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(10);
/// Saying good-bye, and the end of the thread.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// How far the announcement is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MdnsState {
    /// Not wanted, or just begun.
    #[default]
    Off,
    /// Other devices find the name.
    Announced,
    /// They do not.
    Failed,
}

impl MdnsState {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Announced => "announced",
            Self::Failed => "failed",
        }
    }
}

/// What is known of the name in the LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mdns {
    pub(crate) state: MdnsState,
    pub(crate) fault: Option<String>,
}

/// What is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Without `.local`.
    pub(super) name: String,
    /// The machine's own name, to tell two Sentinels apart.
    pub(super) machine: String,
    pub(super) port: u16,
    pub(super) is_https: bool,
    pub(super) addresses: Vec<IpAddr>,
}

impl Wanted {
    pub(super) fn new(name: &str, port: u16, is_https: bool, adapters: &[Adapter]) -> Self {
        let mut addresses: Vec<_> = adapters.iter().map(|adapter| adapter.address).collect();
        addresses.sort();
        addresses.dedup();
        Self {
            name: name.to_ascii_lowercase(),
            machine: crate::platform::host_name(),
            port,
            is_https,
            addresses,
        }
    }

    pub(super) fn has_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    fn host(&self) -> String {
        format!("{}.local.", self.name)
    }

    fn service(&self) -> Result<ServiceInfo, mdns_sd::Error> {
        let instance = if self.machine.is_empty() {
            "ComfyUI".to_owned()
        } else {
            format!("ComfyUI on {}", self.machine)
        };
        let properties = [
            ("path", "/"),
            ("https", if self.is_https { "1" } else { "0" }),
        ];
        ServiceInfo::new(
            SERVICE,
            &instance,
            &self.host(),
            &self.addresses[..],
            self.port,
            &properties[..],
        )
    }
}

/// An announcement under way. Its thread ends with [`Announcement::stop`].
pub(super) struct Announcement {
    wanted: Wanted,
    daemon: ServiceDaemon,
    events: Receiver<DaemonEvent>,
    full_name: String,
    known: Mdns,
    /// What went wrong on one adapter, which need not be all there is.
    error: Option<String>,
    deadline: Option<Instant>,
    is_over: bool,
}

impl Announcement {
    /// Begins; until something new is known, `known` stays what it was.
    pub(super) fn start(wanted: Wanted, known: Mdns) -> Result<Self, mdns_sd::Error> {
        let daemon = ServiceDaemon::new()?;
        match Self::begin(&daemon, &wanted) {
            Ok((events, full_name)) => Ok(Self {
                wanted,
                daemon,
                events,
                full_name,
                known,
                error: None,
                deadline: Some(Instant::now() + ANNOUNCE_TIMEOUT),
                is_over: false,
            }),
            Err(error) => {
                let _ = daemon.shutdown();
                Err(error)
            }
        }
    }

    fn begin(
        daemon: &ServiceDaemon,
        wanted: &Wanted,
    ) -> Result<(Receiver<DaemonEvent>, String), mdns_sd::Error> {
        let events = daemon.monitor()?;
        daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
        let service = wanted.service()?;
        let full_name = service.get_fullname().to_owned();
        daemon.register(service)?;
        Ok((events, full_name))
    }

    pub(super) fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Whether it has failed and nothing more will come of it.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// What is known now.
    pub(super) fn known(&self) -> &Mdns {
        &self.known
    }

    /// Waits until something new is known.
    pub(super) async fn change(&mut self) {
        if self.is_over {
            return std::future::pending().await;
        }
        let before = self.known.clone();
        while self.known == before && !self.is_over {
            let event = match self.deadline {
                Some(deadline) => timeout_at(deadline, self.events.recv_async()).await,
                None => Ok(self.events.recv_async().await),
            };
            match event {
                Ok(Ok(event)) => self.note(event),
                Ok(Err(_)) => self.fail("The announcement ended unexpectedly.".to_owned()),
                Err(_) => {
                    let fault = self.error.take().map_or_else(
                        || {
                            "The network does not carry announcements of names (multicast)."
                                .to_owned()
                        },
                        |error| format!("The name cannot be announced: {error}."),
                    );
                    self.fail(fault);
                }
            }
        }
    }

    fn note(&mut self, event: DaemonEvent) {
        match event {
            DaemonEvent::Announce(..) => {
                self.deadline = None;
                self.known = Mdns {
                    state: MdnsState::Announced,
                    fault: None,
                };
            }
            DaemonEvent::NameChange(change)
                if matches!(change.rr_type, RRType::A | RRType::AAAA) =>
            {
                self.fail(format!(
                    "Another device uses the name {}.local. Choose another name.",
                    self.wanted.name
                ));
            }
            DaemonEvent::Error(error) => {
                tracing::debug!(%error, "mDNS");
                self.error = Some(error.to_string());
            }
            event => tracing::trace!(?event, "mDNS"),
        }
    }

    fn fail(&mut self, fault: String) {
        self.is_over = true;
        self.known = Mdns {
            state: MdnsState::Failed,
            fault: Some(fault),
        };
    }

    /// Says good-bye to the LAN.
    pub(super) async fn withdraw(&self) {
        if let Ok(done) = self.daemon.unregister(&self.full_name) {
            let _ = timeout(STOP_TIMEOUT, done.recv_async()).await;
        }
    }

    /// Says good-bye to the LAN and ends the thread.
    pub(super) async fn stop(self) {
        if !self.is_over {
            self.withdraw().await;
        }
        if let Ok(done) = self.daemon.shutdown() {
            let _ = timeout(STOP_TIMEOUT, done.recv_async()).await;
        }
    }
}

impl std::fmt::Debug for Announcement {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Announcement")
            .field("wanted", &self.wanted)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}
