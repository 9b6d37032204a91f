//! Lock-out after failed sign-ins, by address and by account: 3 failures 60 s, 6 failures 90 s,
//! 9 and every further one 300 s, as in the original. A good sign-in forgives only the failures at
//! its own account, so an own account is no way to reset the counter (defects S6, U18).

use super::ClientIp;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Entries kept for each kind; the one that rested longest goes first (defect S54).
const MAX_ENTRIES: usize = 10_000;
/// Accounts remembered with their failures for one address.
const MAX_ACCOUNTS_PER_ADDRESS: usize = 16;
/// Failures are forgotten after so long without a new one.
const FORGET_AFTER: Duration = Duration::from_secs(30 * 60);

/// A lock-out in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockout {
    /// Failures so far.
    pub failed_attempts: u32,
    /// Time until the next try.
    pub remaining: Duration,
}

/// What a lock-out belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKind {
    /// A client address.
    Address,
    /// A user name.
    Account,
}

/// A lock-out as an admin sees it.
#[derive(Clone, Debug)]
pub struct LockoutView {
    /// What it belongs to.
    pub kind: AttemptKind,
    /// Address or user name.
    pub key: String,
    /// State.
    pub lockout: Lockout,
}

#[derive(Debug, Default)]
struct Entry {
    failures: u32,
    locked_until: Option<Instant>,
    last: Option<Instant>,
    by_account: Vec<(String, u32)>,
}

impl Entry {
    fn lockout(&self, now: Instant) -> Option<Lockout> {
        let remaining = self
            .locked_until?
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())?;
        Some(Lockout {
            failed_attempts: self.failures,
            remaining,
        })
    }

    fn fail(&mut self, now: Instant) {
        if self
            .last
            .is_some_and(|last| now.duration_since(last) > FORGET_AFTER)
        {
            *self = Self::default();
        }
        self.failures = self.failures.saturating_add(1);
        self.last = Some(now);
        self.locked_until = lock_time(self.failures).map(|time| now + time);
    }
}

/// How long the caller waits after so many failures.
fn lock_time(failures: u32) -> Option<Duration> {
    match failures {
        9.. => Some(Duration::from_secs(300)),
        6 => Some(Duration::from_secs(90)),
        3 => Some(Duration::from_secs(60)),
        _ => None,
    }
}

#[derive(Debug, Default)]
struct Tables {
    addresses: HashMap<ClientIp, Entry>,
    accounts: HashMap<String, Entry>,
}

/// All counters.
#[derive(Debug, Default)]
pub struct Attempts {
    tables: Mutex<Tables>,
}

impl Attempts {
    /// The longer of the lock-outs of an address and an account.
    pub fn lockout(&self, address: ClientIp, account: &str, now: Instant) -> Option<Lockout> {
        let tables = self.tables.lock();
        let of_address = tables
            .addresses
            .get(&address.origin())
            .and_then(|entry| entry.lockout(now));
        let of_account = tables
            .accounts
            .get(&key_of(account))
            .and_then(|entry| entry.lockout(now));
        of_address
            .into_iter()
            .chain(of_account)
            .max_by_key(|lockout| lockout.remaining)
    }

    /// The lock-out of an address alone, for callers whose account is not locked against them.
    pub fn address_lockout(&self, address: ClientIp, now: Instant) -> Option<Lockout> {
        self.tables
            .lock()
            .addresses
            .get(&address.origin())
            .and_then(|entry| entry.lockout(now))
    }

    /// Failures of an address so far.
    pub fn failures(&self, address: ClientIp) -> u32 {
        self.tables
            .lock()
            .addresses
            .get(&address.origin())
            .map_or(0, |entry| entry.failures)
    }

    /// Counts a failure; returns the failures of this address so far.
    pub fn failed(&self, address: ClientIp, account: &str, now: Instant) -> u32 {
        let account = key_of(account);
        let mut tables = self.tables.lock();
        entry(&mut tables.accounts, account.clone(), now).fail(now);
        let of_address = entry(&mut tables.addresses, address.origin(), now);
        of_address.fail(now);
        if let Some((_, failures)) = of_address
            .by_account
            .iter_mut()
            .find(|(name, _)| *name == account)
        {
            *failures += 1;
        } else if of_address.by_account.len() < MAX_ACCOUNTS_PER_ADDRESS {
            of_address.by_account.push((account, 1));
        }
        of_address.failures
    }

    /// Forgives the failures at this account, and no others.
    pub fn succeeded(&self, address: ClientIp, account: &str) {
        let account = key_of(account);
        let mut tables = self.tables.lock();
        tables.accounts.remove(&account);
        if let Some(entry) = tables.addresses.get_mut(&address.origin()) {
            if let Some(index) = entry
                .by_account
                .iter()
                .position(|(name, _)| *name == account)
            {
                let (_, failures) = entry.by_account.swap_remove(index);
                entry.failures = entry.failures.saturating_sub(failures);
            }
            if entry.failures == 0 {
                tables.addresses.remove(&address.origin());
            }
        }
    }

    /// Lifts a lock-out by hand; `false` when there is none.
    pub fn lift(&self, kind: AttemptKind, key: &str) -> bool {
        let mut tables = self.tables.lock();
        match kind {
            AttemptKind::Account => tables.accounts.remove(&key_of(key)).is_some(),
            AttemptKind::Address => key.parse().is_ok_and(|address| {
                tables
                    .addresses
                    .remove(&ClientIp::new(address).origin())
                    .is_some()
            }),
        }
    }

    /// The lock-outs in force.
    pub fn lockouts(&self, now: Instant) -> Vec<LockoutView> {
        let tables = self.tables.lock();
        let addresses = tables.addresses.iter().filter_map(|(address, entry)| {
            Some(LockoutView {
                kind: AttemptKind::Address,
                key: address.to_string(),
                lockout: entry.lockout(now)?,
            })
        });
        let accounts = tables.accounts.iter().filter_map(|(account, entry)| {
            Some(LockoutView {
                kind: AttemptKind::Account,
                key: account.clone(),
                lockout: entry.lockout(now)?,
            })
        });
        addresses.chain(accounts).collect()
    }
}

/// User names differ only beyond case, and nobody fills memory with long ones.
fn key_of(account: &str) -> String {
    account.chars().take(64).collect::<String>().to_lowercase()
}

fn entry<Key: Hash + Eq + Clone>(
    table: &mut HashMap<Key, Entry>,
    key: Key,
    now: Instant,
) -> &mut Entry {
    if table.len() >= MAX_ENTRIES && !table.contains_key(&key) {
        table.retain(|_, entry| {
            entry
                .last
                .is_some_and(|last| now.duration_since(last) <= FORGET_AFTER)
        });
        if table.len() >= MAX_ENTRIES {
            let oldest = table
                .iter()
                .min_by_key(|(_, entry)| entry.last)
                .map(|(key, _)| key.clone());
            if let Some(oldest) = oldest {
                table.remove(&oldest);
            }
        }
    }
    table.entry(key).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> ClientIp {
        ClientIp::new(text.parse().unwrap())
    }

    #[test]
    fn the_originals_steps() {
        let attempts = Attempts::default();
        let mut now = Instant::now();
        let mut seen = Vec::new();
        for _ in 0..10 {
            attempts.failed(ip("10.0.0.1"), "alice", now);
            let lockout = attempts.lockout(ip("10.0.0.1"), "alice", now);
            seen.push(lockout.map_or(0, |lockout| lockout.remaining.as_secs()));
            now += Duration::from_secs(301);
        }
        assert_eq!(seen, [0, 0, 60, 0, 0, 90, 0, 0, 300, 300]);
    }

    #[test]
    fn s4_an_account_is_locked_against_all_addresses_and_an_address_against_all_accounts() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for last in 1..=3 {
            attempts.failed(ip(&format!("10.0.0.{last}")), "alice", now);
        }
        assert!(attempts.lockout(ip("10.0.0.200"), "Alice", now).is_some());
        assert!(attempts.lockout(ip("10.0.0.200"), "bob", now).is_none());
        for name in ["a", "b", "c"] {
            attempts.failed(ip("2001:db8::1"), name, now);
        }
        assert!(
            attempts.lockout(ip("2001:db8::2"), "zoe", now).is_some(),
            "one /64 is one address"
        );
    }

    #[test]
    fn s6_u18_an_own_good_sign_in_resets_nothing_else() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for round in 1..=9 {
            attempts.failed(ip("10.0.0.1"), "admin", now);
            attempts.succeeded(ip("10.0.0.1"), "mallory");
            assert_eq!(
                attempts.lockout(ip("10.0.0.1"), "admin", now).is_some(),
                round % 3 == 0,
                "{round}"
            );
        }
        attempts.succeeded(ip("10.0.0.1"), "admin");
        assert!(attempts.lockouts(now).is_empty());
    }

    #[test]
    fn s54_memory_is_bounded_and_old_failures_are_forgotten() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..(MAX_ENTRIES as u32 + 500) {
            attempts.failed(
                ClientIp::new(std::net::Ipv4Addr::from(number).into()),
                &format!("user{number}"),
                now,
            );
        }
        let tables = attempts.tables.lock();
        assert_eq!(tables.addresses.len(), MAX_ENTRIES);
        assert_eq!(tables.accounts.len(), MAX_ENTRIES);
        drop(tables);
        let later = now + FORGET_AFTER + Duration::from_secs(1);
        assert_eq!(attempts.failed(ip("0.0.3.232"), "x", later), 1);
    }
}
