//! Names and proxies that were refused and that the owner may want to allow: a short list, so that
//! one click is enough. Only who is near gets on it, strangers cannot fill it.

use super::{Refusal, RefusalKey};
use crate::access::{Caller, ClientIp};
use http::HeaderMap;
use parking_lot::Mutex;
use std::net::IpAddr;

/// Entries kept; the one asked for longest ago gives way.
const MAX_ENTRIES: usize = 10;

/// One refused name or proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedName {
    /// The setting that would allow it.
    pub key: RefusalKey,
    /// What belongs into the setting.
    pub value: String,
    /// Who asked last.
    pub address: ClientIp,
    /// When, seconds since 1970.
    pub at: i64,
    /// How often.
    pub count: u64,
}

impl RefusedName {
    /// Whether it is a name that anybody could have registered.
    pub fn is_public_name(&self) -> bool {
        let is_of_this_network = |name: &str| {
            !name.contains('.')
                || [
                    ".local",
                    ".lan",
                    ".home",
                    ".internal",
                    ".home.arpa",
                    ".ts.net",
                ]
                .iter()
                .any(|ending| name.ends_with(ending))
        };
        self.key == RefusalKey::AllowedHosts && !is_of_this_network(&self.value)
    }
}

/// The list.
#[derive(Debug, Default)]
pub struct RefusedNames(Mutex<Vec<RefusedName>>);

impl RefusedNames {
    /// Writes a refusal down if one setting would mend it; whether it is new on the list.
    pub fn note(&self, refusal: &Refusal, address: ClientIp, at: i64) -> bool {
        let Some((key, value)) = refusal.remedy() else {
            return false;
        };
        let mut entries = self.0.lock();
        let known = entries
            .iter()
            .position(|entry| entry.key == key && entry.value == value);
        let count = match known {
            Some(index) => entries.remove(index).count + 1,
            None => 1,
        };
        if entries.len() >= MAX_ENTRIES {
            entries.remove(0);
        }
        entries.push(RefusedName {
            key,
            value,
            address,
            at,
            count,
        });
        known.is_none()
    }

    /// All entries, the one asked for last first.
    pub fn list(&self) -> Vec<RefusedName> {
        self.0.lock().iter().rev().cloned().collect()
    }

    /// Takes an entry off the list, to allow it or to forget it.
    pub fn take(&self, key: &str, value: &str) -> Option<RefusedName> {
        let mut entries = self.0.lock();
        let index = entries
            .iter()
            .position(|entry| entry.key.name() == key && entry.value == value)?;
        Some(entries.remove(index))
    }
}

/// Whether the sender is near: an address of a private network, and no proxy says that somebody
/// farther away is behind it.
pub(crate) fn is_near(caller: &Caller, headers: &HeaderMap) -> bool {
    let claimed = headers
        .get_all("x-forwarded-for")
        .iter()
        .next_back()
        .and_then(|line| line.to_str().ok())
        .and_then(|line| line.rsplit(',').next())
        .map(|claimed| claimed.trim().parse::<IpAddr>());
    is_private(caller.address.address())
        && match claimed {
            None => true,
            Some(Ok(claimed)) => is_private(claimed.to_canonical()),
            Some(Err(_)) => false,
        }
}

/// Loopback, private, link-local, and the shared range from which Tailscale takes its addresses.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            address.is_loopback()
                || address.is_private()
                || address.is_link_local()
                || first == 100 && (64..128).contains(&second)
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn ip(text: &str) -> ClientIp {
        ClientIp::new(text.parse().unwrap())
    }

    fn host(name: &str) -> Refusal {
        Refusal::ForeignHost {
            name: name.to_owned(),
        }
    }

    #[test]
    fn ten_are_kept_the_newest_first_and_each_once() {
        let names = RefusedNames::default();
        assert!(names.note(&host("a.example"), ip("10.0.0.1"), 1));
        assert!(!names.note(&host("a.example"), ip("10.0.0.2"), 2));
        assert!(!names.note(&Refusal::BadHost, ip("10.0.0.2"), 3));
        let [entry] = names.list().try_into().unwrap();
        assert_eq!(
            (entry.count, entry.at, entry.address),
            (2, 2, ip("10.0.0.2"))
        );
        for number in 0..MAX_ENTRIES {
            names.note(&host(&format!("{number}.example")), ip("10.0.0.1"), 9);
        }
        let list = names.list();
        assert_eq!(list.len(), MAX_ENTRIES);
        assert_eq!(list[0].value, "9.example");
        assert!(list.iter().all(|entry| entry.value != "a.example"));
        assert!(names.take("trusted_proxies", "9.example").is_none());
        assert!(names.take("allowed_hosts", "9.example").is_some());
        assert!(names.take("allowed_hosts", "9.example").is_none());
    }

    #[test]
    fn only_who_is_near_gets_on_the_list() {
        let table = [
            ("192.168.1.5", None, true),
            ("127.0.0.1", None, true),
            ("100.101.102.103", None, true),
            ("fd7a:115c:a1e0::1", None, true),
            ("fe80::1", None, true),
            ("203.0.113.5", None, false),
            ("100.128.0.1", None, false),
            ("2001:db8::1", None, false),
            ("127.0.0.1", Some("192.168.1.5"), true),
            ("127.0.0.1", Some("203.0.113.5"), false),
            ("127.0.0.1", Some("192.168.1.5, 203.0.113.5"), false),
            ("127.0.0.1", Some("nonsense"), false),
        ];
        for (address, forwarded, expected) in table {
            let caller = Caller {
                address: ip(address),
                is_local: false,
                forwarded_host: None,
                forwarded_https: None,
                forwarded_prefix: None,
            };
            let mut headers = HeaderMap::new();
            if let Some(forwarded) = forwarded {
                headers.insert("x-forwarded-for", HeaderValue::from_static(forwarded));
            }
            assert_eq!(
                is_near(&caller, &headers),
                expected,
                "{address} {forwarded:?}"
            );
        }
    }
}
