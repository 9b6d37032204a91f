//! The machine's addresses in the LAN: what kind of adapter each belongs to, and which of them other
//! devices should try first.

use crate::access::ClientIp;
use if_addrs::IfAddr;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

/// Kind of a network adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum AdapterKind {
    Ethernet,
    Wifi,
    Other,
    /// Of a virtual machine, a container or a VPN: other devices are seldom on it.
    Virtual,
}

impl AdapterKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ethernet => "ethernet",
            Self::Wifi => "wifi",
            Self::Other => "other",
            Self::Virtual => "virtual",
        }
    }
}

/// One address of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Adapter {
    pub(crate) address: IpAddr,
    pub(crate) network: IpNet,
    pub(crate) interface: String,
    pub(crate) kind: AdapterKind,
    /// Whether the machine itself goes to the outside through it.
    pub(crate) is_default_route: bool,
}

impl Adapter {
    /// Looks at the system. Loopback and link-local IPv6, which no browser can open, are left out.
    pub(crate) fn list() -> Vec<Self> {
        let route = [
            default_source((Ipv4Addr::UNSPECIFIED, 0).into(), "192.0.2.1:9"),
            default_source(
                (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
                "[2001:db8::1]:9",
            ),
        ];
        let found = match if_addrs::get_if_addrs() {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "the network adapters cannot be listed");
                Vec::new()
            }
        };
        let mut adapters: Vec<Self> = found
            .into_iter()
            .filter(|interface| !interface.is_loopback())
            .filter_map(|interface| {
                let address = ClientIp::new(interface.ip()).address();
                let prefix = match &interface.addr {
                    IfAddr::V4(address) => address.prefixlen,
                    IfAddr::V6(address) => address.prefixlen,
                };
                let is_link_local =
                    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
                (!is_link_local).then(|| Self {
                    address,
                    network: IpNet::new(address, prefix).unwrap_or_else(|_| address.into()),
                    kind: kind_of(&interface.name),
                    interface: interface.name,
                    is_default_route: route.contains(&Some(address)),
                })
            })
            .collect();
        rank(&mut adapters);
        adapters
    }
}

/// Best first: what is likely to be the LAN before what is not.
fn rank(adapters: &mut [Adapter]) {
    adapters.sort_by_key(|adapter| {
        let is_link_local =
            matches!(adapter.address, IpAddr::V4(address) if address.is_link_local());
        (
            is_link_local,
            adapter.kind == AdapterKind::Virtual,
            adapter.address.is_ipv6(),
            !adapter.is_default_route,
            adapter.kind,
            adapter.address,
        )
    });
}

/// The address from which the system would speak to `target`. Connecting a UDP socket sends nothing.
fn default_source(own: SocketAddr, target: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(own).ok()?;
    socket.connect(target).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn kind_of(interface: &str) -> AdapterKind {
    kind_by_system(interface).unwrap_or_else(|| kind_by_name(interface))
}

#[cfg(target_os = "linux")]
fn kind_by_system(interface: &str) -> Option<AdapterKind> {
    let place = std::path::Path::new("/sys/class/net").join(interface);
    let device = std::fs::canonicalize(&place).ok()?;
    if device.starts_with("/sys/devices/virtual") {
        return Some(AdapterKind::Virtual);
    }
    if place.join("wireless").exists() || place.join("phy80211").exists() {
        return Some(AdapterKind::Wifi);
    }
    let is_ethernet =
        std::fs::read_to_string(place.join("type")).is_ok_and(|kind| kind.trim() == "1");
    is_ethernet.then_some(AdapterKind::Ethernet)
}

#[cfg(not(target_os = "linux"))]
fn kind_by_system(_interface: &str) -> Option<AdapterKind> {
    None
}

const VIRTUAL: &[&str] = &[
    "docker",
    "br-",
    "bridge",
    "veth",
    "virbr",
    "vmnet",
    "vboxnet",
    "tun",
    "tap",
    "utun",
    "wg",
    "tailscale",
    "zt",
    "ppp",
    "ipsec",
    "awdl",
    "llw",
    "gif",
    "stf",
    "vethernet",
    "hyper-v",
    "wsl",
    "vmware",
    "virtualbox",
    "openvpn",
    "wireguard",
    "nordlynx",
];
const WIFI: &[&str] = &["wl", "wifi", "wi-fi"];
const ETHERNET: &[&str] = &["eth", "ethernet", "lan"];

/// By the names that systems and programs give.
fn kind_by_name(interface: &str) -> AdapterKind {
    let name = interface.to_ascii_lowercase();
    let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
    if is(VIRTUAL) {
        AdapterKind::Virtual
    } else if is(WIFI) {
        AdapterKind::Wifi
    } else if is(ETHERNET) || cfg!(target_os = "linux") && name.starts_with("en") {
        AdapterKind::Ethernet
    } else {
        // On macOS en0 is one or the other.
        AdapterKind::Other
    }
}

/// Whether an adapter by its name belongs to a VPN.
pub(crate) fn is_vpn(interface: &str) -> bool {
    const VPN: &[&str] = &[
        "tun",
        "tap",
        "utun",
        "wg",
        "tailscale",
        "zt",
        "ppp",
        "ipsec",
        "openvpn",
        "wireguard",
        "nordlynx",
    ];
    let name = interface.to_ascii_lowercase();
    VPN.iter().any(|prefix| name.starts_with(prefix))
}

/// `scheme://host:port`, without the port where it is the usual one.
pub(crate) fn url(host: &str, port: u16, is_https: bool) -> String {
    match (is_https, port) {
        (true, 443) => format!("https://{host}"),
        (false, 80) => format!("http://{host}"),
        (true, port) => format!("https://{host}:{port}"),
        (false, port) => format!("http://{host}:{port}"),
    }
}

/// An address as it stands in a URL.
pub(crate) fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(address: &str, interface: &str, is_default_route: bool) -> Adapter {
        let address = address.parse().unwrap();
        Adapter {
            address,
            network: address.into(),
            interface: interface.into(),
            kind: kind_by_name(interface),
            is_default_route,
        }
    }

    #[test]
    fn the_lan_comes_before_what_other_devices_cannot_reach() {
        let mut adapters = [
            adapter("172.17.0.1", "docker0", false),
            adapter("10.8.0.2", "tun0", true),
            adapter("fd00::5", "eth0", false),
            adapter("169.254.3.4", "eth1", false),
            adapter("192.168.1.6", "wlan0", false),
            adapter("192.168.1.5", "eth0", false),
        ];
        rank(&mut adapters);
        let order: Vec<_> = adapters
            .iter()
            .map(|adapter| adapter.address.to_string())
            .collect();
        assert_eq!(
            order,
            [
                "192.168.1.5",
                "192.168.1.6",
                "fd00::5",
                "10.8.0.2",
                "172.17.0.1",
                "169.254.3.4"
            ]
        );
        let mut adapters = [
            adapter("192.168.1.5", "eth0", false),
            adapter("192.168.2.6", "wlan0", true),
        ];
        rank(&mut adapters);
        assert_eq!(adapters[0].interface, "wlan0");
    }

    #[test]
    fn kinds_by_name() {
        let table = [
            ("eth0", AdapterKind::Ethernet),
            ("Ethernet 2", AdapterKind::Ethernet),
            ("vEthernet (WSL)", AdapterKind::Virtual),
            ("Wi-Fi", AdapterKind::Wifi),
            ("wlp3s0", AdapterKind::Wifi),
            ("utun3", AdapterKind::Virtual),
            ("bond0", AdapterKind::Other),
        ];
        for (name, kind) in table {
            assert_eq!(kind_by_name(name), kind, "{name}");
        }
        assert!(is_vpn("wg0") && !is_vpn("docker0"));
    }

    #[test]
    fn urls_leave_the_usual_port_out() {
        assert_eq!(url("comfyui.local", 443, true), "https://comfyui.local");
        assert_eq!(url("comfyui.local", 443, false), "http://comfyui.local:443");
        assert_eq!(
            url(&host("::1".parse().unwrap()), 80, false),
            "http://[::1]"
        );
    }
}
