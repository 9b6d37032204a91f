//! `/api/assets` and `/api/tags`, there with `--enable-assets`.

use super::Asked;
use crate::answer::{self, Refusal};
use crate::assets::{Asset, Place, Scan, count_tags, hash};
use crate::body;
use crate::files;
use crate::json::{Json, json};
use crate::multipart::Form;
use crate::state::Engine;
use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::path::Path;

const MOST: i64 = 500;
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'_').remove(b'-');
/// Directories that a scan looks through.
const ROOTS: &[&str] = &["models", "input", "output"];

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
    match route {
        Route::Hash => return by_hash(engine, asked),
        Route::SeedStatus => {
            let mut status = json!({ "state": "IDLE" });
            let scan = engine.assets.lock().scan;
            status.set("progress", scan.map_or(Json::Null, progress));
            status.set("errors", json!([]));
            return answer::json(&status);
        }
        Route::SeedCancel => return answer::json(&json!({ "status": "idle" })),
        Route::Prune => return answer::json(&json!({ "status": "completed", "marked": 0 })),
        _ => {}
    }
    if engine.users.of(&asked.headers).is_err() {
        return answer::broken();
    }
    let id = asked.place(0).to_lowercase();
    match (route, asked.method.as_str()) {
        (Route::All, "POST") => upload(engine, asked, body).await,
        (Route::All, _) => list(engine, asked),
        (Route::Refine, _) => refine(engine, asked),
        (Route::AllTags, _) => tags(engine, asked),
        (Route::One, "GET" | "HEAD") => engine
            .assets
            .lock()
            .get(&id)
            .map_or_else(|| missing(&id, "", true), |row| answer::json(&row.row())),
        (Route::One, "DELETE") => match engine.assets.lock().remove(&id) {
            Some(_) => answer::empty(StatusCode::NO_CONTENT),
            None => missing(&id, ".", false),
        },
        (Route::Content, _) => content(engine, asked, &id).await,
        _ => match body::json(&asked.headers, body, engine.options.max_upload).await {
            Ok(sent) => change(engine, route, asked, &id, &sent),
            Err(_) if route == Route::Seed => seed(engine, asked, &json!({})),
            Err(_) => bad(
                "INVALID_JSON",
                "Request body must be valid JSON.",
                json!({}),
            ),
        },
    }
}

fn by_hash(engine: &Engine, asked: &Asked) -> Response {
    let wanted = asked.place(0).trim().to_lowercase();
    if !is_hash(&wanted) {
        return bad(
            "INVALID_HASH",
            "hash must be like 'blake3:<hex>'",
            json!({}),
        );
    }
    answer::empty(match engine.assets.lock().with_hash(&wanted) {
        Some(_) => StatusCode::OK,
        None => StatusCode::NOT_FOUND,
    })
}

fn is_hash(text: &str) -> bool {
    text.strip_prefix("blake3:").is_some_and(|digits| {
        digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

fn change(engine: &Engine, route: Route, asked: &Asked, id: &str, sent: &Json) -> Response {
    match route {
        Route::Seed => seed(engine, asked, sent),
        Route::FromHash => from_hash(engine, sent),
        Route::Tags => change_tags(engine, asked, id, sent),
        _ => {
            let has = |name: &str| sent.get(name).is_some_and(|value| !value.is_null());
            if !["name", "user_metadata", "preview_id"].into_iter().any(has) {
                let reason = "Provide at least one of: name, user_metadata, preview_id.";
                let mut found = json!({
                    "type": "value_error",
                    "loc": [],
                    "msg": format!("Value error, {reason}"),
                });
                found.set("input", sent.clone());
                found.set("ctx", json!({ "error": reason }));
                found.set("url", "https://errors.pydantic.dev/2.14/v/value_error");
                return invalid("INVALID_BODY", found);
            }
            let mut assets = engine.assets.lock();
            let Some(row) = assets.get_mut(id) else {
                return missing(id, "", true);
            };
            if let Some(name) = sent.get("name").and_then(Json::as_str) {
                name.clone_into(&mut row.name);
            }
            if let Some(preview) = sent.get("preview_id").and_then(Json::as_str) {
                row.preview = Some(preview.to_owned());
            }
            if let Some(metadata) = sent
                .get("user_metadata")
                .filter(|metadata| metadata.as_object().is_some())
            {
                row.metadata = metadata.clone();
            }
            row.updated = crate::log::stamp();
            answer::json(&row.row())
        }
    }
}

fn from_hash(engine: &Engine, sent: &Json) -> Response {
    let wanted = sent.get("hash").map(Json::python_text).unwrap_or_default();
    let name = sent.get("name").and_then(Json::as_str);
    let name = name.unwrap_or_else(|| wanted.trim_start_matches("blake3:"));
    let copied = engine
        .assets
        .lock()
        .copy(&wanted, name, words(sent.get("tags")));
    match copied {
        Some(row) => created(&row, StatusCode::CREATED, false),
        None => {
            let text = format!("Asset content {wanted} does not exist");
            answer::json_with(
                StatusCode::NOT_FOUND,
                &error("ASSET_NOT_FOUND", &text, json!({})),
            )
        }
    }
}

fn created(row: &Asset, status: StatusCode, new: bool) -> Response {
    let mut shown = row.row();
    shown.set("created_new", new);
    answer::json_with(status, &shown)
}

/// The texts of a list, sorted and each once.
fn words(list: Option<&Json>) -> Vec<String> {
    let list = list.and_then(Json::as_list).unwrap_or_default();
    let mut words: Vec<String> = list
        .iter()
        .map(|word| word.python_text().trim().to_owned())
        .filter(|word| !word.is_empty())
        .collect();
    words.sort();
    words.dedup();
    words
}

/// Scans directories. There is so little to scan that it is done before the answer.
fn seed(engine: &Engine, asked: &Asked, sent: &Json) -> Response {
    let roots: Vec<&'static str> = match sent.get("roots") {
        None => ROOTS.to_vec(),
        Some(list) => {
            let list = words(Some(list));
            let known = ROOTS
                .iter()
                .filter(|root| list.iter().any(|name| name == *root));
            known.copied().collect()
        }
    };
    if roots.is_empty() {
        return bad("INVALID_BODY", "No valid roots specified", json!({}));
    }
    let scan = scan(engine, &roots);
    if !matches!(asked.query("wait"), Some("true" | "1" | "yes")) {
        return answer::json_with(StatusCode::ACCEPTED, &json!({ "status": "started" }));
    }
    let mut done = json!({ "status": "completed" });
    done.set("progress", progress(scan));
    done.set("errors", json!([]));
    answer::json(&done)
}

/// Looks through directories for files without a row and tells every client, as ComfyUI does.
pub(crate) fn scan(engine: &Engine, roots: &[&'static str]) -> Scan {
    let mut scan = Scan::default();
    {
        let mut assets = engine.assets.lock();
        for root in roots {
            let directory = match *root {
                "models" => engine.options.models.as_path(),
                root => match engine.directory(root) {
                    Some(directory) => directory,
                    None => continue,
                },
            };
            let found = assets.scan(root, directory);
            scan.total += found.total;
            scan.created += found.created;
        }
        assets.scan = Some(scan);
    }
    let skipped = scan.total - scan.created;
    let told =
        json!({ "roots": roots, "created": scan.created, "skipped": skipped, "total": scan.total });
    engine
        .sockets
        .send("assets.seed.fast_complete", &told, None);
    let told = json!({
        "phase": "full", "total": scan.total, "created": scan.created,
        "enriched": scan.created, "skipped": skipped, "elapsed": 0.0,
    });
    engine.sockets.send("assets.seed.completed", &told, None);
    scan
}

fn progress(scan: Scan) -> Json {
    json!({
        "scanned": scan.created, "total": scan.total, "created": scan.created,
        "skipped": scan.total - scan.created,
    })
}

async fn upload(engine: &Engine, asked: &Asked, body: Body) -> Response {
    let bytes = match body::bytes(&asked.headers, body, engine.options.max_upload).await {
        Ok(bytes) => bytes,
        Err(refusal) => return *refusal,
    };
    let kind = asked
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let form = Form::read(kind, &bytes);
    let mut tags: Vec<String> = form
        .texts("tags")
        .flat_map(|text| text.split(','))
        .map(|tag| tag.trim().to_owned())
        .filter(|tag| !tag.is_empty())
        .collect();
    tags.sort();
    tags.dedup();
    let name = form
        .text("name")
        .ok()
        .flatten()
        .unwrap_or_default()
        .to_owned();
    let Some(part) = form.get("file") else {
        return bad(
            "MISSING_FILE",
            "Form must include a 'file' part or a known 'hash'.",
            json!({}),
        );
    };
    let hashed = hash(&part.data);
    // Bytes that are known make a row without a look at the tags.
    if let Some(row) = engine.assets.lock().copy(&hashed, &name, tags.clone()) {
        return created(&row, StatusCode::OK, false);
    }
    let roots: Vec<&str> = ["input", "output", "models"]
        .into_iter()
        .filter(|root| tags.iter().any(|tag| tag == root))
        .collect();
    let [root @ ("input" | "output")] = roots.as_slice() else {
        return bad(
            "INVALID_BODY",
            "tags must name exactly one of input and output",
            json!({}),
        );
    };
    let directory = engine.directory(root).unwrap_or(&engine.options.input);
    let file = part.filename.clone().unwrap_or_default();
    let ending = Path::new(&file)
        .extension()
        .map_or_else(String::new, |ending| {
            format!(".{}", ending.to_string_lossy())
        });
    let below = format!("{}{ending}", hashed.trim_start_matches("blake3:"));
    let place = Place {
        root,
        path: directory.join(&below),
        name: below,
    };
    if tokio::fs::write(&place.path, &part.data).await.is_err() {
        return answer::broken();
    }
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    match engine.assets.lock().register(place, Some(&name), &tags) {
        Some(row) => created(row, StatusCode::CREATED, true),
        None => answer::broken(),
    }
}

/// Which rows are asked for.
struct Filter {
    all: Vec<String>,
    any: Vec<String>,
    none: Vec<String>,
    part: Option<String>,
}

impl Filter {
    fn read(asked: &Asked) -> Result<Self, Refusal> {
        let words = |name: &str| -> Vec<String> {
            let text = asked.query(name).unwrap_or_default();
            text.split(',')
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect()
        };
        let (include, exclude) = (words("include_tags"), words("exclude_tags"));
        let (all, any, none) = (words("tags_all"), words("tags_any"), words("tags_none"));
        let part = asked.query("name_contains").map(str::to_lowercase);
        let new = !(all.is_empty() && any.is_empty() && none.is_empty());
        let refuse = |text: &str, details: Json| {
            Err(Refusal::from(bad("INVALID_TAG_FILTER", text, details)))
        };
        for (old, old_words, name, new_words) in [
            ("include_tags", &include, "tags_all", &all),
            ("exclude_tags", &exclude, "tags_none", &none),
        ] {
            if !old_words.is_empty() && !new_words.is_empty() {
                let text = format!("Cannot combine '{old}' with '{name}'; use '{name}'.");
                return refuse(&text, json!({ "parameters": [old, name] }));
            }
        }
        let named = |new: Vec<String>, name, old: Vec<String>, old_name| {
            if new.is_empty() {
                (old, old_name)
            } else {
                (new, name)
            }
        };
        let (all, all_name) = named(all, "tags_all", include, "include_tags");
        let (none, none_name) = named(none, "tags_none", exclude, "exclude_tags");
        let both: Vec<&String> = all.iter().filter(|tag| none.contains(tag)).collect();
        if new && !both.is_empty() {
            let quoted: Vec<String> = both.iter().map(|tag| format!("'{tag}'")).collect();
            let text = format!(
                "Query can never match: {} required by '{all_name}' but rejected by '{none_name}'.",
                quoted.join(", ")
            );
            let details = json!({ "conflicting_tags": both, "parameters": [all_name, none_name] });
            return refuse(&text, details);
        }
        Ok(Self {
            all,
            any,
            none,
            part,
        })
    }

    fn fits(&self, row: &Asset) -> bool {
        let has = |tag: &String| row.tags.contains(tag);
        self.all.iter().all(has)
            && (self.any.is_empty() || self.any.iter().any(has))
            && !self.none.iter().any(has)
            && self
                .part
                .as_ref()
                .is_none_or(|part| row.name.to_lowercase().contains(part))
    }
}

fn list(engine: &Engine, asked: &Asked) -> Response {
    try_list(engine, asked).unwrap_or_else(|refusal| *refusal)
}

fn try_list(engine: &Engine, asked: &Asked) -> Result<Response, Refusal> {
    let limit = number(asked, "limit", 20, 1, MOST)?;
    let mut offset = number(asked, "offset", 0, 0, i64::MAX)?;
    let filter = Filter::read(asked)?;
    let assets = engine.assets.lock();
    let mut rows: Vec<&Asset> = assets
        .rows()
        .iter()
        .filter(|row| filter.fits(row))
        .collect();
    let sort = asked.query("sort").unwrap_or("created_at");
    let order = asked.query("order").unwrap_or("desc");
    match sort {
        "name" => rows.sort_by(|a, b| a.name.cmp(&b.name)),
        "size" => rows.sort_by_key(|row| row.size),
        "updated_at" => rows.sort_by(|a, b| a.updated.cmp(&b.updated)),
        _ => rows.sort_by(|a, b| a.created.cmp(&b.created)),
    }
    if order == "desc" {
        rows.reverse();
    }
    if let Some(after) = asked.query("after") {
        let last = cursor(after).and_then(|id| rows.iter().position(|row| row.id == id));
        offset = match last {
            Some(last) => last + 1,
            None => {
                let refusal = bad("INVALID_CURSOR", "Invalid cursor.", json!({}));
                return Err(refusal.into());
            }
        };
    }
    let page: Vec<&&Asset> = rows.iter().skip(offset).take(limit).collect();
    let shown: Vec<Json> = page.iter().map(|row| row.row()).collect();
    let more = offset + shown.len() < rows.len();
    let next = page.last().filter(|_| more).map(|row| {
        let place = json!({ "s": sort, "v": row.name, "id": row.id, "o": order });
        URL_SAFE_NO_PAD.encode(place.dump())
    });
    let mut listed = json!({});
    listed.set("assets", shown);
    listed.set("total", rows.len());
    listed.set("has_more", more);
    if let Some(next) = next {
        listed.set("next_cursor", next);
    }
    Ok(answer::json(&listed))
}

/// The row that a cursor stands on.
fn cursor(text: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let place = Json::parse(std::str::from_utf8(&bytes).ok()?).ok()?;
    Some(place.get("id")?.as_str()?.to_owned())
}

fn refine(engine: &Engine, asked: &Asked) -> Response {
    let limit = match number(asked, "limit", 100, 1, 1000) {
        Ok(limit) => limit,
        Err(refusal) => return *refusal,
    };
    let filter = match Filter::read(asked) {
        Ok(filter) => filter,
        Err(refusal) => return *refusal,
    };
    let assets = engine.assets.lock();
    let counts = count_tags(
        &assets
            .rows()
            .iter()
            .filter(|row| filter.fits(row))
            .collect::<Vec<_>>(),
    );
    let shown = counts
        .into_iter()
        .take(limit)
        .map(|(tag, count)| (tag, count.into()));
    let mut found = json!({});
    found.set("tag_counts", Json::Object(shown.collect()));
    answer::json(&found)
}

fn tags(engine: &Engine, asked: &Asked) -> Response {
    let (limit, offset) = match (
        number(asked, "limit", 100, 1, 1000),
        number(asked, "offset", 0, 0, i64::MAX),
    ) {
        (Ok(limit), Ok(offset)) => (limit, offset),
        (Err(refusal), _) | (_, Err(refusal)) => return *refusal,
    };
    let mut all = count_tags(&engine.assets.lock().rows().iter().collect::<Vec<_>>());
    let mut unused: Vec<&str> = super::information::folders()
        .filter(|name| !matches!(*name, "configs" | "custom_nodes"))
        .filter(|name| all.iter().all(|(tag, _)| tag != name))
        .collect();
    unused.sort_unstable();
    if asked.query("include_zero") != Some("false") {
        all.extend(unused.into_iter().map(|name| (name.to_owned(), 0)));
    }
    let prefix = asked.query("prefix").unwrap_or_default();
    let found: Vec<_> = all
        .into_iter()
        .filter(|(name, _)| name.starts_with(prefix))
        .collect();
    let shown: Vec<Json> = found
        .iter()
        .skip(offset)
        .take(limit)
        .map(|(name, count)| json!({ "name": name, "count": count }))
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
            "Input should be a valid integer, unable to parse string as an integer".to_owned(),
            Json::Null,
        ),
    };
    let mut found = json!({ "type": kind, "loc": [name], "msg": message, "input": text });
    if !limits.is_null() {
        found.set("ctx", limits);
    }
    found.set("url", format!("https://errors.pydantic.dev/2.14/v/{kind}"));
    Err(invalid("INVALID_QUERY", found).into())
}

fn invalid(code: &str, found: Json) -> Response {
    let mut details = json!({});
    details.set("errors", Json::List(vec![found]));
    bad(code, "Validation failed.", details)
}

async fn content(engine: &Engine, asked: &Asked, id: &str) -> Response {
    let row = {
        let mut assets = engine.assets.lock();
        let known = assets.get_mut(id).map(|row| {
            row.used = crate::log::stamp();
            row.clone()
        });
        // The bytes of a row without a file are those of a row with one.
        let bytes = known.as_ref().and_then(|row| row.hash.clone());
        let other = bytes.and_then(|hash| assets.with_hash(&hash).cloned());
        known.map(|row| match (&row.place, other) {
            (None, Some(other)) => Asset {
                place: other.place,
                ..row
            },
            _ => row,
        })
    };
    let Some((row, place)) = row.and_then(|row| Some((row.clone(), row.place?))) else {
        return missing(id, "", false);
    };
    let Ok(bytes) = tokio::fs::read(&place.path).await else {
        let gone = error(
            "FILE_NOT_FOUND",
            "Underlying file not found on disk.",
            json!({}),
        );
        return answer::json_with(StatusCode::NOT_FOUND, &gone);
    };
    let kind = row.kind.unwrap_or("application/octet-stream");
    let active = files::is_active(kind);
    let as_picture = kind == "image/svg+xml"
        && asked
            .headers
            .get("sec-fetch-dest")
            .is_some_and(|value| value == "image");
    let download = active && !as_picture;
    let length = bytes.len();
    let body = if asked.method == Method::HEAD {
        Vec::new()
    } else {
        bytes
    };
    let kind = if download {
        "application/octet-stream"
    } else {
        kind
    };
    let mut response = answer::with_body(StatusCode::OK, Some(kind), body.into());
    answer::set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    let encoded = utf8_percent_encode(&row.name, ESCAPED);
    let disposition = if asked.query("disposition") == Some("inline") && !download {
        "inline"
    } else {
        "attachment"
    };
    let value = format!("{disposition}; filename*=UTF-8''{encoded}");
    answer::set(&mut response, header::CONTENT_DISPOSITION, &value);
    answer::set(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    if active {
        answer::set(&mut response, header::VARY, "Sec-Fetch-Dest");
        answer::set(&mut response, header::CACHE_CONTROL, "no-store");
    }
    response
}

fn change_tags(engine: &Engine, asked: &Asked, id: &str, sent: &Json) -> Response {
    let wanted = words(sent.get("tags"));
    let mut assets = engine.assets.lock();
    let Some(row) = assets.get_mut(id) else {
        return missing(id, "", true);
    };
    let (has, has_not): (Vec<String>, Vec<String>) =
        wanted.into_iter().partition(|tag| row.tags.contains(tag));
    let mut changed = json!({});
    if asked.method == Method::POST {
        row.tags.extend(has_not.iter().cloned());
        row.tags.sort();
        changed.set("added", has_not);
        changed.set("already_present", has);
    } else {
        row.tags.retain(|tag| !has.contains(tag));
        changed.set("removed", has);
        changed.set("not_present", has_not);
    }
    changed.set("total_tags", row.tags.clone());
    answer::json(&changed)
}

fn missing(id: &str, stop: &str, with_id: bool) -> Response {
    let text = format!("AssetReference {id} not found{stop}");
    let mut details = json!({});
    if with_id {
        details.set("id", id);
    }
    answer::json_with(
        StatusCode::NOT_FOUND,
        &error("ASSET_NOT_FOUND", &text, details),
    )
}

fn bad(code: &str, message: &str, details: Json) -> Response {
    answer::json_with(StatusCode::BAD_REQUEST, &error(code, message, details))
}

fn error(code: &str, message: &str, details: Json) -> Json {
    let mut inner = json!({ "code": code, "message": message });
    inner.set("details", details);
    let mut error = json!({});
    error.set("error", inner);
    error
}
