//! `/history`: what has ended.

use super::query::number_of;
use super::{empty, is_set, json_answer, named_ids, raw_answer, read_object};
use crate::jobs::JobId;
use crate::proxy::{Failure, Way};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

pub(super) async fn show(way: &Way<'_>, query: Option<&str>) -> Result<Response, Failure> {
    let (Ok(limit), Ok(offset)) = (
        number_of(query, "max_items").transpose(),
        number_of(query, "offset").transpose(),
    ) else {
        return Ok(StatusCode::INTERNAL_SERVER_ERROR.into_response());
    };
    let user = way.signed_in.account.id.clone();
    let limit = limit.map(|limit| limit.max(0));
    let history = way.app.jobs.reader.history(user, limit, offset).await?;
    Ok(raw_answer(history))
}

pub(super) async fn show_one(way: &Way<'_>, id: &str) -> Result<Response, Failure> {
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

pub(super) async fn change(way: &Way<'_>, request: Request) -> Result<Response, Failure> {
    let wish = read_object(request).await?;
    let ids = if is_set(&wish, "clear") {
        None
    } else {
        Some(named_ids(&wish, "delete"))
    };
    let user = way.signed_in.account.id.clone();
    way.app.store.forget_finished_jobs(user, ids).await?;
    Ok(empty())
}
