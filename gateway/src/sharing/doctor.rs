//! Why another device may not reach us: one look at everything that is known to stand in the way.
//! Texts are English; codes and values are for translation.

use super::adapters::{AdapterKind, host, is_vpn};
use super::{Adapter, MdnsState, SharingState};
use crate::access::{ClientIp, ListKind};
use crate::app::App;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A try to reach ourselves.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Addresses that are tried.
const MAX_TRIED: usize = 16;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    Ok,
    Warning,
    Problem,
    /// Cannot be told from here.
    Unknown,
}

impl Finding {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    /// What was looked at.
    pub(crate) id: &'static str,
    /// What was found; with the values it stands for all three texts.
    pub(crate) code: &'static str,
    pub(crate) values: Map<String, Value>,
    pub(crate) finding: Finding,
    pub(crate) title: &'static str,
    pub(crate) detail: String,
    /// What to do; empty when there is nothing to do.
    pub(crate) hint: String,
}

impl Check {
    fn new(
        id: &'static str,
        title: &'static str,
        finding: Finding,
        code: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            id,
            code,
            values: Map::new(),
            finding,
            title,
            detail: detail.into(),
            hint: String::new(),
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    fn value(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.values.insert(name.to_owned(), value.into());
        self
    }
}

/// Looks at everything; takes a few seconds at most.
pub(crate) async fn examine(app: &App) -> Vec<Check> {
    let state = SharingState {
        adapters: Adapter::list(),
        ..app.sharing.state()
    };
    let mut checks = vec![listening(&state), lan_address(&state)];
    checks.push(self_connection(&state).await);
    checks.push(firewall(&state));
    checks.extend(network_profile());
    checks.push(allow_list(app, &state));
    checks.push(deny_list(app, &state));
    checks.push(name(&state));
    checks.push(refused_names(app));
    checks.push(encryption(app, &state));
    checks.push(ipv6_only(&state));
    checks.push(vpn(&state));
    checks
}

fn listening(state: &SharingState) -> Check {
    const ID: &str = "listening";
    const TITLE: &str = "Sentinel listens on the network";
    let port = state.port();
    if let Some(taken) = &state.taken {
        let wanted = taken.address.port();
        let check = Check::new(
            ID,
            TITLE,
            Finding::Problem,
            if taken.holder.is_some() {
                "port_taken"
            } else {
                "port_taken_unknown"
            },
            format!("The {taken}."),
        )
        .value("port", wanted);
        let check = match &taken.holder {
            Some(holder) => check
                .value("program", holder.program.clone())
                .value("process", holder.process),
            None => check,
        };
        return match taken.next_free {
            Some(free) => check
                .value("free", free)
                .hint(format!("Choose port {free}, or end that program.")),
            None => check.hint("Choose another port, or end that program."),
        };
    }
    if let Some(fault) = &state.fault {
        return Check::new(
            ID,
            TITLE,
            Finding::Problem,
            "listening_fault",
            fault.clone(),
        )
        .value("fault", fault.clone())
        .hint("Choose another port, or end the program that uses this one.");
    }
    if state.is_shared() {
        return Check::new(
            ID,
            TITLE,
            Finding::Ok,
            "listening_ok",
            format!("It takes connections of other devices on port {port}."),
        )
        .value("port", port);
    }
    Check::new(
        ID,
        TITLE,
        Finding::Problem,
        "listening_local",
        "Only this machine itself can connect: sharing is off.",
    )
    .hint("Turn sharing on.")
}

fn lan(state: &SharingState) -> impl Iterator<Item = &Adapter> {
    state.adapters.iter().filter(|adapter| {
        let is_link_local =
            matches!(adapter.address, IpAddr::V4(address) if address.is_link_local());
        adapter.kind != AdapterKind::Virtual && !is_link_local
    })
}

fn lan_address(state: &SharingState) -> Check {
    const ID: &str = "lan_address";
    const TITLE: &str = "This machine has an address in the network";
    match (lan(state).next(), state.adapters.first()) {
        (Some(adapter), _) => Check::new(
            ID,
            TITLE,
            Finding::Ok,
            "lan_address_ok",
            format!("{} on {}.", adapter.address, adapter.interface),
        )
        .value("address", adapter.address.to_string())
        .value("interface", adapter.interface.clone()),
        (None, Some(adapter)) => Check::new(
            ID,
            TITLE,
            Finding::Warning,
            "lan_address_virtual",
            format!(
                "The only address, {}, belongs to a virtual adapter ({}).",
                adapter.address, adapter.interface
            ),
        )
        .value("address", adapter.address.to_string())
        .value("interface", adapter.interface.clone())
        .hint("Connect this machine to your network by cable or Wi-Fi."),
        (None, None) => Check::new(
            ID,
            TITLE,
            Finding::Problem,
            "lan_address_none",
            "There is no network connection.",
        )
        .hint("Connect this machine to your network by cable or Wi-Fi."),
    }
}

/// A connection to oneself passes no firewall of the router, but shows that the port answers.
async fn self_connection(state: &SharingState) -> Check {
    const ID: &str = "self_connection";
    const TITLE: &str = "The addresses answer";
    let targets: Vec<SocketAddr> = state
        .adapters
        .iter()
        .filter(|adapter| state.listens_on(adapter))
        .take(MAX_TRIED)
        .map(|adapter| SocketAddr::new(adapter.address, state.port()))
        .collect();
    if targets.is_empty() {
        return Check::new(
            ID,
            TITLE,
            Finding::Unknown,
            "self_connection_none",
            "There is no address of the network to try.",
        );
    }
    let answers = join_all(targets.iter().map(|target| answers(*target))).await;
    let silent: Vec<String> = targets
        .iter()
        .zip(answers)
        .filter(|(_, answers)| !answers)
        .map(|(target, _)| target.ip().to_string())
        .collect();
    if silent.is_empty() {
        return Check::new(
            ID,
            TITLE,
            Finding::Ok,
            "self_connection_ok",
            "Every address of this machine answers from here.",
        );
    }
    let finding = if silent.len() == targets.len() {
        Finding::Problem
    } else {
        Finding::Warning
    };
    Check::new(
        ID,
        TITLE,
        finding,
        "self_connection_silent",
        format!("No answer from here on {}.", silent.join(", ")),
    )
    .value("addresses", silent)
    .hint("The allow or deny list may shut this machine's own address out, or a firewall on this machine blocks the port.")
}

async fn answers(target: SocketAddr) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(target).await?;
        let request = format!(
            "GET /sentinel/health HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\n\r\n",
            host(target.ip()),
            target.port()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut start = [0; 5];
        stream.read_exact(&mut start).await?;
        Ok::<_, std::io::Error>(&start == b"HTTP/")
    };
    matches!(timeout(CONNECT_TIMEOUT, asked).await, Ok(Ok(true)))
}

fn firewall(state: &SharingState) -> Check {
    const ID: &str = "firewall";
    const TITLE: &str = "The firewall of this machine lets others in";
    let port = state.port();
    let unknown = |code, detail: &str, hint: String| {
        Check::new(ID, TITLE, Finding::Unknown, code, detail)
            .value("port", port)
            .hint(hint)
    };
    if cfg!(windows) {
        return unknown(
            "firewall_windows",
            "Windows asks once whether Sentinel may be reached; this cannot be seen from here.",
            "Allow ComfyUI Sentinel on private networks: Windows Security, Firewall & network protection, Allow an app through the firewall.".to_owned(),
        );
    }
    if cfg!(target_os = "macos") {
        return unknown(
            "firewall_macos",
            "Whether the firewall of macOS is on cannot be seen from here.",
            "System Settings, Network, Firewall, Options: allow incoming connections for ComfyUI Sentinel.".to_owned(),
        );
    }
    let has_ufw = std::fs::read_to_string("/etc/ufw/ufw.conf")
        .is_ok_and(|text| text.lines().any(|line| line.trim() == "ENABLED=yes"));
    if has_ufw {
        return Check::new(
            ID,
            TITLE,
            Finding::Warning,
            "firewall_ufw",
            "The firewall ufw is on.",
        )
        .value("port", port)
        .hint(format!(
            "sudo ufw allow {port}/tcp; sudo ufw allow 5353/udp"
        ));
    }
    let has_firewalld = ["/run/firewalld", "/run/firewalld.pid"]
        .iter()
        .any(|path| Path::new(path).exists());
    if has_firewalld {
        return Check::new(
            ID,
            TITLE,
            Finding::Warning,
            "firewall_firewalld",
            "The firewall firewalld is on.",
        )
        .value("port", port)
        .hint(format!(
            "sudo firewall-cmd --permanent --add-port={port}/tcp --add-service=mdns; sudo firewall-cmd --reload"
        ));
    }
    unknown(
        "firewall_none_found",
        "Neither ufw nor firewalld is on; another firewall cannot be seen from here.",
        format!("If there is one, let TCP port {port} and UDP port 5353 in."),
    )
}

/// Windows lets nobody in on networks that it takes for public.
fn network_profile() -> Option<Check> {
    cfg!(windows).then(|| {
        Check::new(
            "network_profile",
            "Windows takes the network for a private one",
            Finding::Unknown,
            "network_profile_windows",
            "On a network that Windows takes for public, other devices are shut out.",
        )
        .hint("Settings, Network & internet, properties of the connection: choose Private network.")
    })
}

fn allow_list(app: &App, state: &SharingState) -> Check {
    const ID: &str = "allow_list";
    const TITLE: &str = "The allow list lets the network in";
    let Ok(view) = app.lists.view(ListKind::Allow) else {
        return Check::new(
            ID,
            TITLE,
            Finding::Problem,
            "allow_list_unreadable",
            "The allow list cannot be read, so nobody but this machine gets in.",
        )
        .hint("Mend the allow list.");
    };
    if let Some(fault) = view.fault {
        return Check::new(
            ID,
            TITLE,
            Finding::Problem,
            "allow_list_fault",
            fault.clone(),
        )
        .value("fault", fault)
        .hint("Mend the allow list.");
    }
    if view.entries == 0 {
        return Check::new(
            ID,
            TITLE,
            Finding::Ok,
            "allow_list_empty",
            "It is empty: every address may try to sign in.",
        );
    }
    let entries = view.entries;
    if lan(state).any(|adapter| app.lists.allows_some_of(adapter.network)) {
        return Check::new(
            ID,
            TITLE,
            Finding::Warning,
            "allow_list_some",
            format!("Only its {entries} addresses and ranges get in."),
        )
        .value("entries", entries)
        .hint("A device that is not on the list gets no answer at all.");
    }
    Check::new(
        ID,
        TITLE,
        Finding::Problem,
        "allow_list_none",
        "No address of this network is on it, so no device here gets in.",
    )
    .value("entries", entries)
    .value(
        "networks",
        lan(state)
            .map(|adapter| adapter.network.trunc().to_string())
            .collect::<Vec<_>>(),
    )
    .hint("Add this network to the allow list, or empty it.")
}

fn deny_list(app: &App, state: &SharingState) -> Check {
    const ID: &str = "deny_list";
    const TITLE: &str = "The deny list does not shut the network out";
    let denied = lan(state).find(|adapter| {
        app.lists.judge_peer(ClientIp::new(adapter.address)) == crate::access::Verdict::Denied
    });
    if let Some(adapter) = denied {
        return Check::new(
            ID,
            TITLE,
            Finding::Warning,
            "deny_list_own",
            format!(
                "This machine's own address {} is on it, perhaps with its whole network.",
                adapter.address
            ),
        )
        .value("address", adapter.address.to_string())
        .hint("Look through the deny list.");
    }
    let bans = app.lists.bans().map_or(0, |bans| bans.len());
    if bans == 0 {
        return Check::new(
            ID,
            TITLE,
            Finding::Ok,
            "deny_list_ok",
            "No device is banned.",
        );
    }
    Check::new(
        ID,
        TITLE,
        Finding::Warning,
        "deny_list_bans",
        format!("{bans} addresses are banned after failed sign-ins."),
    )
    .value("bans", bans)
    .hint("If the device that gets no answer is among them, lift its ban.")
}

fn name(state: &SharingState) -> Check {
    const ID: &str = "mdns";
    const TITLE: &str = "The name is announced";
    let name = format!("{}.local", state.name);
    match state.mdns.state {
        MdnsState::Announced => Check::new(
            ID,
            TITLE,
            Finding::Ok,
            "mdns_ok",
            format!("Other devices find {name}."),
        )
        .value("name", name)
        .hint("Some Android phones and some Wi-Fi networks do not know such names; the address with numbers works there."),
        MdnsState::Off => Check::new(
            ID,
            TITLE,
            Finding::Unknown,
            "mdns_off",
            format!("{name} is not announced now."),
        )
        .value("name", name),
        MdnsState::Failed => {
            let fault = state.mdns.fault.clone().unwrap_or_default();
            Check::new(ID, TITLE, Finding::Warning, "mdns_failed", fault.clone())
                .value("name", name)
                .value("fault", fault)
                .hint("The address with numbers works nevertheless.")
        }
    }
}

fn refused_names(app: &App) -> Check {
    const ID: &str = "refused_names";
    const TITLE: &str = "Nobody is refused because of a name or a proxy";
    let refused = app.refused_names.list();
    if refused.is_empty() {
        return Check::new(
            ID,
            TITLE,
            Finding::Ok,
            "refused_names_none",
            "Since the start nobody near was refused for that.",
        );
    }
    let names: Vec<String> = refused.into_iter().map(|refused| refused.value).collect();
    Check::new(
        ID,
        TITLE,
        Finding::Warning,
        "refused_names_some",
        format!("Refused: {}.", names.join(", ")),
    )
    .value("names", names)
    .hint("Allow below what you know. A name that is not yours would let a foreign web page act as Sentinel's own.")
}

fn encryption(app: &App, state: &SharingState) -> Check {
    const ID: &str = "encryption";
    const TITLE: &str = "Passwords are encrypted on their way";
    let Some(tls) = app.tls.load_full() else {
        let finding = if state.is_shared() {
            Finding::Warning
        } else {
            Finding::Ok
        };
        return Check::new(
            ID,
            TITLE,
            finding,
            "encryption_off",
            "Without HTTPS, whoever can listen to the network sees passwords.",
        )
        .hint("Turn HTTPS on.");
    };
    if tls.facts().is_made {
        return Check::new(
            ID,
            TITLE,
            Finding::Ok,
            "encryption_made",
            "HTTPS is on, with a certificate made here. Browsers warn until they are told to trust it.",
        )
        .hint("Open /trust on the other device.");
    }
    Check::new(
        ID,
        TITLE,
        Finding::Ok,
        "encryption_own",
        "HTTPS is on, with your own certificate.",
    )
}

fn ipv6_only(state: &SharingState) -> Check {
    const ID: &str = "ipv6_only";
    const TITLE: &str = "There is an IPv4 address";
    let has_v4 = lan(state).any(|adapter| adapter.address.is_ipv4());
    let has_v6 = lan(state).any(|adapter| adapter.address.is_ipv6());
    if has_v6 && !has_v4 {
        return Check::new(
            ID,
            TITLE,
            Finding::Warning,
            "ipv6_only",
            "This machine has IPv6 addresses only; old devices cannot reach it.",
        )
        .hint("Turn IPv4 (DHCP) on in this network.");
    }
    if has_v4 {
        Check::new(ID, TITLE, Finding::Ok, "ipv4_ok", "Yes.")
    } else {
        Check::new(
            ID,
            TITLE,
            Finding::Unknown,
            "ipv4_none",
            "There is no address at all.",
        )
    }
}

fn vpn(state: &SharingState) -> Check {
    const ID: &str = "vpn";
    const TITLE: &str = "No VPN stands in the way";
    let vpns: Vec<_> = state
        .adapters
        .iter()
        .filter(|adapter| is_vpn(&adapter.interface))
        .map(|adapter| adapter.interface.clone())
        .collect();
    if vpns.is_empty() {
        return Check::new(ID, TITLE, Finding::Ok, "vpn_none", "No VPN is connected.");
    }
    let names = vpns.join(", ");
    Check::new(
        ID,
        TITLE,
        Finding::Warning,
        "vpn_found",
        format!("A VPN is connected ({names}). Many VPNs cut the local network off."),
    )
    .value("interfaces", json!(vpns))
    .hint("Allow local network access in the VPN's settings, or disconnect it.")
}
