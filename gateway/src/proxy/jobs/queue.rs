//! `/queue`, `/interrupt` and the cancelling of jobs: what waits and runs.

use super::{empty, is_set, json_answer, named_ids, raw_answer, read_any, read_json, read_object};
use crate::jobs::{Intent, JobId, in_python, is_truthy};
use crate::proxy::{Failure, Way};
use axum::Json;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

pub(super) async fn show(way: &Way<'_>) -> Result<Response, Failure> {
    let user = way.signed_in.account.id.clone();
    let (running, waiting) = way.app.jobs.reader.queue(user).await?;
    Ok(raw_answer(format!(
        "{{\"queue_running\":[{running}],\"queue_pending\":[{waiting}]}}"
    )))
}

pub(super) async fn change(way: &Way<'_>, request: Request) -> Result<Response, Failure> {
    let wish = read_object(request).await?;
    let user = &way.signed_in.account.id;
    let ids = if is_set(&wish, "clear") {
        way.app.jobs.own_waiting(user)
    } else {
        named_ids(&wish, "delete")
    };
    withdraw(way, &ids).await?;
    Ok(empty())
}

/// Takes own waiting jobs out of the line for good; tells whether there were any.
async fn withdraw(way: &Way<'_>, ids: &[JobId]) -> Result<bool, Failure> {
    let user = &way.signed_in.account.id;
    let gone = way.app.jobs.cancel_waiting(ids, Some(user)).await?;
    Ok(!gone.is_empty())
}

/// The own job that is named, or whatever of one's own runs (defect C5: never anybody else's).
pub(super) async fn interrupt(way: &Way<'_>, request: Request) -> Result<Response, Failure> {
    let wish = read_any(request).await?;
    let user = &way.signed_in.account.id;
    let named = wish.get("prompt_id").filter(|id| is_truthy(id));
    match named {
        Some(id) => {
            if let Some(id) = id.as_str().and_then(JobId::parse) {
                way.app.jobs.interrupt(id, Some(user), Intent::Cancel);
            }
        }
        None => {
            for job in way.app.jobs.running() {
                way.app
                    .jobs
                    .interrupt(job.entry.id, Some(user), Intent::Cancel);
            }
        }
    }
    Ok(empty())
}

/// Own jobs, whether they wait or run.
pub(super) async fn cancel(way: &Way<'_>, ids: &[JobId]) -> Result<Response, Failure> {
    let user = &way.signed_in.account.id;
    let mut is_cancelled = withdraw(way, ids).await?;
    for id in ids {
        is_cancelled |= way.app.jobs.interrupt(*id, Some(user), Intent::Cancel);
    }
    Ok(json_answer(&json!({ "cancelled": is_cancelled })))
}

/// Several own jobs; faults are worded as ComfyUI's.
pub(super) async fn cancel_many(way: &Way<'_>, request: Request) -> Result<Response, Failure> {
    let fault = |body: Value| Ok((StatusCode::BAD_REQUEST, Json(body)).into_response());
    let Some(wish) = read_json(request).await? else {
        return fault(json!({ "error": "Request body must be valid JSON" }));
    };
    let Some(named) = wish.get("job_ids").and_then(Value::as_array) else {
        return fault(json!({ "error": "job_ids must be a list" }));
    };
    let (mut ids, mut invalid) = (Vec::new(), Vec::new());
    for name in named {
        match name.as_str().and_then(JobId::parse) {
            Some(id) => ids.push(id),
            None => invalid.push(in_python(name)),
        }
    }
    if !invalid.is_empty() {
        return fault(json!({
            "error": "job_ids contains invalid id(s)",
            "invalid_ids": invalid,
        }));
    }
    cancel(way, &ids).await
}
