//! Places in the line for jobs that are being written down: they count as waiting already, and their
//! ids are taken.

use super::job::Details;
use crate::accounts::UserId;
use crate::jobs::order::{Entry, JobId};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The places that are reserved.
#[derive(Debug, Default)]
struct Places {
    /// How many, by user.
    by_user: HashMap<UserId, usize>,
    ids: HashSet<JobId>,
}

/// The places that are reserved.
#[derive(Clone, Debug, Default)]
pub(super) struct Reservations(Arc<Mutex<Places>>);

impl Reservations {
    pub(super) fn of(&self, user: &UserId) -> usize {
        self.0.lock().by_user.get(user).copied().unwrap_or(0)
    }

    pub(super) fn total(&self) -> usize {
        self.0.lock().ids.len()
    }

    pub(super) fn contains(&self, id: JobId) -> bool {
        self.0.lock().ids.contains(&id)
    }

    pub(super) fn reserve(&self, entry: Entry, details: Details) -> Reservation {
        let mut places = self.0.lock();
        *places.by_user.entry(entry.user.clone()).or_default() += 1;
        places.ids.insert(entry.id);
        drop(places);
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
        let mut places = self.all.0.lock();
        places.ids.remove(&self.entry.id);
        if let Some(count) = places.by_user.get_mut(&self.entry.user) {
            *count -= 1;
            if *count == 0 {
                places.by_user.remove(&self.entry.user);
            }
        }
    }
}
