//! The connections and tunnels that are open now, so that a denied address loses them at once, and
//! the caps on their number.

use crate::access::ClientIp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

/// Open connections at once, where there are files enough.
const MAX_CONNECTIONS: usize = 4096;
/// Open files that are not for connections: ComfyUI's processes, the database, what is sent.
const OTHER_FILES: u64 = 192;
/// Places that strangers cannot take from the machine's own programs and its owner.
const KEPT_FOR_LOOPBACK: usize = 32;
/// Open connections of one address at once; a class behind one router is one address.
const MAX_PER_ADDRESS: usize = 512;

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: HashMap<u64, (ClientIp, CancellationToken)>,
    per_address: HashMap<ClientIp, usize>,
}

/// What is open now.
#[derive(Clone, Debug)]
pub struct Connections {
    table: Arc<Mutex<Table>>,
    stopping: CancellationToken,
    /// At once, those from this machine included.
    max: usize,
}

impl Default for Connections {
    fn default() -> Self {
        Self::within(u64::MAX)
    }
}

impl Connections {
    /// Places for as many connections as a program with so many open files can serve: each may need
    /// another one to an engine.
    pub fn within(open_files: u64) -> Self {
        let places = usize::try_from(open_files.saturating_sub(OTHER_FILES) / 2);
        Self {
            table: Arc::default(),
            stopping: CancellationToken::new(),
            max: places
                .unwrap_or(usize::MAX)
                .clamp(2 * KEPT_FOR_LOOPBACK, MAX_CONNECTIONS),
        }
    }

    /// Takes a place within the caps, for a connection.
    pub fn try_enter(&self, address: ClientIp, is_proxy: bool) -> Option<Place> {
        {
            let table = self.table.lock();
            let of_address = table
                .per_address
                .get(&address.origin())
                .copied()
                .unwrap_or(0);
            let is_near = address.address().is_loopback();
            let max = self.max - if is_near { 0 } else { KEPT_FOR_LOOPBACK };
            let of_one = MAX_PER_ADDRESS.min(self.max / 2);
            if table.open.len() >= max || (of_address >= of_one && !is_proxy) {
                return None;
            }
        }
        Some(self.enter(address))
    }

    /// Takes a place for a tunnel, whose connection has been counted.
    pub fn enter(&self, address: ClientIp) -> Place {
        let ended = self.stopping.child_token();
        let mut table = self.table.lock();
        table.next += 1;
        let id = table.next;
        table.open.insert(id, (address, ended.clone()));
        *table.per_address.entry(address.origin()).or_default() += 1;
        Place {
            table: Arc::clone(&self.table),
            id,
            ended,
        }
    }

    /// Ends what belongs to addresses that may not speak to us.
    pub fn end_where(&self, is_denied: impl Fn(ClientIp) -> bool) {
        for (address, ended) in self.table.lock().open.values() {
            if is_denied(*address) {
                ended.cancel();
            }
        }
    }

    /// Ends everything.
    pub fn end_all(&self) {
        self.stopping.cancel();
    }

    /// Number of open connections and tunnels.
    pub fn len(&self) -> usize {
        self.table.lock().open.len()
    }

    /// Whether nothing is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A place among the open connections; given back on drop.
#[derive(Debug)]
pub struct Place {
    table: Arc<Mutex<Table>>,
    id: u64,
    ended: CancellationToken,
}

impl Place {
    /// Resolves when the connection must end.
    pub fn ended(&self) -> WaitForCancellationFuture<'_> {
        self.ended.cancelled()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.table.lock();
        if let Some((address, _)) = table.open.remove(&self.id) {
            let origin = address.origin();
            if let Some(count) = table.per_address.get_mut(&origin) {
                *count -= 1;
                if *count == 0 {
                    table.per_address.remove(&origin);
                }
            }
        }
    }
}

/// Counts what waits for each address.
#[derive(Clone, Debug, Default)]
pub struct Waiting(Arc<Mutex<HashMap<ClientIp, usize>>>);

impl Waiting {
    /// Takes one of `limit` places of an address.
    pub fn enter(&self, address: ClientIp, limit: usize) -> Option<WaitingPlace> {
        let mut counts = self.0.lock();
        let count = counts.entry(address).or_default();
        if *count >= limit {
            return None;
        }
        *count += 1;
        Some(WaitingPlace {
            counts: Arc::clone(&self.0),
            address,
        })
    }
}

/// One place; given back on drop.
#[derive(Debug)]
pub struct WaitingPlace {
    counts: Arc<Mutex<HashMap<ClientIp, usize>>>,
    address: ClientIp,
}

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> ClientIp {
        ClientIp::new([10, 0, 0, last].into())
    }

    #[tokio::test]
    async fn a_denied_address_loses_its_connections_and_others_keep_theirs() {
        let connections = Connections::default();
        let first = connections.enter(ip(1));
        let second = connections.enter(ip(2));
        connections.end_where(|address| address == ip(1));
        first.ended().await;
        assert!(!second.ended.is_cancelled());
        drop(first);
        assert_eq!(connections.len(), 1);
        connections.end_all();
        second.ended().await;
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let connections = Connections::default();
        let held: Vec<_> = std::iter::from_fn(|| connections.try_enter(ip(1), false)).collect();
        assert_eq!(held.len(), MAX_PER_ADDRESS);
        assert!(connections.try_enter(ip(2), false).is_some());
        drop(held);
        assert!(connections.is_empty() && connections.try_enter(ip(1), false).is_some());
    }

    #[test]
    fn strangers_leave_places_for_this_machine_however_few_files_there_are() {
        for (open_files, expected) in [
            (0, 64),
            (256, 64),
            (1024, 416),
            (8384, 4096),
            (u64::MAX, 4096),
        ] {
            let connections = Connections::within(open_files);
            let strangers: Vec<_> = (0..=u8::MAX)
                .flat_map(|last| {
                    let connections = connections.clone();
                    std::iter::from_fn(move || connections.try_enter(ip(last), false))
                })
                .collect();
            assert_eq!(
                strangers.len(),
                expected - KEPT_FOR_LOOPBACK,
                "{open_files}"
            );
            let near = ClientIp::new([127, 0, 0, 1].into());
            let own: Vec<_> = std::iter::from_fn(|| connections.try_enter(near, false)).collect();
            assert_eq!(own.len(), KEPT_FOR_LOOPBACK, "{open_files}");
        }
    }

    #[test]
    fn what_waits_is_counted_by_address() {
        let waiting = Waiting::default();
        let place = waiting.enter(ip(1), 1);
        assert!(
            place.is_some()
                && waiting.enter(ip(1), 1).is_none()
                && waiting.enter(ip(2), 1).is_some()
        );
        drop(place);
        assert!(waiting.enter(ip(1), 1).is_some());
    }
}
