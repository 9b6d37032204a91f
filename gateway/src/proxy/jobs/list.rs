//! `/api/jobs`: all jobs, as ComfyUI 0.33 lists them.

use super::query::{number_of, value_of};
use super::{json_answer, raw_answer};
use crate::jobs::{JobId, normalised, number_text};
use crate::proxy::{Failure, Way};
use crate::store::{JobOrdering, JobSelection, JobState, JobSummary};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};

pub(super) async fn show(way: &Way<'_>, query: Option<&str>) -> Result<Response, Failure> {
    let selection = match selection(query) {
        Ok(selection) => selection,
        Err(fault) => {
            let body = Json(json!({ "error": fault }));
            return Ok((StatusCode::BAD_REQUEST, body).into_response());
        }
    };
    let (limit, offset) = (selection.limit, selection.offset);
    let user = way.signed_in.account.id.clone();
    let (jobs, total) = way.app.jobs.reader.list_jobs(user, selection).await?;
    let shown = i64::try_from(jobs.len()).unwrap_or(i64::MAX);
    let jobs: Vec<Value> = jobs.iter().map(|job| Value::Object(line(job))).collect();
    let has_more = limit.is_some() && offset.saturating_add(shown) < total;
    Ok(json_answer(&json!({
        "jobs": jobs,
        "pagination": { "offset": offset, "limit": limit, "total": total, "has_more": has_more },
    })))
}

pub(super) async fn show_one(way: &Way<'_>, id: &str) -> Result<Response, Failure> {
    let missing = || {
        (
            StatusCode::NOT_FOUND,
            Json(json!({ "error": "Job not found" })),
        )
            .into_response()
    };
    let Some(id) = JobId::parse(id) else {
        return Ok(missing());
    };
    let user = way.signed_in.account.id.clone();
    let Some(job) = way.app.jobs.reader.job(user, id).await? else {
        return Ok(missing());
    };
    let mut text = Value::Object(line(&job.summary)).to_string();
    // The rest are texts in JSON already: they go in before the last brace.
    text.pop();
    if let (Some(outputs), Some(status)) = (job.outputs, job.status) {
        text.push_str(&format!(
            ",\"outputs\":{},\"execution_status\":{status}",
            normalised(outputs)
        ));
    }
    text.push_str(&format!(
        ",\"workflow\":{{\"prompt\":{},\"extra_data\":{}}}}}",
        job.prompt, job.extra
    ));
    Ok(raw_answer(text))
}

/// A job as ComfyUI's list has it.
fn line(job: &JobSummary) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("id".to_owned(), json!(job.id.to_string()));
    line.insert("status".to_owned(), json!(job.state.comfyui_name()));
    let number = serde_json::from_str(&number_text(job.number)).unwrap_or(Value::Null);
    line.insert("priority".to_owned(), number);
    line.insert("create_time".to_owned(), json!(job.created_at));
    match job.summary.as_deref().map(serde_json::from_str) {
        Some(Ok(Value::Object(members))) => line.extend(members),
        _ => {
            line.insert("outputs_count".to_owned(), json!(0));
        }
    }
    // Summaries from before this member was kept.
    if let Some(count) = line.get("outputs_count").cloned() {
        line.entry("previewable_outputs_count").or_insert(count);
    }
    if let Some(workflow) = &job.workflow_id {
        line.insert("workflow_id".to_owned(), json!(workflow));
    }
    line
}

/// Reads the query of `GET /api/jobs`; faults are worded as ComfyUI's.
fn selection(query: Option<&str>) -> Result<JobSelection, String> {
    let lower = |name: &str| value_of(query, name).map(|value| value.to_lowercase());
    let ordering = match lower("sort_by").as_deref() {
        None | Some("created_at") => JobOrdering::Created,
        Some("execution_duration") => JobOrdering::Duration,
        Some(_) => return Err("sort_by must be 'created_at' or 'execution_duration'".to_owned()),
    };
    let is_ascending = match lower("sort_order").as_deref() {
        Some("asc") => true,
        None | Some("desc") => false,
        Some(_) => return Err("sort_order must be 'asc' or 'desc'".to_owned()),
    };
    let number = |name: &str| {
        number_of(query, name)
            .transpose()
            .map_err(|_| format!("{name} must be an integer"))
    };
    let limit = number("limit")?;
    if limit.is_some_and(|limit| limit <= 0) {
        return Err("limit must be a positive integer".to_owned());
    }
    Ok(JobSelection {
        states: states(query)?,
        workflow_id: value_of(query, "workflow_id").filter(|id| !id.is_empty()),
        ordering,
        is_ascending,
        limit,
        offset: number("offset")?.unwrap_or(0).max(0),
    })
}

fn states(query: Option<&str>) -> Result<Vec<JobState>, String> {
    let mut states = Vec::new();
    let mut unknown = Vec::new();
    let wanted = value_of(query, "status").unwrap_or_default().to_lowercase();
    for name in wanted
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
    {
        match JobState::ALL
            .into_iter()
            .find(|state| state.comfyui_name() == name)
        {
            Some(state) => states.push(state),
            None => unknown.push(name),
        }
    }
    if !unknown.is_empty() {
        let known: Vec<&str> = JobState::ALL
            .iter()
            .map(|state| state.comfyui_name())
            .collect();
        return Err(format!(
            "Invalid status value(s): {}. Valid values: {}",
            unknown.join(", "),
            known.join(", ")
        ));
    }
    Ok(states)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_as_comfyui_reads_them() {
        let chosen = selection(Some(
            "status=pending,%69n_progress&limit=2&offset=1&sort_order=ASC&limit=9",
        ))
        .unwrap();
        assert_eq!(chosen.states, [JobState::Waiting, JobState::Running]);
        assert_eq!((chosen.limit, chosen.offset), (Some(2), 1));
        assert!(chosen.is_ascending);
        let table = [
            (
                "status=bogus",
                "Invalid status value(s): bogus. Valid values: pending, in_progress, completed, failed, cancelled",
            ),
            ("limit=0", "limit must be a positive integer"),
            ("limit=x", "limit must be an integer"),
            (
                "sort_by=x",
                "sort_by must be 'created_at' or 'execution_duration'",
            ),
            ("sort_order=x", "sort_order must be 'asc' or 'desc'"),
        ];
        for (query, expected) in table {
            assert_eq!(selection(Some(query)).unwrap_err(), expected);
        }
    }
}
