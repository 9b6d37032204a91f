//! ComfyUI's queue and history as their owner sees them: answered from the gateway's own record,
//! in ComfyUI's form, whether the job waits here, runs in an engine or is long done. Nothing of
//! anybody else is in reach: every look and every change names the user.

use super::prompts::read;
use super::{Failure, Way, refused};
use crate::http::ApiError;
use crate::jobs::{Intent, JobId, number_text};
use crate::store::{JobOrdering, JobSelection, JobState, JobSummary, StoreError};
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};

/// What a path of ComfyUI's is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum JobRoute {
    /// `GET /prompt`.
    Count,
    /// `/queue`.
    Queue,
    /// `/history`.
    History,
    /// `/history/{id}`.
    HistoryOf(String),
    /// `POST /interrupt`.
    Interrupt,
    /// `GET /api/jobs`.
    Jobs,
    /// `GET /api/jobs/{id}`.
    Job(String),
    /// `POST /api/jobs/{id}/cancel`.
    Cancel(String),
    /// `POST /api/jobs/cancel`.
    CancelMany,
    /// `POST /free`.
    Free,
}

impl JobRoute {
    /// Which of them the segments of a decoded path behind `api` name.
    pub(super) fn of(segments: &[&str]) -> Option<Self> {
        Some(match segments {
            ["prompt"] => Self::Count,
            ["queue"] => Self::Queue,
            ["history"] => Self::History,
            ["history", id] => Self::HistoryOf((*id).to_owned()),
            ["interrupt"] => Self::Interrupt,
            ["jobs"] => Self::Jobs,
            ["jobs", "cancel"] => Self::CancelMany,
            ["jobs", id] => Self::Job((*id).to_owned()),
            ["jobs", id, "cancel"] => Self::Cancel((*id).to_owned()),
            ["free"] => Self::Free,
            _ => return None,
        })
    }
}

/// Answers, or passes on what is the engine's own business: `None`.
pub(super) async fn answer(
    way: &Way<'_>,
    route: &JobRoute,
    request: Request,
) -> Result<Response, Failure> {
    let method = request.method().clone();
    let is_look = matches!(method, Method::GET | Method::HEAD);
    let answered = match route {
        JobRoute::Count if is_look => {
            let remaining = way.app.jobs.remaining(&way.signed_in.account.id);
            Ok(json_answer(
                &json!({ "exec_info": { "queue_remaining": remaining } }),
            ))
        }
        JobRoute::Queue if is_look => queue(way).await,
        JobRoute::Queue if method == Method::POST => change_queue(way, request).await?,
        JobRoute::History if is_look => history(way, request.uri().query()).await,
        JobRoute::HistoryOf(id) if is_look => history_of(way, id).await,
        JobRoute::History if method == Method::POST => change_history(way, request).await?,
        JobRoute::Interrupt if method == Method::POST => interrupt(way, request).await?,
        JobRoute::Jobs if is_look => jobs(way, request.uri().query()).await,
        JobRoute::Job(id) if is_look => job(way, id).await,
        JobRoute::Cancel(id) if method == Method::POST => {
            cancel(way, std::slice::from_ref(id)).await
        }
        JobRoute::CancelMany if method == Method::POST => cancel_many(way, request).await?,
        JobRoute::Free if method == Method::POST && !is_own_engine(way) => {
            return Err(refused(
                StatusCode::FORBIDDEN,
                "admin_required",
                "Everybody uses this ComfyUI; only an admin may empty its memory.",
            ));
        }
        JobRoute::Free => return Err(Failure::Foreign(Box::new(request))),
        _ if method == Method::OPTIONS => Ok(StatusCode::OK.into_response()),
        _ => Ok((StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed").into_response()),
    };
    answered.map_err(|error: StoreError| {
        Failure::Refused(Box::new(ApiError::from(error).into_response()))
    })
}

fn is_own_engine(way: &Way<'_>) -> bool {
    way.app.engines.is_separate() || way.signed_in.has_admin_rights()
}

async fn queue(way: &Way<'_>) -> Result<Response, StoreError> {
    let user = &way.signed_in.account.id;
    let reader = &way.app.jobs.reader;
    let running = reader.queue_items(user.clone(), JobState::Running).await?;
    let waiting = reader.queue_items(user.clone(), JobState::Waiting).await?;
    Ok(raw_answer(format!(
        "{{\"queue_running\":[{}],\"queue_pending\":[{}]}}",
        running.join(","),
        waiting.join(",")
    )))
}

async fn change_queue(
    way: &Way<'_>,
    request: Request,
) -> Result<Result<Response, StoreError>, Failure> {
    let wish = read_object(request).await?;
    let user = &way.signed_in.account.id;
    let ids = if is_set(&wish, "clear") {
        way.app.jobs.own_waiting(user)
    } else {
        named_ids(&wish, "delete")
    };
    Ok(withdraw(way, &ids).await.map(|()| empty()))
}

/// Takes own waiting jobs out of the line for good.
async fn withdraw(way: &Way<'_>, ids: &[JobId]) -> Result<(), StoreError> {
    let gone = way.app.jobs.withdraw(ids, Some(&way.signed_in.account.id));
    if gone.is_empty() {
        return Ok(());
    }
    let ids = gone.into_iter().map(|entry| entry.id).collect();
    way.app.store.remove_jobs(ids).await
}

async fn history(way: &Way<'_>, query: Option<&str>) -> Result<Response, StoreError> {
    let (Ok(limit), Ok(offset)) = (
        number_of(query, "max_items").transpose(),
        number_of(query, "offset").transpose(),
    ) else {
        return Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response());
    };
    let entries = way
        .app
        .jobs
        .reader
        .history(
            way.signed_in.account.id.clone(),
            limit.map(|limit| limit.max(0)),
            offset,
        )
        .await?;
    let mut text = String::from("{");
    for (place, (id, entry)) in entries.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push('"');
        text.push_str(id);
        text.push_str("\":");
        text.push_str(entry);
    }
    text.push('}');
    Ok(raw_answer(text))
}

async fn history_of(way: &Way<'_>, id: &str) -> Result<Response, StoreError> {
    let Some(id) = JobId::parse(id) else {
        return Ok(json_answer(&json!({})));
    };
    let user = way.signed_in.account.id.clone();
    let entry = way.app.jobs.reader.history_of(user, id).await?;
    Ok(raw_answer(match entry {
        Some(entry) => format!("{{\"{id}\":{entry}}}"),
        None => "{}".to_owned(),
    }))
}

async fn change_history(
    way: &Way<'_>,
    request: Request,
) -> Result<Result<Response, StoreError>, Failure> {
    let wish = read_object(request).await?;
    let ids = if is_set(&wish, "clear") {
        None
    } else {
        Some(named_ids(&wish, "delete"))
    };
    let user = way.signed_in.account.id.clone();
    let forgotten = way.app.store.forget_finished_jobs(user, ids).await;
    Ok(forgotten.map(|()| empty()))
}

/// The own job that is named, or whatever of one's own runs (defect C5: never anybody else's).
async fn interrupt(
    way: &Way<'_>,
    request: Request,
) -> Result<Result<Response, StoreError>, Failure> {
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
    Ok(Ok(empty()))
}

async fn cancel(way: &Way<'_>, ids: &[String]) -> Result<Response, StoreError> {
    let ids: Vec<JobId> = ids.iter().filter_map(|id| JobId::parse(id)).collect();
    let user = &way.signed_in.account.id;
    let waited = way.app.jobs.waiting_of(user);
    withdraw(way, &ids).await?;
    let mut is_cancelled = way.app.jobs.waiting_of(user) < waited;
    for id in ids {
        is_cancelled |= way.app.jobs.interrupt(id, Some(user), Intent::Cancel);
    }
    Ok(json_answer(&json!({ "cancelled": is_cancelled })))
}

async fn cancel_many(
    way: &Way<'_>,
    request: Request,
) -> Result<Result<Response, StoreError>, Failure> {
    let wish = read_object(request).await?;
    let named: Vec<String> = wish
        .get("job_ids")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|id| id.as_str().map_or_else(|| id.to_string(), str::to_owned))
        .collect();
    let invalid: Vec<&String> = named
        .iter()
        .filter(|id| JobId::parse(id).is_none())
        .collect();
    if !invalid.is_empty() {
        let body = json!({ "error": "Some job ids are not valid.", "invalid_ids": invalid });
        return Ok(Ok((StatusCode::BAD_REQUEST, Json(body)).into_response()));
    }
    Ok(cancel(way, &named).await)
}

async fn jobs(way: &Way<'_>, query: Option<&str>) -> Result<Response, StoreError> {
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

async fn job(way: &Way<'_>, id: &str) -> Result<Response, StoreError> {
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
    let Some((summary, texts, [outputs, status, _])) = way.app.jobs.reader.job(user, id).await?
    else {
        return Ok(missing());
    };
    let mut text = Value::Object(line(&summary)).to_string();
    text.pop();
    if let (Some(outputs), Some(status)) = (outputs, status) {
        text.push_str(&format!(
            ",\"outputs\":{outputs},\"execution_status\":{status}"
        ));
    }
    text.push_str(&format!(
        ",\"workflow\":{{\"prompt\":{},\"extra_data\":{}}}}}",
        texts.prompt, texts.extra
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
    if let Some(workflow) = &job.workflow_id {
        line.insert("workflow_id".to_owned(), json!(workflow));
    }
    line
}

/// Reads the query of `GET /api/jobs`; faults are worded as ComfyUI's.
fn selection(query: Option<&str>) -> Result<JobSelection, String> {
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
        states,
        workflow_id: value_of(query, "workflow_id").filter(|id| !id.is_empty()),
        ordering,
        is_ascending,
        limit,
        offset: number("offset")?.unwrap_or(0).max(0),
    })
}

/// First value of a key; ComfyUI takes the first of repeated ones.
fn value_of(query: Option<&str>, name: &str) -> Option<String> {
    let decode = |text: &str| {
        let spaced = text.replace('+', " ");
        percent_decode_str(&spaced).decode_utf8_lossy().into_owned()
    };
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key) == name).then(|| decode(value))
    })
}

fn number_of(query: Option<&str>, name: &str) -> Option<Result<i64, std::num::ParseIntError>> {
    value_of(query, name).map(|text| text.trim().parse())
}

async fn read_object(request: Request) -> Result<Value, Failure> {
    let value = read_any(request).await?;
    if value.is_object() {
        return Ok(value);
    }
    Err(refused(
        StatusCode::BAD_REQUEST,
        "bad_body",
        "An object in JSON is needed.",
    ))
}

/// A body that cannot be read counts as empty, as ComfyUI has it for `/interrupt`.
async fn read_any(request: Request) -> Result<Value, Failure> {
    let (parts, body) = request.into_parts();
    super::prompts::check_encoding(&parts.headers)?;
    let bytes: Bytes = read(body).await?;
    Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn named_ids(wish: &Value, name: &str) -> Vec<JobId> {
    let listed = wish.get(name).and_then(Value::as_array);
    let ids = listed.into_iter().flatten().filter_map(Value::as_str);
    ids.filter_map(JobId::parse).collect()
}

fn is_set(wish: &Value, name: &str) -> bool {
    wish.get(name).is_some_and(is_truthy)
}

fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
    }
}

fn empty() -> Response {
    with_privacy(StatusCode::OK.into_response())
}

fn json_answer(value: &Value) -> Response {
    raw_answer(value.to_string())
}

fn raw_answer(text: String) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    with_privacy(response)
}

fn with_privacy(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    response
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

    #[test]
    fn c12_every_name_of_the_job_routes() {
        let table = [
            (vec!["jobs"], Some(JobRoute::Jobs)),
            (vec!["jobs", "x"], Some(JobRoute::Job("x".into()))),
            (vec!["jobs", "cancel"], Some(JobRoute::CancelMany)),
            (
                vec!["jobs", "x", "cancel"],
                Some(JobRoute::Cancel("x".into())),
            ),
            (vec!["history", "x"], Some(JobRoute::HistoryOf("x".into()))),
            (vec!["view"], None),
        ];
        for (segments, expected) in table {
            assert_eq!(JobRoute::of(&segments), expected);
        }
    }
}
