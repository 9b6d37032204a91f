//! Lock-out after failed sign-ins, by address: 3 failures 60 s, 6 failures 90 s, 9 and every further
//! one 300 s, as in the original. A good sign-in forgives only the failures at its own account, so
//! an own account is no way to reset the counter (defects S6, U18).
//!
//! Failures at an account lock nobody out: they would let a stranger shut its owner out. They slow
//! other strangers down at this account. A live session, and a device that has signed in to the
//! account before, are judged by their own failures, whatever strangers do.

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

/// Failures at an account from which on strangers wait for each further try there.
const SLOW_FROM: u32 = 10;
/// Longest such wait.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// By what a try is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// On the allow list: locked out by nothing.
    Spared,
    /// Whoever holds a live session, or comes from a device that has signed in to this account
    /// before: judged by the failures under this key alone.
    Known(String),
    /// Judged by the address, and slowed by what strangers did to the account.
    Stranger,
}

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

    /// Doubles with every failure; ends when the failures are forgotten.
    fn wait(&self, now: Instant) -> Duration {
        let is_fresh = self
            .last
            .is_some_and(|last| now.duration_since(last) <= FORGET_AFTER);
        let Some(beyond) = self.failures.checked_sub(SLOW_FROM).filter(|_| is_fresh) else {
            return Duration::ZERO;
        };
        Duration::from_secs(1 << beyond.min(5)).min(LONGEST_WAIT)
    }

    fn slowness(&self, now: Instant) -> Option<Lockout> {
        let remaining = self.wait(now);
        (!remaining.is_zero()).then_some(Lockout {
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
    known: HashMap<String, Entry>,
}

/// All counters.
#[derive(Debug, Default)]
pub struct Attempts {
    tables: Mutex<Tables>,
}

impl Attempts {
    /// The lock-out of a try.
    pub fn lockout(&self, standing: &Standing, address: ClientIp, now: Instant) -> Option<Lockout> {
        match standing {
            Standing::Spared => None,
            Standing::Known(key) => self
                .tables
                .lock()
                .known
                .get(key)
                .and_then(|entry| entry.lockout(now)),
            Standing::Stranger => self.address_lockout(address, now),
        }
    }

    /// How long a try at an account waits.
    pub fn wait(&self, standing: &Standing, account: &str, now: Instant) -> Duration {
        if *standing != Standing::Stranger {
            return Duration::ZERO;
        }
        self.tables
            .lock()
            .accounts
            .get(&key_of(account))
            .map_or(Duration::ZERO, |entry| entry.wait(now))
    }

    /// The lock-out of an address.
    pub fn address_lockout(&self, address: ClientIp, now: Instant) -> Option<Lockout> {
        self.tables
            .lock()
            .addresses
            .get(&address.origin())
            .and_then(|entry| entry.lockout(now))
    }

    /// Failures so far of what a try is judged by.
    pub fn failures(&self, standing: &Standing, address: ClientIp) -> u32 {
        let tables = self.tables.lock();
        match standing {
            Standing::Known(key) => tables.known.get(key),
            Standing::Spared | Standing::Stranger => tables.addresses.get(&address.origin()),
        }
        .map_or(0, |entry| entry.failures)
    }

    /// Counts a failure.
    pub fn failed(&self, standing: &Standing, address: ClientIp, account: &str, now: Instant) {
        let account = key_of(account);
        let mut tables = self.tables.lock();
        if let Standing::Known(key) = standing {
            entry(&mut tables.known, key.clone(), now).fail(now);
            return;
        }
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
    }

    /// Forgives the failures at this account, and no others.
    pub fn succeeded(&self, standing: &Standing, address: ClientIp, account: &str) {
        let account = key_of(account);
        let mut tables = self.tables.lock();
        if let Standing::Known(key) = standing {
            tables.known.remove(key);
            return;
        }
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
            // Bans of IPv6 are written as their /64.
            AttemptKind::Address => {
                key.split('/')
                    .next()
                    .unwrap_or(key)
                    .parse()
                    .is_ok_and(|address| {
                        tables
                            .addresses
                            .remove(&ClientIp::new(address).origin())
                            .is_some()
                    })
            }
        }
    }

    /// The lock-outs of addresses in force, and the accounts at which strangers are slowed.
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
                lockout: entry.slowness(now)?,
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

    fn fail(attempts: &Attempts, address: &str, account: &str, now: Instant) {
        attempts.failed(&Standing::Stranger, ip(address), account, now);
    }

    fn is_locked(attempts: &Attempts, address: &str, now: Instant) -> bool {
        let lockout = attempts.lockout(&Standing::Stranger, ip(address), now);
        lockout.is_some()
    }

    #[test]
    fn the_originals_steps() {
        let attempts = Attempts::default();
        let mut now = Instant::now();
        let mut seen = Vec::new();
        for _ in 0..10 {
            fail(&attempts, "10.0.0.1", "alice", now);
            let lockout = attempts.lockout(&Standing::Stranger, ip("10.0.0.1"), now);
            seen.push(lockout.map_or(0, |lockout| lockout.remaining.as_secs()));
            now += Duration::from_secs(301);
        }
        assert_eq!(seen, [0, 0, 60, 0, 0, 90, 0, 0, 300, 300]);
    }

    #[test]
    fn failures_of_one_address_lock_no_other_out_and_slow_strangers_at_the_account() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let mut waits = Vec::new();
        for number in 1..=16 {
            fail(&attempts, &format!("10.0.0.{number}"), "alice", now);
            let wait = attempts.wait(&Standing::Stranger, "Alice", now);
            waits.push(wait.as_secs());
        }
        let mut expected = vec![0; 9];
        expected.extend([1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(waits, expected);
        assert!(!is_locked(&attempts, "10.0.0.200", now));
        assert_eq!(
            attempts.wait(&Standing::Stranger, "bob", now),
            Duration::ZERO
        );
        for standing in [Standing::Spared, Standing::Known("x".to_owned())] {
            assert_eq!(attempts.wait(&standing, "alice", now), Duration::ZERO);
        }
        let shown = attempts.lockouts(now);
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0].kind, AttemptKind::Account);
        let later = now + FORGET_AFTER + Duration::from_secs(1);
        assert!(attempts.wait(&Standing::Stranger, "alice", later).is_zero());
        for name in ["a", "b", "c"] {
            fail(&attempts, "2001:db8::1", name, now);
        }
        assert!(
            is_locked(&attempts, "2001:db8::2", now),
            "one /64 is one address"
        );
    }

    #[test]
    fn whoever_is_known_is_judged_by_their_own_failures() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for _ in 0..9 {
            fail(&attempts, "10.0.0.1", "alice", now);
        }
        let known = Standing::Known("session:1".to_owned());
        let other = Standing::Known("session:2".to_owned());
        let address = ip("10.0.0.1");
        assert!(attempts.lockout(&known, address, now).is_none());
        for _ in 0..3 {
            attempts.failed(&known, address, "alice", now);
        }
        assert_eq!(attempts.failures(&known, address), 3);
        assert_eq!(
            attempts.failures(&Standing::Stranger, address),
            9,
            "nothing is added to what strangers did"
        );
        let lockout = attempts.lockout(&known, ip("10.0.0.9"), now).unwrap();
        assert_eq!(lockout.remaining, Duration::from_secs(60));
        assert!(attempts.lockout(&other, address, now).is_none());
        let later = now + Duration::from_secs(61);
        attempts.succeeded(&known, address, "alice");
        assert_eq!(attempts.failures(&known, address), 0);
        assert!(
            is_locked(&attempts, "10.0.0.1", later),
            "strangers stay out"
        );
    }

    #[test]
    fn s6_u18_an_own_good_sign_in_resets_nothing_else() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for round in 1..=9 {
            fail(&attempts, "10.0.0.1", "admin", now);
            attempts.succeeded(&Standing::Stranger, ip("10.0.0.1"), "mallory");
            assert_eq!(
                is_locked(&attempts, "10.0.0.1", now),
                round % 3 == 0,
                "{round}"
            );
        }
        attempts.succeeded(&Standing::Stranger, ip("10.0.0.1"), "admin");
        assert!(attempts.lockouts(now).is_empty());
    }

    #[test]
    fn s54_memory_is_bounded_and_old_failures_are_forgotten() {
        let attempts = Attempts::default();
        let now = Instant::now();
        for number in 0..(MAX_ENTRIES as u32 + 500) {
            let address = ClientIp::new(std::net::Ipv4Addr::from(number).into());
            let known = Standing::Known(number.to_string());
            let name = format!("user{number}");
            attempts.failed(&Standing::Stranger, address, &name, now);
            attempts.failed(&known, address, &name, now);
        }
        let tables = attempts.tables.lock();
        assert_eq!(tables.addresses.len(), MAX_ENTRIES);
        assert_eq!(tables.accounts.len(), MAX_ENTRIES);
        assert_eq!(tables.known.len(), MAX_ENTRIES);
        drop(tables);
        let later = now + FORGET_AFTER + Duration::from_secs(1);
        fail(&attempts, "0.0.3.232", "x", later);
        assert_eq!(attempts.failures(&Standing::Stranger, ip("0.0.3.232")), 1);
    }
}
