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
pub(crate) use job::{Arrival, Details, Intent, Recent, Running};
pub(crate) use limits::{LimitFault, RoleLimits};
pub(crate) use reservation::Reservation;

use super::hold::{Hold, OwnerHold};
use super::order::{Entry, JobId, Urgency};
use super::sockets::Sockets;
use crate::accounts::UserId;
use crate::config::Config;
use crate::engine::EngineId;
use crate::store::{JobRow, JobState, Store, StoreError};
use limits::DayUse;
use line::Line;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A job that was handed over so often without an end is given up.
pub(super) const MAX_ATTEMPTS: u32 = 2;

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
    pub(crate) stopping: CancellationToken,
    pub(crate) sockets: Sockets,
    owner_hold: Mutex<Option<OwnerHold>>,
    pub(super) store: Arc<Store>,
    /// A connection of its own for long reads, so that nobody's sign-in waits for them.
    pub(crate) reader: Store,
}

impl Queue {
    /// Takes up what an earlier run left. Jobs that were running wait again, but for those that are
    /// returned: they ran too often without an end.
    pub(crate) fn open(
        store: Arc<Store>,
        reader: Store,
        config: &Config,
        day: String,
    ) -> Result<(Self, Vec<JobRow>), StoreError> {
        let today = DayUse::new(day.clone(), store.gpu_time_on(day)?);
        let numbers = store.last_numbers()?.into_iter().collect();
        let mut line = Line::new(store.last_job()? + 1, numbers, today);
        let (given_up, waiting): (Vec<JobRow>, Vec<JobRow>) = store
            .unfinished_jobs()?
            .into_iter()
            .partition(|row| row.state == JobState::Running && row.attempts >= MAX_ATTEMPTS);
        for row in waiting {
            line.take_up(row);
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
        let batch_ms = u64::from(config.queue.model_batch_seconds).saturating_mul(1000);
        self.line.lock().set_batch(batch_ms);
        self.look.notify_one();
        self.wake.notify_one();
    }

    /// Ends all tasks of the queue; jobs that run wait for the next start.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Looks after a job until it ends.
    pub(crate) fn spawn<Output: Send + 'static>(
        &self,
        job: impl Future<Output = Output> + Send + 'static,
    ) -> JoinHandle<Output> {
        self.tasks.spawn(job)
    }

    /// Tells how a new job goes on, and keeps its place. `engine`: free for it if it has no job.
    pub(crate) fn admit(
        &self,
        arrival: Arrival,
        engine: &EngineId,
        conditions: &impl Conditions,
    ) -> Result<Admission, LimitFault> {
        self.line.lock().admit(arrival, engine, conditions)
    }

    /// A job that has to wait is written down: it takes its place.
    pub(crate) fn enqueue(&self, reservation: &Reservation) {
        self.line.lock().enqueue(reservation);
        self.tell_count(&reservation.entry.user);
        self.wake.notify_one();
    }

    /// The next job to run, if one can; it counts as running from now on.
    pub(super) fn next(&self, now_ms: i64, conditions: &impl Conditions) -> Option<Running> {
        self.line.lock().next(now_ms, conditions)
    }

    /// A job that was to run does not: the engine refused it, or it could not be written down.
    pub(crate) fn refused(&self, id: JobId) {
        let user = self.line.lock().refused(id);
        if let Some(user) = user {
            self.tell_count(&user);
        }
        self.wake.notify_one();
    }

    /// A running job goes back to its place in the line. `is_charged`: its time on the GPU counts.
    pub(super) fn put_back(&self, id: JobId, attempts: u32, is_charged: bool) {
        self.line.lock().put_back(id, attempts, is_charged);
        self.wake.notify_one();
    }

    /// A running job has ended and is written down. `gpu_ms` counts for `day`.
    pub(super) fn finished(&self, job: Recent, gpu_ms: u64, day: &str) {
        let user = job.user.clone();
        self.line.lock().finished(job, gpu_ms, day);
        self.tell_count(&user);
        self.wake.notify_one();
    }

    /// Asks for the end of a running job; `false` if it does not run, or not for this user.
    pub(crate) fn interrupt(&self, id: JobId, user: Option<&UserId>, intent: Intent) -> bool {
        self.line.lock().interrupt(id, user, intent)
    }

    /// Takes waiting jobs out of the line: those of `ids` that belong to `user`, or any user's.
    /// What is returned must be removed from the store.
    pub(crate) fn withdraw(&self, ids: &[JobId], user: Option<&UserId>) -> Vec<Entry> {
        let gone = self.line.lock().withdraw(ids, user);
        let mut users: Vec<&UserId> = gone.iter().map(|entry| &entry.user).collect();
        users.dedup();
        for user in users {
            self.tell_count(user);
        }
        gone
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
