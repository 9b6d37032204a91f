//! ComfyUI's queue and history as their owner sees them: answered from the gateway's own record,
//! in ComfyUI's form, whether the job waits here, runs in an engine or is long done. Nothing of
//! anybody else is in reach: every look and every change names the user.
//!
//! `queue`, `history` and `list` answer a group of addresses each; `query` reads what stands behind
//! their question marks.

mod history;
mod list;
mod query;
mod queue;

use super::{Failure, Way, prompts, refused};
use crate::jobs::{JobId, is_truthy};
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

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
    let is_order = method == Method::POST;
    match route {
        JobRoute::Count if is_look => {
            let remaining = way.app.jobs.remaining(&way.signed_in.account.id);
            Ok(json_answer(
                &json!({ "exec_info": { "queue_remaining": remaining } }),
            ))
        }
        JobRoute::Queue if is_look => queue::show(way).await,
        JobRoute::Queue if is_order => queue::change(way, request).await,
        JobRoute::History if is_look => history::show(way, request.uri().query()).await,
        JobRoute::HistoryOf(id) if is_look => history::show_one(way, id).await,
        JobRoute::History if is_order => history::change(way, request).await,
        JobRoute::Interrupt if is_order => queue::interrupt(way, request).await,
        JobRoute::Jobs if is_look => list::show(way, request.uri().query()).await,
        JobRoute::Job(id) if is_look => list::show_one(way, id).await,
        JobRoute::Cancel(id) if is_order => queue::cancel(way, JobId::parse(id).as_slice()).await,
        JobRoute::CancelMany if is_order => queue::cancel_many(way, request).await,
        JobRoute::Free if is_order && !is_own_engine(way) => Err(refused(
            StatusCode::FORBIDDEN,
            "admin_required",
            "Everybody uses this ComfyUI; only an admin may empty its memory.",
        )),
        JobRoute::Free => Err(Failure::Foreign(Box::new(request))),
        _ if method == Method::OPTIONS => Ok(StatusCode::OK.into_response()),
        _ => Ok((StatusCode::METHOD_NOT_ALLOWED, "405: Method Not Allowed").into_response()),
    }
}

fn is_own_engine(way: &Way<'_>) -> bool {
    way.app.engines.is_separate() || way.signed_in.has_admin_rights()
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
    Ok(read_json(request).await?.unwrap_or(Value::Null))
}

/// `None`: it is no JSON.
async fn read_json(request: Request) -> Result<Option<Value>, Failure> {
    let (parts, body) = request.into_parts();
    prompts::check_encoding(&parts.headers)?;
    let bytes = prompts::read(body).await?;
    Ok(serde_json::from_slice(&bytes).ok())
}

fn named_ids(wish: &Value, name: &str) -> Vec<JobId> {
    let listed = wish.get(name).and_then(Value::as_array);
    let ids = listed.into_iter().flatten().filter_map(Value::as_str);
    ids.filter_map(JobId::parse).collect()
}

fn is_set(wish: &Value, name: &str) -> bool {
    wish.get(name).is_some_and(is_truthy)
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
