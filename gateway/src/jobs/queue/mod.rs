//! The line before the GPU: which jobs wait and run, and who may have how much. What must outlive a
//! restart is in the store, written before it counts here.
//!
//! - [`Queue`] is what everybody shares: it locks the line, and wakes and tells whom a change
//!   concerns;
//! - `line` is the line itself, `job` what is known of a job in it, `reservation` a place for one
//!   that is being written down;
//! - `limits` says who may have how much, `forecast` when a waiting job will start.

mod forecast;
mod job;
mod limits;
mod line;
mod reservation;
#[cfg(test)]
mod tests;

pub(crate) use forecast::Forecast;
pub(crate) use job::{Arrival, Back, Details, Intent, Recent, Running};
pub(crate) use limits::{LimitFault, RoleLimits};
pub(crate) use reservation::Reservation;

use super::event_gate::{AnswerTicket, EventGate};
use super::hold::{Hold, OwnerHold};
use super::order::{Entry, JobId, Urgency};
use super::sockets::Sockets;
use crate::accounts::UserId;
use crate::config::Config;
use crate::engine::EngineId;
use crate::store::{Store, StoreError};
use bytes::Bytes;
use limits::DayUse;
use line::Line;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A job that was handed over so often without an end is given up.
pub(super) const MAX_ATTEMPTS: u32 = 2;

/// Jobs that have ended and whose places are still to be noted.
const MAX_ENDED: usize = 1000;
/// Time for the tasks of jobs to end when the gateway stops.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What the line needs to know of everything else. It is asked while the line is locked, so that
/// the answers must come at once and must not ask the line.
pub(crate) trait Conditions {
    /// The engine of a user, if it is ready.
    fn engine_of(&self, user: &UserId) -> Option<EngineId>;
    /// Whether the GPU of an engine has all the jobs it may have, `busy` being the engines with
    /// jobs.
    fn is_full(&self, engine: &EngineId, busy: &[EngineId]) -> bool;
    /// Whether jobs of a user may run now.
    fn may_run(&self, user: &UserId, hold: Option<&Hold>) -> bool;
    /// What a user's role may have.
    fn limits_of(&self, user: &UserId) -> RoleLimits;
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
    /// Where those tasks live: a worker's runtime ends before the queue does.
    runtime: Handle,
    pub(crate) stopping: CancellationToken,
    pub(crate) sockets: Sockets,
    /// Holds events back until what they tell is written down.
    pub(crate) gate: Arc<EventGate>,
    owner_hold: Mutex<Option<OwnerHold>>,
    /// Jobs that wait for accounts that the account file does not hold.
    strangers_jobs: AtomicUsize,
    /// Jobs that have just ended, until it is noted where their files went.
    ended: Mutex<Vec<(JobId, UserId)>>,
    pub(super) store: Arc<Store>,
    /// A connection of its own for long reads, so that nobody's sign-in waits for them.
    pub(crate) reader: Store,
}

impl Queue {
    /// Takes up what an earlier run left. Needs the tokio runtime that lives as long as the gateway.
    pub(crate) fn open(
        store: Arc<Store>,
        reader: Store,
        config: &Config,
        day: String,
    ) -> Result<Self, StoreError> {
        let today = DayUse::new(day.clone(), store.gpu_time_on(day)?);
        let numbers = store.last_numbers()?.into_iter().collect();
        let mut line = Line::new(store.last_job()? + 1, numbers, today);
        for row in store.unfinished_jobs()? {
            line.take_up(row);
        }
        let queue = Self {
            line: Mutex::new(line),
            wake: Notify::new(),
            look: Notify::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            stopping: CancellationToken::new(),
            sockets: Sockets::default(),
            gate: Arc::default(),
            owner_hold: Mutex::new(OwnerHold::read(&store)),
            strangers_jobs: AtomicUsize::new(0),
            ended: Mutex::default(),
            store,
            reader,
        };
        queue.follow(config);
        Ok(queue)
    }

    /// Brings changed settings into force.
    pub(crate) fn follow(&self, config: &Config) {
        let batch_ms = u64::from(config.queue.model_batch_seconds).saturating_mul(1000);
        self.line.lock().set_batch(batch_ms);
        self.look.notify_one();
        self.wake.notify_one();
    }

    /// Ends all tasks of the queue; jobs that run wait for the next start.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        if timeout(STOP_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                tasks = self.tasks.len(),
                "jobs were still looked after when Sentinel had to stop"
            );
        }
    }

    /// Runs a task that must outlive the request it comes from.
    pub(crate) fn spawn<Output: Send + 'static>(
        &self,
        task: impl Future<Output = Output> + Send + 'static,
    ) -> JoinHandle<Output> {
        self.tasks.spawn_on(task, &self.runtime)
    }

    /// Tells how a new job goes on, and keeps its place. `engine`: free for it if it has no job.
    pub(crate) fn admit(
        &self,
        arrival: Arrival,
        engine: &EngineId,
        conditions: &impl Conditions,
    ) -> Result<Admission, LimitFault> {
        let mut line = self.line.lock();
        let admission = line.admit(arrival, engine, conditions);
        if let Ok(Admission::Now(job)) = &admission {
            self.gate.begin(job.entry.id, &job.nudge, false);
        }
        admission
    }

    /// A job that has to wait is written down: it takes its place.
    pub(crate) fn enqueue(&self, reservation: &Reservation) {
        let mut line = self.line.lock();
        // Under the lock: its run must not begin before.
        self.gate.expect_answer(reservation.entry.id);
        line.enqueue(reservation);
        drop(line);
        self.tell_count(&reservation.entry.user);
        self.wake.notify_one();
    }

    /// Stands for the answer to a job's `POST /prompt` until it is dropped.
    pub(crate) fn answer_ticket(&self, id: JobId) -> AnswerTicket {
        AnswerTicket {
            gate: Arc::clone(&self.gate),
            id,
        }
    }

    /// The next job to run, if one can; it counts as running from now on.
    pub(super) fn next(&self, now_ms: i64, conditions: &impl Conditions) -> Option<Running> {
        let mut line = self.line.lock();
        let next = line.next(now_ms, conditions)?;
        self.gate.begin(next.entry.id, &next.nudge, true);
        Some(next)
    }

    /// A job that was to run does not: the engine refused it, or it could not be written down.
    pub(crate) fn refused(&self, id: JobId) {
        let user = self.line.lock().refused(id);
        self.gate.forget(id);
        if let Some(user) = user {
            self.tell_count(&user);
        }
        self.wake.notify_one();
    }

    /// A running job goes back to its place in the line. Returns false if somebody has cancelled it
    /// meanwhile: then it stays, and has to be ended.
    pub(super) fn put_back(&self, id: JobId, back: Back) -> bool {
        let mut line = self.line.lock();
        let goes_back = line.put_back(id, back);
        if goes_back {
            // Under the lock: the next run must not begin before.
            self.gate.put_back(id);
        }
        drop(line);
        self.wake.notify_one();
        goes_back
    }

    /// A running job has ended and is written down. `gpu_ms` counts for `day`; `instead` is what pages
    /// are told in place of its interruption.
    pub(super) fn finished(&self, job: Recent, gpu_ms: u64, day: &str, instead: Option<Bytes>) {
        let (id, user) = (job.id, job.user.clone());
        {
            let mut ended = self.ended.lock();
            if ended.len() < MAX_ENDED {
                ended.push((id, user.clone()));
            }
        }
        self.line.lock().finished(job, gpu_ms, day);
        // The pages that wait for the end find the new count.
        self.gate.settled(id, instead);
        self.tell_count(&user);
        self.wake.notify_one();
    }

    /// Jobs that have ended since this was asked last; the first of very many.
    pub(super) fn take_ended(&self) -> Vec<(JobId, UserId)> {
        std::mem::take(&mut *self.ended.lock())
    }

    /// An engine could not be reached: no job goes to it for a while. Returns how long.
    pub(super) fn engine_unreachable(&self, engine: &EngineId) -> Duration {
        self.line.lock().engine_unreachable(engine)
    }

    /// An engine has answered.
    pub(super) fn engine_reached(&self, engine: &EngineId) {
        self.line.lock().engine_reached(engine);
    }

    /// Asks for the end of a running job; `false` if it does not run, or not for this user.
    pub(crate) fn interrupt(&self, id: JobId, user: Option<&UserId>, intent: Intent) -> bool {
        self.line.lock().interrupt(id, user, intent)
    }

    /// Those of `ids` that wait and belong to `user`, or any user's.
    pub(crate) fn withdrawable(&self, ids: &[JobId], user: Option<&UserId>) -> Vec<JobId> {
        let line = self.line.lock();
        let is_meant = |id: &JobId| {
            line.waiting_job(*id)
                .is_some_and(|(entry, _)| user.is_none_or(|user| entry.user == *user))
        };
        ids.iter().copied().filter(is_meant).collect()
    }

    /// Takes waiting jobs out of the store and then out of the line: those of `ids` that belong to
    /// `user`, or any user's. Returns those that are gone for good; a job that begins to run meanwhile is
    /// none of them.
    pub(crate) async fn cancel_waiting(
        &self,
        ids: &[JobId],
        user: Option<&UserId>,
    ) -> Result<Vec<JobId>, StoreError> {
        let meant = self.withdrawable(ids, user);
        if meant.is_empty() {
            return Ok(Vec::new());
        }
        let removed = self.store.remove_waiting_jobs(meant).await?;
        self.withdraw(&removed, user);
        Ok(removed)
    }

    /// Takes waiting jobs out of the line: those of `ids` that belong to `user`, or any user's. They must
    /// be gone from the store.
    fn withdraw(&self, ids: &[JobId], user: Option<&UserId>) {
        let gone = self.line.lock().withdraw(ids, user);
        for entry in &gone {
            self.gate.forget(entry.id);
        }
        let mut users: Vec<&UserId> = gone.iter().map(|entry| &entry.user).collect();
        users.dedup();
        for user in users {
            self.tell_count(user);
        }
    }

    /// An admin moves a waiting job.
    pub(crate) fn set_urgency(&self, id: JobId, urgency: Urgency) -> bool {
        let is_known = self.line.lock().set_urgency(id, urgency);
        self.wake.notify_one();
        is_known
    }

    /// How many jobs may run at once.
    pub(super) fn set_slots(&self, slots: usize) {
        self.line.lock().set_slots(slots);
    }

    /// Something has changed that is otherwise looked at now and then.
    pub(crate) fn look_soon(&self) {
        self.look.notify_one();
    }

    /// A new day begins everybody's GPU time anew.
    pub(super) fn note_day(&self, day: &str) {
        self.line.lock().turn_to(day);
    }

    /// A user's pages look how many jobs he has, and tell if it is another number than before.
    pub(crate) fn tell_count(&self, user: &UserId) {
        self.sockets.count_may_differ(user);
    }
}

/// Who holds jobs back.
impl Queue {
    /// Whether jobs are held back, and why.
    pub(crate) fn hold(&self) -> Option<Hold> {
        self.line.lock().hold()
    }

    /// The owner's own wish.
    pub(crate) fn owner_hold(&self) -> Option<OwnerHold> {
        *self.owner_hold.lock()
    }

    /// The owner needs his GPU, or gives it back.
    pub(super) fn set_owner_hold(&self, wish: Option<OwnerHold>) {
        *self.owner_hold.lock() = wish;
        OwnerHold::keep(&self.store, wish.as_ref());
    }

    /// The owner needs his GPU, or gives it back: in force at once.
    pub(crate) fn hold_for_owner(&self, wish: Option<OwnerHold>) {
        self.set_owner_hold(wish);
        self.set_hold(wish.map(Hold::from));
        self.look.notify_one();
    }

    /// Whether it is another one than before.
    pub(super) fn set_hold(&self, hold: Option<Hold>) -> bool {
        let is_new = self.line.lock().set_hold(hold);
        if is_new {
            self.wake.notify_one();
        }
        is_new
    }
}

/// How it stands.
impl Queue {
    /// How many jobs may run at once.
    pub(crate) fn slots(&self) -> usize {
        self.line.lock().slots()
    }

    /// What runs, in the order in which it was handed over.
    pub(crate) fn running(&self) -> Vec<Running> {
        self.line.lock().running()
    }

    /// Why a running job is to end by hand, if it is.
    pub(super) fn intent(&self, id: JobId) -> Option<Intent> {
        self.line.lock().running_job(id)?.intent
    }

    /// Whose job is the only one that runs; `None` if none or several do.
    pub(crate) fn only_runner(&self) -> Option<UserId> {
        self.line.lock().only_runner()
    }

    /// Running and waiting jobs of a user, as ComfyUI counts them.
    pub(crate) fn remaining(&self, user: &UserId) -> usize {
        let line = self.line.lock();
        line.running_of(user) + line.waiting_of(user)
    }

    /// Jobs that wait for accounts that the account file does not hold.
    pub(crate) fn strangers_jobs(&self) -> usize {
        self.strangers_jobs.load(Ordering::Relaxed)
    }

    /// Returns how many there were before.
    pub(super) fn set_strangers_jobs(&self, count: usize) -> usize {
        self.strangers_jobs.swap(count, Ordering::Relaxed)
    }

    /// Waiting jobs in all.
    pub(crate) fn waiting(&self) -> usize {
        self.line.lock().waiting()
    }

    /// Jobs of a user that wait.
    pub(crate) fn waiting_of(&self, user: &UserId) -> usize {
        self.line.lock().waiting_of(user)
    }

    /// Users with waiting jobs, and how many.
    pub(super) fn waiting_users(&self) -> Vec<(UserId, usize)> {
        self.line.lock().waiting_users()
    }

    /// Ids of a user's waiting jobs, in own order.
    pub(crate) fn own_waiting(&self, user: &UserId) -> Vec<JobId> {
        self.line.lock().own_waiting(user)
    }

    /// A waiting job.
    pub(crate) fn waiting_job(&self, id: JobId) -> Option<(Entry, Details)> {
        self.line.lock().waiting_job(id)
    }

    /// Whether a user has no GPU time left today, so that his jobs wait until the next day.
    pub(crate) fn is_used_up(&self, user: &UserId, limits: &RoleLimits) -> bool {
        limits.check_day(self.used_today(user)).is_err()
    }

    /// GPU time of a user today, milliseconds.
    pub(crate) fn used_today(&self, user: &UserId) -> u64 {
        self.line.lock().used_today(user)
    }

    /// Jobs of a user that have ended lately, newest first.
    pub(crate) fn recent(&self, user: &UserId) -> Vec<Recent> {
        self.line.lock().recent(user)
    }

    /// All waiting jobs in the expected order, with the milliseconds until each starts; the first
    /// thousands of them.
    pub(crate) fn forecast(&self) -> Forecast {
        let snapshot = {
            let line = self.line.lock();
            if let Some(known) = line.known_forecast() {
                return known;
            }
            line.snapshot()
        };
        let forecast = snapshot.forecast();
        self.line.lock().keep_forecast(&forecast);
        forecast
    }
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
