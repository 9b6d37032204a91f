//! What needs other settings than the shared world has, and so a gateway of its own: the manager's
//! rows, custom nodes' routes, rights and the removal of accounts. Always the demo engine.

use crate::graphs::picture;
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Ask, Gateway, Options, PASSWORD, eventually};
use serde_json::json;
use std::fs;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

fn start(options: Options) -> Result<(Gateway, String)> {
    let gateway = Gateway::start(options.set("separate_users=true"))?;
    gateway.add_user("bobby")?;
    let bob = gateway.make_token("bobby")?;
    eventually(PATIENCE, || {
        Ok(gateway.ask(&Ask::get("/queue").bearer(&bob))?.status == 200)
    })?;
    Ok((gateway, bob))
}

/// Routes of the package's new and legacy page and of the extension, as recorded.
const MANAGER: [&str; 36] = [
    "/v2/manager/version",
    "/v2/manager/reboot",
    "/v2/manager/db_mode",
    "/v2/manager/policy/update",
    "/v2/manager/channel_url_list",
    "/v2/manager/share",
    "/v2/manager/get_openart_auth",
    "/v2/manager/get_matrix_auth",
    "/v2/manager/get_comfyworkflows_auth",
    "/v2/manager/youml/settings",
    "/v2/manager/queue/history",
    "/v2/manager/queue/history_list",
    "/v2/manager/queue/status",
    "/v2/manager/queue/task",
    "/v2/manager/queue/batch",
    "/v2/manager/queue/start",
    "/v2/manager/queue/update_all",
    "/v2/manager/queue/install_model",
    "/v2/customnode/installed",
    "/v2/customnode/install/git_url",
    "/v2/customnode/install/pip",
    "/v2/snapshot/getlist",
    "/v2/snapshot/restore",
    "/v2/comfyui_manager/comfyui_switch_version",
    "/customnode/alternatives",
    "/v2/externalmodel/getlist",
    "/customnode/install/git_url",
    "/customnode/getlist",
    "/manager/reboot",
    "/manager/queue/install",
    "/manager/component/loads",
    "/manager/share",
    "/snapshot/remove",
    "/externalmodel/getlist",
    "/comfyui_manager/comfyui_switch_version",
    "/extensions/comfyui-manager-legacy/x.js",
];

#[test]
fn r20_d11_c11_the_manager_of_three_generations_is_for_admins() -> Result<()> {
    for legacy in [false, true] {
        let mut options = Options::default()
            .set("manager_admin_only=true")
            .engine_argument("--enable-manager");
        if legacy {
            options = options.engine_argument("--enable-manager-legacy-ui");
        }
        let (gateway, bob) = start(options)?;
        for target in MANAGER {
            for target in [
                target.to_owned(),
                format!("/api{target}"),
                target.replacen('m', "%6D", 1),
            ] {
                for method in ["GET", "POST", "HEAD"] {
                    let answer = gateway.ask(&Ask::new(method, &target).bearer(&bob))?;
                    ensure!(answer.status == 403, "{method} {target}: {}", answer.status);
                }
            }
        }
        let own = gateway.ask(&Ask::get("/v2/manager/version").bearer(&gateway.owner))?;
        ensure!(own.status == 200, "{}", own.text());
        // Nor is it there in bob's engine.
        let id = gateway.user_id("bobby")?;
        let engines = gateway.admin("GET", "engines", None)?.json();
        let process = engines["engines"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|engine| engine["id"] == id.as_str())
            .and_then(|engine| engine["pid"].as_u64())
            .with_context(|| engines.to_string())?;
        let line = fs::read(format!("/proc/{process}/cmdline"))?;
        ensure!(!crate::world::holds(&line, "--enable-manager"));
    }
    Ok(())
}

#[test]
fn c14_routes_of_custom_nodes_are_closed_to_users_unless_allowed() -> Result<()> {
    let (gateway, bob) = start(Options::default().set("custom_node_routes=deny"))?;
    for target in [
        "/demo/echo",
        "/demo/echo/a",
        "/%64emo/echo",
        "//demo/echo",
        "/api/demo/echo",
        "/video_ui_custom_view?filename=x",
        "/easyuse/prompt/styles",
        "/v2/unknown",
    ] {
        let answer = gateway.ask(&Ask::get(target).bearer(&bob))?;
        ensure!(
            answer.status == 403 && answer.code() == "route_not_allowed",
            "{target}: {}",
            answer.status
        );
    }
    let own = gateway.ask(&Ask::get("/demo/echo").bearer(&gateway.owner))?;
    ensure!(own.status == 200, "{}", own.text());
    let allowed = json!({"allowed_routes": ["/demo/"]});
    let changed = gateway.admin("PUT", "config", Some(&allowed))?;
    ensure!(changed.status == 200, "{}", changed.text());
    eventually(PATIENCE, || {
        Ok(gateway.ask(&Ask::get("/demo/echo").bearer(&bob))?.status == 200)
    })
}

#[test]
fn u13_what_a_user_may_not_run_does_not_run() -> Result<()> {
    let (gateway, bob) = start(Options::default())?;
    let post = |token: &str| {
        let body = json!({ "prompt": picture("u13", 13) });
        gateway.ask(&Ask::post("/prompt").bearer(token).json(&body))
    };
    ensure!(post(&bob)?.status == 200);
    let denied = json!({"nodes": {"deny": ["@file-access", "SaveIm*"]}});
    let changed = gateway.admin("PUT", "config", Some(&denied))?;
    ensure!(changed.status == 200, "{}", changed.text());
    eventually(PATIENCE, || Ok(post(&bob)?.status == 400))?;
    let answer = post(&bob)?.json();
    ensure!(answer["error"]["type"] == "node_not_allowed", "{answer}");
    ensure!(
        answer["node_errors"]["2"]["class_type"] == "SaveImage",
        "{answer}"
    );
    ensure!(
        post(&gateway.owner)?.status == 200,
        "by role, and told by id"
    );
    let id = gateway.user_id("bobby")?;
    let disabled = gateway.admin(
        "PATCH",
        &format!("users/{id}"),
        Some(&json!({"disabled": true})),
    )?;
    ensure!(disabled.status == 200, "{}", disabled.text());
    ensure!(post(&bob)?.status == 401);
    Ok(())
}

#[test]
fn u23_u24_no_name_of_a_user_is_a_path() -> Result<()> {
    let (gateway, _) = start(Options::default())?;
    let folders = || -> Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(gateway.data.path())?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.contains(".db") && !name.starts_with('.'))
            .collect();
        names.sort();
        Ok(names)
    };
    let before = folders()?;
    for id in [
        "..", ".", "%2e%2e", "..%2F..", "%2E", "", "users", "..%5C..", "*",
    ] {
        for fate in ["delete", "keep"] {
            let target = format!("users/{id}?files={fate}");
            let answer = gateway.admin("DELETE", &target, None)?;
            ensure!(answer.status >= 400, "{target}: {}", answer.status);
        }
    }
    ensure!(folders()? == before);
    let register = |name: &str| {
        let body = json!({
            "new_user_username": name, "new_user_password": PASSWORD,
            "username": "owner", "password": PASSWORD,
        });
        gateway.ask(&Ask::post("/register").json(&body))
    };
    for name in ["..", "../x", "a/b", "a\\b", ".hidden", "con.", "é23", "x y"] {
        ensure!(register(name)?.status == 400, "{name}");
    }
    // Names that are folders of ours, or differ in case only where files do not.
    for name in ["users", "logs", "defaults", "shared"] {
        ensure!(register(name)?.status == 200, "{name}");
        let id = gateway.user_id(name)?;
        ensure!(id != name, "folders are named by ids");
        let token = gateway.make_token(name)?;
        eventually(PATIENCE, || {
            let asked = Ask::get("/system_stats").bearer(&token);
            Ok(gateway.ask(&asked)?.status == 200)
        })?;
        ensure!(gateway.data.path().join("users").join(&id).is_dir());
        let gone = gateway.admin("DELETE", &format!("users/{id}?files=delete"), None)?;
        ensure!(gone.status == 204, "{}", gone.text());
        ensure!(!gateway.data.path().join("users").join(&id).exists());
    }
    ensure!(gateway.data.path().join("users").is_dir());
    ensure!(
        gateway
            .ask(&Ask::get("/queue").bearer(&gateway.owner))?
            .status
            == 200
    );
    Ok(())
}
