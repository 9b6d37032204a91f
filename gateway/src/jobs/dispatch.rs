//! The one task that hands jobs out: whenever something changed, it asks the queue for the next
//! one, and starts engines for jobs that wait for theirs.

use super::queue::{Hold, Intent, RoleLimits};
use super::{hold, runner};
use crate::accounts::UserId;
use crate::app::App;
use crate::clock;
use crate::engine::{EngineId, Visit};
use crate::http::chain;
use crate::store::{JobRow, JobState};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two rounds when nothing tells of a change.
const ROUND: Duration = Duration::from_secs(1);
/// Between two looks at the clock, the other programs and the accounts.
const SLOW_ROUND: Duration = Duration::from_secs(5);
/// Between two clean-ups of the history.
const TIDY: Duration = Duration::from_secs(3600);
/// Finished jobs that are kept of one user: as many as ComfyUI keeps.
const KEEP: i64 = 10_000;
/// Jobs whose files are looked for at once.
const BATCH: i64 = 200;

/// Runs until the queue stops.
pub(crate) async fn run(app: Arc<App>, given_up: Vec<JobRow>) {
    for row in given_up {
        give_up(&app, row).await;
    }
    let mut engines = app.engines.rounds();
    let mut watch = hold::Watch::new(&app);
    let mut slow_at: Option<Instant> = None;
    let mut tidy_at: Option<Instant> = None;
    loop {
        if slow_at.is_none_or(|at| at.elapsed() >= SLOW_ROUND) {
            slow_at = Some(Instant::now());
            look(&app, &mut watch).await;
        }
        if tidy_at.is_none_or(|at| at.elapsed() >= TIDY) {
            tidy_at = Some(Instant::now());
            app.jobs.tasks.spawn(tidy(Arc::clone(&app)));
        }
        round(&app);
        tokio::select! {
            () = app.jobs.stopping.cancelled() => return,
            () = app.jobs.wake.notified() => {}
            () = app.jobs.look.notified() => slow_at = None,
            changed = engines.changed() => if changed.is_err() {
                return;
            },
            () = sleep(ROUND) => {}
        }
    }
}

/// A job that was handed over before this run, too often.
async fn give_up(app: &Arc<App>, row: JobRow) {
    tracing::warn!(job = %row.id, "a job is given up: Sentinel or ComfyUI ended twice while it ran");
    let error = runner::given_up(row.id);
    let now = clock::now_ms();
    let outcome = super::outcome::failed(&row.id.to_string(), &error, now);
    let finished = crate::store::FinishedJob {
        id: row.id,
        user: row.user,
        state: JobState::Failed,
        handed_at: now,
        started_at: outcome.started_at,
        ended_at: now,
        gpu_ms: 0,
        waiting_ms: 0,
        reason: outcome.reason,
        summary: outcome.summary,
        execute: None,
        outputs: outcome.outputs,
        status: outcome.status,
        meta: outcome.meta,
    };
    if let Err(error) = app
        .jobs
        .store
        .finish_job(finished, clock::local_day())
        .await
    {
        tracing::error!(error = %chain(&error), "a job that was given up cannot be written down");
    }
}

fn round(app: &Arc<App>) {
    app.jobs.set_slots(slots(app));
    let engine_of = |user: &UserId| ready_engine(app, user);
    let runs = |user: &UserId, hold: Option<&Hold>| may_run(app, user, hold);
    let full = |engine: &EngineId, busy: &[EngineId]| is_full(app, engine, busy);
    let limits = |user: &UserId| limits_of(app, user);
    while let Some(job) = app
        .jobs
        .next(clock::now_ms(), &engine_of, &full, &runs, &limits)
    {
        let Some(engine) = app.engines.get(&job.engine) else {
            app.jobs.put_back(job.entry.id, job.details.attempts, false);
            break;
        };
        app.jobs.tell_count(&job.entry.user);
        app.jobs
            .tasks
            .spawn(runner::hand_over(Arc::clone(app), engine, job));
    }
    let hold = app.jobs.hold();
    for (user, waiting) in app.jobs.waiting_users() {
        if let Some(engine) = app.engines.of(&user) {
            engine.note_waiting(waiting);
        }
        if ready_engine(app, &user).is_none() && may_run(app, &user, hold.as_ref()) {
            app.engines.visit(&user, Visit::Program);
        }
    }
}

/// Jobs that may run at once.
pub(super) fn slots(app: &App) -> usize {
    if !app.engines.is_separate() {
        return 1;
    }
    let config = app.config.current();
    let each = usize::try_from(config.gpu_slots).unwrap_or(1);
    each.saturating_mul(config.gpus.len().max(1))
}

/// Whether the GPU of an engine has all the jobs it may have, `busy` being the engines with jobs.
pub(crate) fn is_full(app: &App, engine: &EngineId, busy: &[EngineId]) -> bool {
    let each = usize::try_from(app.config.current().gpu_slots).unwrap_or(1);
    let own = app.engines.device_of(engine);
    let same = busy.iter().filter(|other| {
        let others = app.engines.device_of(other);
        // One that is bound to none, such as from before the setting, may be on any.
        own.is_none() || others.is_none() || own == others
    });
    same.count() >= each
}

fn ready_engine(app: &App, user: &UserId) -> Option<EngineId> {
    let engine = app.engines.of(user)?;
    engine.address()?;
    Some(engine.id().clone())
}

/// Whether jobs of a user may run now.
pub(crate) fn may_run(app: &App, user: &UserId, hold: Option<&Hold>) -> bool {
    let accounts = app.accounts.peek();
    let is_shut_out = accounts.get(user).is_none_or(|account| account.disabled);
    drop(accounts);
    !is_shut_out && (hold.is_none() || app.engines.owner().as_ref() == Some(user))
}

/// What a user's role may have.
pub(crate) fn limits_of(app: &App, user: &UserId) -> RoleLimits {
    let is_admin = app
        .accounts
        .peek()
        .get(user)
        .is_some_and(|account| account.admin);
    RoleLimits::of(&app.config.current(), is_admin)
}

/// Whatever passes with time.
async fn look(app: &Arc<App>, watch: &mut hold::Watch) {
    app.jobs.note_day(&clock::local_day());
    let hold = watch.look(app).await;
    if app.jobs.set_hold(hold) {
        match hold {
            Some(hold) => tracing::info!(reason = hold.reason.name(), "jobs are held back"),
            None => tracing::info!("jobs run again"),
        }
        app.announcements.changed();
    }
    // Jobs of accounts that are gone go with them.
    let accounts = app.accounts.current();
    for (user, _) in app.jobs.waiting_users() {
        if accounts.get(&user).is_none() {
            let own = app.jobs.own_waiting(&user);
            let gone = app.jobs.withdraw(&own, Some(&user));
            let ids = gone.iter().map(|entry| entry.id).collect();
            if let Err(error) = app.jobs.store.remove_jobs(ids).await {
                tracing::error!(error = %chain(&error), "jobs of a deleted account could not be removed");
            }
        }
    }
    for job in app.jobs.running() {
        if accounts
            .get(&job.entry.user)
            .is_none_or(|account| account.disabled)
        {
            app.jobs.interrupt(job.entry.id, None, Intent::Cancel);
        }
    }
}

/// Ends the jobs of others than the owner, to be run again later.
pub(crate) fn put_back_others(app: &App) {
    let owner = app.engines.owner();
    for job in app.jobs.running() {
        if owner.as_ref() != Some(&job.entry.user) {
            app.jobs.interrupt(job.entry.id, None, Intent::PutBack);
        }
    }
}

/// Forgets finished jobs that are old, or whose files are gone.
async fn tidy(app: Arc<App>) {
    let days = i64::from(app.config.current().queue.history_days);
    let before = clock::now_ms() - days.saturating_mul(24 * 3600 * 1000);
    let users = app
        .accounts
        .current()
        .iter()
        .map(|account| account.id.as_str().to_owned())
        .collect();
    if let Err(error) = app.jobs.store.tidy_jobs(users, before, KEEP).await {
        tracing::warn!(error = %chain(&error), "the history could not be tidied");
        return;
    }
    let mut after = 0;
    loop {
        let Ok(batch) = app.jobs.reader.finished_outputs(after, BATCH).await else {
            return;
        };
        let Some((last, ..)) = batch.last() else {
            return;
        };
        after = *last;
        let mut gone = Vec::new();
        for (_, id, user, outputs) in batch {
            let files = super::outcome::files(&outputs);
            let Some(places) = app.engines.places_of(&user) else {
                continue;
            };
            let is_gone = tokio::task::spawn_blocking(move || {
                !files.is_empty() && files.iter().all(|file| !places.has_file(file))
            });
            if is_gone.await.unwrap_or(false) {
                gone.push(id);
            }
        }
        if !gone.is_empty()
            && let Err(error) = app.jobs.store.remove_jobs(gone).await
        {
            tracing::warn!(error = %chain(&error), "the history could not be tidied");
            return;
        }
        if app.jobs.stopping.is_cancelled() {
            return;
        }
    }
}
