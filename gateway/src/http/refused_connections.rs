//! What is logged of refused connections: one line an address and minute, with their number.

use crate::access::ClientIp;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Between two lines about one address.
pub(super) const PAUSE: Duration = Duration::from_secs(60);
/// Addresses that have lines of their own; all others share one.
const MAX_ADDRESSES: usize = 64;

/// The refusals of the last minute.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<Option<ClientIp>, Count>);

#[derive(Debug)]
struct Count {
    told_at: Instant,
    untold: u64,
}

impl Refusals {
    /// Notes a refusal. Returns the address, if it has a line of its own, and the number of refusals
    /// to be told now.
    pub(super) fn note(
        &mut self,
        address: ClientIp,
        now: Instant,
    ) -> Option<(Option<ClientIp>, u64)> {
        let key = Some(address.origin());
        let has_own = self.0.contains_key(&key) || self.0.len() < MAX_ADDRESSES;
        let key = if has_own { key } else { None };
        match self.0.get_mut(&key) {
            Some(count) if now.saturating_duration_since(count.told_at) < PAUSE => {
                count.untold = count.untold.saturating_add(1);
                None
            }
            Some(count) => {
                let number = count.untold.saturating_add(1);
                *count = Count {
                    told_at: now,
                    untold: 0,
                };
                Some((key, number))
            }
            None => {
                let count = Count {
                    told_at: now,
                    untold: 0,
                };
                self.0.insert(key, count);
                Some((key, 1))
            }
        }
    }

    /// What has not been told for a minute; addresses that have come to rest are forgotten.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Option<ClientIp>, u64)> {
        let mut due = Vec::new();
        self.0.retain(|address, count| {
            if now.saturating_duration_since(count.told_at) < PAUSE {
                return true;
            }
            if count.untold > 0 {
                due.push((*address, count.untold));
            }
            let goes_on = count.untold > 0;
            count.told_at = now;
            count.untold = 0;
            goes_on
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> ClientIp {
        ClientIp::new(std::net::Ipv4Addr::from(0x0a00_0000 + number).into())
    }

    #[test]
    fn an_address_has_one_line_a_minute_and_nothing_is_left_uncounted() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut lines = Vec::new();
        for number in 0..1000 {
            lines.extend(refusals.note(ip(1), start + second * (number / 10)));
        }
        lines.extend(refusals.due(start + second * 100));
        assert_eq!(lines, [(Some(ip(1)), 1), (Some(ip(1)), 600)]);
        let rest = refusals.due(start + second * 120);
        assert_eq!(rest, [(Some(ip(1)), 399)]);
        assert!(refusals.due(start + second * 180).is_empty());
        assert!(refusals.0.is_empty(), "it has come to rest");
    }

    #[test]
    fn many_addresses_share_a_line() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        let lines = (0..10_000).filter_map(|number| refusals.note(ip(number), now));
        let lines: Vec<_> = lines.collect();
        assert_eq!(lines.len(), MAX_ADDRESSES + 1);
        assert_eq!(lines.last(), Some(&(None, 1)));
        let others = 10_000 - MAX_ADDRESSES as u64 - 1;
        assert_eq!(refusals.due(now + PAUSE), [(None, others)]);
    }
}
