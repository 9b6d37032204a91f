//! One job in an engine: handed over, watched until it ends, and written down. A job is in exactly
//! one task of these, which ends with it.

use super::order::JobId;
use super::outcome::{self, Outcome};
use super::queue::{Intent, MAX_ATTEMPTS, Recent, Running, milliseconds};
use super::submission;
use crate::app::App;
use crate::clock;
use crate::engine::Engine;
use crate::engine::client::{self, Events, Taken};
use crate::http::chain;
use crate::store::{FinishedJob, JobState};
use crate::supervisor::EngineStatus;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// Between two looks at a job when no event tells of it.
const LOOK: Duration = Duration::from_secs(1);
/// Looks at an engine that has neither the job nor a record of it until the job counts as lost.
const LOST_AFTER: u32 = 5;
/// Between two tries to write down what must be written down.
const WRITE_PAUSE: Duration = Duration::from_secs(2);
/// Between two tries to end a job.
const INTERRUPT_AGAIN: Duration = Duration::from_secs(2);

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
    let body = submission::body(
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
    let id = job.entry.id;
    match ended {
        Ended::Recorded(outcome) => {
            let intent = app.jobs.running_job(id).and_then(|job| job.intent);
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
    Recorded(Box<Outcome>),
    EngineGone,
    Stopping,
}

async fn until_end(app: &Arc<App>, engine: &Engine, address: SocketAddr, job: &Running) -> Ended {
    let id = job.entry.id.to_string();
    let mut status = engine.watch();
    let mut events = Events::open(address).await.ok();
    let mut misses = 0;
    let limit = super::dispatch::limits_of(app, &job.entry.user).longest_job;
    let deadline = limit.map(|limit| tokio::time::Instant::from_std(job.since + limit.duration()));
    let mut is_over_time = false;
    let mut interrupt_at: Option<tokio::time::Instant> = None;
    loop {
        match client::history(address, &id).await {
            Ok(answer) => {
                if let Some(outcome) = outcome::from_history(&answer, &id) {
                    return Ended::Recorded(Box::new(outcome));
                }
                match client::jobs(address).await {
                    Ok(0) => misses += 1,
                    Ok(_) | Err(_) => misses = 0,
                }
            }
            Err(error) => {
                tracing::debug!(engine = %engine.id(), error = %chain(&error), "ComfyUI did not tell of a job");
            }
        }
        if misses >= LOST_AFTER {
            tracing::warn!(engine = %engine.id(), job = %id, "ComfyUI has lost a job");
            return Ended::EngineGone;
        }
        let now = tokio::time::Instant::now();
        if !is_over_time && deadline.is_some_and(|deadline| now >= deadline) {
            is_over_time = true;
            app.jobs.interrupt(job.entry.id, None, Intent::TooLong);
        }
        let wants_end = app
            .jobs
            .running_job(job.entry.id)
            .is_some_and(|job| job.intent.is_some());
        if wants_end && interrupt_at.is_none_or(|at| now >= at) {
            interrupt_at = Some(now + INTERRUPT_AGAIN);
            end_in_engine(engine, address, &id).await;
        }
        // An event that tells of no job left is worth a look, and so is each second.
        let look = sleep(LOOK);
        tokio::pin!(look);
        loop {
            tokio::select! {
                () = app.jobs.stopping.cancelled() => return Ended::Stopping,
                is_gone = gone(&mut status, address) => if is_gone {
                    return Ended::EngineGone;
                },
                () = job.nudge.notified() => break,
                () = &mut look => break,
                count = next_count(&mut events) => match count {
                    Some(0) => break,
                    Some(_) => {}
                    None => events = None,
                },
            }
        }
        if events.is_none() {
            events = Events::open(address).await.ok();
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

async fn end_in_engine(engine: &Engine, address: SocketAddr, id: &str) {
    for ended in [
        client::unqueue(address, id).await,
        client::interrupt(address, id).await,
    ] {
        if let Err(error) = ended {
            tracing::warn!(engine = %engine.id(), error = %chain(&error), "ComfyUI did not end a job");
        }
    }
}

/// The engine has recorded the end.
async fn settle(
    app: &Arc<App>,
    address: SocketAddr,
    job: &Running,
    mut outcome: Box<Outcome>,
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
                let error = too_long(app, job);
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

/// Why a job that took too long was ended.
fn too_long(app: &App, job: &Running) -> Value {
    let limit = super::dispatch::limits_of(app, &job.entry.user).longest_job;
    let most = limit.map_or_else(String::new, |limit| format!(" ({} min)", limit.count()));
    let refusal = json!({ "error": {
        "type": "took_too_long",
        "message": format!("This job was ended: it took longer than one job of yours may{most}."),
        "details": "",
    }});
    outcome::error_data(&job.entry.id.to_string(), &refusal, clock::now_ms())
}

/// The engine ended while it had the job: once more, but not for ever.
async fn interrupted(app: &Arc<App>, job: &Running, attempts: u32) {
    let intent = app
        .jobs
        .running_job(job.entry.id)
        .and_then(|job| job.intent);
    if intent == Some(Intent::Cancel) {
        let id = job.entry.id.to_string();
        let now = clock::now_ms();
        let status = json!({ "status_str": "error", "completed": false, "messages": [
            ["execution_interrupted", { "prompt_id": id, "node_id": "", "node_type": "", "executed": [], "timestamp": now }],
        ]});
        let answer = json!({ &id: { "prompt": [], "outputs": {}, "status": status, "meta": {} } });
        if let Some(outcome) = outcome::from_history(answer.to_string().as_bytes(), &id) {
            finish(app, job, outcome).await;
        }
    } else if attempts >= MAX_ATTEMPTS {
        fail(app, job, given_up(job.entry.id)).await;
    } else {
        put_back(app, job, attempts, true).await;
    }
}

/// Why a job that was tried often enough is not tried again.
pub(super) fn given_up(id: JobId) -> Value {
    let refusal = json!({ "error": {
        "type": "engine_ended",
        "message": "ComfyUI ended twice while it ran this job, so it is not tried again.",
        "details": "",
    }});
    outcome::error_data(&id.to_string(), &refusal, clock::now_ms())
}

async fn put_back(app: &Arc<App>, job: &Running, attempts: u32, is_counted: bool) {
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
pub(super) async fn fail(app: &Arc<App>, job: &Running, error: Value) {
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

async fn finish(app: &Arc<App>, job: &Running, outcome: Outcome) {
    let now = clock::now_ms();
    let measured = match (outcome.started_at, outcome.ended_at) {
        (Some(start), Some(end)) if end >= start => end - start,
        _ => i64::try_from(milliseconds(job.since.elapsed())).unwrap_or(i64::MAX),
    };
    let day = clock::local_day();
    let finished = FinishedJob {
        id: job.entry.id,
        user: job.entry.user.clone(),
        state: outcome.state,
        handed_at: job.handed_at,
        started_at: outcome.started_at,
        ended_at: outcome.ended_at.unwrap_or(now),
        gpu_ms: measured,
        waiting_ms: (job.handed_at - job.details.created_at).max(0),
        reason: outcome.reason.clone(),
        summary: outcome.summary,
        execute: outcome.execute,
        outputs: outcome.outputs,
        status: outcome.status,
        meta: outcome.meta,
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
    let recent = Recent {
        user: job.entry.user.clone(),
        id: job.entry.id,
        state: outcome.state,
        ended_at: clock::now(),
        reason: outcome.reason,
    };
    app.jobs
        .finished(job.entry.id, measured.unsigned_abs(), &day, recent.clone());
    super::announce::finished(app, &recent, measured.unsigned_abs()).await;
}

async fn is_stopping(app: &App) -> bool {
    tokio::select! {
        () = app.jobs.stopping.cancelled() => true,
        () = sleep(WRITE_PAUSE) => false,
    }
}
