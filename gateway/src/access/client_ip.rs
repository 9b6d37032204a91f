//! The caller's address. The peer of the connection counts; a forwarding header counts only when
//! the peer is a trusted proxy (defects S3-S5).

use http::HeaderMap;
use http::header::{FORWARDED, HeaderName};
use ipnet::IpNet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Headers by which proxies tell of the caller; none of a client's reaches ComfyUI.
pub(crate) const FORWARDING_HEADERS: [HeaderName; 10] = [
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    X_REAL_IP,
    FORWARDED,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-server"),
    X_FORWARDED_PREFIX,
    HeaderName::from_static("x-client-ip"),
    HeaderName::from_static("via"),
];

/// Longest chain of addresses that is walked.
const MAX_HOPS: usize = 32;

/// An address in its one form: IPv4-mapped IPv6 is IPv4 (defect S13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientIp(IpAddr);

impl ClientIp {
    /// The address in its one form.
    pub fn new(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }

    /// The address.
    pub fn address(self) -> IpAddr {
        self.0
    }

    /// What one household or host can take at will: the address, or the /64 of IPv6.
    pub fn origin(self) -> Self {
        match self.0 {
            IpAddr::V4(_) => self,
            IpAddr::V6(address) => Self(IpAddr::V6(
                (u128::from(address) & !u128::from(u64::MAX)).into(),
            )),
        }
    }
}

impl fmt::Display for ClientIp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Networks whose forwarding headers are believed.
#[derive(Clone, Debug, Default)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// From `trusted_proxies` of the configuration.
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether `address` is a trusted proxy.
    pub fn contains(&self, address: ClientIp) -> bool {
        self.0
            .iter()
            .any(|network| network.contains(&address.address()))
    }
}

/// Who sent a request, as far as the network tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The caller's address.
    pub address: ClientIp,
    /// The request comes from this machine itself, with no proxy between.
    pub is_local: bool,
    /// Host that the browser asked for, when a trusted proxy says so.
    pub forwarded_host: Option<String>,
    /// `Some(true)` when a trusted proxy took the request over HTTPS.
    pub forwarded_https: Option<bool>,
    /// Path below which a trusted proxy shows us, as it says it; not checked yet.
    pub forwarded_prefix: Option<String>,
}

/// Finds the caller: the peer, unless it is a trusted proxy; then the chain of all
/// `X-Forwarded-For` lines is walked from the right to the first address that is not trusted.
/// A malformed entry ends the walk at the last good address.
pub fn caller_of(peer: SocketAddr, headers: &HeaderMap, trusted: &TrustedProxies) -> Caller {
    let peer = ClientIp::new(peer.ip());
    let is_forwarded = FORWARDING_HEADERS
        .iter()
        .any(|name| headers.contains_key(name));
    if !trusted.contains(peer) {
        return Caller {
            address: peer,
            is_local: peer.address().is_loopback() && !is_forwarded,
            forwarded_host: None,
            forwarded_https: None,
            forwarded_prefix: None,
        };
    }
    let mut address = peer;
    let mut hops = 0;
    let lines = headers.get_all(X_FORWARDED_FOR).iter().collect::<Vec<_>>();
    'walk: for line in lines.iter().rev() {
        let Ok(line) = line.to_str() else { break };
        for entry in line.rsplit(',') {
            hops += 1;
            let Some(hop) = parse_hop(entry).filter(|_| hops <= MAX_HOPS) else {
                break 'walk;
            };
            address = hop;
            if !trusted.contains(hop) {
                break 'walk;
            }
        }
    }
    Caller {
        address,
        is_local: address.address().is_loopback() && !is_forwarded,
        forwarded_host: last_value(headers, &X_FORWARDED_HOST),
        forwarded_https: last_value(headers, &X_FORWARDED_PROTO)
            .map(|scheme| scheme.eq_ignore_ascii_case("https")),
        forwarded_prefix: last_value(headers, &X_FORWARDED_PREFIX),
    }
}

/// `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn parse_hop(entry: &str) -> Option<ClientIp> {
    let entry = entry.trim();
    let address = entry
        .parse::<IpAddr>()
        .ok()
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .or_else(|| entry.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(ClientIp::new(address))
}

/// The value that the nearest proxy wrote: the last of the last line.
fn last_value(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let value = headers.get_all(name).iter().next_back()?.to_str().ok()?;
    let value = value.rsplit(',').next()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn caller(peer: &str, lines: &[&str], trusted: &[&str]) -> Caller {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        let trusted = TrustedProxies::new(
            trusted
                .iter()
                .map(|network| network.parse().unwrap())
                .collect(),
        );
        caller_of(
            SocketAddr::new(peer.parse().unwrap(), 9),
            &headers,
            &trusted,
        )
    }

    #[test]
    fn s3_the_header_counts_only_from_trusted_proxies() {
        let table: &[(&str, &[&str], &[&str], &str)] = &[
            ("203.0.113.9", &["127.0.0.1"], &[], "203.0.113.9"),
            (
                "203.0.113.9",
                &["127.0.0.1"],
                &["10.0.0.0/8"],
                "203.0.113.9",
            ),
            (
                "10.0.0.2",
                &["198.51.100.7"],
                &["10.0.0.0/8"],
                "198.51.100.7",
            ),
            (
                "10.0.0.2",
                &["1.2.3.4, 198.51.100.7, 10.0.0.3"],
                &["10.0.0.0/8"],
                "198.51.100.7",
            ),
            (
                "10.0.0.2",
                &["1.2.3.4", "198.51.100.7", " 10.0.0.3 "],
                &["10.0.0.0/8"],
                "198.51.100.7",
            ),
            (
                "10.0.0.2",
                &["1.2.3.4, nonsense, 10.0.0.3"],
                &["10.0.0.0/8"],
                "10.0.0.3",
            ),
            ("10.0.0.2", &["nonsense"], &["10.0.0.0/8"], "10.0.0.2"),
            (
                "10.0.0.2",
                &["[2001:db8::1]:443"],
                &["10.0.0.0/8"],
                "2001:db8::1",
            ),
            (
                "10.0.0.2",
                &["198.51.100.7:5555"],
                &["10.0.0.0/8"],
                "198.51.100.7",
            ),
            (
                "::ffff:10.0.0.2",
                &["::ffff:198.51.100.7"],
                &["10.0.0.0/8"],
                "198.51.100.7",
            ),
            ("10.0.0.2", &["10.0.0.7"], &["10.0.0.0/8"], "10.0.0.7"),
        ];
        for (peer, lines, trusted, expected) in table {
            assert_eq!(
                caller(peer, lines, trusted).address.to_string(),
                *expected,
                "{peer} {lines:?}"
            );
        }
    }

    #[test]
    fn a_forwarded_request_is_never_local() {
        assert!(caller("127.0.0.1", &[], &[]).is_local);
        assert!(caller("::1", &[], &[]).is_local);
        assert!(!caller("127.0.0.1", &["127.0.0.1"], &[]).is_local);
        assert!(!caller("127.0.0.1", &["127.0.0.1"], &["127.0.0.0/8"]).is_local);
        assert!(!caller("192.168.1.2", &[], &[]).is_local);
    }

    proptest! {
        #[test]
        fn an_untrusted_peer_is_always_itself(peer: [u8; 4], lines in proptest::collection::vec("[ -~]{0,60}", 0..4)) {
            let mut headers = HeaderMap::new();
            for line in &lines {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
            }
            let found = caller_of(SocketAddr::new(IpAddr::from(peer), 1), &headers, &TrustedProxies::default());
            prop_assert_eq!(found.address.address(), IpAddr::from(peer));
        }

        #[test]
        fn what_a_client_sends_never_passes_its_own_address(forged in "[ -~]{0,60}", client: [u8; 4]) {
            prop_assume!(client[0] != 10);
            let mut headers = HeaderMap::new();
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(&forged).unwrap());
            headers.append(X_FORWARDED_FOR, HeaderValue::from_str(&IpAddr::from(client).to_string()).unwrap());
            let trusted = TrustedProxies::new(vec!["10.0.0.0/8".parse().unwrap()]);
            let found = caller_of("10.0.0.1:80".parse().unwrap(), &headers, &trusted);
            prop_assert_eq!(found.address.address(), IpAddr::from(client));
        }
    }
}
