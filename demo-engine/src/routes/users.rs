//! Users, their settings and their files.

use super::Asked;
use crate::answer;
use crate::body;
use crate::files;
use crate::json::{Json, json};
use crate::state::Engine;
use crate::userdata::{self, SYSTEM};
use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Users,
    Settings,
    Setting,
    List,
    ListTree,
    File,
    Move,
}

pub(super) async fn answer(engine: &Engine, route: Route, asked: &Asked, body: Body) -> Response {
    let writes = asked.method == Method::POST;
    match (route, writes) {
        (Route::Users, false) => answer::json(&engine.users.shown()),
        (Route::Users, true) => add(engine, asked, body).await,
        (Route::Settings | Route::Setting, _) => settings(engine, route, asked, body).await,
        (Route::List, _) => list(engine, asked),
        (Route::ListTree, _) => list_tree(engine, asked),
        (Route::File | Route::Move, _) => file(engine, route, asked, body).await,
    }
}

async fn add(engine: &Engine, asked: &Asked, body: Body) -> Response {
    let sent = match body::json(&asked.headers, body, engine.options.max_upload).await {
        Ok(sent) => sent,
        Err(refusal) => return *refusal,
    };
    if !engine.options.multi_user {
        return answer::broken();
    }
    let Some(name) = sent.get("username").and_then(Json::as_str) else {
        return answer::broken();
    };
    let bad = |message: &str| answer::json_error(StatusCode::BAD_REQUEST, message);
    if engine.users.has_name(name) {
        return bad("Duplicate username.");
    }
    if name.starts_with(SYSTEM) {
        return bad("System User prefix not allowed");
    }
    if name.trim().is_empty() {
        return answer::broken();
    }
    engine
        .users
        .add(name.trim())
        .map_or_else(|_| answer::broken(), |id| answer::json(&id.into()))
}

async fn settings(engine: &Engine, route: Route, asked: &Asked, body: Body) -> Response {
    let Ok(user) = engine.users.of(&asked.headers) else {
        return answer::refused(StatusCode::UNAUTHORIZED);
    };
    let mut settings = engine.users.settings(&user);
    let name = asked.place(0);
    if asked.method != Method::POST {
        let shown = match route {
            Route::Setting => settings.get(name).cloned().unwrap_or(Json::Null),
            _ => settings,
        };
        return answer::json(&shown);
    }
    let sent = match body::json(&asked.headers, body, engine.options.max_upload).await {
        Ok(sent) => sent,
        Err(refusal) => return *refusal,
    };
    if route == Route::Setting {
        settings.set(name, sent);
    } else if let Json::Object(entries) = sent {
        for (key, value) in entries {
            settings.set(&key, value);
        }
    } else {
        return answer::broken();
    }
    match engine.users.save_settings(&user, &settings) {
        Ok(()) => answer::empty(StatusCode::OK),
        Err(_) => answer::broken(),
    }
}

fn list(engine: &Engine, asked: &Asked) -> Response {
    let Some(directory) = asked.query("dir").filter(|directory| !directory.is_empty()) else {
        return answer::text(StatusCode::BAD_REQUEST, "Directory not provided");
    };
    let Ok(user) = engine.users.of(&asked.headers) else {
        return answer::broken();
    };
    let Some(path) = engine.users.file(&user, directory) else {
        return answer::text(StatusCode::FORBIDDEN, "Invalid directory");
    };
    if !path.exists() {
        return answer::text(StatusCode::NOT_FOUND, "Directory not found");
    }
    let on = |name: &str| {
        asked
            .query(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    };
    let found = userdata::list(&path, on("recurse"));
    let shown: Vec<Json> = found
        .into_iter()
        .map(|name| {
            if on("full_info") {
                userdata::information(&path.join(&name), &name)
            } else if on("split") {
                let mut parts = vec![name.as_str()];
                parts.extend(name.split('/'));
                parts.into()
            } else {
                name.into()
            }
        })
        .collect();
    answer::json(&shown.into())
}

fn list_tree(engine: &Engine, asked: &Asked) -> Response {
    let Ok(user) = engine.users.of(&asked.headers) else {
        return answer::text(StatusCode::FORBIDDEN, "Invalid user specified in request");
    };
    let root = engine.users.root(&user);
    let given = percent_decode_str(asked.query("path").unwrap_or_default())
        .decode_utf8_lossy()
        .into_owned();
    let path = files::join(&root, &given);
    if !path.starts_with(&root) {
        return answer::text(StatusCode::BAD_REQUEST, "Invalid path requested");
    }
    if given.is_empty() {
        let _ = std::fs::create_dir_all(&root);
    }
    if !path.exists() {
        return answer::text(StatusCode::NOT_FOUND, "Requested path not found");
    }
    if !path.is_dir() {
        return answer::text(StatusCode::BAD_REQUEST, "Requested path is not a directory");
    }
    answer::json(&userdata::tree(&root, &path).into())
}

async fn file(engine: &Engine, route: Route, asked: &Asked, body: Body) -> Response {
    let Ok(user) = engine.users.of(&asked.headers) else {
        return answer::broken();
    };
    let forbidden = || answer::empty(StatusCode::FORBIDDEN);
    let Some(path) = engine.users.file(&user, asked.place(0)) else {
        return forbidden();
    };
    let there = path.exists();
    let missing = || answer::empty(StatusCode::NOT_FOUND);
    if route == Route::Move {
        if !there {
            return missing();
        }
        let Some(destination) = engine.users.file(&user, asked.place(1)) else {
            return forbidden();
        };
        if destination.exists() && !overwrites(asked) {
            return answer::text(StatusCode::CONFLICT, "File already exists");
        }
        engine.say(&format!(
            "moving '{}' -> '{}'",
            path.display(),
            destination.display()
        ));
        if std::fs::rename(&path, &destination).is_err() {
            return answer::broken();
        }
        return written(engine, &user, asked, &destination);
    }
    match asked.method.as_str() {
        "POST" => {
            if there && !overwrites(asked) {
                return answer::text(StatusCode::CONFLICT, "File already exists");
            }
            let bytes = match body::bytes(&asked.headers, body, engine.options.max_upload).await {
                Ok(bytes) => bytes,
                Err(refusal) => return *refusal,
            };
            if tokio::fs::write(&path, &bytes).await.is_err() {
                return answer::text(
                    StatusCode::BAD_REQUEST,
                    "Invalid filename. Please avoid special characters like :\\/*?\"<>|",
                );
            }
            written(engine, &user, asked, &path)
        }
        "DELETE" if there => match std::fs::remove_file(&path) {
            Ok(()) => answer::empty(StatusCode::NO_CONTENT),
            Err(_) => answer::broken(),
        },
        _ if !there => missing(),
        _ => download(engine, &user, asked, &path).await,
    }
}

/// A user's file. Only the style of the page is shown in place, all else is a download.
async fn download(engine: &Engine, user: &str, asked: &Asked, path: &Path) -> Response {
    let style = path == engine.users.root(user).join("user.css");
    let kind = files::kind(path).unwrap_or("application/octet-stream");
    let kind = if style {
        "text/css"
    } else if files::is_active(kind) {
        "application/octet-stream"
    } else {
        kind
    };
    let mut response = files::serve(path, &asked.method, &asked.headers, Some(kind)).await;
    answer::set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    let disposition = if style { "inline" } else { "attachment" };
    answer::set(&mut response, header::CONTENT_DISPOSITION, disposition);
    response
}

fn overwrites(asked: &Asked) -> bool {
    asked.query("overwrite") != Some("false")
}

fn written(engine: &Engine, user: &str, asked: &Asked, path: &Path) -> Response {
    let root: PathBuf = engine.users.root(user);
    let shown = path
        .strip_prefix(&root)
        .unwrap_or(path)
        .to_string_lossy()
        .into_owned();
    let full = asked
        .query("full_info")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"));
    answer::json(&if full {
        userdata::information(path, &shown)
    } else {
        json!(shown)
    })
}
