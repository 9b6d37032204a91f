//! All routes in one list, and what happens around them.
//!
//! The matching is our own because ComfyUI's has to be met exactly: every route exists bare and under
//! `/api`, escaped letters match, trailing and double slashes do not, and what no route takes is looked up
//! as a file of the front end.

mod assets;
mod demo;
mod front_end;
mod information;
mod internal;
mod jobs;
mod manager;
mod pictures;
mod prompts;
mod replacements;
mod table;
mod users;

use crate::answer::{self, Origin};
use crate::socket;
use crate::state::Engine;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, Request, State, WebSocketUpgrade};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use std::sync::Arc;
use table::{METHODS, Route, decoded_segments, find};

/// Looks for files without a row, as ComfyUI does at its start.
pub(crate) fn scan_assets(engine: &Engine) {
    assets::scan(engine, &["models", "input", "output"]);
}

pub(crate) use information::{memory, model_names};

/// What an engine without partner nodes lets its page do: nothing beyond the engine itself.
const OFFLINE: &str = "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self' data:; frame-src 'self'; object-src 'self';";

/// What a request asks for, read once.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) headers: HeaderMap,
    /// Path as it came.
    pub(crate) path: String,
    pub(crate) raw_query: Option<String>,
    query: Vec<(String, String)>,
    /// What stands for the places of the pattern, decoded.
    pub(crate) places: Vec<String>,
}

impl Asked {
    /// The first value of a key of the query.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    fn place(&self, index: usize) -> &str {
        self.places.get(index).map_or("", String::as_str)
    }
}

/// Answers every request.
pub(crate) async fn handle(State(engine): State<Arc<Engine>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let several_hosts = parts.headers.get_all(header::HOST).iter().count() > 1;
    if !METHODS.contains(&parts.method.as_str())
        || several_hosts
        || !parts.uri.path().starts_with('/')
    {
        return answer::text(StatusCode::BAD_REQUEST, "Bad Request");
    }
    let path = parts.uri.path().to_owned();
    let mut response = if engine.options.cors.is_none()
        && (cross_site(&parts.headers) || foreign_origin(&parts.headers))
    {
        answer::empty(StatusCode::FORBIDDEN)
    } else if parts.method == Method::OPTIONS
        && !(engine.options.faults.routes && path.starts_with("/demo/"))
    {
        answer::empty(StatusCode::OK)
    } else if parts.method == Method::CONNECT {
        answer::refused(StatusCode::NOT_FOUND)
    } else {
        match find(&engine, parts.method.as_str(), &path) {
            Some((route, methods, places)) => {
                let asked = Asked {
                    method: parts.method.clone(),
                    headers: parts.headers.clone(),
                    raw_query: parts.uri.query().map(str::to_owned),
                    query: read_query(parts.uri.query().unwrap_or_default()),
                    path: path.clone(),
                    places,
                };
                if methods.contains(&asked.method.as_str()) {
                    if let Some(response) = upgrade(&engine, route, &asked, &mut parts).await {
                        response
                    } else {
                        dispatch(&engine, route, &asked, body).await
                    }
                } else {
                    unrouted(&engine, &asked.method, &asked.headers, &path, methods).await
                }
            }
            None => unrouted(&engine, &parts.method, &parts.headers, &path, &[]).await,
        }
    };
    finish(&engine, &parts.headers, &path, &mut response);
    response
}

async fn dispatch(engine: &Arc<Engine>, route: Route, asked: &Asked, body: Body) -> Response {
    match route {
        Route::Index => front_end::index(engine, asked).await,
        Route::Socket => no_upgrade(asked),
        Route::Prompts(route) => prompts::answer(engine, route, asked, body).await,
        Route::Jobs => jobs::list(engine, asked),
        Route::Job => jobs::one(engine, asked.place(0)),
        Route::CancelJob => jobs::cancel(engine, asked.place(0)),
        Route::CancelJobs => jobs::cancel_many(engine, asked, body).await,
        Route::Replacements => answer::json(&replacements::all(engine)),
        Route::View => pictures::view(engine, asked).await,
        Route::UploadImage => pictures::upload_image(engine, asked, body).await,
        Route::UploadMask => pictures::upload_mask(engine, asked, body).await,
        Route::Information(route) => information::answer(engine, route, asked),
        Route::Internal(route) => internal::answer(engine, route, asked, body).await,
        Route::Users(route) => users::answer(engine, route, asked, body).await,
        Route::Assets(route) => assets::answer(engine, route, asked, body).await,
        Route::Manager(name) => manager::answer(engine, name, asked, body).await,
        Route::Demo(route) => demo::answer(engine, route, asked, body).await,
    }
}

/// Takes up a WebSocket, if the route is one and the client asks for it.
async fn upgrade(
    engine: &Arc<Engine>,
    route: Route,
    asked: &Asked,
    parts: &mut http::request::Parts,
) -> Option<Response> {
    if !matches!(
        route,
        Route::Socket | Route::Demo(demo::Route::EchoSocket | demo::Route::Frames)
    ) {
        return None;
    }
    let upgrade = WebSocketUpgrade::from_request_parts(parts, engine)
        .await
        .ok()?;
    let count = |name: &str, default: usize| {
        asked
            .query(name)
            .and_then(|text| text.parse().ok())
            .unwrap_or(default)
    };
    Some(match route {
        Route::Socket => {
            let engine = Arc::clone(engine);
            let client = asked.query("clientId").map(str::to_owned);
            upgrade
                .max_message_size(socket::LARGEST_MESSAGE)
                .on_upgrade(move |stream| socket::serve(engine, stream, client))
        }
        Route::Demo(demo::Route::Frames) => {
            let (frames, bytes) = (count("count", 100), count("bytes", 65_536));
            upgrade.on_upgrade(move |stream| socket::send_frames(stream, frames, bytes))
        }
        _ => upgrade.on_upgrade(socket::echo),
    })
}

fn no_upgrade(asked: &Asked) -> Response {
    let given = asked
        .headers
        .get(header::UPGRADE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("None");
    let text =
        format!("No WebSocket UPGRADE hdr: {given}\n Can \"Upgrade\" only to \"WebSocket\".");
    answer::text(StatusCode::BAD_REQUEST, &text)
}

/// What no route takes: a file of the front end, or the wrong method.
async fn unrouted(
    engine: &Engine,
    method: &Method,
    headers: &HeaderMap,
    path: &str,
    methods: &[&str],
) -> Response {
    // The internal routes are an application of their own, with nothing behind them.
    if decoded_segments(path)
        .first()
        .is_some_and(|first| first == "internal")
        && path.matches('/').count() > 1
    {
        return if methods.is_empty() {
            answer::refused(StatusCode::NOT_FOUND)
        } else {
            answer::wrong_method(methods)
        };
    }
    if *method == Method::GET || *method == Method::HEAD {
        return front_end::file(engine, method, headers, path).await;
    }
    let mut allowed = methods.to_vec();
    allowed.extend(table::GET);
    answer::wrong_method(&allowed)
}

/// Headers that ComfyUI adds to every answer.
fn finish(engine: &Engine, asked: &HeaderMap, path: &str, response: &mut Response) {
    answer::set(response, header::SERVER, "Python/3.11 aiohttp/3.14.5");
    if let Some(origin) = &engine.options.cors {
        let origin = if origin == "*" {
            asked
                .get(header::ORIGIN)
                .and_then(|value| value.to_str().ok())
                .unwrap_or("*")
        } else {
            origin
        };
        answer::set(response, header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        answer::set(
            response,
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "POST, GET, DELETE, PUT, OPTIONS, PATCH",
        );
        answer::set(
            response,
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "Content-Type, Authorization",
        );
        answer::set(response, header::ACCESS_CONTROL_ALLOW_CREDENTIALS, "true");
    }
    if engine.options.offline {
        answer::set(response, header::CONTENT_SECURITY_POLICY, OFFLINE);
    }
    let origin = response.extensions().get::<Origin>().copied();
    if response.headers().contains_key(header::CACHE_CONTROL) || origin == Some(Origin::Raised) {
        return;
    }
    let name = path
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends(&[".js", ".css"]) || (name.starts_with("index") && name.ends_with(".json")) {
        answer::set(response, header::CACHE_CONTROL, "no-store");
    } else if ends(&[
        ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
    ]) {
        match response.status().as_u16() {
            404 if origin.is_none() => {
                answer::set(response, header::CACHE_CONTROL, "public, max-age=3600")
            }
            200..=206 | 301 | 308 | 404 => {
                answer::set(response, header::CACHE_CONTROL, "public, max-age=86400");
            }
            _ => {}
        }
    }
}

/// Whether a browser says that another site asks, whatever for.
fn cross_site(headers: &HeaderMap) -> bool {
    headers
        .get("sec-fetch-site")
        .is_some_and(|value| value.as_bytes() == b"cross-site")
}

/// Whether a loopback host is asked on behalf of another origin. `null` has no host and passes.
fn foreign_origin(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let (Some(host), Some(origin)) = (text(header::HOST), text(header::ORIGIN)) else {
        return false;
    };
    let host = host.to_ascii_lowercase();
    let origin = origin.to_ascii_lowercase();
    let Some((_, place)) = origin.split_once("://") else {
        return false;
    };
    let place = place.split('/').next().unwrap_or_default();
    let name = |place: &str| -> String {
        match place
            .strip_prefix('[')
            .and_then(|rest| rest.split_once(']'))
        {
            Some((address, _)) => address.to_owned(),
            None => place.split(':').next().unwrap_or_default().to_owned(),
        }
    };
    let host_name = name(&host);
    let loopback = host_name == "localhost"
        || host_name
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    let has_port = place.rsplit(']').next().unwrap_or_default().contains(':');
    let compared = if has_port { host } else { host_name };
    loopback && !place.is_empty() && compared != place
}

fn read_query(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        percent_decode_str(&text.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    };
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{foreign_origin, read_query};
    use http::{HeaderMap, HeaderValue, header};

    #[test]
    fn first_of_a_repeated_key() {
        let query = read_query("a=1&a=2&sub%66older=x+y&;b=3");
        assert_eq!(query[0], ("a".to_owned(), "1".to_owned()));
        assert_eq!(query[2], ("subfolder".to_owned(), "x y".to_owned()));
        assert_eq!(query[3].0, ";b");
    }

    #[test]
    fn origin_counts_only_for_loopback_hosts() {
        for (host, origin, expected) in [
            ("127.0.0.1:8188", "http://127.0.0.1:8188", false),
            ("127.0.0.1:8188", "http://evil.example", true),
            ("127.0.0.1:8188", "http://127.0.0.1:9", true),
            ("127.0.0.1:8188", "http://127.0.0.1", false),
            ("127.0.0.1:8188", "null", false),
            ("localhost:8188", "https://localhost:8188", false),
            ("[::1]:8188", "http://evil.example", true),
            ("comfy.example:8188", "http://evil.example", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            assert_eq!(foreign_origin(&headers), expected, "{host} {origin}");
        }
    }
}
