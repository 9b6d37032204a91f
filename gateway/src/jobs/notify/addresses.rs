//! Which addresses may be connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether the settings name this host.
pub(super) fn is_named(allowed: &[String], host: &str) -> bool {
    allowed.iter().any(|name| {
        let name = name.trim().trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case(host)
    })
}

/// A network of this machine in which no address is public, though it looks so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnNetwork {
    address: IpAddr,
    /// Leading bits that are the same in the whole network.
    bits: u8,
}

impl OwnNetwork {
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V6(own), IpAddr::V6(address)) => {
                let difference = own.to_bits() ^ address.to_bits();
                difference.leading_zeros() >= u32::from(self.bits)
            }
            (own, address) => own == address,
        }
    }
}

/// The addresses of this machine and, by IPv6, the networks around: there no translation keeps
/// the devices of a home apart from the internet.
pub(super) fn own_networks() -> Vec<OwnNetwork> {
    let found = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::debug!(%error, "the network adapters cannot be listed");
        Vec::new()
    });
    found
        .iter()
        .map(|interface| OwnNetwork {
            address: interface.ip(),
            bits: match &interface.addr {
                if_addrs::IfAddr::V4(_) => 32,
                if_addrs::IfAddr::V6(address) => address.prefixlen.max(48),
            },
        })
        .collect()
}

/// Whether an address is one of the open internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// By IANA's list of special addresses.
fn is_public_v4(address: Ipv4Addr) -> bool {
    !matches!(
        address.octets(),
        // This network, private, this machine.
        [0 | 10 | 127, ..]
            // Carriers' networks.
            | [100, 64..=127, ..]
            // Link-local.
            | [169, 254, ..]
            // Private.
            | [172, 16..=31, ..]
            | [192, 168, ..]
            // Protocols and documentation.
            | [192, 0, 0 | 2, _]
            // Relays of 6to4.
            | [192, 88, 99, _]
            // Benchmarks.
            | [198, 18 | 19, ..]
            // Documentation.
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            // Multicast, reserved, broadcast.
            | [224..=255, ..]
    )
}

/// Only `2000::/3` is given out; all that holds an IPv4 address or is for one link is outside of
/// it, but for what is named here.
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Protocols, Teredo among them; documentation; 6to4; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x2002, ..] | [0x3fff, 0..=0xfff, ..] => {
            false
        }
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_addresses_are_not_public() {
        let special = "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.255.0.1 \
            169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.8 192.0.2.1 192.88.99.1 192.168.1.1 \
            198.18.0.1 198.19.0.1 198.51.100.7 203.0.113.9 224.0.0.1 239.1.1.1 240.0.0.1 \
            255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:0:127.0.0.1 \
            64:ff9b::7f00:1 64:ff9b:1::1 100::1 2001::1 2001:0:4136:e378::1 2001:2::1 2001:20::1 \
            2001:db8::1 2002:7f00:1::1 3fff::1 5f00::1 fc00::1 fd12:3456::1 fe80::1 fec0::1 ff02::1";
        for address in special.split_whitespace() {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        let public = "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.1 100.63.255.255 100.128.0.1 \
            126.255.255.255 128.0.0.1 169.253.1.1 172.15.255.255 172.32.0.1 192.0.1.1 192.167.1.1 \
            192.169.1.1 198.17.1.1 198.20.1.1 223.255.255.255 2001:200::1 2001:4860:4860::8888 \
            2606:4700::1111 2a00:1450::1 3ffe::1";
        for address in public.split_whitespace() {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn neighbours_by_ipv6_are_not_public() {
        let own = |address: &str, bits| OwnNetwork {
            address: address.parse().unwrap(),
            bits,
        };
        let table = [
            (own("2a00:1:2:3::5", 64), "2a00:1:2:3:ffff::1", true),
            (own("2a00:1:2:3::5", 64), "2a00:1:2:4::1", false),
            (own("2a00:1:2:3::5", 128), "2a00:1:2:3::5", true),
            (own("2a00:1:2:3::5", 128), "2a00:1:2:3::4", false),
            (own("8.8.8.8", 32), "8.8.8.8", true),
            (own("8.8.8.8", 32), "8.8.8.9", false),
            (own("8.8.8.8", 32), "2a00:1:2:3::5", false),
        ];
        for (own, address, expected) in table {
            assert_eq!(
                own.holds(address.parse().unwrap()),
                expected,
                "{own:?} {address}"
            );
        }
    }
}
