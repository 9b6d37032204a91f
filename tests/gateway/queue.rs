//! The queue before the GPU: fair, durable, one's own, and the owner's first.

use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Answer, Ask, Gateway, Options, Socket, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

fn separate() -> Options {
    Options::default().set("separate_users=true")
}

/// A gateway with users alice and bob_ whose engines answer, and their tokens.
fn with_two(options: Options) -> Result<(Gateway, String, String)> {
    let gateway = Gateway::start(options)?;
    let mut tokens = Vec::new();
    for name in ["alice", "bob_"] {
        gateway.add_user(name)?;
        let token = gateway.make_token(name)?;
        ensure!(get(&gateway, &token, "/object_info/SaveImage")?.status == 200);
        tokens.push(token);
    }
    let [alice, bob] =
        <[String; 2]>::try_from(tokens).map_err(|_| anyhow::anyhow!("two tokens"))?;
    Ok((gateway, alice, bob))
}

fn get(gateway: &Gateway, token: &str, target: &str) -> Result<Answer> {
    gateway.ask(&Ask::get(target).bearer(token))
}

fn post(gateway: &Gateway, token: &str, target: &str, body: &Value) -> Result<Answer> {
    gateway.ask(&Ask::post(target).bearer(token).json(body))
}

fn slow(seconds: f64, tag: &str) -> Value {
    json!({
        "1": {"class_type": "SlowProbe", "inputs": {"seconds": seconds, "steps": 20, "preview": "none", "tag": tag, "fail": false}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    })
}

/// As `slow`, with a picture that outlives the engine: a temporary one, and its job's place in the history with it, does
/// not.
fn slow_saved(seconds: f64, tag: &str) -> Value {
    let mut prompt = slow(seconds, tag);
    prompt["2"] = json!({
        "class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "kept"},
    });
    prompt
}

fn queue(gateway: &Gateway, token: &str, prompt: &Value) -> Result<String> {
    let answer = post(gateway, token, "/prompt", &json!({ "prompt": prompt }))?;
    ensure!(answer.status == 200, "{}", answer.text());
    let id = answer.json()["prompt_id"].as_str().map(str::to_owned);
    id.with_context(|| answer.text())
}

fn state(gateway: &Gateway, token: &str, id: &str) -> Result<String> {
    let job = get(gateway, token, &format!("/api/jobs/{id}"))?.json();
    Ok(job["status"].as_str().unwrap_or("none").to_owned())
}

fn until(gateway: &Gateway, token: &str, id: &str, wanted: &str) -> Result<()> {
    eventually(PATIENCE, || Ok(state(gateway, token, id)? == wanted))
        .with_context(|| format!("{id} is not {wanted}"))
}

/// Start times of finished jobs, in ms.
fn started(gateway: &Gateway, token: &str, id: &str) -> Result<i64> {
    let job = get(gateway, token, &format!("/api/jobs/{id}"))?.json();
    job["execution_start_time"]
        .as_i64()
        .with_context(|| job.to_string())
}

#[test]
fn one_users_many_jobs_do_not_block_anothers_two() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate())?;
    let many: Vec<String> = (0..12)
        .map(|number| queue(&gateway, &alice, &slow(0.3, &format!("a{number}"))))
        .collect::<Result<_>>()?;
    let two: Vec<String> = (0..2)
        .map(|number| queue(&gateway, &bob, &slow(0.3, &format!("b{number}"))))
        .collect::<Result<_>>()?;
    let own = get(&gateway, &bob, "/queue")?.json();
    ensure!(
        own["queue_pending"].as_array().map(Vec::len) == Some(2),
        "{own}"
    );
    for id in &two {
        until(&gateway, &bob, id, "completed")?;
    }
    for id in &many {
        until(&gateway, &alice, id, "completed")?;
    }
    let mut order: Vec<(i64, char)> = Vec::new();
    for id in &many {
        order.push((started(&gateway, &alice, id)?, 'a'));
    }
    for id in &two {
        order.push((started(&gateway, &bob, id)?, 'b'));
    }
    order.sort_unstable();
    let order: String = order.into_iter().map(|(_, user)| user).collect();
    let first = order.find('b').context("bob ran")?;
    let second = order.rfind('b').context("bob ran")?;
    ensure!(
        second - first <= 2,
        "{order}: bob waited for more than one job of alice"
    );
    let sorted = many.clone();
    let mut by_start: Vec<(i64, &String)> = Vec::new();
    for id in &many {
        by_start.push((started(&gateway, &alice, id)?, id));
    }
    by_start.sort();
    ensure!(
        by_start.iter().map(|(_, id)| *id).eq(sorted.iter()),
        "alice's own order is kept"
    );
    Ok(())
}

#[test]
fn a_waiting_job_is_seen_as_if_comfyui_held_it_and_by_nobody_else() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate())?;
    let running = queue(&gateway, &alice, &slow(3.0, "secret"))?;
    let wanted = "0b4c1f9e-8f1b-4c53-9c61-5b3d8e2f7a10";
    let body = json!({
        "prompt": slow(0.1, "waits"), "prompt_id": wanted, "client_id": "page",
        "extra_data": {"extra_pnginfo": {"workflow": {"id": "wf-1"}}, "api_key_comfy_org": "s3cret-key"},
    });
    let taken = post(&gateway, &alice, "/api/prompt", &body)?;
    ensure!(
        taken.status == 200 && taken.json()["prompt_id"] == wanted,
        "{}",
        taken.text()
    );
    ensure!(taken.json()["node_errors"] == json!({}));
    let front = post(
        &gateway,
        &alice,
        "/prompt",
        &json!({"prompt": slow(0.1, "front"), "front": true}),
    )?
    .json();
    ensure!(
        front["number"].as_i64().is_some_and(|number| number < 0),
        "{front}"
    );

    let own = get(&gateway, &alice, "/queue")?.json();
    ensure!(own["queue_running"][0][1] == running.as_str(), "{own}");
    ensure!(
        own["queue_pending"][0][1] == front["prompt_id"],
        "front goes first: {own}"
    );
    ensure!(own["queue_pending"][1][1] == wanted);
    ensure!(own["queue_pending"][1][2] == body["prompt"]);
    ensure!(own["queue_pending"][1][3]["client_id"] == "page");
    ensure!(
        own["queue_pending"][1][4] == json!(["2"]),
        "outputs that are executed: {own}"
    );
    ensure!(!own.to_string().contains("s3cret-key"));
    ensure!(get(&gateway, &alice, "/prompt")?.json()["exec_info"]["queue_remaining"] == 3);
    let jobs = get(&gateway, &alice, "/api/jobs?status=pending&sort_order=asc")?.json();
    ensure!(jobs["pagination"]["total"] == 2, "{jobs}");
    ensure!(jobs["jobs"][0]["workflow_id"] == "wf-1");
    let all = get(&gateway, &alice, "/api/api/jobs?limit=2&offset=1")?.json();
    ensure!(
        all["pagination"] == json!({"offset": 1, "limit": 2, "total": 3, "has_more": false}),
        "{all}"
    );

    ensure!(
        get(&gateway, &bob, "/queue")?.json() == json!({"queue_running": [], "queue_pending": []})
    );
    ensure!(get(&gateway, &bob, "/api/jobs")?.json()["pagination"]["total"] == 0);
    for id in [&running, wanted] {
        ensure!(get(&gateway, &bob, &format!("/api/jobs/{id}"))?.status == 404);
        ensure!(get(&gateway, &bob, &format!("/history/{id}"))?.json() == json!({}));
    }
    ensure!(get(&gateway, &bob, "/prompt")?.json()["exec_info"]["queue_remaining"] == 0);
    until(&gateway, &alice, wanted, "completed")?;
    let history = get(&gateway, &alice, &format!("/history/{wanted}"))?.json();
    let entry = &history[wanted];
    ensure!(entry["status"]["completed"] == true, "{history}");
    ensure!(entry["prompt"][1] == wanted && entry["prompt"][2] == body["prompt"]);
    ensure!(
        entry["outputs"]["2"]["images"][0]["type"] == "temp",
        "{history}"
    );
    ensure!(!history.to_string().contains("s3cret-key"));
    let written = gateway.everything_written()?;
    for (path, bytes) in written {
        let needle = b"s3cret-key";
        ensure!(
            !bytes.windows(needle.len()).any(|window| window == needle),
            "the key stands in {}",
            path.display()
        );
    }
    Ok(())
}

#[test]
fn c5_c6_d7_w7_foreign_ids_change_nothing_in_any_route() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate())?;
    let done = queue(&gateway, &alice, &slow(0.05, "done"))?;
    until(&gateway, &alice, &done, "completed")?;
    let running = queue(&gateway, &alice, &slow(4.0, "running"))?;
    let waiting = queue(&gateway, &alice, &slow(0.05, "waiting"))?;
    for (target, body) in [
        ("/queue", json!({"clear": true})),
        ("/queue", json!({"delete": [waiting, running]})),
        ("/api/queue", json!({"delete": [waiting]})),
        ("/history", json!({"clear": true})),
        ("/api/history", json!({"delete": [done, running, waiting]})),
        ("/interrupt", json!({})),
        ("/interrupt", json!({"prompt_id": running})),
        ("/api/interrupt", json!({"prompt_id": ""})),
        ("/api/jobs/cancel", json!({"job_ids": [running, waiting]})),
    ] {
        let answer = post(&gateway, &bob, target, &body)?;
        ensure!(answer.status == 200, "{target}: {}", answer.text());
    }
    for id in [&running, &waiting] {
        let cancelled = post(
            &gateway,
            &bob,
            &format!("/api/jobs/{id}/cancel"),
            &json!({}),
        )?;
        ensure!(cancelled.json()["cancelled"] == false);
    }
    let empty = gateway.ask(&Ask::post("/interrupt").bearer(&bob).body("text/plain", "{"))?;
    ensure!(empty.status == 200);
    // The same id again: bob gets another one, alice keeps hers.
    let stolen = post(
        &gateway,
        &bob,
        "/prompt",
        &json!({"prompt": slow(0.05, "b"), "prompt_id": done}),
    )?;
    ensure!(
        stolen.json()["prompt_id"] != done.as_str(),
        "{}",
        stolen.text()
    );
    ensure!(state(&gateway, &alice, &running)? == "in_progress");
    ensure!(state(&gateway, &alice, &waiting)? == "pending");
    ensure!(state(&gateway, &alice, &done)? == "completed");
    // Her own hand reaches them.
    ensure!(post(&gateway, &alice, "/interrupt", &json!({}))?.status == 200);
    until(&gateway, &alice, &running, "cancelled")?;
    until(&gateway, &alice, &waiting, "completed")?;
    ensure!(post(&gateway, &alice, "/history", &json!({"delete": [done]}))?.status == 200);
    ensure!(state(&gateway, &alice, &done)? == "none");
    Ok(())
}

#[test]
fn own_jobs_are_deleted_cleared_cancelled_and_interrupted_wherever_they_are() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let running = queue(&gateway, &alice, &slow(5.0, "running"))?;
    let waiting: Vec<String> = (0..4)
        .map(|number| queue(&gateway, &alice, &slow(0.05, &number.to_string())))
        .collect::<Result<_>>()?;
    post(&gateway, &alice, "/queue", &json!({"delete": [waiting[0]]}))?;
    let cancelled = post(
        &gateway,
        &alice,
        &format!("/api/jobs/{}/cancel", waiting[1]),
        &json!({}),
    )?;
    ensure!(cancelled.json()["cancelled"] == true);
    ensure!(get(&gateway, &alice, "/api/jobs?status=pending")?.json()["pagination"]["total"] == 2);
    post(&gateway, &alice, "/queue", &json!({"clear": true}))?;
    ensure!(get(&gateway, &alice, "/api/jobs?status=pending")?.json()["pagination"]["total"] == 0);
    post(
        &gateway,
        &alice,
        "/interrupt",
        &json!({"prompt_id": waiting[3]}),
    )?;
    ensure!(
        state(&gateway, &alice, &running)? == "in_progress",
        "that one does not run"
    );
    let cancelled = post(
        &gateway,
        &alice,
        &format!("/api/jobs/{running}/cancel"),
        &json!({}),
    )?;
    ensure!(cancelled.json()["cancelled"] == true);
    until(&gateway, &alice, &running, "cancelled")?;
    let history = get(&gateway, &alice, "/history?max_items=1")?.json();
    ensure!(
        history[&running]["status"]["status_str"] == "error",
        "{history}"
    );
    let bad = post(
        &gateway,
        &alice,
        "/api/jobs/cancel",
        &json!({"job_ids": ["X"]}),
    )?;
    ensure!(bad.status == 400 && bad.json()["invalid_ids"] == json!(["X"]));
    Ok(())
}

#[test]
fn a_bad_graph_is_refused_at_once_also_while_the_gpu_is_busy() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let refused = |prompt: Value| post(&gateway, &alice, "/prompt", &json!({ "prompt": prompt }));
    let bad = [
        json!({}),
        json!({"1": {"class_type": "Nope", "inputs": {}}}),
        json!({"2": {"class_type": "PreviewImage", "inputs": {}}}),
    ];
    let free: Vec<Value> = bad
        .iter()
        .map(|prompt| Ok(refused(prompt.clone())?.json()))
        .collect::<Result<_>>()?;
    queue(&gateway, &alice, &slow(3.0, "running"))?;
    for (prompt, free) in bad.iter().zip(free) {
        let answer = refused(prompt.clone())?;
        ensure!(answer.status == 400, "{}", answer.text());
        let busy = answer.json();
        ensure!(
            busy["error"]["type"] == free["error"]["type"],
            "{busy} {free}"
        );
        ensure!(
            busy["error"]["message"] == free["error"]["message"],
            "{busy} {free}"
        );
    }
    ensure!(get(&gateway, &alice, "/api/jobs")?.json()["pagination"]["total"] == 1);
    Ok(())
}

#[test]
fn a_job_that_only_comfyui_finds_wrong_fails_later_in_its_own_form() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    queue(&gateway, &alice, &slow(1.0, "running"))?;
    let prompt = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "no_such_file.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let id = queue(&gateway, &alice, &prompt)?;
    until(&gateway, &alice, &id, "failed")?;
    let job = get(&gateway, &alice, &format!("/api/jobs/{id}"))?.json();
    let message = job["execution_error"]["exception_message"].as_str();
    ensure!(
        message.is_some_and(|text| text.contains("no_such_file.png")),
        "{job}"
    );
    Ok(())
}

#[test]
fn the_owner_gets_his_gpu_back_now_and_jobs_run_again_after() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let running = queue(&gateway, &alice, &slow(8.0, "running"))?;
    let waiting = queue(&gateway, &alice, &slow(0.05, "waiting"))?;
    until(&gateway, &alice, &running, "in_progress")?;
    let paused = gateway.admin("POST", "queue/pause", Some(&json!({"when": "now"})))?;
    ensure!(paused.status == 204, "{}", paused.text());
    until(&gateway, &alice, &running, "pending")?;
    let mine = get(&gateway, &alice, "/sentinel/api/queue/mine")?.json();
    ensure!(
        mine["hold"]["reason"] == "owner" && mine["waiting"] == 2,
        "{mine}"
    );
    ensure!(
        mine["next"]["place"] == 1 && mine["next"]["wait_seconds"].is_null(),
        "{mine}"
    );
    // The owner's own jobs run.
    let owners = queue(&gateway, &gateway.owner, &slow(0.05, "owner"))?;
    until(&gateway, &gateway.owner, &owners, "completed")?;
    ensure!(state(&gateway, &alice, &running)? == "pending");
    let list = gateway.admin("GET", "queue", None)?.json();
    ensure!(
        list["waiting_total"] == 2 && list["waiting"][0]["username"] == "alice",
        "{list}"
    );
    ensure!(
        !list.to_string().contains("SlowProbe"),
        "no contents: {list}"
    );
    let resumed = gateway.admin("POST", "queue/resume", None)?;
    ensure!(resumed.status == 204);
    until(&gateway, &alice, &running, "completed")?;
    until(&gateway, &alice, &waiting, "completed")?;
    let bad = gateway.admin(
        "POST",
        "queue/pause",
        Some(&json!({"when": "now", "until": "x"})),
    )?;
    ensure!(bad.status == 400 && bad.json()["field"] == "until");
    for path in ["queue/pause", "queue/resume"] {
        let refused = post(
            &gateway,
            &alice,
            &format!("/sentinel/api/{path}"),
            &json!({"when": "now"}),
        )?;
        ensure!(refused.status == 403);
    }
    Ok(())
}

#[test]
fn admins_move_and_cancel_jobs_of_anybody() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate())?;
    queue(&gateway, &alice, &slow(8.0, "running"))?;
    let a = queue(&gateway, &alice, &slow(0.05, "a"))?;
    let b = queue(&gateway, &bob, &slow(0.05, "b"))?;
    let c = queue(&gateway, &bob, &slow(0.05, "c"))?;
    let act =
        |id: &str, what: &str| gateway.admin("POST", &format!("queue/jobs/{id}/{what}"), None);
    ensure!(act(&c, "first")?.status == 204);
    ensure!(act(&a, "cancel")?.status == 204);
    ensure!(act(&a, "cancel")?.status == 404);
    ensure!(act("x", "first")?.status == 404);
    until(&gateway, &bob, &b, "completed")?;
    until(&gateway, &bob, &c, "completed")?;
    ensure!(started(&gateway, &bob, &c)? <= started(&gateway, &bob, &b)?);
    ensure!(state(&gateway, &alice, &a)? == "none");
    Ok(())
}

#[test]
fn a_limit_says_which_it_is_and_until_when() -> Result<()> {
    let options = separate()
        .set("queue.jobs_waiting_users=2")
        .set("queue.longest_job_minutes_users=1");
    let (gateway, alice, _) = with_two(options)?;
    for number in 0..3 {
        queue(&gateway, &alice, &slow(2.0, &number.to_string()))?;
    }
    let refused = post(
        &gateway,
        &alice,
        "/prompt",
        &json!({"prompt": slow(0.1, "x")}),
    )?;
    ensure!(refused.status == 429, "{}", refused.text());
    ensure!(
        refused.json()["limit"] == "jobs_waiting",
        "{}",
        refused.text()
    );
    let usage = get(&gateway, &alice, "/sentinel/api/usage/mine")?.json();
    ensure!(
        usage["limits"]["jobs_waiting"] == 2 && usage["limits"]["longest_job_minutes"] == 1,
        "{usage}"
    );
    Ok(())
}

#[test]
fn waiting_jobs_and_history_outlive_a_kill_and_nothing_runs_twice() -> Result<()> {
    let options = separate();
    let (mut gateway, alice, bob) = with_two(options)?;
    let done = queue(&gateway, &alice, &slow_saved(0.05, "done"))?;
    until(&gateway, &alice, &done, "completed")?;
    let running = queue(&gateway, &alice, &slow_saved(1.5, "running"))?;
    let waiting: Vec<String> = (0..3)
        .map(|number| queue(&gateway, &bob, &slow_saved(0.05, &number.to_string())))
        .collect::<Result<_>>()?;
    gateway.signal(nix::sys::signal::Signal::SIGKILL)?;
    gateway.ended_within(PATIENCE)?;
    let data = std::sync::Arc::clone(&gateway.data);
    drop(gateway);
    let gateway = Gateway::start(separate().data(&data).without_owner())?;
    ensure!(state(&gateway, &alice, &done)? == "completed");
    for id in &waiting {
        until(&gateway, &bob, id, "completed")?;
    }
    until(&gateway, &alice, &running, "completed")?;
    let times: Vec<i64> = waiting
        .iter()
        .map(|id| started(&gateway, &bob, id))
        .collect::<Result<_>>()?;
    ensure!(times.is_sorted(), "in order: {times:?}");
    ensure!(get(&gateway, &bob, "/api/jobs")?.json()["pagination"]["total"] == 3);
    Ok(())
}

#[test]
fn a_job_whose_engine_dies_twice_is_given_up_with_the_reason() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let id = queue(&gateway, &alice, &slow(8.0, "dies"))?;
    for _ in 0..2 {
        until(&gateway, &alice, &id, "in_progress")?;
        let engines = gateway.admin("GET", "engines", None)?.json();
        let pid = engines["engines"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|engine| engine["username"] == "alice")
            .and_then(|engine| engine["pid"].as_i64());
        let pid = i32::try_from(pid.context("a process")?)?;
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        )?;
        eventually(PATIENCE, || {
            Ok(state(&gateway, &alice, &id)? != "in_progress")
        })?;
    }
    until(&gateway, &alice, &id, "failed")?;
    let job = get(&gateway, &alice, &format!("/api/jobs/{id}"))?.json();
    ensure!(
        job["execution_error"]["exception_type"] == "engine_ended",
        "{job}"
    );
    Ok(())
}

#[test]
fn usage_is_counted_by_user_and_day() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let begun = Instant::now();
    let id = queue(&gateway, &alice, &slow(0.5, "x"))?;
    until(&gateway, &alice, &id, "completed")?;
    let mine = get(&gateway, &alice, "/sentinel/api/usage/mine")?.json();
    let used = mine["days"][0]["gpu_seconds"].as_f64().context("seconds")?;
    ensure!(
        used >= 0.4 && used <= begun.elapsed().as_secs_f64(),
        "{mine}"
    );
    let all = gateway.admin("GET", "usage?days=7", None)?.json();
    ensure!(
        all["days"][0]["username"] == "alice" && all["days"][0]["jobs"] == 1,
        "{all}"
    );
    let table = gateway.admin("GET", "usage.csv", None)?.text();
    ensure!(table.contains("\"alice\""), "{table}");
    ensure!(get(&gateway, &alice, "/sentinel/metrics")?.status == 403);
    let token = gateway.admin_token()?;
    let metrics = get(&gateway, &token, "/sentinel/metrics")?.text();
    ensure!(
        metrics.contains("sentinel_jobs_today{user=\"alice\""),
        "{metrics}"
    );
    Ok(())
}

#[test]
fn one_engine_for_all_has_one_queue_of_each() -> Result<()> {
    let (gateway, alice, bob) = with_two(Options::default())?;
    let many: Vec<String> = (0..4)
        .map(|number| queue(&gateway, &alice, &slow(0.3, &number.to_string())))
        .collect::<Result<_>>()?;
    let own = queue(&gateway, &bob, &slow(0.05, "b"))?;
    ensure!(get(&gateway, &bob, "/api/jobs")?.json()["pagination"]["total"] == 1);
    ensure!(get(&gateway, &bob, &format!("/history/{}", many[0]))?.json() == json!({}));
    ensure!(post(&gateway, &bob, "/interrupt", &json!({}))?.status == 200);
    ensure!(post(&gateway, &bob, "/free", &json!({"free_memory": true}))?.status == 403);
    until(&gateway, &bob, &own, "completed")?;
    for id in &many {
        until(&gateway, &alice, id, "completed")?;
    }
    ensure!(started(&gateway, &bob, &own)? < started(&gateway, &alice, &many[3])?);
    Ok(())
}

async fn page(gateway: &Gateway, token: &str, name: &str) -> Result<Socket> {
    let cookie = format!("jwt_token={token}");
    let origin = format!("http://localhost:{}", gateway.port);
    let target = format!("/ws?clientId={name}");
    Socket::open(
        gateway.port,
        &target,
        &[("Cookie", &cookie), ("Origin", &origin)],
    )
    .await
}

/// Counts that a page is told, until one is `last`.
async fn counts(socket: &mut Socket, last: u64) -> Result<Vec<u64>> {
    let mut seen = Vec::new();
    loop {
        let event = socket.next_json().await?;
        let count = &event["data"]["status"]["exec_info"]["queue_remaining"];
        if let Some(count) = count.as_u64() {
            seen.push(count);
            if count == last && seen.len() > 1 {
                return Ok(seen);
            }
        }
    }
}

#[tokio::test]
async fn pages_are_told_of_ones_own_jobs_as_comfyui_would() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate())?;
    let mut hers = page(&gateway, &alice, "hers").await?;
    let mut his = page(&gateway, &bob, "his").await?;
    queue(&gateway, &alice, &slow(0.8, "running"))?;
    for number in 0..2 {
        let body = json!({"prompt": slow(0.05, &number.to_string()), "client_id": "hers"});
        ensure!(post(&gateway, &alice, "/prompt", &body)?.status == 200);
    }
    let seen = counts(&mut hers, 0).await?;
    ensure!(seen.contains(&3), "all three are counted: {seen:?}");
    queue(&gateway, &bob, &slow(0.3, "his"))?;
    let seen = counts(&mut his, 0).await?;
    ensure!(
        seen.iter().all(|count| *count <= 1),
        "only his own: {seen:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_page_hears_that_its_waiting_job_was_wrong() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let mut hers = page(&gateway, &alice, "hers").await?;
    queue(&gateway, &alice, &slow(0.5, "running"))?;
    let prompt = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "no_such_file.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let body = json!({"prompt": prompt, "client_id": "hers"});
    let id = post(&gateway, &alice, "/prompt", &body)?.json()["prompt_id"].clone();
    loop {
        let event = hers.next_json().await?;
        if event["type"] == "execution_error" {
            ensure!(event["data"]["prompt_id"] == id, "{event}");
            return Ok(());
        }
    }
}

#[tokio::test]
async fn r15_d8_w8_in_one_engine_for_all_nobody_takes_the_page_of_another() -> Result<()> {
    let (gateway, alice, bob) = with_two(Options::default())?;
    let mut hers = page(&gateway, &alice, "same").await?;
    let first = hers.next_json().await?;
    let name = first["data"]["sid"].as_str().context("a name")?.to_owned();
    // Bob comes with her name, as she chose it and as ComfyUI knows it.
    let mut his = page(&gateway, &bob, &name).await?;
    let mut other = page(&gateway, &bob, "same").await?;
    let body = json!({"prompt": slow(0.2, "secret"), "client_id": name});
    let id = post(&gateway, &alice, "/prompt", &body)?.json()["prompt_id"].clone();
    drop(other.next_json().await?);
    let mut heard = Vec::new();
    loop {
        let event = hers.next_json().await?;
        heard.push(event["type"].as_str().unwrap_or_default().to_owned());
        if event["type"] == "execution_success" {
            ensure!(event["data"]["prompt_id"] == id);
            break;
        }
    }
    ensure!(heard.iter().any(|kind| kind == "executing"), "{heard:?}");
    // What bob heard until then are counts of his own.
    let body = json!({"prompt": slow(0.05, "his"), "client_id": name});
    let own = post(&gateway, &bob, "/prompt", &body)?.json()["prompt_id"].clone();
    loop {
        let event = his.next_json().await?;
        let told = event.to_string();
        ensure!(!told.contains(id.as_str().unwrap_or("?")), "{told}");
        if event["type"] == "execution_success" {
            ensure!(event["data"]["prompt_id"] == own);
            return Ok(());
        }
    }
}

#[test]
fn a_database_that_cannot_write_refuses_new_jobs_and_loses_none() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let running = queue(&gateway, &alice, &slow(1.0, "running"))?;
    let waiting = queue(&gateway, &alice, &slow(0.05, "waiting"))?;
    let database = rusqlite::Connection::open(gateway.data.path().join("sentinel.db"))?;
    database.execute_batch("PRAGMA busy_timeout = 5000; BEGIN EXCLUSIVE;")?;
    let refused = post(
        &gateway,
        &alice,
        "/prompt",
        &json!({"prompt": slow(0.05, "x")}),
    )?;
    ensure!(
        refused.status == 507,
        "{}: {}",
        refused.status,
        refused.text()
    );
    ensure!(
        refused.json()["code"] == "not_written",
        "{}",
        refused.text()
    );
    database.execute_batch("ROLLBACK;")?;
    drop(database);
    until(&gateway, &alice, &running, "completed")?;
    until(&gateway, &alice, &waiting, "completed")?;
    ensure!(get(&gateway, &alice, "/api/jobs")?.json()["pagination"]["total"] == 2);
    Ok(())
}

/// A small disk of its own, for tests that run as root.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(path: &std::path::Path) -> Option<Self> {
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"])
            .arg(path)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg("--lazy")
            .arg(&self.0)
            .output();
    }
}

#[test]
fn a_full_disk_refuses_new_jobs_with_a_clear_error_and_loses_none() -> Result<()> {
    let data = std::sync::Arc::new(tempfile::tempdir()?);
    let Some(disk) = SmallDisk::mount(data.path()) else {
        eprintln!("skipped: only root can mount a small disk");
        return Ok(());
    };
    let first = Gateway::start(separate().data(&data).without_engine())?;
    first.register_first("owner", sentinel_tests::PASSWORD)?;
    first.stop()?;
    let (gateway, alice, _) = with_two(separate().data(&data))?;
    let running = queue(&gateway, &alice, &slow(4.0, "running"))?;
    let waiting = queue(&gateway, &alice, &slow(0.05, "waiting"))?;
    let filler = data.path().join("filler");
    let mut file = std::fs::File::create(&filler)?;
    let piece = vec![1_u8; 64 * 1024];
    while std::io::Write::write_all(&mut file, &piece).is_ok() {}
    // A large graph needs room that is not there; small ones may still fit into the last page.
    let mut large = slow(0.05, "x");
    large["1"]["_meta"] = json!({ "title": "t".repeat(200_000) });
    let refused = post(&gateway, &alice, "/prompt", &json!({ "prompt": large }))?;
    ensure!(
        refused.status == 507,
        "{}: {}",
        refused.status,
        refused.text()
    );
    ensure!(
        refused.json()["code"] == "not_written",
        "{}",
        refused.text()
    );
    drop(file);
    std::fs::remove_file(&filler)?;
    until(&gateway, &alice, &running, "completed")?;
    until(&gateway, &alice, &waiting, "completed")?;
    let after = queue(&gateway, &alice, &slow(0.05, "after"))?;
    until(&gateway, &alice, &after, "completed")?;
    ensure!(get(&gateway, &alice, "/api/jobs")?.json()["pagination"]["total"] == 3);
    drop(gateway);
    drop(disk);
    Ok(())
}

#[test]
fn whoever_wants_it_is_told_that_his_job_is_done_and_internal_addresses_are_refused() -> Result<()>
{
    use std::io::{Read as _, Write as _};
    let server = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = server.local_addr()?.port();
    let address = json!({
        "kind": "webhook", "address": format!("http://127.0.0.1:{port}/hook"), "failures_only": false,
    });
    let set = |gateway: &Gateway, token: &str, wish: &Value| {
        let ask = Ask::new("PUT", "/sentinel/api/notifications")
            .bearer(token)
            .json(wish);
        gateway.ask(&ask)
    };
    let (gateway, alice, _) = with_two(separate())?;
    for bad in ["", "x", "ftp://example.org", "file:///etc/passwd"] {
        let answer = set(
            &gateway,
            &alice,
            &json!({"kind": "webhook", "address": bad}),
        )?;
        ensure!(
            answer.status == 400 && answer.json()["field"] == "address",
            "{bad}: {}",
            answer.text()
        );
    }
    // By default nothing of this network is reached, whatever was asked for.
    set(&gateway, &alice, &address)?;
    let refused = post(
        &gateway,
        &alice,
        "/sentinel/api/notifications/test",
        &json!({}),
    )?;
    ensure!(refused.status >= 400, "{}", refused.text());
    server.set_nonblocking(true)?;
    ensure!(server.accept().is_err(), "nobody came");
    drop(gateway);

    let (gateway, alice, _) = with_two(separate().set("queue.notify_hosts=127.0.0.1"))?;
    ensure!(set(&gateway, &alice, &address)?.status == 200);
    let id = queue(&gateway, &alice, &slow(0.05, "done"))?;
    until(&gateway, &alice, &id, "completed")?;
    let mut told = String::new();
    eventually(PATIENCE, || {
        let Ok((mut stream, _)) = server.accept() else {
            return Ok(false);
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut piece = [0; 4096];
        while !told.contains("job_finished") {
            let length = stream.read(&mut piece)?;
            ensure!(length > 0, "{told}");
            told.push_str(&String::from_utf8_lossy(&piece[..length]));
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")?;
        Ok(true)
    })?;
    ensure!(
        told.contains("completed") && !told.contains("SlowProbe"),
        "{told}"
    );
    Ok(())
}
