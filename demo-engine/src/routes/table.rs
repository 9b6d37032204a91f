//! The list of routes and how a path finds its own.

use super::{assets, demo, information, internal, manager, prompts, users};
use crate::state::Engine;
use percent_encoding::percent_decode_str;

/// Methods that aiohttp knows; others end in its parser.
pub(super) const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "PROPFIND",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "SEARCH",
    "REPORT",
    "PURGE",
    "LINK",
    "UNLINK",
    "SOURCE",
    "NOTIFY",
    "SUBSCRIBE",
    "UNSUBSCRIBE",
    "MERGE",
    "CHECKOUT",
    "MKACTIVITY",
    "MKCALENDAR",
    "ACL",
    "BIND",
    "REBIND",
    "UNBIND",
    "PROPPATCH",
    "M-SEARCH",
    "QUERY",
];

/// Under which names a route exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// As it stands and with `/api` before it.
    Both,
    /// As it stands only.
    Here,
}

/// Every route there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    Index,
    Socket,
    Prompts(prompts::Route),
    Jobs,
    Job,
    CancelJob,
    CancelJobs,
    Replacements,
    View,
    UploadImage,
    UploadMask,
    Information(information::Route),
    Internal(internal::Route),
    Users(users::Route),
    Assets(assets::Route),
    Manager(&'static str),
    Demo(demo::Route),
}

pub(super) const GET: &[&str] = &["GET", "HEAD"];
const POST: &[&str] = &["POST"];
const BOTH: &[&str] = &["GET", "HEAD", "POST"];
const ANY: &[&str] = METHODS;

use At::{Both, Here};
use information::Route as I;
use prompts::Route as P;
use users::Route as U;

/// Names, methods, pattern (`{}` is one segment of any text, `{*}` the rest), route.
const ROUTES: &[(At, &[&str], &str, Route)] = &[
    (Both, GET, "", Route::Index),
    (Both, GET, "ws", Route::Socket),
    (Both, BOTH, "prompt", Route::Prompts(P::Prompt)),
    (Both, BOTH, "queue", Route::Prompts(P::Queue)),
    (Both, BOTH, "history", Route::Prompts(P::History)),
    (Both, GET, "history/{}", Route::Prompts(P::HistoryOf)),
    (Both, POST, "interrupt", Route::Prompts(P::Interrupt)),
    (Both, POST, "free", Route::Prompts(P::Free)),
    (Both, GET, "api/jobs", Route::Jobs),
    (Both, GET, "api/jobs/{}", Route::Job),
    (Both, POST, "api/jobs/{}/cancel", Route::CancelJob),
    (Both, POST, "api/jobs/cancel", Route::CancelJobs),
    (Both, GET, "node_replacements", Route::Replacements),
    (Both, GET, "view", Route::View),
    (Both, POST, "upload/image", Route::UploadImage),
    (Both, POST, "upload/mask", Route::UploadMask),
    (
        Both,
        GET,
        "system_stats",
        Route::Information(I::SystemStats),
    ),
    (Both, GET, "features", Route::Information(I::Features)),
    (Both, GET, "object_info", Route::Information(I::ObjectInfo)),
    (
        Both,
        GET,
        "object_info/{}",
        Route::Information(I::ObjectInfoOf),
    ),
    (Both, GET, "extensions", Route::Information(I::Extensions)),
    (Both, GET, "embeddings", Route::Information(I::Embeddings)),
    (Both, GET, "models", Route::Information(I::Models)),
    (Both, GET, "models/{}", Route::Information(I::ModelsOf)),
    (
        Both,
        GET,
        "experiment/models",
        Route::Information(I::Folders),
    ),
    (
        Both,
        GET,
        "experiment/models/{}",
        Route::Information(I::FoldersOf),
    ),
    (
        Both,
        GET,
        "experiment/models/preview/{}/{}/{*}",
        Route::Information(I::ModelPreview),
    ),
    (
        Both,
        GET,
        "view_metadata/{}",
        Route::Information(I::ModelMetadata),
    ),
    (Both, GET, "i18n", Route::Information(I::Nothing)),
    (
        Both,
        GET,
        "workflow_templates",
        Route::Information(I::Nothing),
    ),
    (
        Both,
        GET,
        "global_subgraphs",
        Route::Information(I::Nothing),
    ),
    (
        Both,
        GET,
        "global_subgraphs/{}",
        Route::Information(I::Subgraph),
    ),
    (Both, BOTH, "users", Route::Users(U::Users)),
    (Both, BOTH, "settings", Route::Users(U::Settings)),
    (Both, BOTH, "settings/{}", Route::Users(U::Setting)),
    (Both, GET, "userdata", Route::Users(U::List)),
    (Both, GET, "v2/userdata", Route::Users(U::ListTree)),
    (
        Both,
        &["GET", "HEAD", "POST", "DELETE"],
        "userdata/{}",
        Route::Users(U::File),
    ),
    (Both, POST, "userdata/{}/move/{}", Route::Users(U::Move)),
    (
        Here,
        GET,
        "internal/logs",
        Route::Internal(internal::Route::Logs),
    ),
    (
        Here,
        GET,
        "internal/logs/raw",
        Route::Internal(internal::Route::RawLogs),
    ),
    (
        Here,
        &["PATCH"],
        "internal/logs/subscribe",
        Route::Internal(internal::Route::Subscribe),
    ),
    (
        Here,
        GET,
        "internal/folder_paths",
        Route::Internal(internal::Route::FolderPaths),
    ),
    (
        Here,
        GET,
        "internal/files/{}",
        Route::Internal(internal::Route::Files),
    ),
    (Here, BOTH, "api/assets", Route::Assets(assets::Route::All)),
    (
        Here,
        &["HEAD"],
        "api/assets/hash/{}",
        Route::Assets(assets::Route::Hash),
    ),
    (
        Here,
        POST,
        "api/assets/from-hash",
        Route::Assets(assets::Route::FromHash),
    ),
    (
        Here,
        POST,
        "api/assets/seed",
        Route::Assets(assets::Route::Seed),
    ),
    (
        Here,
        GET,
        "api/assets/seed/status",
        Route::Assets(assets::Route::SeedStatus),
    ),
    (
        Here,
        POST,
        "api/assets/seed/cancel",
        Route::Assets(assets::Route::SeedCancel),
    ),
    (
        Here,
        POST,
        "api/assets/prune",
        Route::Assets(assets::Route::Prune),
    ),
    (
        Here,
        GET,
        "api/assets/tags/refine",
        Route::Assets(assets::Route::Refine),
    ),
    (
        Here,
        &["GET", "HEAD", "PUT", "DELETE"],
        "api/assets/{uuid}",
        Route::Assets(assets::Route::One),
    ),
    (
        Here,
        GET,
        "api/assets/{uuid}/content",
        Route::Assets(assets::Route::Content),
    ),
    (
        Here,
        &["POST", "DELETE"],
        "api/assets/{uuid}/tags",
        Route::Assets(assets::Route::Tags),
    ),
    (Here, GET, "api/tags", Route::Assets(assets::Route::AllTags)),
    (Here, ANY, "demo/huge", Route::Demo(demo::Route::Huge)),
    (Here, ANY, "demo/slow", Route::Demo(demo::Route::Slow)),
    (Here, ANY, "demo/drip", Route::Demo(demo::Route::Drip)),
    (Here, ANY, "demo/echo", Route::Demo(demo::Route::Echo)),
    (Here, ANY, "demo/echo/{*}", Route::Demo(demo::Route::Echo)),
    (
        Here,
        GET,
        "demo/echo-socket",
        Route::Demo(demo::Route::EchoSocket),
    ),
    (Here, GET, "demo/frames", Route::Demo(demo::Route::Frames)),
];

type Found = (Route, &'static [&'static str], Vec<String>);

/// The route of a path that takes the method, else one that does not: its methods and what stands for the places of its pattern.
pub(super) fn find(engine: &Engine, method: &str, path: &str) -> Option<Found> {
    let segments = decoded_segments(path);
    let below_api = segments
        .first()
        .is_some_and(|first| first == "api")
        .then(|| &segments[1..]);
    let mut other = None;
    for (at, methods, pattern, route) in ROUTES {
        if matches!(route, Route::Demo(_)) && !engine.options.faults.routes {
            continue;
        }
        let here = fits(pattern, &segments);
        let found = match (at, below_api) {
            (Both, Some(below)) => here.or_else(|| fits(pattern, below)),
            _ => here,
        };
        if let Some(places) = found {
            let found = (*route, *methods, places);
            if methods.contains(&method) {
                return Some(found);
            }
            other.get_or_insert(found);
        }
    }
    if other.is_some() {
        return other;
    }
    if engine.options.manager {
        let below = below_api.unwrap_or(&segments).join("/");
        let (name, methods) = manager::find(engine.options.legacy_manager, &below)?;
        return Some((Route::Manager(name), methods, Vec::new()));
    }
    None
}

/// The segments of a path; an escaped slash does not divide.
pub(super) fn decoded_segments(path: &str) -> Vec<String> {
    let rest = path.strip_prefix('/').unwrap_or(path);
    rest.split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy().into_owned())
        .collect()
}

fn fits(pattern: &str, segments: &[String]) -> Option<Vec<String>> {
    let mut places = Vec::new();
    let mut rest = segments.iter();
    for part in pattern.split('/') {
        if part == "{*}" {
            let all: Vec<&str> = rest.map(String::as_str).collect();
            places.push(all.join("/"));
            return Some(places);
        }
        let segment = rest.next()?;
        match part {
            "{}" if !segment.is_empty() => places.push(segment.clone()),
            "{uuid}" if uuid::Uuid::try_parse(segment).is_ok() => places.push(segment.clone()),
            _ if part == segment => {}
            _ => return None,
        }
    }
    rest.next().is_none().then_some(places)
}

#[cfg(test)]
mod tests {
    use super::{decoded_segments, fits};

    #[test]
    fn matches_as_aiohttp() {
        for (path, pattern, expected) in [
            ("/history", "history", true),
            ("/%68istory", "history", true),
            ("/history/", "history", false),
            ("//history", "history", false),
            ("/History", "history", false),
            ("/history%20", "history", false),
            ("/history/a%2Fb", "history/{}", true),
            ("/history/a/b", "history/{}", false),
            ("/api%2Fhistory", "api/history", false),
            ("/", "", true),
            ("/demo/echo/a/b", "demo/echo/{*}", true),
        ] {
            assert_eq!(
                fits(pattern, &decoded_segments(path)).is_some(),
                expected,
                "{path}"
            );
        }
    }
}
