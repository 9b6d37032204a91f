//! The line before the GPU: which jobs wait and run, and who may have how much. Decides over data
//! in memory; what must outlive a restart is in the store, written before it counts here.
//!
//! Invariants: a job is in `fair` or in `running`, never in both; an engine has at most one job;
//! a job that is taken away from an engine goes back to its old place.

use super::hold::OwnerHold;
use super::order::{Entry, Fair, JobId, Rules, Urgency};
use super::sockets::Sockets;
use super::submission::Secrets;
use crate::accounts::UserId;
use crate::clock::Minutes;
use crate::config::Config;
use crate::engine::EngineId;
use crate::store::{JobRow, JobState, Store, StoreError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A job that was handed over so often without an end is given up.
pub(super) const MAX_ATTEMPTS: u32 = 2;
/// What a job is expected to take while nothing was measured.
const UNKNOWN_JOB: Duration = Duration::from_secs(10);
/// Forecasts are made anew after so long.
const FORECAST_LIFE: Duration = Duration::from_secs(1);
/// Jobs that a forecast covers.
const FORECAST_JOBS: usize = 2000;
/// Jobs that may wait in all.
const MAX_WAITING: usize = 50_000;
/// Finished jobs that are remembered for the overlay.
const RECENT: usize = 200;
/// Part of a new measurement in the running average: one of so many.
const AVERAGE_OVER: u64 = 4;

/// What a role may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoleLimits {
    /// Share of the GPU against others.
    pub(crate) weight: u32,
    pub(crate) jobs_waiting: Option<usize>,
    /// Time on the GPU in one day.
    pub(crate) gpu_a_day: Option<Minutes>,
    pub(crate) longest_job: Option<Minutes>,
}

impl RoleLimits {
    /// From the settings.
    pub(crate) fn of(config: &Config, is_admin: bool) -> Self {
        let queue = &config.queue;
        let count = |count: u32| usize::try_from(count).ok().filter(|count| *count > 0);
        if is_admin {
            Self {
                weight: queue.weight_admins,
                jobs_waiting: count(queue.jobs_waiting_admins),
                gpu_a_day: Minutes::limit(queue.gpu_minutes_a_day_admins),
                longest_job: Minutes::limit(queue.longest_job_minutes_admins),
            }
        } else {
            Self {
                weight: queue.weight_users,
                jobs_waiting: count(queue.jobs_waiting_users),
                gpu_a_day: Minutes::limit(queue.gpu_minutes_a_day_users),
                longest_job: Minutes::limit(queue.longest_job_minutes_users),
            }
        }
    }
}

/// Why a job is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LimitFault {
    /// Own jobs.
    #[error("You have {0} jobs waiting, and no more are allowed. Wait until some are done.")]
    JobsWaiting(usize),
    /// Own GPU time of the day.
    #[error("You have used up your GPU time for today ({0} min). It begins anew at midnight.")]
    GpuMinutes(u32),
    /// The gateway as a whole.
    #[error("Too many jobs are waiting. Please try again later.")]
    Full,
}

/// Why an admin's or the system's hand holds jobs back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HoldReason {
    /// The owner needs his GPU.
    Owner,
    /// The settings name this time of the day.
    QuietHours,
    /// Another program uses the GPU.
    OtherProgram,
}

impl HoldReason {
    /// Name in our API.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::QuietHours => "quiet_hours",
            Self::OtherProgram => "other_program",
        }
    }
}

/// Jobs of everybody but the owner are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) reason: HoldReason,
    /// Seconds since 1970.
    pub(crate) since: i64,
    /// When it ends by itself, seconds since 1970.
    pub(crate) until: Option<i64>,
    /// It ends when the owner is away for a while.
    pub(crate) until_idle: bool,
}

/// Why a running job is ended by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// Its owner or an admin does not want it any more.
    Cancel,
    /// It runs again later.
    PutBack,
    /// It took longer than its owner's role may.
    TooLong,
}

/// A job in an engine.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    pub(crate) entry: Entry,
    pub(crate) engine: EngineId,
    pub(crate) details: Details,
    /// Milliseconds since 1970.
    pub(crate) handed_at: i64,
    pub(crate) since: Instant,
    pub(crate) expected_ms: u64,
    pub(crate) intent: Option<Intent>,
    /// Wakes whoever watches it.
    pub(crate) nudge: Arc<Notify>,
}

/// What is known of a job beside its place.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    /// Milliseconds since 1970.
    pub(crate) created_at: i64,
    pub(crate) client_id: Option<String>,
    /// Times it was handed over.
    pub(crate) attempts: u32,
    pub(crate) secrets: Secrets,
}

/// A finished job, for the overlay.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    pub(crate) user: UserId,
    pub(crate) id: JobId,
    pub(crate) state: JobState,
    /// Seconds since 1970.
    pub(crate) ended_at: i64,
    pub(crate) reason: Option<String>,
}

/// How a new job goes on.
#[derive(Debug)]
pub(crate) enum Admission {
    /// The GPU is free for it, and kept free until it ends or
    /// [`Queue::refused`].
    Now(Box<Running>),
    /// It has to wait.
    Later(Box<Reservation>),
}

/// A place in the line for a job that is being written down; dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct Reservation {
    reserved: Arc<Mutex<HashMap<UserId, usize>>>,
    pub(crate) entry: Entry,
    pub(crate) details: Details,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = self.reserved.lock();
        if let Some(count) = reserved.get_mut(&self.entry.user) {
            *count -= 1;
            if *count == 0 {
                reserved.remove(&self.entry.user);
            }
        }
    }
}

/// A job that comes.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) id: JobId,
    pub(crate) user: UserId,
    pub(crate) number: Option<f64>,
    pub(crate) is_front: bool,
    pub(crate) model: Option<u64>,
    pub(crate) client_id: Option<String>,
    pub(crate) secrets: Secrets,
    /// Milliseconds since 1970.
    pub(crate) created_at: i64,
}

/// Waiting jobs in the expected order, with the milliseconds until each starts.
pub(crate) type Forecast = Arc<Vec<(JobId, u64)>>;

#[derive(Debug)]
struct Line {
    fair: Fair,
    details: HashMap<JobId, Details>,
    running: HashMap<JobId, Running>,
    slots: usize,
    rules: Rules,
    hold: Option<Hold>,
    next_seq: i64,
    /// Last number of each user's own jobs: what others hand in does not show in it.
    numbers: HashMap<UserId, i64>,
    average: HashMap<UserId, u64>,
    overall: Option<u64>,
    loaded: Option<u64>,
    day: String,
    used_today: HashMap<UserId, u64>,
    recent: std::collections::VecDeque<Recent>,
    /// Jobs that are being written down, by user: they count as waiting already.
    reserved: Arc<Mutex<HashMap<UserId, usize>>>,
    forecast: Option<(Instant, Forecast)>,
}

/// The queue of all users.
#[derive(Debug)]
pub(crate) struct Queue {
    line: Mutex<Line>,
    /// Something may be started.
    pub(super) wake: Notify,
    /// What passes with time is worth a look.
    pub(super) look: Notify,
    /// Jobs are looked after by tasks of this.
    pub(super) tasks: TaskTracker,
    pub(super) stopping: CancellationToken,
    pub(crate) sockets: Sockets,
    owner_hold: Mutex<Option<OwnerHold>>,
    pub(super) store: Arc<Store>,
    /// A connection of its own for long reads, so that nobody's sign-in waits for them.
    pub(crate) reader: Store,
}

impl Queue {
    /// Takes up what an earlier run left. Jobs that were running wait again.
    pub(crate) fn open(
        store: Arc<Store>,
        reader: Store,
        config: &Config,
        day: String,
    ) -> Result<(Self, Vec<JobRow>), StoreError> {
        let mut given_up = Vec::new();
        let mut line = Line {
            fair: Fair::new(),
            details: HashMap::new(),
            running: HashMap::new(),
            slots: 1,
            rules: Rules { batch_ms: 0 },
            hold: None,
            next_seq: store.last_job()? + 1,
            numbers: store.last_numbers()?.into_iter().collect(),
            average: HashMap::new(),
            overall: None,
            loaded: None,
            used_today: store.gpu_time_on(day.clone())?.into_iter().collect(),
            day,
            recent: std::collections::VecDeque::new(),
            reserved: Arc::default(),
            forecast: None,
        };
        for row in store.unfinished_jobs()? {
            if row.state == JobState::Running && row.attempts >= MAX_ATTEMPTS {
                given_up.push(row);
                continue;
            }
            let details = Details {
                created_at: row.created_at,
                client_id: row.client_id.clone(),
                attempts: row.attempts,
                secrets: Secrets::default(),
            };
            line.details.insert(row.id, details);
            line.fair.add(Entry {
                id: row.id,
                user: row.user.clone(),
                number: row.number,
                seq: row.seq.unsigned_abs(),
                model: row.model,
                urgency: row.urgency,
            });
        }
        let queue = Self {
            line: Mutex::new(line),
            wake: Notify::new(),
            look: Notify::new(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            sockets: Sockets::default(),
            owner_hold: Mutex::new(OwnerHold::read(&store)),
            store,
            reader,
        };
        queue.follow(config);
        Ok((queue, given_up))
    }

    /// Brings changed settings into force.
    pub(crate) fn follow(&self, config: &Config) {
        let mut line = self.line.lock();
        line.rules.batch_ms = u64::from(config.queue.model_batch_seconds).saturating_mul(1000);
        drop(line);
        self.look.notify_one();
        self.wake.notify_one();
    }

    pub(super) fn set_slots(&self, slots: usize) {
        self.line.lock().slots = slots.max(1);
    }

    /// Tells how a new job goes on, and keeps its place. `engine`: free for it if it has no job.
    pub(crate) fn admit(
        &self,
        arrival: Arrival,
        limits: &RoleLimits,
        engine: &EngineId,
        is_full: &dyn Fn(&EngineId, &[EngineId]) -> bool,
        can_run: &dyn Fn(&UserId, Option<&Hold>) -> bool,
    ) -> Result<Admission, LimitFault> {
        let mut line = self.line.lock();
        let user = arrival.user.clone();
        line.fair.set_weight(&user, limits.weight);
        let reserved = Arc::clone(&line.reserved);
        let mut reserved = reserved.lock();
        let own_reserved = reserved.get(&user).copied().unwrap_or(0);
        if line.fair.len() + reserved.values().sum::<usize>() >= MAX_WAITING {
            return Err(LimitFault::Full);
        }
        if let Some(most) = limits.jobs_waiting
            && line.fair.waiting_of(&user) + own_reserved >= most
        {
            return Err(LimitFault::JobsWaiting(most));
        }
        line.check_day(&user, limits)?;
        let seq = line.next_seq;
        line.next_seq += 1;
        let own_number = line.numbers.entry(user.clone()).or_default();
        *own_number += 1;
        let own_number = exact(*own_number);
        let number = match arrival.number {
            Some(number) if number.is_finite() => number,
            _ if arrival.is_front => -own_number,
            _ => own_number,
        };
        let entry = Entry {
            id: arrival.id,
            user: user.clone(),
            number,
            seq: seq.unsigned_abs(),
            model: arrival.model,
            urgency: Urgency::Normal,
        };
        let details = Details {
            created_at: arrival.created_at,
            client_id: arrival.client_id,
            attempts: 0,
            secrets: arrival.secrets,
        };
        let hold = line.hold;
        let busy: Vec<EngineId> = line
            .running
            .values()
            .map(|job| job.engine.clone())
            .collect();
        let is_free = line.running.len() < line.slots
            && line.fair.is_empty()
            && reserved.is_empty()
            && can_run(&user, hold.as_ref())
            && !busy.contains(engine)
            && !is_full(engine, &busy);
        if !is_free {
            *reserved.entry(user).or_default() += 1;
            return Ok(Admission::Later(Box::new(Reservation {
                reserved: Arc::clone(&line.reserved),
                entry,
                details,
            })));
        }
        line.fair.add(entry);
        line.details.insert(arrival.id, details);
        match line.begin(arrival.id, engine, arrival.created_at) {
            Some(running) => Ok(Admission::Now(Box::new(running))),
            None => Err(LimitFault::Full),
        }
    }

    /// A job that has to wait is written down: it takes its place.
    pub(crate) fn enqueue(&self, reservation: &Reservation) {
        let mut line = self.line.lock();
        let entry = reservation.entry.clone();
        let user = entry.user.clone();
        line.details.insert(entry.id, reservation.details.clone());
        line.fair.add(entry);
        line.forecast = None;
        drop(line);
        self.tell_count(&user);
        self.wake.notify_one();
    }

    /// The next job to run, if one can; it counts as running from now on.
    pub(super) fn next(
        &self,
        now_ms: i64,
        engine_of: &dyn Fn(&UserId) -> Option<EngineId>,
        is_full: &dyn Fn(&EngineId, &[EngineId]) -> bool,
        can_run: &dyn Fn(&UserId, Option<&Hold>) -> bool,
        limits_of: &dyn Fn(&UserId) -> RoleLimits,
    ) -> Option<Running> {
        let mut line = self.line.lock();
        if line.running.len() >= line.slots || line.fair.is_empty() {
            return None;
        }
        let id = {
            let line = &*line;
            let busy: Vec<EngineId> = line
                .running
                .values()
                .map(|job| job.engine.clone())
                .collect();
            let runs = |entry: &Entry| {
                can_run(&entry.user, line.hold.as_ref())
                    && line.check_day(&entry.user, &limits_of(&entry.user)).is_ok()
                    && engine_of(&entry.user)
                        .is_some_and(|engine| !busy.contains(&engine) && !is_full(&engine, &busy))
            };
            line.fair.pick(
                &line.rules,
                line.loaded,
                &|entry| line.expected(&entry.user),
                &runs,
            )?
        };
        let engine = engine_of(&line.fair.get(id)?.user)?;
        let running = line.begin(id, &engine, now_ms);
        line.forecast = None;
        running
    }

    /// Users with waiting jobs.
    pub(super) fn waiting_users(&self) -> Vec<(UserId, usize)> {
        let line = self.line.lock();
        let mut users: HashMap<UserId, usize> = HashMap::new();
        for user in line.fair.users() {
            users.insert(user.clone(), line.fair.waiting_of(user));
        }
        users.into_iter().collect()
    }

    /// A job runs: its owner's pages count it.
    pub(crate) fn begin_count(&self, user: &UserId) {
        self.tell_count(user);
    }

    /// Looks after a job until it ends.
    pub(crate) fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(job);
    }

    /// Ends all tasks of the queue; jobs that run wait for the next start.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A job that was to run does not: the engine refused it, or it could not be written down.
    pub(crate) fn refused(&self, id: JobId) {
        let mut line = self.line.lock();
        let gone = line.running.remove(&id);
        if let Some(running) = &gone {
            line.fair.ended(&running.entry.user, running.expected_ms, 0);
        }
        drop(line);
        if let Some(running) = gone {
            self.tell_count(&running.entry.user);
        }
        self.wake.notify_one();
    }

    /// A running job goes back to its place in the line. `is_charged`: its time on the GPU counts.
    pub(super) fn put_back(&self, id: JobId, attempts: u32, is_charged: bool) {
        let mut line = self.line.lock();
        let Some(running) = line.running.remove(&id) else {
            return;
        };
        let used = if is_charged {
            running.since.elapsed()
        } else {
            Duration::ZERO
        };
        line.fair
            .ended(&running.entry.user, running.expected_ms, milliseconds(used));
        let details = Details {
            attempts,
            ..running.details
        };
        line.details.insert(id, details);
        line.fair.add(running.entry);
        line.forecast = None;
        drop(line);
        self.wake.notify_one();
    }

    /// A running job has ended and is written down.
    pub(super) fn finished(&self, id: JobId, gpu_ms: u64, day: &str, recent: Recent) {
        let mut line = self.line.lock();
        let user = recent.user.clone();
        if let Some(running) = line.running.remove(&id) {
            line.fair.ended(&user, running.expected_ms, gpu_ms);
            if recent.state == JobState::Completed {
                line.measure(&user, gpu_ms);
            }
        }
        line.fair.remove(id);
        line.details.remove(&id);
        if line.day != day {
            day.clone_into(&mut line.day);
            line.used_today.clear();
        }
        *line.used_today.entry(user.clone()).or_default() += gpu_ms;
        if line.recent.len() >= RECENT {
            line.recent.pop_front();
        }
        line.recent.push_back(recent);
        line.forecast = None;
        drop(line);
        self.tell_count(&user);
        self.wake.notify_one();
    }

    /// A new day begins everybody's GPU time anew.
    pub(super) fn note_day(&self, day: &str) {
        let mut line = self.line.lock();
        if line.day != day {
            day.clone_into(&mut line.day);
            line.used_today.clear();
        }
    }

    /// What runs, as it stands.
    pub(crate) fn running(&self) -> Vec<Running> {
        let mut running: Vec<Running> = self.line.lock().running.values().cloned().collect();
        running.sort_by_key(|job| (job.handed_at, job.entry.seq));
        running
    }

    pub(super) fn running_job(&self, id: JobId) -> Option<Running> {
        self.line.lock().running.get(&id).cloned()
    }

    /// Asks for the end of a running job; `false` if it does not run, or not for this user.
    pub(crate) fn interrupt(&self, id: JobId, user: Option<&UserId>, intent: Intent) -> bool {
        let mut line = self.line.lock();
        let Some(running) = line.running.get_mut(&id) else {
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

    /// Takes waiting jobs out of the line: those of `ids` that belong to `user`, or any user's.
    /// What is returned must be removed from the store.
    pub(crate) fn withdraw(&self, ids: &[JobId], user: Option<&UserId>) -> Vec<Entry> {
        let mut line = self.line.lock();
        let mut gone = Vec::new();
        for id in ids {
            let is_own = line
                .fair
                .get(*id)
                .is_some_and(|entry| user.is_none_or(|user| entry.user == *user));
            if is_own && let Some(entry) = line.fair.remove(*id) {
                line.details.remove(id);
                gone.push(entry);
            }
        }
        line.forecast = None;
        drop(line);
        let mut users: Vec<&UserId> = gone.iter().map(|entry| &entry.user).collect();
        users.dedup();
        for user in users {
            self.tell_count(user);
        }
        gone
    }

    /// Ids of a user's waiting jobs, in own order.
    pub(crate) fn own_waiting(&self, user: &UserId) -> Vec<JobId> {
        let line = self.line.lock();
        line.fair.own(user).map(|entry| entry.id).collect()
    }

    /// An admin moves a waiting job.
    pub(crate) fn set_urgency(&self, id: JobId, urgency: Urgency) -> bool {
        let mut line = self.line.lock();
        line.forecast = None;
        let is_known = line.fair.set_urgency(id, urgency);
        drop(line);
        self.wake.notify_one();
        is_known
    }

    /// Running and waiting jobs of a user, as ComfyUI counts them.
    pub(crate) fn remaining(&self, user: &UserId) -> usize {
        let line = self.line.lock();
        let running = line
            .running
            .values()
            .filter(|job| job.entry.user == *user)
            .count();
        running + line.fair.waiting_of(user)
    }

    /// Waiting jobs in all.
    pub(crate) fn waiting(&self) -> usize {
        self.line.lock().fair.len()
    }

    /// Jobs of a user that wait.
    pub(crate) fn waiting_of(&self, user: &UserId) -> usize {
        self.line.lock().fair.waiting_of(user)
    }

    /// How many jobs may run at once.
    pub(crate) fn slots(&self) -> usize {
        self.line.lock().slots
    }

    /// Whether jobs are held back, and why.
    pub(crate) fn hold(&self) -> Option<Hold> {
        self.line.lock().hold
    }

    /// The owner's own wish.
    pub(crate) fn owner_hold(&self) -> Option<OwnerHold> {
        *self.owner_hold.lock()
    }

    /// The owner needs his GPU, or gives it back.
    pub(crate) fn set_owner_hold(&self, hold: Option<OwnerHold>) {
        *self.owner_hold.lock() = hold;
        OwnerHold::keep(&self.store, hold.as_ref());
    }

    /// As [`Self::set_owner_hold`], in force at once.
    pub(crate) fn hold_for_owner(&self, wish: Option<OwnerHold>) {
        self.set_owner_hold(wish);
        let hold = wish.map(|wish| Hold {
            reason: HoldReason::Owner,
            since: wish.since,
            until: wish.until,
            until_idle: wish.until_idle,
        });
        self.set_hold(hold);
        self.look.notify_one();
    }

    pub(super) fn set_hold(&self, hold: Option<Hold>) -> bool {
        let mut line = self.line.lock();
        let is_new = line.hold != hold;
        line.hold = hold;
        line.forecast = None;
        drop(line);
        if is_new {
            self.wake.notify_one();
        }
        is_new
    }

    /// Whose job is the only one that runs; `None` if none or several do.
    pub(crate) fn only_runner(&self) -> Option<UserId> {
        let line = self.line.lock();
        let mut users = line.running.values().map(|job| &job.entry.user);
        let first = users.next()?;
        users.all(|user| user == first).then(|| first.clone())
    }

    /// Whether a user has no GPU time left today, so that his jobs wait until the next day.
    pub(crate) fn is_used_up(&self, user: &UserId, limits: &RoleLimits) -> bool {
        self.line.lock().check_day(user, limits).is_err()
    }

    /// GPU time of a user today, ms.
    pub(crate) fn used_today(&self, user: &UserId) -> u64 {
        let line = self.line.lock();
        line.used_today.get(user).copied().unwrap_or(0)
    }

    /// Jobs of a user that have ended lately, newest first.
    pub(crate) fn recent(&self, user: &UserId) -> Vec<Recent> {
        let line = self.line.lock();
        let own = line.recent.iter().rev().filter(|job| job.user == *user);
        own.take(20).cloned().collect()
    }

    /// Details of a waiting job.
    pub(crate) fn waiting_job(&self, id: JobId) -> Option<(Entry, Details)> {
        let line = self.line.lock();
        Some((line.fair.get(id)?.clone(), line.details.get(&id)?.clone()))
    }

    /// All waiting jobs in the expected order, with the milliseconds until each starts; the first
    /// thousands of them.
    pub(crate) fn forecast(&self) -> Forecast {
        let (fair, rules, average, overall, remaining, slots) = {
            let line = self.line.lock();
            if let Some((at, known)) = &line.forecast
                && at.elapsed() < FORECAST_LIFE
            {
                return Arc::clone(known);
            }
            let remaining: Vec<u64> = line
                .running
                .values()
                .map(|job| {
                    job.expected_ms
                        .saturating_sub(milliseconds(job.since.elapsed()))
                })
                .collect();
            (
                line.fair.clone(),
                line.rules,
                line.average.clone(),
                line.overall,
                remaining,
                line.slots,
            )
        };
        let expected = |entry: &Entry| expected(&average, overall, &entry.user);
        let forecast = Arc::new(fair.forecast(&rules, &expected, &remaining, slots, FORECAST_JOBS));
        self.line.lock().forecast = Some((Instant::now(), Arc::clone(&forecast)));
        forecast
    }

    /// Tells a user's pages how many jobs he has.
    pub(super) fn tell_count(&self, user: &UserId) {
        self.sockets.count_may_differ(user);
    }
}

impl Line {
    fn begin(&mut self, id: JobId, engine: &EngineId, now_ms: i64) -> Option<Running> {
        let expected_ms = self.expected(&self.fair.get(id)?.user);
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
        Some(running)
    }

    fn expected(&self, user: &UserId) -> u64 {
        expected(&self.average, self.overall, user)
    }

    fn measure(&mut self, user: &UserId, gpu_ms: u64) {
        let mix = |known: u64| (known * (AVERAGE_OVER - 1) + gpu_ms) / AVERAGE_OVER;
        // Users come and go; what is known of those who are gone is worth little.
        if self.average.len() > 10_000 {
            self.average.clear();
        }
        let own = self.average.entry(user.clone()).or_insert(gpu_ms);
        *own = mix(*own);
        self.overall = Some(self.overall.map_or(gpu_ms, mix));
    }

    fn check_day(&self, user: &UserId, limits: &RoleLimits) -> Result<(), LimitFault> {
        let used = self.used_today.get(user).copied().unwrap_or(0);
        match limits.gpu_a_day {
            Some(most) if used >= milliseconds(most.duration()) => {
                Err(LimitFault::GpuMinutes(most.count()))
            }
            _ => Ok(()),
        }
    }
}

fn expected(average: &HashMap<UserId, u64>, overall: Option<u64>, user: &UserId) -> u64 {
    average
        .get(user)
        .copied()
        .or(overall)
        .unwrap_or(milliseconds(UNKNOWN_JOB))
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Numbers of arrival stay far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "stays far below 2^53")]
fn exact(seq: i64) -> f64 {
    seq as f64
}
