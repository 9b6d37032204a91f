//! Places in the line for jobs that are being written down: they count as waiting already.

use super::job::Details;
use crate::accounts::UserId;
use crate::jobs::order::Entry;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// How many places are reserved, by user.
#[derive(Clone, Debug, Default)]
pub(super) struct Reservations(Arc<Mutex<HashMap<UserId, usize>>>);

impl Reservations {
    pub(super) fn of(&self, user: &UserId) -> usize {
        self.0.lock().get(user).copied().unwrap_or(0)
    }

    pub(super) fn total(&self) -> usize {
        self.0.lock().values().sum()
    }

    pub(super) fn reserve(&self, entry: Entry, details: Details) -> Reservation {
        *self.0.lock().entry(entry.user.clone()).or_default() += 1;
        Reservation {
            all: self.clone(),
            entry,
            details,
        }
    }
}

/// A place in the line for a job that is being written down; dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct Reservation {
    all: Reservations,
    pub(crate) entry: Entry,
    pub(crate) details: Details,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = self.all.0.lock();
        if let Some(count) = reserved.get_mut(&self.entry.user) {
            *count -= 1;
            if *count == 0 {
                reserved.remove(&self.entry.user);
            }
        }
    }
}
