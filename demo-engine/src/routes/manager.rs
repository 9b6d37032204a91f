//! Routes of ComfyUI-Manager's package, with `--enable-manager`. The answers have the right form, and
//! nothing is ever installed, changed or restarted.

use super::Asked;
use crate::answer;
use crate::body;
use crate::json::{Json, json};
use crate::state::Engine;
use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode, header};

const GET: &[&str] = &["GET", "HEAD"];
const POST: &[&str] = &["POST"];
const BOTH: &[&str] = &["GET", "HEAD", "POST"];

/// In which interface a route exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum In {
    Each,
    New,
    Legacy,
}

use In::{Each, Legacy, New};

const ROUTES: &[(In, &[&str], &str)] = &[
    (New, POST, "v2/manager/queue/task"),
    (Legacy, POST, "v2/manager/queue/batch"),
    (New, GET, "v2/manager/queue/history_list"),
    (New, GET, "v2/manager/queue/history"),
    (Each, GET, "v2/manager/queue/status"),
    (Each, POST, "v2/manager/queue/reset"),
    (Each, POST, "v2/manager/queue/start"),
    (Each, POST, "v2/manager/queue/update_all"),
    (Each, POST, "v2/manager/queue/update_comfyui"),
    (Each, POST, "v2/manager/queue/install_model"),
    (Each, GET, "v2/manager/is_legacy_manager_ui"),
    (Each, GET, "v2/manager/version"),
    (Each, POST, "v2/manager/reboot"),
    (Each, BOTH, "v2/manager/db_mode"),
    (Each, BOTH, "v2/manager/policy/update"),
    (Each, BOTH, "v2/manager/channel_url_list"),
    (Each, GET, "v2/manager/share_option"),
    (Each, POST, "v2/manager/share"),
    (Each, GET, "v2/manager/get_openart_auth"),
    (Each, POST, "v2/manager/set_openart_auth"),
    (Each, GET, "v2/manager/get_matrix_auth"),
    (Each, GET, "v2/manager/get_matrix_dep_status"),
    (Each, GET, "v2/manager/get_comfyworkflows_auth"),
    (Each, BOTH, "v2/manager/youml/settings"),
    (Each, GET, "v2/manager/get_esheep_workflow_and_images"),
    (Each, POST, "v2/manager/set_esheep_workflow_and_images"),
    (Legacy, GET, "v2/manager/notice"),
    (Each, GET, "v2/customnode/getmappings"),
    (Each, GET, "v2/customnode/fetch_updates"),
    (Each, GET, "v2/customnode/installed"),
    (Each, POST, "v2/customnode/import_fail_info"),
    (Each, POST, "v2/customnode/import_fail_info_bulk"),
    (Legacy, GET, "v2/customnode/getlist"),
    (Legacy, POST, "v2/customnode/install/git_url"),
    (Legacy, POST, "v2/customnode/install/pip"),
    (Legacy, GET, "customnode/alternatives"),
    (Legacy, GET, "v2/externalmodel/getlist"),
    (Each, GET, "v2/snapshot/getlist"),
    (Each, GET, "v2/snapshot/get_current"),
    (Each, POST, "v2/snapshot/save"),
    (Each, POST, "v2/snapshot/remove"),
    (Each, POST, "v2/snapshot/restore"),
    (Each, GET, "v2/comfyui_manager/comfyui_versions"),
    (Each, POST, "v2/comfyui_manager/comfyui_switch_version"),
];

const CHANNELS: &[(&str, &str)] = &[
    ("default", ""),
    ("recent", "/node_db/new"),
    ("legacy", "/node_db/legacy"),
    ("forked", "/node_db/forked"),
    ("dev", "/node_db/dev"),
    ("tutorial", "/node_db/tutorial"),
];
const CHANNEL_ROOT: &str = "https://raw.githubusercontent.com/Comfy-Org/ComfyUI-Manager/main";

/// The route of a path, if the manager has it.
pub(super) fn find(legacy: bool, path: &str) -> Option<(&'static str, &'static [&'static str])> {
    ROUTES
        .iter()
        .filter(|(place, _, _)| match place {
            Each => true,
            New => !legacy,
            Legacy => legacy,
        })
        .find(|(_, _, name)| *name == path)
        .map(|(_, methods, name)| (*name, *methods))
}

pub(super) async fn answer(engine: &Engine, name: &str, asked: &Asked, body: Body) -> Response {
    if asked.method == Method::POST {
        change(engine, name, asked, body).await
    } else {
        show(engine, name)
    }
}

fn show(engine: &Engine, name: &str) -> Response {
    let text = |text| answer::text(StatusCode::OK, text);
    match name.rsplit_once("v2/").map_or(name, |(_, name)| name) {
        "manager/version" => text("V4.3"),
        "manager/is_legacy_manager_ui" => {
            answer::json(&json!({ "is_legacy_manager_ui": engine.options.legacy_manager }))
        }
        "manager/queue/status" => answer::json(&json!({
            "total_count": 0,
            "done_count": 0,
            "in_progress_count": 0,
            "pending_count": 0,
            "is_processing": false,
        })),
        "manager/queue/history" => answer::json(&json!({ "history": {} })),
        "manager/queue/history_list" => answer::json(&json!({ "ids": [] })),
        "manager/db_mode" => text("cache"),
        "manager/policy/update" => text("stable-comfyui"),
        "manager/channel_url_list" => {
            let list: Vec<String> = CHANNELS
                .iter()
                .map(|(name, path)| format!("{name}::{CHANNEL_ROOT}{path}"))
                .collect();
            let mut shown = json!({ "selected": "custom" });
            shown.set("list", list);
            answer::json(&shown)
        }
        "manager/share_option" => text("all"),
        "manager/notice" => text("This is the demo engine; there is nothing to manage."),
        "snapshot/getlist" => answer::json(&json!({ "items": [] })),
        "snapshot/get_current" => answer::json(
            &json!({ "comfyui": "0.12.1", "git_custom_nodes": {}, "cnr_custom_nodes": {}, "file_custom_nodes": [], "pips": {} }),
        ),
        "comfyui_manager/comfyui_versions" => {
            answer::json(&json!({ "versions": ["v0.12.1"], "current": "v0.12.1" }))
        }
        "customnode/fetch_updates" => answer::empty(StatusCode::OK),
        "manager/youml/settings"
        | "manager/get_openart_auth"
        | "manager/get_matrix_auth"
        | "manager/get_matrix_dep_status"
        | "manager/get_comfyworkflows_auth"
        | "manager/get_esheep_workflow_and_images" => answer::empty(StatusCode::NOT_FOUND),
        _ => answer::json(&json!({})),
    }
}

async fn change(engine: &Engine, name: &str, asked: &Asked, body: Body) -> Response {
    let kind = asked
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    // What a plain form of another site can send; the package's only guard.
    if matches!(
        kind,
        "application/x-www-form-urlencoded" | "multipart/form-data" | "text/plain"
    ) {
        let text = "Invalid Content-Type for this endpoint. Use application/json or omit body.";
        return answer::text(StatusCode::BAD_REQUEST, text);
    }
    let sent = body::json(&asked.headers, body, engine.options.max_upload)
        .await
        .unwrap_or_else(|_| json!({}));
    match name {
        "v2/manager/queue/task" => {
            let missing: Vec<&str> = ["ui_id", "client_id", "kind", "params"]
                .into_iter()
                .filter(|key| sent.get(key).is_none())
                .collect();
            if missing.is_empty() {
                return answer::empty(StatusCode::OK);
            }
            let mut text = format!(
                "Invalid task data: {} validation errors for QueueTaskItem",
                missing.len()
            );
            for key in missing {
                text.push_str(&format!(
                    "\n{key}\n  Field required [type=missing, input_value={}, input_type=dict]\n    For further information visit https://errors.pydantic.dev/2.14/v/missing",
                    sent.python_text()
                ));
            }
            answer::text(StatusCode::BAD_REQUEST, &text)
        }
        "v2/customnode/import_fail_info_bulk" => {
            let mut shown = json!({});
            for key in ["cnr_ids", "urls"] {
                for id in sent.get(key).and_then(Json::as_list).unwrap_or_default() {
                    shown.set(&id.python_text(), Json::Null);
                }
            }
            answer::json(&shown)
        }
        "v2/customnode/import_fail_info" => answer::empty(StatusCode::BAD_REQUEST),
        _ => {
            engine.say(&format!(
                "[ComfyUI-Manager] {name}: nothing is done in the demo engine"
            ));
            answer::empty(StatusCode::OK)
        }
    }
}
