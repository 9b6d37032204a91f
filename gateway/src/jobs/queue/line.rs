//! The line itself, as data in memory: nothing here waits, is locked or tells anybody.
//!
//! Invariants: a job is in `fair` or in `running`, never in both; an engine has at most one job;
//! a job that is taken away from an engine goes back to its old place.

use super::forecast::{Averages, Forecast, Snapshot};
use super::job::{Arrival, Back, Details, Intent, Recent, Running};
use super::limits::{DayUse, LimitFault};
use super::reservation::{Reservation, Reservations};
use super::{Admission, Conditions, milliseconds};
use crate::accounts::UserId;
use crate::engine::EngineId;
use crate::jobs::hold::Hold;
use crate::jobs::order::{Entry, Fair, JobId, Rules, Urgency};
use crate::jobs::prompt::Secrets;
use crate::store::{JobRow, JobState};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// First pause before another try with an engine that cannot be reached; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Jobs that may wait in all.
const MAX_WAITING: usize = 50_000;
/// Forecasts are made anew after so long.
const FORECAST_LIFE: Duration = Duration::from_secs(1);
/// Finished jobs that are remembered for the overlay.
const MAX_RECENT: usize = 200;
/// Finished jobs of one user that are told.
const MAX_RECENT_OF_ONE: usize = 20;

/// An engine that could not be reached.
#[derive(Debug)]
struct Unreachable {
    until: Instant,
    pause: Duration,
}

#[derive(Debug)]
pub(super) struct Line {
    fair: Fair,
    /// Of waiting jobs.
    details: HashMap<JobId, Details>,
    running: HashMap<JobId, Running>,
    reserved: Reservations,
    /// Jobs that may run at once.
    slots: usize,
    rules: Rules,
    hold: Option<Hold>,
    next_seq: i64,
    /// Last number of each user's own jobs: what others hand in does not show in it.
    numbers: HashMap<UserId, i64>,
    averages: Averages,
    /// The model that was loaded last.
    loaded: Option<u64>,
    today: DayUse,
    /// The newest last.
    recent: VecDeque<Recent>,
    /// Engines that could not be reached, and when the next try is due.
    unreachable: HashMap<EngineId, Unreachable>,
    forecast: Option<(Instant, Forecast)>,
}

impl Line {
    /// `next_seq` and `numbers` go on where an earlier run has ended.
    pub(super) fn new(next_seq: i64, numbers: HashMap<UserId, i64>, today: DayUse) -> Self {
        Self {
            fair: Fair::new(),
            details: HashMap::new(),
            running: HashMap::new(),
            reserved: Reservations::default(),
            slots: 1,
            rules: Rules { batch_ms: 0 },
            hold: None,
            next_seq,
            numbers,
            averages: Averages::default(),
            loaded: None,
            today,
            recent: VecDeque::new(),
            unreachable: HashMap::new(),
            forecast: None,
        }
    }

    /// A job that an earlier run has left waits again.
    pub(super) fn take_up(&mut self, row: JobRow) {
        let details = Details {
            created_at: row.created_at,
            client_id: row.client_id,
            attempts: row.attempts,
            is_posted: row.state == JobState::Running || row.handed_at.is_some(),
            secrets: Secrets::default(),
        };
        let entry = Entry {
            id: row.id,
            user: row.user,
            number: row.number,
            seq: row.seq.unsigned_abs(),
            model: row.model,
            urgency: row.urgency,
        };
        self.wait(entry, details);
    }

    /// See [`super::Queue::admit`].
    pub(super) fn admit(
        &mut self,
        arrival: Arrival,
        engine: &EngineId,
        conditions: &impl Conditions,
    ) -> Result<Admission, LimitFault> {
        if self.is_known(arrival.id) {
            return Err(LimitFault::SameId);
        }
        self.check(&arrival.user, conditions)?;
        let created_at = arrival.created_at;
        let (entry, details) = self.place(arrival);
        let busy = self.busy();
        let is_free = self.running.len() < self.slots
            && self.fair.is_empty()
            && self.reserved.total() == 0
            && conditions.may_run(&entry.user, self.hold.as_ref())
            && !busy.contains(engine)
            && !self.is_unreachable(engine)
            && !conditions.is_full(engine, &busy);
        if !is_free {
            let reservation = self.reserved.reserve(entry, details);
            return Ok(Admission::Later(Box::new(reservation)));
        }
        let id = entry.id;
        self.wait(entry, details);
        let running = self.begin(id, engine, created_at).ok_or(LimitFault::Full)?;
        Ok(Admission::Now(Box::new(running)))
    }

    /// Returns true if a job of this id is on its way, waits or runs.
    fn is_known(&self, id: JobId) -> bool {
        self.running.contains_key(&id)
            || self.details.contains_key(&id)
            || self.reserved.contains(id)
    }

    fn is_unreachable(&self, engine: &EngineId) -> bool {
        self.unreachable
            .get(engine)
            .is_some_and(|known| Instant::now() < known.until)
    }

    /// See [`super::Queue::engine_unreachable`].
    pub(super) fn engine_unreachable(&mut self, engine: &EngineId) -> Duration {
        let known = self.unreachable.get(engine);
        let pause = known.map_or(FIRST_PAUSE, |known| (known.pause * 2).min(LONGEST_PAUSE));
        let until = Instant::now() + pause;
        self.unreachable
            .insert(engine.clone(), Unreachable { until, pause });
        pause
    }

    /// See [`super::Queue::engine_reached`].
    pub(super) fn engine_reached(&mut self, engine: &EngineId) {
        self.unreachable.remove(engine);
    }

    /// Whether one more job of a user is taken.
    fn check(&mut self, user: &UserId, conditions: &impl Conditions) -> Result<(), LimitFault> {
        let limits = conditions.limits_of(user);
        self.fair.set_weight(user, limits.weight);
        if self.fair.len() + self.reserved.total() >= MAX_WAITING {
            return Err(LimitFault::Full);
        }
        limits.check_waiting(self.fair.waiting_of(user) + self.reserved.of(user))?;
        limits.check_day(self.today.of(user))
    }

    /// The place of a new job: where its user wants it among his own, else after them.
    fn place(&mut self, arrival: Arrival) -> (Entry, Details) {
        let seq = self.next_seq;
        self.next_seq += 1;
        let last = self.numbers.entry(arrival.user.clone()).or_default();
        *last += 1;
        let own_number = exact(*last);
        let number = match arrival.number {
            Some(number) if number.is_finite() => number,
            _ if arrival.is_front => -own_number,
            _ => own_number,
        };
        let entry = Entry {
            id: arrival.id,
            user: arrival.user,
            number,
            seq: seq.unsigned_abs(),
            model: arrival.model,
            urgency: Urgency::Normal,
        };
        let details = Details {
            created_at: arrival.created_at,
            client_id: arrival.client_id,
            attempts: 0,
            is_posted: false,
            secrets: arrival.secrets,
        };
        (entry, details)
    }

    pub(super) fn enqueue(&mut self, reservation: &Reservation) {
        self.wait(reservation.entry.clone(), reservation.details.clone());
    }

    fn wait(&mut self, entry: Entry, details: Details) {
        self.details.insert(entry.id, details);
        self.fair.add(entry);
        self.forecast = None;
    }

    /// See [`super::Queue::next`].
    pub(super) fn next(&mut self, now_ms: i64, conditions: &impl Conditions) -> Option<Running> {
        if self.running.len() >= self.slots || self.fair.is_empty() {
            return None;
        }
        let busy = self.busy();
        let can_run = |entry: &Entry| {
            let user = &entry.user;
            conditions.may_run(user, self.hold.as_ref())
                && conditions
                    .limits_of(user)
                    .check_day(self.today.of(user))
                    .is_ok()
                && conditions.engine_of(user).is_some_and(|engine| {
                    !busy.contains(&engine)
                        && !self.is_unreachable(&engine)
                        && !conditions.is_full(&engine, &busy)
                })
        };
        let expected = |entry: &Entry| self.averages.expected(&entry.user);
        let id = self
            .fair
            .pick(&self.rules, self.loaded, &expected, &can_run)?;
        let engine = conditions.engine_of(&self.fair.get(id)?.user)?;
        self.begin(id, &engine, now_ms)
    }

    /// Engines that have a job.
    fn busy(&self) -> Vec<EngineId> {
        let running = self.running.values();
        running.map(|job| job.engine.clone()).collect()
    }

    /// A waiting job runs from now on.
    fn begin(&mut self, id: JobId, engine: &EngineId, now_ms: i64) -> Option<Running> {
        let expected_ms = self.averages.expected(&self.fair.get(id)?.user);
        let entry = self.fair.start(id, expected_ms)?;
        let details = self.details.remove(&id)?;
        if entry.model.is_some() {
            self.loaded = entry.model;
        }
        let running = Running {
            entry,
            engine: engine.clone(),
            details,
            handed_at: now_ms,
            since: Instant::now(),
            expected_ms,
            intent: None,
            nudge: Arc::new(Notify::new()),
        };
        self.running.insert(id, running.clone());
        self.forecast = None;
        Some(running)
    }

    /// See [`super::Queue::refused`].
    pub(super) fn refused(&mut self, id: JobId) -> Option<UserId> {
        let running = self.running.remove(&id)?;
        self.fair.ended(&running.entry.user, running.expected_ms, 0);
        Some(running.entry.user)
    }

    /// See [`super::Queue::put_back`].
    pub(super) fn put_back(&mut self, id: JobId, back: Back) -> bool {
        let Some(running) = self.running.get(&id) else {
            return true;
        };
        if running.intent == Some(Intent::Cancel) {
            return false;
        }
        let Some(running) = self.running.remove(&id) else {
            return true;
        };
        let used_ms = if back.is_charged {
            milliseconds(running.since.elapsed())
        } else {
            0
        };
        self.fair
            .ended(&running.entry.user, running.expected_ms, used_ms);
        let details = Details {
            attempts: back.attempts,
            is_posted: back.is_posted,
            ..running.details
        };
        self.wait(running.entry, details);
        true
    }

    /// See [`super::Queue::finished`].
    pub(super) fn finished(&mut self, job: Recent, gpu_ms: u64, day: &str) {
        if let Some(running) = self.running.remove(&job.id) {
            self.fair.ended(&job.user, running.expected_ms, gpu_ms);
            if job.state == JobState::Completed {
                self.averages.measure(&job.user, gpu_ms);
            }
        }
        self.fair.remove(job.id);
        self.details.remove(&job.id);
        self.today.turn_to(day);
        self.today.add(&job.user, gpu_ms);
        if self.recent.len() >= MAX_RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(job);
        self.forecast = None;
    }

    /// See [`super::Queue::interrupt`].
    pub(super) fn interrupt(&mut self, id: JobId, user: Option<&UserId>, intent: Intent) -> bool {
        let Some(running) = self.running.get_mut(&id) else {
            return false;
        };
        if user.is_some_and(|user| running.entry.user != *user) {
            return false;
        }
        // Whoever wants it gone wins over whoever wants it later.
        if running.intent != Some(Intent::Cancel) {
            running.intent = Some(intent);
        }
        running.nudge.notify_one();
        true
    }

    /// See [`super::Queue::withdraw`].
    pub(super) fn withdraw(&mut self, ids: &[JobId], user: Option<&UserId>) -> Vec<Entry> {
        let mut gone = Vec::new();
        for id in ids {
            let is_meant = self
                .fair
                .get(*id)
                .is_some_and(|entry| user.is_none_or(|user| entry.user == *user));
            if is_meant && let Some(entry) = self.fair.remove(*id) {
                self.details.remove(id);
                gone.push(entry);
            }
        }
        self.forecast = None;
        gone
    }

    /// `false` if the job does not wait.
    pub(super) fn set_urgency(&mut self, id: JobId, urgency: Urgency) -> bool {
        self.forecast = None;
        self.fair.set_urgency(id, urgency)
    }

    /// `batch_ms` as in [`Rules`].
    pub(super) fn set_batch(&mut self, batch_ms: u64) {
        self.rules.batch_ms = batch_ms;
    }

    pub(super) fn set_slots(&mut self, slots: usize) {
        self.slots = slots.max(1);
    }

    /// Whether it is another one than before.
    pub(super) fn set_hold(&mut self, hold: Option<Hold>) -> bool {
        let is_new = self.hold != hold;
        self.hold = hold;
        self.forecast = None;
        is_new
    }

    pub(super) fn turn_to(&mut self, day: &str) {
        self.today.turn_to(day);
    }

    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    pub(super) fn hold(&self) -> Option<Hold> {
        self.hold
    }

    /// In the order in which they were handed over.
    pub(super) fn running(&self) -> Vec<Running> {
        let mut running: Vec<Running> = self.running.values().cloned().collect();
        running.sort_by_key(|job| (job.handed_at, job.entry.seq));
        running
    }

    pub(super) fn running_job(&self, id: JobId) -> Option<&Running> {
        self.running.get(&id)
    }

    pub(super) fn running_of(&self, user: &UserId) -> usize {
        let running = self.running.values();
        running.filter(|job| job.entry.user == *user).count()
    }

    /// See [`super::Queue::only_runner`].
    pub(super) fn only_runner(&self) -> Option<UserId> {
        let mut users = self.running.values().map(|job| &job.entry.user);
        let first = users.next()?;
        users.all(|user| user == first).then(|| first.clone())
    }

    pub(super) fn waiting(&self) -> usize {
        self.fair.len()
    }

    pub(super) fn waiting_of(&self, user: &UserId) -> usize {
        self.fair.waiting_of(user)
    }

    pub(super) fn waiting_users(&self) -> Vec<(UserId, usize)> {
        let users = self.fair.users();
        users
            .map(|user| (user.clone(), self.fair.waiting_of(user)))
            .collect()
    }

    pub(super) fn own_waiting(&self, user: &UserId) -> Vec<JobId> {
        self.fair.own(user).map(|entry| entry.id).collect()
    }

    pub(super) fn waiting_job(&self, id: JobId) -> Option<(Entry, Details)> {
        Some((self.fair.get(id)?.clone(), self.details.get(&id)?.clone()))
    }

    pub(super) fn used_today(&self, user: &UserId) -> u64 {
        self.today.of(user)
    }

    /// Newest first.
    pub(super) fn recent(&self, user: &UserId) -> Vec<Recent> {
        let own = self.recent.iter().rev().filter(|job| job.user == *user);
        own.take(MAX_RECENT_OF_ONE).cloned().collect()
    }

    /// The last forecast, while it is good.
    pub(super) fn known_forecast(&self) -> Option<Forecast> {
        let (at, known) = self.forecast.as_ref()?;
        (at.elapsed() < FORECAST_LIFE).then(|| Arc::clone(known))
    }

    pub(super) fn keep_forecast(&mut self, forecast: &Forecast) {
        self.forecast = Some((Instant::now(), Arc::clone(forecast)));
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let remaining = |job: &Running| {
            let elapsed = milliseconds(job.since.elapsed());
            job.expected_ms.saturating_sub(elapsed)
        };
        Snapshot {
            fair: self.fair.clone(),
            rules: self.rules,
            averages: self.averages.clone(),
            remaining: self.running.values().map(remaining).collect(),
            slots: self.slots,
        }
    }
}

/// Numbers of arrival stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "stays far below 2^53")]
fn exact(number: i64) -> f64 {
    number as f64
}
