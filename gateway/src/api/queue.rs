//! The queue: for everybody his own place in line, for admins who waits and runs, without the
//! contents, and the switches.

use super::{Body, Done};
use crate::accounts::UserId;
use crate::app::App;
use crate::auth::{Admin, SignedIn};
use crate::clock::{self, rfc3339};
use crate::http::{ApiError, RequestContext};
use crate::jobs::{Conditions as _, Hold, Intent, JobId, OwnerHold, Urgency, put_back_others};
use crate::store::AuditEvent;
use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

/// Waiting jobs in one answer.
const MAX_SHOWN: usize = 500;
/// Finished jobs are told of for so long, seconds.
const RECENT: i64 = 3600;

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct HoldView {
    /// `owner`, `quiet_hours` or `other_program`; in one's own view also `gpu_minutes`: one's GPU
    /// time of today is used up.
    reason: &'static str,
    since: String,
    until: Option<String>,
    /// It ends when the owner is away for a while.
    until_idle: bool,
}

impl HoldView {
    fn of(hold: &Hold) -> Self {
        Self {
            reason: hold.reason.name(),
            since: rfc3339(hold.since),
            until: hold.until.map(rfc3339),
            until_idle: hold.until_idle,
        }
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RunningView {
    id: String,
    started_at: String,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PlaceView {
    /// In the whole line, from 1.
    place: usize,
    /// Until it starts, from measured jobs; unknown while jobs are held back.
    wait_seconds: Option<u64>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FinishedView {
    id: String,
    /// `completed`, `failed` or `cancelled`.
    state: &'static str,
    finished_at: String,
    reason: Option<String>,
}

/// One's own jobs.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MineView {
    /// Why nothing of one's own runs.
    hold: Option<HoldView>,
    running: Vec<RunningView>,
    waiting: usize,
    /// Jobs of others that wait.
    others_waiting: usize,
    /// The first own job that waits.
    next: Option<PlaceView>,
    /// The last one.
    last: Option<PlaceView>,
    /// Newest first, of the last hour.
    finished: Vec<FinishedView>,
}

/// One's own jobs and their place in line. Nothing of anybody else's but their number.
#[utoipa::path(get, path = "/queue/mine", tag = "queue", responses((status = 200, body = MineView)))]
pub(crate) async fn mine(State(app): State<Arc<App>>, signed_in: SignedIn) -> Json<MineView> {
    let user = &signed_in.account.id;
    let queue = &app.jobs;
    let is_owner = app.engines.owner().as_ref() == Some(user);
    let hold = match queue.hold().filter(|_| !is_owner) {
        Some(hold) => Some(HoldView::of(&hold)),
        None => used_up(&app, user),
    };
    let running = queue
        .running()
        .into_iter()
        .filter(|job| job.entry.user == *user)
        .map(|job| RunningView {
            id: job.entry.id.to_string(),
            started_at: rfc3339(job.handed_at / 1000),
        })
        .collect();
    let own = queue.own_waiting(user);
    let (mut next, mut last) = (None, None);
    if !own.is_empty() {
        let forecast = queue.forecast();
        let own: std::collections::HashSet<JobId> = own.iter().copied().collect();
        let mut places = forecast
            .iter()
            .enumerate()
            .filter(|(_, (id, _))| own.contains(id));
        let is_held = hold.is_some();
        let view = |(place, (_, wait)): (usize, &(JobId, u64))| PlaceView {
            place: place + 1,
            wait_seconds: (!is_held).then_some(wait / 1000),
        };
        next = places.next().map(view);
        last = places.next_back().map(view);
    }
    let since = clock::now() - RECENT;
    let finished = queue
        .recent(user)
        .into_iter()
        .filter(|job| job.ended_at >= since)
        .map(|job| FinishedView {
            id: job.id.to_string(),
            state: job.state.name(),
            finished_at: rfc3339(job.ended_at),
            reason: job.reason,
        })
        .collect();
    Json(MineView {
        hold,
        running,
        waiting: own.len(),
        others_waiting: queue.waiting().saturating_sub(own.len()),
        next,
        last,
        finished,
    })
}

/// Nothing of a user runs until midnight: his GPU time of today is used up.
fn used_up(app: &App, user: &UserId) -> Option<HoldView> {
    if !app.jobs.is_used_up(user, &app.limits_of(user)) {
        return None;
    }
    // His last job has used it up.
    let last = app.jobs.recent(user).first().map(|job| job.ended_at);
    Some(HoldView {
        reason: "gpu_minutes",
        since: rfc3339(last.unwrap_or_else(clock::now)),
        until: Some(clock::next_local_midnight()),
        until_idle: false,
    })
}

/// A job as an admin sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JobView {
    id: String,
    user_id: String,
    username: String,
    /// `running` or `waiting`.
    state: &'static str,
    submitted_at: String,
    started_at: Option<String>,
    place: Option<usize>,
    wait_seconds: Option<u64>,
    /// Times it was handed to ComfyUI.
    attempts: u32,
}

#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueView {
    hold: Option<HoldView>,
    /// Jobs that may run at once.
    slots: usize,
    running: Vec<JobView>,
    /// In the expected order, the first of them.
    waiting: Vec<JobView>,
    waiting_total: usize,
}

/// Who waits and who runs; never what.
#[utoipa::path(get, path = "/queue", tag = "queue", responses((status = 200, body = QueueView), (status = 403)))]
pub(crate) async fn show(State(app): State<Arc<App>>, _admin: Admin) -> Json<QueueView> {
    let accounts = app.accounts.current();
    let name = |user: &UserId| {
        accounts
            .get(user)
            .map_or_else(String::new, |account| account.username.clone())
    };
    let hold = app.jobs.hold();
    let owner = app.engines.owner();
    let running = app
        .jobs
        .running()
        .into_iter()
        .map(|job| JobView {
            id: job.entry.id.to_string(),
            username: name(&job.entry.user),
            user_id: job.entry.user.to_string(),
            state: "running",
            submitted_at: rfc3339(job.details.created_at / 1000),
            started_at: Some(rfc3339(job.handed_at / 1000)),
            place: None,
            wait_seconds: None,
            attempts: job.details.attempts + 1,
        })
        .collect();
    let waiting = app
        .jobs
        .forecast()
        .iter()
        .enumerate()
        .take(MAX_SHOWN)
        .filter_map(|(place, (id, wait))| {
            let (entry, details) = app.jobs.waiting_job(*id)?;
            let is_held = hold.is_some() && owner.as_ref() != Some(&entry.user);
            Some(JobView {
                id: id.to_string(),
                username: name(&entry.user),
                user_id: entry.user.to_string(),
                state: "waiting",
                submitted_at: rfc3339(details.created_at / 1000),
                started_at: None,
                place: Some(place + 1),
                wait_seconds: (!is_held).then_some(wait / 1000),
                attempts: details.attempts,
            })
        })
        .collect();
    Json(QueueView {
        hold: hold.as_ref().map(HoldView::of),
        slots: app.jobs.slots(),
        running,
        waiting,
        waiting_total: app.jobs.waiting(),
    })
}

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum When {
    /// Jobs that run end first.
    AfterJob,
    /// Jobs of others are interrupted and run again later.
    Now,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pause {
    when: When,
    /// When jobs run again by themselves, RFC 3339.
    until: Option<String>,
    /// They run again when the owner is away for a quarter of an hour.
    #[serde(default)]
    until_idle: bool,
}

/// The owner needs his GPU: jobs of others are held back and its memory is freed.
#[utoipa::path(post, path = "/queue/pause", tag = "queue", request_body = Pause,
    responses((status = 204), (status = 400), (status = 403)))]
pub(crate) async fn pause(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Body(pause): Body<Pause>,
) -> Done {
    let until = match &pause.until {
        None => None,
        Some(text) => Some(time_after_now(text)?),
    };
    hold_jobs(
        &app,
        until,
        pause.until_idle,
        matches!(pause.when, When::Now),
    );
    note(&app, &context, &admin, "pause");
    Ok(StatusCode::NO_CONTENT)
}

fn time_after_now(text: &str) -> Result<i64, ApiError> {
    let bad = |message: &str| {
        ApiError::new(StatusCode::BAD_REQUEST, "bad_time", message).with("field", "until")
    };
    let time = OffsetDateTime::parse(text, &Rfc3339)
        .map_err(|_| bad("\"until\" must be a time such as 2026-01-31T18:00:00Z."))?
        .unix_timestamp();
    if time <= clock::now() {
        return Err(bad("\"until\" must be a time to come."));
    }
    Ok(time)
}

/// Holds the jobs of everybody but the owner.
pub(crate) fn hold_jobs(app: &App, until: Option<i64>, until_idle: bool, is_now: bool) {
    app.jobs.hold_for_owner(Some(OwnerHold {
        since: clock::now(),
        until,
        until_idle,
    }));
    if is_now {
        put_back_others(app);
    }
    app.announcements.changed();
}

/// Jobs run again.
#[utoipa::path(post, path = "/queue/resume", tag = "queue", responses((status = 204), (status = 403)))]
pub(crate) async fn resume(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
) -> StatusCode {
    app.jobs.hold_for_owner(None);
    app.announcements.changed();
    note(&app, &context, &admin, "resume");
    StatusCode::NO_CONTENT
}

fn note(app: &App, context: &RequestContext, admin: &Admin, what: &str) {
    app.audit(
        AuditEvent::QueueCommand,
        Some(admin.name()),
        Some(context.caller.address),
        Some(what),
    );
}

fn job_id(text: &str) -> Result<JobId, ApiError> {
    JobId::parse(text).ok_or_else(ApiError::not_found)
}

/// Ends any job, running or waiting.
#[utoipa::path(post, path = "/queue/jobs/{id}/cancel", tag = "queue", params(("id" = String, Path)),
    responses((status = 204), (status = 403), (status = 404)))]
pub(crate) async fn cancel(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(id): Path<String>,
) -> Done {
    let id = job_id(&id)?;
    let gone = app.jobs.cancel_waiting(&[id], None).await?;
    if gone.is_empty() && !app.jobs.interrupt(id, None, Intent::Cancel) {
        return Err(ApiError::not_found());
    }
    note(&app, &context, &admin, &format!("cancel {id}"));
    Ok(StatusCode::NO_CONTENT)
}

/// Moves a waiting job before all others.
#[utoipa::path(post, path = "/queue/jobs/{id}/first", tag = "queue", params(("id" = String, Path)),
    responses((status = 204), (status = 403), (status = 404)))]
pub(crate) async fn first(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(id): Path<String>,
) -> Done {
    reorder(&app, &context, &admin, &id, Urgency::First).await
}

/// Moves a waiting job behind all others.
#[utoipa::path(post, path = "/queue/jobs/{id}/last", tag = "queue", params(("id" = String, Path)),
    responses((status = 204), (status = 403), (status = 404)))]
pub(crate) async fn last(
    State(app): State<Arc<App>>,
    context: RequestContext,
    admin: Admin,
    Path(id): Path<String>,
) -> Done {
    reorder(&app, &context, &admin, &id, Urgency::Last).await
}

async fn reorder(
    app: &App,
    context: &RequestContext,
    admin: &Admin,
    id: &str,
    urgency: Urgency,
) -> Done {
    let id = job_id(id)?;
    if !app.jobs.set_urgency(id, urgency) {
        return Err(ApiError::not_found());
    }
    app.store.set_job_urgency(id, urgency).await?;
    note(
        app,
        context,
        admin,
        &format!("{urgency:?} {id}").to_lowercase(),
    );
    Ok(StatusCode::NO_CONTENT)
}
