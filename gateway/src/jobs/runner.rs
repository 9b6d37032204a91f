//! One job in an engine: handed over, watched until it ends, and written down. A job is in exactly
//! one task of these, which ends with it.

use super::outcome;
use super::prompt;
use super::queue::{Conditions as _, Intent, MAX_ATTEMPTS, Recent, Running, milliseconds};
use crate::app::App;
use crate::clock;
use crate::engine::client::{self, Taken};
use crate::engine::{Engine, Events};
use crate::http::chain;
use crate::store::{FinishedJob, JobOutcome, JobState};
use crate::supervisor::EngineStatus;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Between two looks at a job of which no event would tell.
const LOOK: Duration = Duration::from_secs(1);
/// Between two looks at a job of which an event will tell.
const CALM_LOOK: Duration = Duration::from_secs(10);
/// Looks in a row at an engine that has neither the job nor a record of it until the job counts as lost.
const LOST_AFTER: u32 = 5;
/// Between two tries to write down what must be written down.
const WRITE_PAUSE: Duration = Duration::from_secs(2);
/// Between two tries to end a job.
const INTERRUPT_AGAIN: Duration = Duration::from_secs(2);
/// Between two tries to restart an engine that does not end a job.
const RESTART_AGAIN: Duration = Duration::from_secs(60);

/// Hands a job over to its engine and stays with it.
pub(super) async fn hand_over(app: Arc<App>, engine: Arc<Engine>, job: Running) {
    let id = job.entry.id;
    let Some(address) = engine.address() else {
        app.jobs.put_back(id, job.details.attempts, false);
        return;
    };
    let texts = match app.jobs.store.hand_job(id, clock::now_ms()).await {
        Ok(Some(texts)) => texts,
        Ok(None) => {
            app.jobs.refused(id);
            return;
        }
        Err(error) => {
            tracing::error!(error = %chain(&error), "a job waits on: it cannot be written down");
            sleep(WRITE_PAUSE).await;
            app.jobs.put_back(id, job.details.attempts, false);
            return;
        }
    };
    if job.details.attempts > 0
        && let Ok(answer) = client::history(address, &id.to_string()).await
        && let Some(outcome) = outcome::from_history(&answer, &id.to_string())
    {
        // An engine that outlived us has finished it meanwhile.
        settle(&app, address, &job, Box::new(outcome), None).await;
        return;
    }
    app.engines.make_room_for(&engine).await;
    let body = prompt::body(
        id,
        job.details.client_id.as_deref(),
        Some(&texts.prompt),
        &texts.extra,
        &texts.rest,
        &job.details.secrets,
    );
    let posted = client::post_prompt(address, body).await;
    engine.prompt_was_passed();
    let attempts = job.details.attempts + 1;
    match posted {
        Ok(Taken::Yes) => watch(app, engine, address, job, attempts).await,
        Ok(Taken::No(refusal)) => {
            engine.job_has_ended();
            let error = outcome::error_data(&id.to_string(), &refusal, clock::now_ms());
            fail(&app, &job, error).await;
        }
        Err(error) => {
            tracing::warn!(engine = %engine.id(), error = %chain(&error), "ComfyUI did not take a job");
            interrupted(&app, &job, attempts).await;
        }
    }
}

/// Stays with a job that an engine has taken, until it ends.
pub(crate) async fn watch(
    app: Arc<App>,
    engine: Arc<Engine>,
    address: SocketAddr,
    job: Running,
    attempts: u32,
) {
    let ended = until_end(&app, &engine, address, &job).await;
    engine.job_has_ended();
    let id = job.entry.id;
    match ended {
        Ended::Recorded(outcome) => {
            let intent = app.jobs.intent(id);
            settle(&app, address, &job, outcome, intent).await;
        }
        Ended::EngineGone => interrupted(&app, &job, attempts).await,
        Ended::Stopping => {
            // The next run takes it up; it is nobody's fault.
            if let Err(error) = app.jobs.store.put_job_back(id, false).await {
                tracing::warn!(error = %chain(&error), "a job could not be put back");
            }
        }
    }
}

enum Ended {
    Recorded(Box<JobOutcome>),
    EngineGone,
    Stopping,
}

async fn until_end(app: &App, engine: &Engine, address: SocketAddr, job: &Running) -> Ended {
    let id = job.entry.id.to_string();
    let mut status = engine.watch();
    let mut events = Events::open(address).await.ok();
    let mut misses = 0;
    let limit = app.limits_of(&job.entry.user).longest_job;
    let mut deadline = limit.map(|limit| Instant::from_std(job.since + limit.duration()));
    let mut interrupt_at: Option<Instant> = None;
    let mut restart_at: Option<Instant> = None;
    loop {
        let seen = look(engine, address, &id).await;
        let is_there = matches!(seen, Seen::There);
        match seen {
            Seen::Ended(outcome) => return Ended::Recorded(outcome),
            Seen::Nowhere => misses += 1,
            Seen::There | Seen::Unknown => misses = 0,
        }
        if misses >= LOST_AFTER {
            tracing::warn!(engine = %engine.id(), job = %id, "ComfyUI has lost a job");
            return Ended::EngineGone;
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            deadline = None;
            app.jobs.interrupt(job.entry.id, None, Intent::TooLong);
        }
        let wants_end = app.jobs.intent(job.entry.id).is_some();
        if wants_end && interrupt_at.is_none_or(|at| now >= at) {
            interrupt_at = Some(now + INTERRUPT_AGAIN);
            engine.end_job(address, &id).await;
        }
        if wants_end && let Some(grace) = app.config.current().queue.interrupt_grace() {
            let at = *restart_at.get_or_insert(now + grace);
            if now >= at && engine.is_ours() {
                restart_at = Some(now + RESTART_AGAIN);
                tracing::warn!(engine = %engine.id(), job = %id, "ComfyUI does not end a job and is restarted");
                app.engines.restart_one(engine.id().clone());
            }
        }
        let is_calm = is_there && events.is_some() && !wants_end;
        let next_look = sleep_until(next_look(Instant::now(), is_calm, deadline));
        tokio::pin!(next_look);
        loop {
            tokio::select! {
                () = app.jobs.stopping.cancelled() => return Ended::Stopping,
                is_gone = gone(&mut status, address) => if is_gone {
                    return Ended::EngineGone;
                },
                () = job.nudge.notified() => break,
                () = &mut next_look => break,
                count = next_count(&mut events) => match count {
                    Some(_) => break,
                    None => {
                        // Nothing tells of its end any more.
                        events = None;
                        next_look.as_mut().reset(Instant::now() + LOOK);
                    }
                },
            }
        }
        if events.is_none() {
            events = Events::open(address).await.ok();
        }
    }
}

/// When to look at a job the next time if nothing happens. `is_calm`: the engine has it, and will
/// tell when its queue changes; the slow look is there for what might be wrong with that.
fn next_look(now: Instant, is_calm: bool, deadline: Option<Instant>) -> Instant {
    let at = now + if is_calm { CALM_LOOK } else { LOOK };
    deadline.map_or(at, |deadline| at.min(deadline))
}

/// What an engine shows of a job.
enum Seen {
    Ended(Box<JobOutcome>),
    /// The engine has jobs.
    There,
    /// The engine has no job, and no record of this one.
    Nowhere,
    Unknown,
}

async fn look(engine: &Engine, address: SocketAddr, id: &str) -> Seen {
    let told = match client::history(address, id).await {
        Ok(answer) => match outcome::from_history(&answer, id) {
            Some(outcome) => return Seen::Ended(Box::new(outcome)),
            None => engine.count_jobs(address).await,
        },
        Err(error) => Err(error),
    };
    match told {
        Ok(0) => Seen::Nowhere,
        Ok(_) => Seen::There,
        Err(error) => {
            tracing::debug!(engine = %engine.id(), error = %chain(&error), "ComfyUI did not tell of a job");
            Seen::Unknown
        }
    }
}

async fn next_count(events: &mut Option<Events>) -> Option<u32> {
    match events {
        Some(events) => events.next_count().await.ok(),
        None => std::future::pending().await,
    }
}

/// Waits for a change; tells whether the engine that has the job is gone.
async fn gone(status: &mut watch::Receiver<EngineStatus>, address: SocketAddr) -> bool {
    status.changed().await.is_err() || status.borrow_and_update().address != Some(address)
}

/// The engine has recorded the end.
async fn settle(
    app: &App,
    address: SocketAddr,
    job: &Running,
    mut outcome: Box<JobOutcome>,
    intent: Option<Intent>,
) {
    if outcome.state == JobState::Cancelled {
        match intent {
            Some(Intent::PutBack) => {
                // Its next end must not be taken for this one.
                if let Err(error) = client::forget(address, &job.entry.id.to_string()).await {
                    tracing::warn!(error = %chain(&error), "ComfyUI did not forget a job");
                }
                put_back(app, job, job.details.attempts, false).await;
                return;
            }
            Some(Intent::TooLong) => {
                let limit = app.limits_of(&job.entry.user).longest_job;
                let id = job.entry.id.to_string();
                let error = outcome::too_long(&id, limit, clock::now_ms());
                // Its page has heard of an interruption so far, of which nobody knows why.
                let event = json!({ "type": "execution_error", "data": error });
                let client = job.details.client_id.as_deref();
                app.jobs.sockets.tell(&job.entry.user, client, &event);
                *outcome = outcome::not_interrupted_but(*outcome, &error);
            }
            Some(Intent::Cancel) | None => {}
        }
    }
    finish(app, job, *outcome).await;
}

/// The engine ended while it had the job: it was to end anyway, or runs once more, but not for ever.
async fn interrupted(app: &App, job: &Running, attempts: u32) {
    let id = job.entry.id.to_string();
    match app.jobs.intent(job.entry.id) {
        Some(Intent::Cancel) => finish(app, job, outcome::cancelled(&id, clock::now_ms())).await,
        Some(Intent::TooLong) => {
            let limit = app.limits_of(&job.entry.user).longest_job;
            fail(app, job, outcome::too_long(&id, limit, clock::now_ms())).await;
        }
        Some(Intent::PutBack) => put_back(app, job, job.details.attempts, false).await,
        None if attempts >= MAX_ATTEMPTS => {
            fail(app, job, outcome::given_up(&id, clock::now_ms())).await;
        }
        None => put_back(app, job, attempts, true).await,
    }
}

async fn put_back(app: &App, job: &Running, attempts: u32, is_counted: bool) {
    let id = job.entry.id;
    while let Err(error) = app.jobs.store.put_job_back(id, is_counted).await {
        tracing::error!(error = %chain(&error), "a job cannot be put back; trying again");
        if is_stopping(app).await {
            return;
        }
    }
    app.jobs.put_back(id, attempts, is_counted);
}

/// A job that no engine will end: its owner is told as ComfyUI would.
async fn fail(app: &App, job: &Running, error: Value) {
    let id = job.entry.id.to_string();
    let event = json!({ "type": "execution_error", "data": error });
    let client = job.details.client_id.as_deref();
    let user = job.entry.user.clone();
    let start = json!({ "type": "execution_start", "data": { "prompt_id": id, "timestamp": error["timestamp"] } });
    app.jobs.sockets.tell(&user, client, &start);
    app.jobs.sockets.tell(&user, client, &event);
    let outcome = outcome::failed(&id, &error, clock::now_ms());
    finish(app, job, outcome).await;
    let end = json!({ "type": "executing", "data": { "node": null, "prompt_id": id } });
    app.jobs.sockets.tell(&user, client, &end);
}

/// Writes the end of a job down and tells of it.
async fn finish(app: &App, job: &Running, outcome: JobOutcome) {
    let gpu_ms = match (outcome.started_at, outcome.ended_at) {
        (Some(start), Some(end)) if end >= start => end.saturating_sub(start),
        _ => i64::try_from(milliseconds(job.since.elapsed())).unwrap_or(i64::MAX),
    };
    let recent = Recent {
        user: job.entry.user.clone(),
        id: job.entry.id,
        state: outcome.state,
        ended_at: clock::now(),
        reason: outcome.reason.clone(),
    };
    let day = clock::local_day();
    let finished = FinishedJob {
        id: job.entry.id,
        user: job.entry.user.clone(),
        handed_at: job.handed_at,
        ended_at: outcome.ended_at.unwrap_or_else(clock::now_ms),
        gpu_ms,
        waiting_ms: (job.handed_at - job.details.created_at).max(0),
        outcome,
    };
    // A job that is not written down would run again; so nothing else runs in its place until it
    // is.
    while let Err(error) = app
        .jobs
        .store
        .finish_job(finished.clone(), day.clone())
        .await
    {
        tracing::error!(error = %chain(&error), "the end of a job cannot be written down; trying again");
        if is_stopping(app).await {
            return;
        }
    }
    let gpu_ms = gpu_ms.unsigned_abs();
    app.jobs.finished(recent.clone(), gpu_ms, &day);
    super::notify::announce(app, &recent, gpu_ms).await;
}

/// Waits before another try; tells whether there is none.
async fn is_stopping(app: &App) -> bool {
    tokio::select! {
        () = app.jobs.stopping.cancelled() => true,
        () = sleep(WRITE_PAUSE) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_rare_while_an_event_would_tell_and_never_miss_the_deadline() {
        let now = Instant::now();
        let after = |milliseconds| now + Duration::from_millis(milliseconds);
        let table = [
            (false, None, 1000),
            (true, None, 10_000),
            (true, Some(after(4000)), 4000),
            (true, Some(after(60_000)), 10_000),
            (false, Some(after(4000)), 1000),
            (false, Some(after(200)), 200),
        ];
        for (is_calm, deadline, expected) in table {
            let at = next_look(now, is_calm, deadline);
            assert_eq!(at, after(expected), "{is_calm} {deadline:?}");
        }
    }
}
