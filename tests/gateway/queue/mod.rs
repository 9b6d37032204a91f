//! The queue before the GPU: fair, durable, one's own, and the owner's first.

mod accounts_away;
mod devices;
mod durability;
mod faulty_engine;
mod history;
mod holds;
mod limits;
mod notify;
mod order;
mod own_view;
mod power;
mod refusals;
mod stubborn;

use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Answer, Ask, Gateway, Options, Socket, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);

fn separate() -> Options {
    Options::default().set("separate_users=true")
}

/// A gateway with users alice and bob_ whose engines answer, and their tokens.
fn with_two(options: Options) -> Result<(Gateway, String, String)> {
    let (gateway, alice, bob) = Gateway::with_two(options)?;
    for token in [&alice, &bob] {
        ensure!(get(&gateway, token, "/object_info/SaveImage")?.status == 200);
    }
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

/// One job of a user, as ComfyUI's job list tells of it.
fn job(gateway: &Gateway, token: &str, id: &str) -> Result<Value> {
    Ok(get(gateway, token, &format!("/api/jobs/{id}"))?.json())
}

fn state(gateway: &Gateway, token: &str, id: &str) -> Result<String> {
    let job = job(gateway, token, id)?;
    Ok(job["status"].as_str().unwrap_or("none").to_owned())
}

/// How many jobs of a user the list has; `which` selects them.
fn count(gateway: &Gateway, token: &str, which: &str) -> Result<u64> {
    let list = get(gateway, token, &format!("/api/jobs{which}"))?.json();
    let total = list["pagination"]["total"].as_u64();
    total.with_context(|| list.to_string())
}

/// What a user is told of his own place in the line.
fn mine(gateway: &Gateway, token: &str) -> Result<Value> {
    Ok(get(gateway, token, "/sentinel/api/queue/mine")?.json())
}

fn until(gateway: &Gateway, token: &str, id: &str, wanted: &str) -> Result<()> {
    eventually(PATIENCE, || Ok(state(gateway, token, id)? == wanted))
        .with_context(|| format!("{id} is not {wanted}"))
}

/// When a job started, milliseconds since 1970.
fn started(gateway: &Gateway, token: &str, id: &str) -> Result<i64> {
    let job = job(gateway, token, id)?;
    job["execution_start_time"]
        .as_i64()
        .with_context(|| job.to_string())
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
