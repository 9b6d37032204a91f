//! `/api/assets` and `/api/tags`, as far as they work without the blake3 package: hashes and uploads do not.

use super::Asked;
use crate::answer::{self, Refusal};
use crate::assets::Asset;
use crate::body;
use crate::files;
use crate::json::{Json, json};
use crate::state::Engine;
use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const MOST: i64 = 500;
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    All,
    Hash,
    FromHash,
    Seed,
    SeedStatus,
    SeedCancel,
    Prune,
    Refine,
    One,
    Content,
    Tags,
    AllTags,
}

pub(super) async fn answer(engine: &Engine, route: Route, asked: &Asked, body: Body) -> Response {
    if !engine.options.assets {
        let disabled = error(
            "SERVICE_DISABLED",
            "Assets system is disabled. Start the server with --enable-assets to use this feature.",
            json!({}),
        );
        return answer::json_with(StatusCode::SERVICE_UNAVAILABLE, &disabled);
    }
    if route == Route::Hash {
        return answer::empty(StatusCode::NOT_FOUND);
    }
    if engine.users.of(&asked.headers).is_err() {
        return answer::broken();
    }
    let id = asked.place(0).to_owned();
    match (route, asked.method.as_str()) {
        (Route::All, "POST") => {
            let unavailable = error("INTERNAL", "Unexpected server error.", json!({}));
            answer::json_with(StatusCode::INTERNAL_SERVER_ERROR, &unavailable)
        }
        (Route::All, _) => list(engine, asked),
        (Route::AllTags, _) => tags(engine, asked),
        (Route::One, "GET" | "HEAD") => engine
            .assets
            .lock()
            .get(&id)
            .map_or_else(|| missing(&id), |row| answer::json(&row.detail())),
        (Route::One, "DELETE") => {
            let Some(row) = engine.assets.lock().remove(&id) else {
                return missing(&id);
            };
            if !matches!(asked.query("delete_content"), Some("false" | "0")) {
                let _ = std::fs::remove_file(row.path);
            }
            answer::empty(StatusCode::NO_CONTENT)
        }
        (Route::Content, _) => content(engine, asked, &id).await,
        _ => match body::json(&asked.headers, body, engine.options.max_upload).await {
            Ok(sent) => change(engine, route, asked, &id, &sent),
            Err(_) => {
                let unreadable = error(
                    "INVALID_JSON",
                    "Request body must be valid JSON.",
                    json!({}),
                );
                answer::json_with(StatusCode::BAD_REQUEST, &unreadable)
            }
        },
    }
}

fn change(engine: &Engine, route: Route, asked: &Asked, id: &str, sent: &Json) -> Response {
    match route {
        Route::Seed => seed(engine, sent),
        Route::FromHash => {
            let hash = sent.get("hash").map(Json::python_text).unwrap_or_default();
            let text = format!("Asset content {hash} does not exist");
            answer::json_with(
                StatusCode::NOT_FOUND,
                &error("ASSET_NOT_FOUND", &text, json!({})),
            )
        }
        Route::Tags => change_tags(engine, asked, id, sent),
        _ => {
            let mut assets = engine.assets.lock();
            let Some(row) = assets.get_mut(id) else {
                return missing(id);
            };
            if let Some(name) = sent.get("name").and_then(Json::as_str) {
                name.clone_into(&mut row.name);
            }
            if let Some(metadata) = sent
                .get("user_metadata")
                .filter(|metadata| metadata.as_object().is_some())
            {
                row.metadata = metadata.clone();
            }
            row.updated = crate::log::stamp();
            answer::json(&row.changed())
        }
    }
}

fn seed(engine: &Engine, sent: &Json) -> Response {
    let roots: Vec<String> = sent
        .get("roots")
        .and_then(Json::as_list)
        .unwrap_or_default()
        .iter()
        .map(Json::python_text)
        .collect();
    let mut assets = engine.assets.lock();
    for root in &roots {
        match root.as_str() {
            "input" => assets.scan("input", &engine.options.input),
            "output" => assets.scan("output", &engine.options.output),
            "models" => assets.scan("models", &engine.options.models),
            _ => {
                let text = "Validation failed.";
                return answer::json_with(
                    StatusCode::BAD_REQUEST,
                    &error("INVALID_BODY", text, json!({})),
                );
            }
        }
    }
    let mut seeded = json!({});
    seeded.set("seeded", roots);
    answer::json(&seeded)
}

fn list(engine: &Engine, asked: &Asked) -> Response {
    let (limit, offset) = match (
        number(asked, "limit", 20, 1, MOST),
        number(asked, "offset", 0, 0, i64::MAX),
    ) {
        (Ok(limit), Ok(offset)) => (limit, offset),
        (Err(refusal), _) | (_, Err(refusal)) => return *refusal,
    };
    let words = |name: &str| -> Vec<String> {
        let text = asked.query(name).unwrap_or_default();
        text.split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let (include, exclude) = (words("include_tags"), words("exclude_tags"));
    let part = asked.query("name_contains").map(str::to_lowercase);
    let assets = engine.assets.lock();
    let mut rows: Vec<&Asset> = assets
        .rows()
        .iter()
        .filter(|row| include.iter().all(|tag| row.tags.contains(tag)))
        .filter(|row| !exclude.iter().any(|tag| row.tags.contains(tag)))
        .filter(|row| {
            part.as_ref()
                .is_none_or(|part| row.name.to_lowercase().contains(part))
        })
        .collect();
    match asked.query("sort").unwrap_or("created_at") {
        "name" => rows.sort_by(|a, b| a.name.cmp(&b.name)),
        "size" => rows.sort_by_key(|row| row.size),
        "updated_at" => rows.sort_by(|a, b| a.updated.cmp(&b.updated)),
        _ => rows.sort_by(|a, b| a.created.cmp(&b.created)),
    }
    if asked.query("order").unwrap_or("desc") == "desc" {
        rows.reverse();
    }
    let shown: Vec<Json> = rows
        .iter()
        .skip(offset)
        .take(limit)
        .map(|row| row.row())
        .collect();
    let mut listed = json!({});
    let more = offset + shown.len() < rows.len();
    listed.set("assets", shown);
    listed.set("total", rows.len());
    listed.set("has_more", more);
    answer::json(&listed)
}

fn tags(engine: &Engine, asked: &Asked) -> Response {
    let (limit, offset) = match (
        number(asked, "limit", 100, 1, 1000),
        number(asked, "offset", 0, 0, i64::MAX),
    ) {
        (Ok(limit), Ok(offset)) => (limit, offset),
        (Err(refusal), _) | (_, Err(refusal)) => return *refusal,
    };
    let all = engine.assets.lock().tags();
    let prefix = asked.query("prefix").unwrap_or_default();
    let found: Vec<_> = all
        .into_iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .collect();
    let shown: Vec<Json> = found
        .iter()
        .skip(offset)
        .take(limit)
        .map(|(name, count)| {
            let system = matches!(name.as_str(), "input" | "output" | "models");
            json!({ "name": name, "count": count, "type": if system { "system" } else { "user" } })
        })
        .collect();
    let mut listed = json!({});
    let more = offset + shown.len() < found.len();
    listed.set("tags", shown);
    listed.set("total", found.len());
    listed.set("has_more", more);
    answer::json(&listed)
}

fn number(
    asked: &Asked,
    name: &str,
    default: usize,
    least: i64,
    most: i64,
) -> Result<usize, Refusal> {
    let Some(text) = asked.query(name) else {
        return Ok(default);
    };
    let (kind, message, limits) = match text.parse::<i64>() {
        Ok(number) if number < least => (
            "greater_than_equal",
            format!("Input should be greater than or equal to {least}"),
            json!({ "ge": least }),
        ),
        Ok(number) if number > most => (
            "less_than_equal",
            format!("Input should be less than or equal to {most}"),
            json!({ "le": most }),
        ),
        Ok(number) => return Ok(usize::try_from(number).unwrap_or(default)),
        Err(_) => (
            "int_parsing",
            "Input should be a valid integer".to_owned(),
            Json::Null,
        ),
    };
    let mut found = json!({ "type": kind, "loc": [name], "msg": message, "input": text });
    if !limits.is_null() {
        found.set("ctx", limits);
    }
    found.set("url", format!("https://errors.pydantic.dev/2.14/v/{kind}"));
    let mut details = json!({});
    details.set(
        "errors",
        Json::List(vec![found])
            .dump()
            .replace("\": ", "\":")
            .replace(", \"", ",\""),
    );
    let refusal = error("INVALID_QUERY", "Validation failed.", details);
    Err(answer::json_with(StatusCode::BAD_REQUEST, &refusal).into())
}

async fn content(engine: &Engine, asked: &Asked, id: &str) -> Response {
    let Some(row) = engine.assets.lock().get(id).cloned() else {
        return missing(id);
    };
    let Ok(bytes) = tokio::fs::read(&row.path).await else {
        return missing(id);
    };
    let kind = files::kind(&row.path).unwrap_or("application/octet-stream");
    let length = bytes.len();
    let body = if asked.method == Method::HEAD {
        Vec::new()
    } else {
        bytes
    };
    let mut response = answer::with_body(StatusCode::OK, Some(kind), body.into());
    answer::set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    let plain = row.name.replace(['"', '\r', '\n'], "");
    let encoded = utf8_percent_encode(&row.name, ESCAPED);
    let disposition = if asked.query("disposition") == Some("inline") {
        "inline"
    } else {
        "attachment"
    };
    let value = format!("{disposition}; filename=\"{plain}\"; filename*=UTF-8''{encoded}");
    answer::set(&mut response, header::CONTENT_DISPOSITION, &value);
    response
}

fn change_tags(engine: &Engine, asked: &Asked, id: &str, sent: &Json) -> Response {
    let wanted: Vec<String> = sent
        .get("tags")
        .and_then(Json::as_list)
        .unwrap_or_default()
        .iter()
        .map(Json::python_text)
        .collect();
    let mut assets = engine.assets.lock();
    let Some(row) = assets.get_mut(id) else {
        return missing(id);
    };
    let (has, has_not): (Vec<String>, Vec<String>) =
        wanted.into_iter().partition(|tag| row.tags.contains(tag));
    let mut changed = json!({});
    if asked.method == Method::POST {
        row.tags.extend(has_not.iter().cloned());
        changed.set("added", has_not);
        changed.set("already_present", has);
    } else {
        row.tags.retain(|tag| !has.contains(tag));
        changed.set("removed", has);
        changed.set("not_present", has_not);
    }
    let mut total = row.tags.clone();
    total.sort();
    changed.set("total_tags", total);
    answer::json(&changed)
}

fn missing(id: &str) -> Response {
    let text = format!("AssetInfo {id} not found");
    let mut details = json!({});
    details.set("id", id);
    answer::json_with(
        StatusCode::NOT_FOUND,
        &error("ASSET_NOT_FOUND", &text, details),
    )
}

fn error(code: &str, message: &str, details: Json) -> Json {
    let mut inner = json!({ "code": code, "message": message });
    inner.set("details", details);
    let mut error = json!({});
    error.set("error", inner);
    error
}
