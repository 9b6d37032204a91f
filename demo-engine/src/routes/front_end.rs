//! The page and the files that come with it.

use super::Asked;
use crate::answer;
use crate::files;
use crate::page;
use crate::state::Engine;
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use std::path::Path;

/// Directories that other packages of ComfyUI bring.
const MOUNTED: &[&str] = &["docs", "templates", "extensions"];

pub(super) async fn index(engine: &Engine, asked: &Asked) -> Response {
    let mut response = match &engine.options.front_end {
        Some(root) => {
            files::serve(
                &root.join("index.html"),
                &asked.method,
                &asked.headers,
                None,
            )
            .await
        }
        None => {
            files::serve_memory(
                page::PAGE.as_bytes(),
                "text/html",
                &asked.method,
                &asked.headers,
            )
            .await
        }
    };
    answer::set(
        &mut response,
        header::CACHE_CONTROL,
        "no-store, must-revalidate",
    );
    answer::set(&mut response, header::PRAGMA, "no-cache");
    answer::set(&mut response, header::EXPIRES, "0");
    response
}

pub(super) async fn file(
    engine: &Engine,
    method: &Method,
    headers: &HeaderMap,
    path: &str,
) -> Response {
    let name = percent_decode_str(path.strip_prefix('/').unwrap_or(path))
        .decode_utf8_lossy()
        .into_owned();
    if name.starts_with('/') || name.contains('\0') {
        return answer::refused(StatusCode::NOT_FOUND);
    }
    let root = engine
        .options
        .front_end
        .as_deref()
        .unwrap_or(Path::new("/"));
    let mounted = name
        .split_once('/')
        .map(|(first, _)| first)
        .filter(|first| MOUNTED.contains(first));
    let inside = mounted.map_or_else(|| root.to_owned(), |first| root.join(first));
    let full = files::normalise(&root.join(&name));
    let steps_out = name.split('/').filter(|part| *part == "..").count();
    if !full.starts_with(&inside)
        || (engine.options.front_end.is_none() && leaves(&name, steps_out))
    {
        return answer::refused(StatusCode::NOT_FOUND);
    }
    if engine.options.front_end.is_none() {
        return own(&name, method, headers).await;
    }
    if full.is_dir() || mounted.is_some_and(|first| name.trim_end_matches('/') == first) {
        return answer::refused(StatusCode::FORBIDDEN);
    }
    if let Some(bytes) = page::template(&name)
        && !full.exists()
    {
        let kind = files::kind(&full).unwrap_or("application/octet-stream");
        return files::serve_memory(bytes, kind, method, headers).await;
    }
    files::serve(&full, method, headers, None).await
}

/// Whether a relative name climbs above where it starts.
fn leaves(name: &str, steps_out: usize) -> bool {
    steps_out > 0 && files::normalise(Path::new(name)).starts_with("..")
}

/// The files of our own page.
async fn own(name: &str, method: &Method, headers: &HeaderMap) -> Response {
    match name {
        "index.html" => {
            files::serve_memory(page::PAGE.as_bytes(), "text/html", method, headers).await
        }
        "assets/page.css" => {
            files::serve_memory(page::STYLE.as_bytes(), "text/css", method, headers).await
        }
        "assets/page.js" => {
            files::serve_memory(
                page::SCRIPT.as_bytes(),
                "application/javascript",
                method,
                headers,
            )
            .await
        }
        "assets" | "assets/" | "docs/" | "templates/" | "extensions/" => {
            answer::refused(StatusCode::FORBIDDEN)
        }
        _ => answer::no_such_file(),
    }
}
