//! What a user sees and reaches of his own jobs, and of nobody else's.

use super::{count, get, page, post, queue, separate, slow, state, until, with_two};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Ask, Options, Socket};
use serde_json::json;

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
    ensure!(count(&gateway, &bob, "")? == 0);
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
    ensure!(count(&gateway, &alice, "?status=pending")? == 2);
    post(&gateway, &alice, "/queue", &json!({"clear": true}))?;
    ensure!(count(&gateway, &alice, "?status=pending")? == 0);
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
