//! `/api/jobs`: queue and history in one list.
//!
//! As in 0.12.1 a single entry whose `extra_pnginfo` is not an object makes the whole list fail.

use super::Asked;
use crate::answer::{self, Refusal};
use crate::json::{Json, json};
use crate::queue::{Finished, Item};
use crate::state::Engine;
use axum::response::Response;
use http::StatusCode;
use std::sync::Arc;

const STATUSES: &[&str] = &["pending", "in_progress", "completed", "failed", "cancelled"];

/// Python would have raised on this entry.
struct Raised;

pub(super) fn list(engine: &Engine, asked: &Asked) -> Response {
    try_list(engine, asked).unwrap_or_else(|refusal| *refusal)
}

fn try_list(engine: &Engine, asked: &Asked) -> Result<Response, Refusal> {
    let bad = |message: &str| Refusal::from(answer::json_error(StatusCode::BAD_REQUEST, message));
    let wanted: Vec<String> = asked
        .query("status")
        .unwrap_or_default()
        .split(',')
        .map(|status| status.trim().to_lowercase())
        .filter(|status| !status.is_empty())
        .collect();
    let unknown: Vec<&str> = wanted
        .iter()
        .map(String::as_str)
        .filter(|status| !STATUSES.contains(status))
        .collect();
    if !unknown.is_empty() {
        let text = format!(
            "Invalid status value(s): {}. Valid values: {}",
            unknown.join(", "),
            STATUSES.join(", ")
        );
        return Err(bad(&text));
    }
    let sort_by = asked
        .query("sort_by")
        .unwrap_or("created_at")
        .to_lowercase();
    if sort_by != "created_at" && sort_by != "execution_duration" {
        return Err(bad("sort_by must be 'created_at' or 'execution_duration'"));
    }
    let sort_order = asked.query("sort_order").unwrap_or("desc").to_lowercase();
    if sort_order != "asc" && sort_order != "desc" {
        return Err(bad("sort_order must be 'asc' or 'desc'"));
    }
    let number = |name: &str| {
        asked
            .query(name)
            .map(str::parse::<i64>)
            .transpose()
            .map_err(|_| bad(&format!("{name} must be an integer")))
    };
    let limit = number("limit")?;
    if limit.is_some_and(|limit| limit <= 0) {
        return Err(bad("limit must be a positive integer"));
    }
    let offset = usize::try_from(number("offset")?.unwrap_or(0)).unwrap_or(0);
    let mut jobs = all(engine).map_err(|Raised| answer::broken())?;
    jobs.retain(|job| {
        let status = job.get("status").and_then(Json::as_str).unwrap_or_default();
        let workflow = job.get("workflow_id").and_then(Json::as_str);
        (wanted.is_empty() || wanted.iter().any(|wanted| wanted == status))
            && asked
                .query("workflow_id")
                .is_none_or(|wanted| workflow == Some(wanted))
    });
    let key = |job: &Json| {
        let number = |name: &str| job.get(name).and_then(Json::as_f64);
        if sort_by == "created_at" {
            number("create_time").unwrap_or(0.0)
        } else {
            number("execution_end_time")
                .zip(number("execution_start_time"))
                .map_or(0.0, |(end, start)| end - start)
        }
    };
    jobs.sort_by(|a, b| {
        let order = key(a).total_cmp(&key(b));
        if sort_order == "asc" {
            order
        } else {
            order.reverse()
        }
    });
    let total = jobs.len();
    let most = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    let shown: Vec<Json> = jobs.into_iter().skip(offset).take(most).collect();
    let mut pagination = json!({ "offset": offset });
    pagination.set("limit", limit);
    pagination.set("total", total);
    pagination.set("has_more", limit.is_some() && offset + shown.len() < total);
    let mut listed = json!({});
    listed.set("jobs", shown);
    listed.set("pagination", pagination);
    Ok(answer::json(&listed))
}

pub(super) fn one(engine: &Engine, id: &str) -> Response {
    let (running, pending) = engine.queue.current();
    let waiting = |items: &[Arc<Item>], status| {
        items
            .iter()
            .find(|item| item.id == id)
            .map(|item| waiting(item, status))
    };
    let finished = || {
        let finished = engine.queue.finished(id)?;
        Some(done(&finished).map(|mut job| {
            job.set("outputs", finished.outputs.clone());
            job.set("execution_status", finished.status.clone());
            let mut workflow = json!({});
            workflow.set("prompt", finished.item.prompt.clone());
            workflow.set("extra_data", finished.item.extra.clone());
            job.set("workflow", workflow);
            job
        }))
    };
    let found = waiting(&running, "in_progress")
        .or_else(|| waiting(&pending, "pending"))
        .or_else(finished);
    match found {
        Some(Ok(job)) => answer::json(&job),
        Some(Err(Raised)) => answer::broken(),
        None => answer::json_error(StatusCode::NOT_FOUND, "Job not found"),
    }
}

fn all(engine: &Engine) -> Result<Vec<Json>, Raised> {
    let (running, pending) = engine.queue.current();
    let mut jobs = Vec::new();
    for item in &running {
        jobs.push(waiting(item, "in_progress")?);
    }
    for item in &pending {
        jobs.push(waiting(item, "pending")?);
    }
    for (_, finished) in &engine.queue.history() {
        jobs.push(done(finished)?);
    }
    Ok(jobs)
}

fn waiting(item: &Item, status: &str) -> Result<Json, Raised> {
    let mut job = head(item, status);
    job.set("outputs_count", 0_u32);
    set_workflow(&mut job, item)?;
    Ok(job)
}

fn head(item: &Item, status: &str) -> Json {
    let mut job = json!({ "id": item.id, "status": status });
    job.set("priority", item.number.clone());
    if let Some(time) = item.extra.get("create_time") {
        job.set("create_time", time.clone());
    }
    job
}

fn set_workflow(job: &mut Json, item: &Item) -> Result<(), Raised> {
    let object = |value: Option<&Json>| match value {
        None => Ok(None),
        Some(value @ Json::Object(_)) => Ok(Some(value.clone())),
        Some(_) => Err(Raised),
    };
    let info = object(item.extra.get("extra_pnginfo"))?;
    let workflow = object(info.as_ref().and_then(|info| info.get("workflow")))?;
    if let Some(id) = workflow
        .as_ref()
        .and_then(|workflow| workflow.get("id"))
        .filter(|id| !id.is_null())
    {
        job.set("workflow_id", id.clone());
    }
    Ok(())
}

fn done(finished: &Finished) -> Result<Json, Raised> {
    let messages = finished
        .status
        .get("messages")
        .and_then(Json::as_list)
        .unwrap_or_default();
    let message = |wanted: &str| {
        messages
            .iter()
            .filter_map(Json::as_list)
            .find(|message| message[0].as_str() == Some(wanted))
            .map(|message| &message[1])
    };
    let success = finished.status.get("status_str").and_then(Json::as_str) == Some("success");
    let interrupted = message("execution_interrupted");
    let status = match (success, interrupted.is_some()) {
        (true, _) => "completed",
        (false, true) => "cancelled",
        (false, false) => "failed",
    };
    let mut job = head(&finished.item, status);
    let time = |data: Option<&Json>| data.and_then(|data| data.get("timestamp")).cloned();
    let end = message("execution_success")
        .or_else(|| message("execution_error"))
        .or(interrupted);
    for (name, time) in [
        ("execution_start_time", time(message("execution_start"))),
        ("execution_end_time", time(end)),
    ] {
        if let Some(time) = time {
            job.set(name, time);
        }
    }
    if let Some(error) = message("execution_error") {
        job.set("execution_error", error.clone());
    }
    let (count, preview) = outputs(&finished.outputs);
    job.set("outputs_count", count);
    if let Some(preview) = preview {
        job.set("preview_output", preview);
    }
    set_workflow(&mut job, &finished.item)?;
    Ok(job)
}

/// How many files were made, and the one that stands for all: a kept one before a temporary one.
fn outputs(outputs: &Json) -> (usize, Option<Json>) {
    let mut count = 0;
    let mut kept: Option<Json> = None;
    let mut first: Option<Json> = None;
    for (node, shown) in outputs.as_object().unwrap_or_default() {
        for (kind, items) in shown.as_object().unwrap_or_default() {
            if kind == "animated" || kind == "text" {
                continue;
            }
            for item in items.as_list().unwrap_or_default() {
                count += 1;
                if item.get("filename").is_none() {
                    continue;
                }
                let mut preview = item.clone();
                preview.set("nodeId", node.as_str());
                preview.set("mediaType", kind.as_str());
                if item.get("type").and_then(Json::as_str) == Some("output") {
                    kept.get_or_insert_with(|| preview.clone());
                }
                first.get_or_insert(preview);
            }
        }
    }
    (count, kept.or(first))
}
