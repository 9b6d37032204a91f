//! `/api/jobs`: queue and history in one list.
//!
//! As in ComfyUI a single entry whose `extra_pnginfo` is not an object makes the whole list fail.

use super::Asked;
use crate::answer::{self, Refusal};
use crate::body;
use crate::json::{Json, json};
use crate::queue::{Finished, Item};
use crate::state::Engine;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
            job.set("outputs", with_models_as_files(&finished.outputs));
            job.set("execution_status", finished.status.clone());
            let mut workflow = json!({});
            workflow.set("prompt", finished.item.prompt.clone());
            workflow.set("extra_data", finished.item.extra.clone());
            job.set("workflow", workflow);
            job
        }))
    };
    let found = finished()
        .or_else(|| waiting(&running, "in_progress"))
        .or_else(|| waiting(&pending, "pending"));
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
    job.set("previewable_outputs_count", 0_u32);
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
    let summary = Summary::of(&finished.outputs);
    job.set("outputs_count", summary.count);
    job.set("previewable_outputs_count", summary.previewable);
    if let Some(preview) = summary.preview() {
        job.set("preview_output", preview);
    }
    set_workflow(&mut job, &finished.item)?;
    Ok(job)
}

/// Ends a job, whatever it does; one that is over or unknown is no error.
pub(super) fn cancel(engine: &Engine, id: &str) -> Response {
    answer::json(&json!({ "cancelled": end(engine, id) }))
}

/// Ends several jobs.
pub(super) async fn cancel_many(engine: &Engine, asked: &Asked, body: Body) -> Response {
    let bad = |message: &str| answer::json_error(StatusCode::BAD_REQUEST, message);
    let bytes = match body::bytes(&asked.headers, body, engine.options.max_upload).await {
        Ok(bytes) => bytes,
        Err(refusal) => return *refusal,
    };
    let Some(sent) = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| Json::parse(text).ok())
    else {
        return bad("Request body must be valid JSON");
    };
    let Some(ids) = sent.get("job_ids").and_then(Json::as_list) else {
        return bad("job_ids must be a list");
    };
    let wrong: Vec<String> = ids
        .iter()
        .filter(|id| !id.as_str().is_some_and(is_canonical))
        .map(|id| id.as_str().map_or_else(|| id.python_repr(), str::to_owned))
        .collect();
    if !wrong.is_empty() {
        let mut refusal = json!({ "error": "job_ids contains invalid id(s)" });
        refusal.set("invalid_ids", wrong);
        return answer::json_with(StatusCode::BAD_REQUEST, &refusal);
    }
    let mut cancelled = false;
    for id in ids.iter().filter_map(Json::as_str) {
        cancelled |= end(engine, id);
    }
    answer::json(&json!({ "cancelled": cancelled }))
}

fn end(engine: &Engine, id: &str) -> bool {
    let (running, pending) = engine.queue.current();
    let has = |items: &[Arc<Item>]| items.iter().any(|item| item.id == id);
    if has(&running) {
        engine.say(&format!("Cancelling running prompt {id}"));
    } else if has(&pending) {
        engine.say(&format!("Cancelling pending prompt {id}"));
        if engine
            .queue
            .delete(id, |remaining| engine.announce_queue(remaining))
        {
            return true;
        }
    } else {
        return false;
    }
    engine
        .queue
        .if_running(id, || engine.interrupt.store(true, Ordering::SeqCst))
}

/// Whether a text is a UUID the way Python writes it.
pub(super) fn is_canonical(text: &str) -> bool {
    uuid::Uuid::try_parse(text).is_ok_and(|id| id.to_string() == text)
}

/// Kinds of outputs that the page can show.
const SHOWN: &[&str] = &["images", "video", "audio", "3d", "text"];
const MODELS: &[&str] = &[".obj", ".fbx", ".gltf", ".glb", ".usdz"];
const TEXTS: &[&str] = &[".txt", ".md", ".json"];
/// Longer texts are cut in the list.
const LONGEST_TEXT: usize = 1024;

/// What a job made, in short.
#[derive(Debug, Default)]
struct Summary {
    count: usize,
    previewable: usize,
    /// The first of each kind, the one that is shown rather than the others first: a saved picture, a temporary
    /// one, a text file, a text.
    firsts: [Option<Json>; 4],
}

impl Summary {
    fn of(outputs: &Json) -> Self {
        let mut summary = Self::default();
        for (node, kind, items) in lists(outputs) {
            for item in items {
                let Some(file) = file(item) else {
                    if kind == "text" && item.as_object().is_none() && !item.is_null() {
                        summary.add(3, node, kind, text(&item.python_text()));
                    }
                    continue;
                };
                summary.count += 1;
                if !is_shown(kind, &file) {
                    continue;
                }
                summary.previewable += 1;
                let rank = if kind == "text" || ends(&file, TEXTS) {
                    2
                } else if file.get("type").and_then(Json::as_str) == Some("output") {
                    0
                } else {
                    1
                };
                summary.add(rank, node, kind, file);
            }
        }
        summary
    }

    fn add(&mut self, rank: usize, node: &str, kind: &str, mut preview: Json) {
        if self.firsts[rank].is_none() {
            preview.set("nodeId", node);
            if preview.get("mediaType").is_none() {
                preview.set("mediaType", kind);
            }
            self.firsts[rank] = Some(preview);
        }
    }

    fn preview(self) -> Option<Json> {
        self.firsts.into_iter().flatten().next()
    }
}

/// The lists of outputs: node, kind and items.
fn lists(outputs: &Json) -> impl Iterator<Item = (&str, &str, &[Json])> {
    let nodes = outputs.as_object().unwrap_or_default().iter();
    nodes.flat_map(|(node, shown)| {
        let kinds = shown.as_object().unwrap_or_default().iter();
        kinds
            .filter(|(kind, _)| kind != "animated")
            .filter_map(move |(kind, items)| Some((node.as_str(), kind.as_str(), items.as_list()?)))
    })
}

/// An item as a file: an object as it is, the name of a 3D model as an object. Nothing else is one.
fn file(item: &Json) -> Option<Json> {
    match item {
        Json::Object(_) => Some(item.clone()),
        Json::Text(name) if ends_with(name, MODELS) => {
            Some(json!({ "filename": name, "type": "output", "subfolder": "", "mediaType": "3d" }))
        }
        _ => None,
    }
}

fn is_shown(kind: &str, file: &Json) -> bool {
    let format = file
        .get("format")
        .and_then(Json::as_str)
        .unwrap_or_default();
    SHOWN.contains(&kind)
        || format.starts_with("video/")
        || format.starts_with("audio/")
        || ends(file, MODELS)
        || ends(file, TEXTS)
}

fn ends(file: &Json, endings: &[&str]) -> bool {
    file.get("filename")
        .and_then(Json::as_str)
        .is_some_and(|name| ends_with(name, endings))
}

fn ends_with(name: &str, endings: &[&str]) -> bool {
    let name = name.to_lowercase();
    endings.iter().any(|ending| name.ends_with(ending))
}

fn text(content: &str) -> Json {
    let kept: String = content.chars().take(LONGEST_TEXT).collect();
    let mut shown = json!({ "content": kept });
    if kept.len() < content.len() {
        shown.set("truncated", true);
    }
    shown
}

/// Outputs with the names of 3D models as files, and without what is null.
fn with_models_as_files(outputs: &Json) -> Json {
    let mut changed = outputs.clone();
    let Json::Object(nodes) = &mut changed else {
        return changed;
    };
    for (_, shown) in nodes {
        let Json::Object(kinds) = shown else { continue };
        for (kind, items) in kinds {
            if let (Json::List(items), true) = (items, kind != "animated") {
                items.retain(|item| !item.is_null());
                for item in items {
                    *item = file(item).unwrap_or_else(|| item.clone());
                }
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::{Summary, is_canonical, with_models_as_files};
    use crate::json::json;

    #[test]
    fn a_saved_picture_stands_for_the_job_before_all_else() {
        let file = |name: &str, kind: &str| serde_json::json!({ "filename": name, "subfolder": "", "type": kind });
        let saved = file("a.png", "output");
        let temporary = file("b.png", "temp");
        let note = file("c.md", "output");
        let latent = file("d.latent", "output");
        for (outputs, count, previewable, preview) in [
            (json!({}), 0, 0, None),
            (json!({ "1": { "text": ["words"] } }), 0, 0, Some("words")),
            (
                json!({ "1": { "text": ["words"], "files": [note] }, "2": { "images": [temporary] } }),
                2,
                2,
                Some("b.png"),
            ),
            (
                json!({ "1": { "files": [note] }, "2": { "images": [temporary] }, "3": { "images": [saved] } }),
                3,
                3,
                Some("a.png"),
            ),
            (
                json!({ "1": { "latents": [latent], "files": [note] } }),
                2,
                1,
                Some("c.md"),
            ),
            (
                json!({ "1": { "result": ["x.GLB", null, { "camera": 1 }] } }),
                2,
                1,
                Some("x.GLB"),
            ),
            (
                json!({ "1": { "images": [saved], "animated": [true] } }),
                1,
                1,
                Some("a.png"),
            ),
        ] {
            let summary = Summary::of(&outputs);
            assert_eq!(
                (summary.count, summary.previewable),
                (count, previewable),
                "{}",
                outputs.dump()
            );
            let shown = summary.preview().and_then(|preview| {
                let named = preview.get("filename").or_else(|| preview.get("content"))?;
                Some(named.python_text())
            });
            assert_eq!(shown.as_deref(), preview, "{}", outputs.dump());
        }
    }

    #[test]
    fn names_of_models_become_files() {
        let shown = with_models_as_files(&json!({ "1": { "result": ["x.glb", null, "camera"] } }));
        assert_eq!(
            shown.dump(),
            r#"{"1": {"result": [{"filename": "x.glb", "type": "output", "subfolder": "", "mediaType": "3d"}, "camera"]}}"#
        );
    }

    #[test]
    fn only_one_spelling_of_an_id_counts() {
        for (id, expected) in [
            ("01234567-89ab-cdef-0123-456789abcdef", true),
            ("01234567-89AB-cdef-0123-456789abcdef", false),
            ("0123456789abcdef0123456789abcdef", false),
            ("{01234567-89ab-cdef-0123-456789abcdef}", false),
            ("x", false),
            ("", false),
        ] {
            assert_eq!(is_canonical(id), expected, "{id}");
        }
    }
}
