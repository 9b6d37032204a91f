//! The host names by which this machine may be called.

use arc_swap::ArcSwap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

/// Names by which containers call the machine they run on (Docker, Podman). The ending `internal`
/// is nobody's to register, so no foreign page has such a name.
const OF_CONTAINERS: [&str; 3] = [
    "host.docker.internal",
    "gateway.docker.internal",
    "host.containers.internal",
];

/// Names that another program reports for this machine while we run, such as Tailscale.
#[derive(Clone, Debug, Default)]
pub struct ReportedNames(Arc<ArcSwap<HashSet<String>>>);

impl ReportedNames {
    /// Replaces the names; whether they differ from what there was.
    pub(super) fn replace(&self, names: impl IntoIterator<Item = String>) -> bool {
        let names: HashSet<String> = names.into_iter().map(|name| canonical(&name)).collect();
        let differs = **self.0.load() != names;
        if differs {
            self.0.store(Arc::new(names));
        }
        differs
    }

    fn contains(&self, name: &str) -> bool {
        self.0.load().contains(name)
    }
}

/// Host names by which this machine may be called; literal addresses always may, because no foreign
/// name resolves to them.
#[derive(Clone, Debug, Default)]
pub struct HostNames {
    known: HashSet<String>,
    reported: ReportedNames,
}

impl HostNames {
    /// `localhost`, the machine's own name, the shared name, each also with `.local`, the names
    /// that containers use, the reported and the configured ones.
    pub fn new(
        machine: &str,
        shared: &str,
        configured: &[String],
        reported: ReportedNames,
    ) -> Self {
        let mut known = HashSet::from(["localhost".to_owned()]);
        known.extend(OF_CONTAINERS.map(str::to_owned));
        for name in [machine, shared] {
            let name = canonical(name);
            if !name.is_empty() {
                known.insert(format!("{}.local", name.trim_end_matches(".local")));
                known.insert(name);
            }
        }
        known.extend(configured.iter().map(|name| canonical(name)));
        Self { known, reported }
    }

    /// Whether a request may call us so.
    pub fn contains(&self, host: &str) -> bool {
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        let name = canonical(host);
        literal.parse::<IpAddr>().is_ok()
            || self.known.contains(&name)
            || self.reported.contains(&name)
    }
}

/// The one spelling of a host name.
pub(super) fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
