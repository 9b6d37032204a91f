//! Which certificate the settings ask for.

use super::adapters::Adapter;
use crate::config::Config;
use crate::files::DataDirectory;
use crate::http::tls::CertificateSource;
use crate::platform;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `None` without encryption. What is made here is for all names and addresses of this machine.
pub(super) fn certificate_source(
    config: &Config,
    data: &DataDirectory,
    adapters: &[Adapter],
) -> Option<CertificateSource> {
    if !config.tls_enabled() {
        return None;
    }
    let own = &config.sharing.tls;
    if !own.certificate.is_empty() {
        return Some(CertificateSource::Files {
            certificate: data.resolve(&own.certificate),
            key: data.resolve(&own.key),
        });
    }
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
    let loopback: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let mut addresses: Vec<IpAddr> = adapters
        .iter()
        .map(|adapter| adapter.address)
        .chain(loopback)
        .collect();
    addresses.sort();
    addresses.dedup();
    Some(CertificateSource::Made {
        directory: data.tls(),
        names,
        addresses,
    })
}
