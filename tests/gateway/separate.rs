//! An engine for each user: started on a visit, stopped when idle, bounded in number, and nothing
//! of one to be seen by another.

use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Answer, Ask, Gateway, Options, eventually};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn options() -> Options {
    Options::default().set("separate_users=true")
}

fn get(gateway: &Gateway, token: &str, target: &str) -> Result<Answer> {
    gateway.ask(&Ask::get(target).bearer(token))
}

/// Queues a prompt and returns its id once it has run.
fn run(gateway: &Gateway, token: &str, prompt: &Value) -> Result<String> {
    let body = json!({ "prompt": prompt });
    let answer = gateway.ask(&Ask::post("/prompt").bearer(token).json(&body))?;
    let id = answer.json()["prompt_id"]
        .as_str()
        .with_context(|| answer.text())?
        .to_owned();
    eventually(PATIENCE, || {
        let history = get(gateway, token, &format!("/history/{id}"))?.json();
        Ok(history[&id]["status"]["completed"] == true)
    })?;
    Ok(id)
}

fn picture(color: u32) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": color}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "mine"}},
    })
}

fn slow(seconds: f64, tag: &str) -> Value {
    json!({
        "1": {"class_type": "SlowProbe", "inputs": {"seconds": seconds, "steps": 1, "preview": "none", "tag": tag, "fail": false}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    })
}

fn engines(gateway: &Gateway) -> Result<Vec<Value>> {
    let list = gateway.admin("GET", "engines", None)?.json();
    let engines = list["engines"].as_array().cloned();
    engines.with_context(|| list.to_string())
}

fn state_of(gateway: &Gateway, username: &str) -> Result<String> {
    let engines = engines(gateway)?;
    let own = engines.iter().find(|engine| engine["username"] == username);
    Ok(own
        .map_or("none", |engine| engine["state"].as_str().unwrap_or("?"))
        .to_owned())
}

#[test]
fn each_user_has_an_engine_with_files_of_its_own() -> Result<()> {
    let (gateway, alice, bob) = Gateway::with_two(options())?;
    let id = run(&gateway, &alice, &picture(1))?;
    ensure!(get(&gateway, &bob, "/history")?.json() == json!({}));
    ensure!(get(&gateway, &bob, &format!("/history/{id}"))?.json() == json!({}));
    let name = "/view?filename=mine_00001_.png&type=output";
    let own = get(&gateway, &alice, name)?;
    ensure!(own.status == 200);
    ensure!(own.header("cache-control") == Some("private, no-store"));
    ensure!(get(&gateway, &bob, name)?.status == 404);
    ensure!(get(&gateway, &gateway.owner, name)?.status == 404);
    let alice_id = gateway.user_id("alice")?;
    let output = gateway
        .data
        .path()
        .join("users")
        .join(&alice_id)
        .join("output");
    ensure!(output.join("mine_00001_.png").is_file());
    let owner_id = gateway.user_id("owner")?;
    ensure!(
        !gateway.data.path().join("users").join(owner_id).exists(),
        "the owner keeps ComfyUI's own directories"
    );
    let shown = engines(&gateway)?;
    ensure!(shown.len() == 3, "{shown:?}");
    for engine in &shown {
        ensure!(
            engine["memory_bytes"]
                .as_u64()
                .is_some_and(|bytes| bytes > 1_000_000),
            "{engine}"
        );
    }
    ensure!(gateway.engine_processes().len() == 3);
    Ok(())
}

#[test]
fn a_page_waits_and_a_program_waits_or_is_told_when_to_come_again() -> Result<()> {
    let options = options()
        .fault("slow-start=1")
        .set("comfyui.start_wait_seconds=0");
    let (gateway, alice, _) = Gateway::with_two(options.without_engine())?;
    let page = gateway.ask(&Ask::get("/").browser().cookie(&gateway.sign_in("alice")?))?;
    ensure!(
        page.status == 503 && page.text().contains("sentinel-state"),
        "{}",
        page.text()
    );
    let early = get(&gateway, &alice, "/system_stats")?;
    ensure!(early.status == 503, "{}", early.text());
    ensure!(early.header("retry-after").is_some());
    ensure!(early.code() == "engine_starting", "{}", early.text());
    eventually(PATIENCE, || {
        Ok(get(&gateway, &alice, "/system_stats")?.status == 200)
    })
}

#[test]
fn a_page_in_the_background_starts_nothing_that_an_admin_stopped() -> Result<()> {
    let (gateway, alice, _) = Gateway::with_two(options())?;
    let cookie = gateway.sign_in("alice")?;
    get(&gateway, &alice, "/system_stats")?;
    let id = gateway.user_id("alice")?;
    ensure!(
        gateway
            .admin("POST", &format!("engines/{id}/stop"), None)?
            .status
            == 202
    );
    eventually(PATIENCE, || Ok(state_of(&gateway, "alice")? == "stopped"))?;
    for _ in 0..5 {
        ensure!(
            gateway
                .ask(&Ask::get("/system_stats").cookie(&cookie))?
                .status
                == 503
        );
    }
    ensure!(state_of(&gateway, "alice")? == "stopped");
    let page = gateway.ask(&Ask::get("/").browser().cookie(&cookie))?;
    ensure!(page.status == 503);
    eventually(PATIENCE, || Ok(state_of(&gateway, "alice")? == "ready"))
}

#[test]
fn no_more_engines_live_than_allowed_and_the_idlest_makes_room() -> Result<()> {
    let (gateway, alice, bob) = Gateway::with_two(options().set("comfyui.max_engines=2"))?;
    ensure!(get(&gateway, &alice, "/system_stats")?.status == 200);
    ensure!(gateway.engine_processes().len() == 2);
    ensure!(get(&gateway, &bob, "/system_stats")?.status == 200);
    ensure!(gateway.engine_processes().len() == 2);
    let owners = state_of(&gateway, "owner")?;
    ensure!(
        owners == "stopped",
        "the owner's was used longest ago and is {owners}"
    );
    ensure!(state_of(&gateway, "alice")? == "ready");
    Ok(())
}

#[test]
fn a_job_keeps_its_engine_when_another_wants_its_place() -> Result<()> {
    let (gateway, alice, bob) = Gateway::with_two(
        options()
            .set("comfyui.max_engines=1")
            .set("comfyui.start_wait_seconds=2"),
    )?;
    let body = json!({ "prompt": slow(5.0, "alice") });
    let queued = gateway.ask(&Ask::post("/prompt").bearer(&alice).json(&body))?;
    ensure!(queued.status == 200, "{}", queued.text());
    let told = get(&gateway, &bob, "/system_stats")?;
    ensure!(told.status == 503, "{}", told.text());
    ensure!(state_of(&gateway, "alice")? == "ready");
    let own = get(&gateway, &bob, "/sentinel/api/engine")?.json();
    ensure!(own["place"] == 1, "{own}");
    eventually(PATIENCE, || {
        Ok(get(&gateway, &bob, "/system_stats")?.status == 200)
    })
}

#[test]
fn jobs_of_different_users_run_one_after_another() -> Result<()> {
    let (gateway, alice, bob) = Gateway::with_two(options().set("gpu_slots=1"))?;
    for token in [&alice, &bob] {
        ensure!(get(&gateway, token, "/system_stats")?.status == 200);
    }
    let post = |token: &str, seconds: f64| -> Result<String> {
        let body = json!({ "prompt": slow(seconds, token) });
        let answer = gateway.ask(&Ask::post("/prompt").bearer(token).json(&body))?;
        let id = answer.json()["prompt_id"].as_str().map(str::to_owned);
        id.with_context(|| answer.text())
    };
    let first = post(&alice, 1.5)?;
    let second = post(&bob, 0.3)?;
    let time = |token: &str, id: &str, name: &str| -> Result<i64> {
        let job = get(&gateway, token, &format!("/api/jobs/{id}"))?.json();
        job[name].as_i64().with_context(|| job.to_string())
    };
    eventually(PATIENCE, || {
        Ok(time(&bob, &second, "execution_end_time").is_ok())
    })?;
    ensure!(
        time(&bob, &second, "execution_start_time")? >= time(&alice, &first, "execution_end_time")?
    );
    Ok(())
}

#[test]
fn a_killed_engine_comes_back_and_disturbs_nobody() -> Result<()> {
    let (gateway, alice, bob) = Gateway::with_two(options().fault("crash-on-prompt"))?;
    for token in [&alice, &bob] {
        ensure!(get(&gateway, token, "/system_stats")?.status == 200);
    }
    let before = engines(&gateway)?;
    let _ = gateway.ask(
        &Ask::post("/prompt")
            .bearer(&bob)
            .json(&json!({ "prompt": picture(1) })),
    );
    eventually(PATIENCE, || {
        Ok(get(&gateway, &bob, "/system_stats")?.status == 200)
    })?;
    let after = engines(&gateway)?;
    let pid = |list: &[Value], name: &str| {
        list.iter()
            .find(|engine| engine["username"] == name)
            .map(|engine| engine["pid"].clone())
    };
    ensure!(pid(&before, "alice") == pid(&after, "alice"));
    ensure!(pid(&before, "owner") == pid(&after, "owner"));
    ensure!(pid(&before, "bob_") != pid(&after, "bob_"));
    Ok(())
}

#[test]
fn separation_is_switched_while_it_runs_and_nothing_is_lost() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    gateway.add_user("alice")?;
    let alice = gateway.make_token("alice")?;
    run(&gateway, &alice, &picture(7))?;
    let name = "/view?filename=mine_00001_.png&type=output";
    let change = |separate: bool| -> Result<()> {
        let answer = gateway.admin(
            "PUT",
            "config",
            Some(&json!({ "separate_users": separate })),
        )?;
        ensure!(answer.status == 200, "{}", answer.text());
        eventually(PATIENCE, || {
            let list = gateway.admin("GET", "engines", None)?.json();
            Ok(list["mode"] == if separate { "separate" } else { "shared" })
        })?;
        eventually(PATIENCE, || {
            Ok(get(&gateway, &gateway.owner, "/system_stats")?.status == 200)
        })
    };
    change(true)?;
    ensure!(
        get(&gateway, &gateway.owner, name)?.status == 200,
        "what was shared stays with the owner"
    );
    ensure!(get(&gateway, &alice, name)?.status == 404);
    run(&gateway, &alice, &picture(8))?;
    change(false)?;
    ensure!(get(&gateway, &alice, name)?.status == 200);
    change(true)?;
    ensure!(
        get(&gateway, &alice, name)?.status == 200,
        "her own picture is there again"
    );
    Ok(())
}

#[test]
fn files_of_a_deleted_user_are_kept_given_or_deleted() -> Result<()> {
    let (gateway, alice, bob) = Gateway::with_two(options())?;
    for token in [&alice, &bob] {
        run(&gateway, token, &picture(3))?;
    }
    let (alice_id, bob_id) = (gateway.user_id("alice")?, gateway.user_id("bob_")?);
    let users = gateway.data.path().join("users");
    let same = gateway.admin(
        "DELETE",
        &format!("users/{bob_id}?files=give&to={bob_id}"),
        None,
    )?;
    ensure!(same.status == 400, "{}", same.text());
    let given = gateway.admin(
        "DELETE",
        &format!("users/{bob_id}?files=give&to={alice_id}"),
        None,
    )?;
    ensure!(given.status == 204, "{}", given.text());
    ensure!(!users.join(&bob_id).exists());
    ensure!(
        users
            .join(&alice_id)
            .join("output/bob_/mine_00001_.png")
            .is_file()
    );
    ensure!(
        gateway.engine_processes().len() == 2,
        "the engine of who is gone is gone"
    );
    ensure!(get(&gateway, &bob, "/system_stats")?.status == 401);
    let deleted = gateway.admin("DELETE", &format!("users/{alice_id}?files=delete"), None)?;
    ensure!(deleted.status == 204, "{}", deleted.text());
    ensure!(fs::read_dir(&users)?.count() == 0);
    Ok(())
}

#[test]
fn whoever_is_disabled_loses_his_engine_at_once() -> Result<()> {
    let (gateway, alice, _) = Gateway::with_two(options())?;
    ensure!(get(&gateway, &alice, "/system_stats")?.status == 200);
    ensure!(gateway.engine_processes().len() == 2);
    let id = gateway.user_id("alice")?;
    let answer = gateway.admin(
        "PATCH",
        &format!("users/{id}"),
        Some(&json!({ "disabled": true })),
    )?;
    ensure!(answer.status == 200, "{}", answer.text());
    eventually(PATIENCE, || Ok(gateway.engine_processes().len() == 1))
}

#[test]
fn stopping_comfyui_stops_all_and_keeps_them_stopped() -> Result<()> {
    let (gateway, alice, _) = Gateway::with_two(options().set("comfyui.start_wait_seconds=1"))?;
    ensure!(get(&gateway, &alice, "/system_stats")?.status == 200);
    ensure!(gateway.admin("POST", "engine/stop", None)?.status == 202);
    eventually(PATIENCE, || Ok(gateway.engine_processes().is_empty()))?;
    let told = get(&gateway, &alice, "/system_stats")?;
    ensure!(
        told.status == 503 && told.code() == "engine_stopped",
        "{}",
        told.text()
    );
    ensure!(gateway.engine_processes().is_empty());
    ensure!(gateway.admin("POST", "engine/start", None)?.status == 202);
    eventually(PATIENCE, || {
        Ok(get(&gateway, &alice, "/system_stats")?.status == 200)
    })
}

#[test]
fn the_command_line_sees_and_stops_engines() -> Result<()> {
    let (gateway, alice, _) = Gateway::with_two(options())?;
    ensure!(get(&gateway, &alice, "/system_stats")?.status == 200);
    let line_of = |name: &str| -> Result<String> {
        let list = gateway.command(&["engines", "list"])?;
        let line = list.lines().find(|line| line.starts_with(name));
        Ok(line.unwrap_or_default().to_owned())
    };
    ensure!(
        line_of("alice")?.contains("\tready\t"),
        "{}",
        line_of("alice")?
    );
    ensure!(
        gateway
            .command(&["engines", "log", "alice"])?
            .contains("To see the GUI")
    );
    gateway.command(&["engines", "stop", "alice"])?;
    eventually(PATIENCE, || Ok(line_of("alice")?.contains("\tstopped\t")))?;
    ensure!(gateway.command(&["engines", "stop", "nobody"]).is_err());
    Ok(())
}
