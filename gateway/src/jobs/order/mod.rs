//! Whose job runs next: start-time fair queuing over users by measured GPU time.
//!
//! Every user has a tag, the GPU time he has had divided by his weight; the user with the lowest
//! one is next, with the first job of his own order; among equals, the one who has been waiting
//! longer without a break. The virtual time is the tag of the job that
//! ran last in its turn. Nobody is behind it: whoever was idle, or could not run, neither saves up
//! time nor owes any from before.
//!
//! A job may go out of its turn when its model is loaded already, within [`Rules::batch_ms`]: its
//! owner gets no further ahead than that, and everybody who stands before it remembers for how
//! long he was passed, and is not passed for longer until a job of his runs.
//!
//! There is no clock in here: all times are given by the caller.

mod entry;
mod forecast;

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use crate::accounts::UserId;
use entry::Place;
pub(crate) use entry::{Entry, JobId, Urgency};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};

/// Parts of a millisecond in which shares are reckoned, so that weights divide them finely.
const PARTS: u64 = 1_000_000;

/// What may be set about the order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// Most GPU time, in milliseconds, that is given out of turn to jobs whose model is loaded,
    /// before a job of each user who was passed runs. 0: none.
    pub(crate) batch_ms: u64,
}

/// What a user has had.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    /// His virtual time, in parts of a millisecond.
    tag: u64,
    /// For how many milliseconds he was passed since a job of his ran.
    passed_ms: u64,
    /// Arrival of the job since which something has been waiting. Which of his jobs the user puts
    /// first must make no difference to others, so that it is not the first job's arrival.
    since: u64,
    weight: u32,
}

impl Share {
    /// A job of the user starts at `tag`.
    fn begin(&mut self, tag: u64, expected_ms: u64) {
        self.tag = tag.saturating_add(self.charge(expected_ms));
        self.passed_ms = 0;
    }

    /// A job of another user starts before it is its turn.
    fn pass(&mut self, expected_ms: u64) {
        self.passed_ms = self.passed_ms.saturating_add(expected_ms);
    }

    /// What GPU time counts for this user.
    fn charge(&self, milliseconds: u64) -> u64 {
        milliseconds.saturating_mul(PARTS) / u64::from(self.weight.max(1))
    }
}

#[derive(Clone, Debug, Default)]
struct Line {
    waiting: BTreeMap<Place, Entry>,
    /// Jobs that have started and not ended.
    running: usize,
    share: Share,
}

impl Line {
    fn insert(&mut self, place: Place, entry: Entry) {
        self.share.since = if self.waiting.is_empty() {
            entry.seq
        } else {
            self.share.since.min(entry.seq)
        };
        self.waiting.insert(place, entry);
    }

    fn candidate(&self, now: u64) -> Option<Candidate<'_>> {
        let entry = self.waiting.values().next()?;
        Some(Candidate::new(0, entry, self.share, now))
    }
}

/// The first job of one user.
#[derive(Clone, Copy, Debug)]
struct Candidate<'a> {
    /// What the caller knows the user by.
    owner: usize,
    entry: &'a Entry,
    /// As it counts now.
    share: Share,
}

impl<'a> Candidate<'a> {
    fn new(owner: usize, entry: &'a Entry, share: Share, now: u64) -> Self {
        let tag = share.tag.max(now);
        Self {
            owner,
            entry,
            share: Share { tag, ..share },
        }
    }

    fn rank(&self) -> (Urgency, u64, u64, JobId) {
        let (tag, since) = match self.entry.urgency {
            Urgency::First => (0, self.entry.seq),
            Urgency::Normal | Urgency::Last => (self.share.tag, self.share.since),
        };
        (self.entry.urgency, tag, since, self.entry.id)
    }
}

/// The job that [`Fair::pick`] named last.
#[derive(Clone, Copy, Debug)]
struct Picked {
    id: JobId,
    in_turn: bool,
}

/// The waiting jobs of all users.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fair {
    users: HashMap<UserId, Line>,
    places: HashMap<JobId, (UserId, Place)>,
    /// Those that are not 1.
    weights: HashMap<UserId, u32>,
    /// Virtual time, in parts of a millisecond.
    now: u64,
    running: usize,
    /// Whether the job that starts next was chosen in its turn is known only while choosing.
    picked: Cell<Option<Picked>>,
}

impl Fair {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Sets how much of the GPU a user gets compared with others. The default is 1, as is 0.
    pub(crate) fn set_weight(&mut self, user: &UserId, weight: u32) {
        if weight <= 1 {
            self.weights.remove(user);
        } else {
            self.weights.insert(user.clone(), weight);
        }
        if let Some(line) = self.users.get_mut(user) {
            line.share.weight = weight;
        }
    }

    /// Adds a job, at the place that its number gives it among its owner's. A job with the same id
    /// is replaced.
    pub(crate) fn add(&mut self, entry: Entry) {
        self.remove(entry.id);
        let place = entry.place();
        self.places.insert(entry.id, (entry.user.clone(), place));
        let user = entry.user.clone();
        self.line(&user).insert(place, entry);
    }

    /// Takes a job out without running it.
    pub(crate) fn remove(&mut self, id: JobId) -> Option<Entry> {
        let (user, place) = self.places.remove(&id)?;
        let entry = self.users.get_mut(&user)?.waiting.remove(&place);
        self.left(&user);
        entry
    }

    pub(crate) fn get(&self, id: JobId) -> Option<&Entry> {
        let (user, place) = self.places.get(&id)?;
        self.users.get(user)?.waiting.get(place)
    }

    /// Moves a job before or after all others, or back. `false` if it does not wait.
    pub(crate) fn set_urgency(&mut self, id: JobId, urgency: Urgency) -> bool {
        let Some((user, place)) = self.places.get_mut(&id) else {
            return false;
        };
        let Some(line) = self.users.get_mut(user) else {
            return false;
        };
        let Some(mut entry) = line.waiting.remove(place) else {
            return false;
        };
        entry.urgency = urgency;
        *place = entry.place();
        line.waiting.insert(*place, entry);
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// How many jobs of a user wait.
    pub(crate) fn waiting_of(&self, user: &UserId) -> usize {
        self.users.get(user).map_or(0, |line| line.waiting.len())
    }

    /// Users with waiting jobs.
    pub(crate) fn users(&self) -> impl Iterator<Item = &UserId> {
        let waits = |(user, line): (_, &Line)| (!line.waiting.is_empty()).then_some(user);
        self.users.iter().filter_map(waits)
    }

    /// The waiting jobs of a user, in his own order.
    pub(crate) fn own<'a>(&'a self, user: &UserId) -> impl Iterator<Item = &'a Entry> + use<'a> {
        self.users
            .get(user)
            .into_iter()
            .flat_map(|line| line.waiting.values())
    }

    /// The next job to run of those for which `can_run` holds; `loaded` is the model that the slot
    /// has loaded. It stays where it is: [`Self::start`] takes it out, and should follow before
    /// another is picked. Only the first job of each user is asked about.
    pub(crate) fn pick(
        &self,
        rules: &Rules,
        loaded: Option<u64>,
        expected_ms: &dyn Fn(&Entry) -> u64,
        can_run: &dyn Fn(&Entry) -> bool,
    ) -> Option<JobId> {
        let candidates = self
            .users
            .values()
            .filter_map(|line| line.candidate(self.now))
            .filter(|candidate| can_run(candidate.entry))
            .collect();
        let (chosen, in_turn) = choose(candidates, rules, loaded, expected_ms)?;
        let id = chosen.entry.id;
        self.picked.set(Some(Picked { id, in_turn }));
        Some(id)
    }

    /// Takes a job out to run it, and charges its owner what it is expected to take.
    pub(crate) fn start(&mut self, id: JobId, expected_ms: u64) -> Option<Entry> {
        let (user, place) = self.places.remove(&id)?;
        let now = self.now;
        let line = self.users.get_mut(&user)?;
        let entry = line.waiting.remove(&place)?;
        let chosen = Candidate::new(0, &entry, line.share, now);
        let in_turn = match self.picked.take() {
            Some(picked) if picked.id == id => picked.in_turn,
            // Not from there: in turn if nobody is before it.
            _ => self
                .users
                .values()
                .filter_map(|line| line.candidate(now))
                .all(|other| chosen.rank() < other.rank()),
        };
        let tag = chosen.share.tag;
        if entry.urgency == Urgency::First {
            // Nobody's turn comes or goes by it.
        } else if in_turn {
            self.now = now.max(tag);
        } else {
            for line in self.users.values_mut() {
                let is_before = line
                    .candidate(now)
                    .is_some_and(|own| own.rank() < chosen.rank());
                if is_before {
                    line.share.pass(expected_ms);
                }
            }
        }
        let line = self.line(&user);
        line.share.begin(tag, expected_ms);
        line.running += 1;
        self.running += 1;
        let now = self.now;
        self.users
            .retain(|_, line| !line.waiting.is_empty() || line.running > 0 || line.share.tag > now);
        Some(entry)
    }

    /// A job has ended or goes back: corrects what its owner was charged at its start to what was
    /// measured. To be called once for each [`Self::start`].
    pub(crate) fn ended(&mut self, user: &UserId, expected_ms: u64, measured_ms: u64) {
        let now = self.now;
        let line = self.line(user);
        line.running = line.running.saturating_sub(1);
        if line.share.tag == 0 {
            // Not known: from before the gateway's start.
            line.share.tag = now.saturating_add(line.share.charge(expected_ms));
        }
        line.share.tag = line
            .share
            .tag
            .saturating_add(line.share.charge(measured_ms))
            .saturating_sub(line.share.charge(expected_ms));
        self.running = self.running.saturating_sub(1);
        self.left(user);
    }

    fn line(&mut self, user: &UserId) -> &mut Line {
        self.users.entry(user.clone()).or_insert_with(|| {
            let mut line = Line::default();
            line.share.weight = self.weights.get(user).copied().unwrap_or(1);
            line
        })
    }

    /// A job of the user has ended, or waits no more.
    fn left(&mut self, user: &UserId) {
        if self.running == 0 && self.is_empty() {
            // Nobody uses the GPU and nobody wants it: nobody owes anybody anything.
            let latest = self.users.values().map(|line| line.share.tag).max();
            self.now = self.now.max(latest.unwrap_or(0));
            self.users.clear();
            return;
        }
        let Some(line) = self.users.get_mut(user) else {
            return;
        };
        if !line.waiting.is_empty() {
            return;
        }
        line.share.passed_ms = 0;
        // What is behind the virtual time counts as never known.
        if line.running == 0 && line.share.tag <= self.now {
            self.users.remove(user);
        }
    }
}

/// The next of the users' first jobs, and whether it is its turn.
fn choose<'a>(
    mut candidates: Vec<Candidate<'a>>,
    rules: &Rules,
    loaded: Option<u64>,
    expected_ms: &dyn Fn(&Entry) -> u64,
) -> Option<(Candidate<'a>, bool)> {
    let fair = *candidates.iter().min_by_key(|candidate| candidate.rank())?;
    let urgency = fair.entry.urgency;
    let switches = loaded.is_some() && fair.entry.model.is_some() && fair.entry.model != loaded;
    if rules.batch_ms == 0 || urgency == Urgency::First || !switches {
        return Some((fair, true));
    }
    candidates.retain(|candidate| candidate.entry.urgency == urgency);
    candidates.sort_unstable_by_key(Candidate::rank);
    let furthest = fair
        .share
        .tag
        .saturating_add(rules.batch_ms.saturating_mul(PARTS));
    let mut most_passed: u64 = 0;
    for candidate in candidates {
        if candidate.entry.model == loaded {
            let expected = expected_ms(candidate.entry);
            let share = candidate.share;
            let reaches = share.tag.saturating_add(share.charge(expected));
            if most_passed.saturating_add(expected) <= rules.batch_ms && reaches <= furthest {
                return Some((candidate, false));
            }
        }
        most_passed = most_passed.max(candidate.share.passed_ms);
        if most_passed >= rules.batch_ms {
            break;
        }
    }
    Some((fair, true))
}
