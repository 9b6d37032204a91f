//! The routes under `/internal`.

use super::{Asked, information};
use crate::answer;
use crate::body;
use crate::json::{Json, json};
use crate::state::Engine;
use axum::body::Body;
use axum::response::Response;
use http::StatusCode;
use std::cmp::Reverse;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Logs,
    RawLogs,
    Subscribe,
    FolderPaths,
    Files,
}

pub(super) async fn answer(engine: &Engine, route: Route, asked: &Asked, body: Body) -> Response {
    match route {
        Route::Logs => {
            let text: Vec<String> = engine
                .log
                .entries()
                .iter()
                .map(|entry| format!("{} - {}", entry.at, entry.text))
                .collect();
            answer::json(&text.concat().into())
        }
        Route::RawLogs => {
            let entries: Vec<Json> = engine
                .log
                .entries()
                .iter()
                .map(|entry| json!({ "t": entry.at, "m": entry.text }))
                .collect();
            let mut shown = json!({});
            shown.set("entries", entries);
            shown.set("size", json!({ "cols": 80, "rows": 24 }));
            answer::json(&shown)
        }
        Route::Subscribe => {
            let sent = match body::json(&asked.headers, body, engine.options.max_upload).await {
                Ok(sent) => sent,
                Err(refusal) => return *refusal,
            };
            // Whose client id it is does not matter.
            let client = sent.get("clientId").and_then(Json::as_str);
            match (client, sent.get("enabled")) {
                (Some(client), Some(enabled)) => {
                    engine.log.subscribe(client, enabled.truthy());
                    answer::empty(StatusCode::OK)
                }
                _ => answer::broken(),
            }
        }
        Route::FolderPaths => answer::json(&information::folder_paths(engine)),
        Route::Files => files(engine, asked.place(0)),
    }
}

/// Names of the top level of a directory, newest first.
fn files(engine: &Engine, kind: &str) -> Response {
    let Some(directory) = engine.directory(kind) else {
        return answer::json_error(StatusCode::BAD_REQUEST, "Invalid directory type");
    };
    let mut found: Vec<_> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_file())
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| {
            let modified = entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok();
            (
                Reverse(modified),
                entry.file_name().to_string_lossy().into_owned(),
            )
        })
        .collect();
    found.sort();
    answer::json(
        &found
            .into_iter()
            .map(|(_, name)| format!("{name} [{kind}]"))
            .collect::<Vec<_>>()
            .into(),
    )
}
