//! What a path of ComfyUI is, so that the roles' rights can be applied to it.

use super::jobs::JobRoute;
use super::path::is_manager_path;
use super::uploads::UploadForm;
use http::Method;

/// What a request to ComfyUI means for rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// ComfyUI's own and harmless in an engine of one's own.
    Known,
    /// ComfyUI's own and harmless only in an engine of one's own.
    OwnEngine,
    /// The search for new models and pictures, which ComfyUI's page asks for at every refresh:
    /// harmless in an engine of one's own.
    Scan,
    /// `POST /prompt`.
    Prompt,
    /// The queue and the history, of which each user has his own.
    Job(JobRoute),
    /// ComfyUI's events.
    Events,
    /// An upload that may do more than put a file among the user's own.
    Upload(UploadForm),
    /// `POST /upload/image`: a file among the user's own.
    Files,
    /// The file of an asset with this id, which may be a model.
    AssetFile(String),
    /// ComfyUI-Manager, which installs code.
    Manager,
    /// Tells what is where on the machine.
    Layout,
    /// Lets the server fetch from an address, or changes what all users have.
    Install,
    /// In ComfyUI's own name space, and not a route that is known: there it would go past queue,
    /// node policy and ownership, so for nobody there is any.
    Absent,
    /// Not ComfyUI's: a custom node answers it, with who knows what (defect C14).
    Unknown,
}

/// First segments of ComfyUI's own routes, of all versions looked at, and of its front end's
/// folders.
const OWN: [&str; 36] = [
    "assets",
    "cursor",
    "docs",
    "embeddings",
    "experiment",
    "extensions",
    "features",
    "fonts",
    "free",
    "global_subgraphs",
    "history",
    "i18n",
    "icons",
    "images",
    "internal",
    "interrupt",
    "jobs",
    "lib",
    "models",
    "node_replacements",
    "object_info",
    "prompt",
    "queue",
    "scripts",
    "settings",
    "system_stats",
    "tags",
    "tasks",
    "templates",
    "upload",
    "userdata",
    "users",
    "view",
    "view_metadata",
    "workflow_templates",
    "ws",
];

/// First segments of routes about jobs. Whatever else begins like them is about jobs too.
const JOB_ROUTES: [&str; 8] = [
    "free",
    "history",
    "history_v2",
    "interrupt",
    "job",
    "jobs",
    "prompt",
    "queue",
];

/// What is announced for ComfyUI's second API, beside the names of the first: other ways to jobs,
/// events and files. Custom nodes have routes below `v2` as well.
const ANNOUNCED: [&str; 12] = [
    "batches",
    "cancel",
    "events",
    "executions",
    "files",
    "history_v2",
    "job",
    "nodes",
    "prompts",
    "runs",
    "uploads",
    "workflows",
];

/// First segments of addresses of Comfy's cloud.
const CLOUDS: [&str; 18] = [
    "agent",
    "auth",
    "billing",
    "customers",
    "deploy",
    "feedback",
    "files",
    "health",
    "hub",
    "invites",
    "logs",
    "providers",
    "secrets",
    "user",
    "vhs",
    "workflows",
    "workspace",
    "workspaces",
];

/// Judges a path in its one form. Wider than ComfyUI matches where that is safer.
pub(super) fn meaning(method: &Method, normal_path: &str) -> Meaning {
    if is_manager_path(normal_path) {
        return Meaning::Manager;
    }
    let decoded = percent_encoding::percent_decode_str(normal_path).decode_utf8_lossy();
    let segments: Vec<&str> = decoded
        .split(['/', '\\'])
        .map(str::trim)
        .filter(|segment| !segment.is_empty())
        .skip_while(|segment| *segment == "api")
        .collect();
    let changes = !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    match segments.as_slice() {
        ["prompt"] if *method == Method::POST => Meaning::Prompt,
        ["ws"] => Meaning::Events,
        job if JobRoute::of(job).is_some() => match JobRoute::of(job) {
            Some(route) => Meaning::Job(route),
            None => Meaning::Unknown,
        },
        ["assets"] if *method == Method::POST => Meaning::Upload(UploadForm::Asset),
        ["upload", "image"] if *method == Method::POST => Meaning::Files,
        ["upload", "mask"] if *method == Method::POST => Meaning::Upload(UploadForm::Mask),
        // Another view of a job, or another way to make one.
        [first, ..] if JOB_ROUTES.contains(first) => Meaning::Absent,
        ["v2", "userdata", ..] => Meaning::Known,
        ["v2", first, ..] if ANNOUNCED.contains(first) || is_own(first) => Meaning::Absent,
        ["assets", id, "content"] if !changes => Meaning::AssetFile((*id).to_owned()),
        ["assets", "seed"] if *method == Method::POST => Meaning::Scan,
        ["assets", "export" | "exports", ..] => Meaning::OwnEngine,
        ["tasks", ..] if changes => Meaning::OwnEngine,
        ["assets", "download" | "import" | "prune" | "seed", ..] if changes => Meaning::Install,
        ["assets", "remote-metadata", ..] | ["models", "download", ..] => Meaning::Install,
        ["internal", "folder_paths"] => Meaning::Layout,
        ["experiment", "models", "preview", _, _, name @ ..] if leads_away(&decoded, name) => {
            Meaning::Layout
        }
        [] => Meaning::Known,
        // Files at the root of the front end.
        [file] if file.contains('.') => Meaning::Known,
        [first, ..] if is_own(first) => Meaning::Known,
        _ => Meaning::Unknown,
    }
}

fn is_own(first: &str) -> bool {
    OWN.contains(&first)
}

/// Whether ComfyUI's page asks for such a path of Comfy's cloud although only the cloud has it. Custom
/// nodes may have the like, so it is judged as theirs; but a refusal is ComfyUI's own 404, and no news.
pub(super) fn is_clouds(normal_path: &str) -> bool {
    let mut segments = normal_path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .skip_while(|segment| *segment == "api");
    segments.next().is_some_and(|first| CLOUDS.contains(&first))
}

/// Whether a model's `name`, the end of `path`, may lead out of the models, which ComfyUI does not
/// look after: it shows the picture that lies there.
fn leads_away(path: &str, name: &[&str]) -> bool {
    let has_drive = |part: &&str| part.as_bytes().get(1) == Some(&b':');
    name.contains(&"..")
        || name.first().is_some_and(has_drive)
        || ["//", "/\\"].iter().any(|root| path.contains(root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_paths_mean() {
        let get = &Method::GET;
        let post = &Method::POST;
        let table = [
            (get, "/", Meaning::Known),
            (get, "/api/", Meaning::Known),
            (get, "/user.css", Meaning::Known),
            (get, "/api/userdata/user.css", Meaning::Known),
            (get, "/api/v2/userdata", Meaning::Known),
            (get, "/api/api/jobs", Meaning::Job(JobRoute::Jobs)),
            (get, "/ws", Meaning::Events),
            (get, "/extensions/pack/x.js", Meaning::Known),
            (get, "/prompt", Meaning::Job(JobRoute::Count)),
            (post, "/prompt", Meaning::Prompt),
            (post, "/api/prompt", Meaning::Prompt),
            (post, "//api//prompt/", Meaning::Prompt),
            (post, "/api/assets", Meaning::Upload(UploadForm::Asset)),
            (post, "/api/upload/mask", Meaning::Upload(UploadForm::Mask)),
            (post, "/upload/image", Meaning::Files),
            (post, "/api/assets/from-hash", Meaning::Known),
            (post, "/api/assets/seed", Meaning::Scan),
            (post, "/api/assets/seed/cancel", Meaning::Install),
            (post, "/api/assets/prune", Meaning::Install),
            (get, "/api/assets/seed/status", Meaning::Known),
            (get, "/api/assets/remote-metadata", Meaning::Install),
            (post, "/api/assets/export", Meaning::OwnEngine),
            (get, "/api/assets/exports/a.zip", Meaning::OwnEngine),
            (
                get,
                "/api/assets/x/content",
                Meaning::AssetFile("x".to_owned()),
            ),
            (get, "/api/assets/x", Meaning::Known),
            (&Method::DELETE, "/api/tasks/x", Meaning::OwnEngine),
            (get, "/api/tasks/x", Meaning::Known),
            (get, "/api/jobs/x/assets", Meaning::Absent),
            (post, "/api/jobs/x/retry", Meaning::Absent),
            (get, "/history/x/y", Meaning::Absent),
            (post, "/prompt/x", Meaning::Absent),
            (get, "/api/history_v2", Meaning::Absent),
            (get, "/api/v2/jobs", Meaning::Absent),
            (post, "/api/v2/jobs/x/cancel", Meaning::Absent),
            (post, "/v2/prompt", Meaning::Absent),
            (get, "/api/v2/events", Meaning::Absent),
            (get, "/api/v2/assets/x", Meaning::Absent),
            (get, "/v2/comfygit/status", Meaning::Unknown),
            (get, "/api/workspace/provider-policy", Meaning::Unknown),
            (post, "/api/assets/download", Meaning::Install),
            (post, "/models/download", Meaning::Install),
            (get, "/api/models/download/1", Meaning::Install),
            (get, "/internal/folder_paths", Meaning::Layout),
            (post, "/api/manager/reboot", Meaning::Manager),
            (get, "/video_ui_custom_view", Meaning::Unknown),
            (get, "/easyuse/prompt/styles", Meaning::Unknown),
            (get, "/api/pysssss/autocomplete", Meaning::Unknown),
            (get, "/v2/unknown", Meaning::Unknown),
            (get, "/viewer", Meaning::Unknown),
        ];
        for (method, path, expected) in table {
            assert_eq!(meaning(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn b10_what_only_the_cloud_has() {
        for path in [
            "/api/workspace/provider-policy",
            "/user",
            "/api/secrets",
            "/api/agent/x",
            "/hub/x",
            "/providers",
            "/api/deploy/bundle",
        ] {
            assert!(is_clouds(path), "{path}");
        }
        for path in ["/", "/api/", "/users", "/easyuse/user", "/demo/echo"] {
            assert!(!is_clouds(path), "{path}");
        }
    }

    #[test]
    fn previews_of_models_show_no_other_files() {
        const PREVIEWS: &str = "/api/experiment/models/preview/loras/0/";
        for name in [
            "a%2F..%2F..%2Fb.png",
            "%2Fhome%2Fanna%2Fb",
            "/home/anna/b",
            "C:%5CUsers%5Canna%5Cb",
            "c:b",
            "%5C%5Chost%5Cshare%5Cb",
            "%5Cb",
        ] {
            let meant = meaning(&Method::GET, &format!("{PREVIEWS}{name}"));
            assert_eq!(meant, Meaning::Layout, "{name}");
        }
        for name in ["a.safetensors", "sub%2Fa..b", "sub%5Ca", "%C3%A4/v1: x"] {
            let meant = meaning(&Method::GET, &format!("{PREVIEWS}{name}"));
            assert_eq!(meant, Meaning::Known, "{name}");
        }
    }

    #[test]
    fn routes_of_the_recorded_versions_are_known() {
        for path in [
            "/api/embeddings",
            "/api/experiment/models/preview/x/0/y",
            "/api/features",
            "/api/global_subgraphs/x",
            "/api/history/x",
            "/api/i18n",
            "/internal/logs/raw",
            "/api/interrupt",
            "/api/models/x",
            "/api/object_info/x",
            "/api/queue",
            "/api/settings/x",
            "/api/system_stats",
            "/api/tags",
            "/templates/x",
            "/api/upload/mask",
            "/api/users",
            "/api/view",
            "/api/view_metadata/x",
            "/api/workflow_templates",
            "/docs/x/en.md",
            "/api/free",
        ] {
            let meant = meaning(&Method::GET, path);
            assert!(
                matches!(meant, Meaning::Known | Meaning::Job(_) | Meaning::Events),
                "{path}"
            );
        }
    }
}
