//! Kills of the gateway and of engines at random moments while jobs wait and run: every job that was
//! taken ends once, in the order of its owner.

use crate::say;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sentinel_tests::{Ask, Gateway, Options, PASSWORD, eventually};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(120);
/// Jobs that each user has sent when a round ends, at most.
const JOBS_A_ROUND: usize = 6;
const USERS: [&str; 3] = ["anna", "bert", "carl"];

/// Kills `times` times, half of them the gateway and half of them one engine, then counts the jobs.
pub(crate) fn run(times: u64) -> Result<()> {
    let data = Arc::new(tempfile::tempdir()?);
    let options = || {
        Options::default()
            .data(&data)
            .set("separate_users=true")
            .set("queue.jobs_waiting_users=0")
    };
    let mut gateway = Gateway::start(options())?;
    gateway.register_first("owner", PASSWORD)?;
    let mut tokens = HashMap::new();
    for name in USERS {
        gateway.add_user(name)?;
        tokens.insert(name, gateway.make_token(name)?);
    }
    let mut random = StdRng::seed_from_u64(5);
    let mut taken: HashMap<&str, Vec<String>> = HashMap::new();
    for round in 0..times {
        for name in USERS {
            for _ in 0..random.random_range(1..=JOBS_A_ROUND) {
                let seconds = f64::from(random.random_range(0..8_u32)) / 100.0;
                if let Some(id) = post(&gateway, &tokens[name], seconds) {
                    taken.entry(name).or_default().push(id);
                }
            }
        }
        thread::sleep(Duration::from_millis(random.random_range(0..400)));
        if round % 2 == 0 {
            gateway.signal(Signal::SIGKILL)?;
            gateway.ended_within(Duration::from_secs(10))?;
            eventually(Duration::from_secs(15), || {
                Ok(gateway.descendants().is_empty())
            })
            .with_context(|| format!("round {round}: processes are left"))?;
            gateway = Gateway::start(options())?;
        } else if let Some(engine) = pick(&mut random, &gateway.engine_processes()) {
            // It may have ended by itself meanwhile.
            let _ = kill(Pid::from_raw(i32::try_from(engine)?), Signal::SIGKILL);
        }
    }
    let mut ended = 0;
    let mut given_up = 0;
    for name in USERS {
        let token = &tokens[name];
        let ids = taken.remove(name).unwrap_or_default();
        eventually(PATIENCE, || {
            let waiting = list(&gateway, token, "status=pending,in_progress")?;
            Ok(waiting.is_empty())
        })
        .with_context(|| format!("jobs of {name} never end"))?;
        let jobs = list(&gateway, token, "sort_order=asc")?;
        let found: Vec<&str> = jobs.iter().filter_map(|job| job["id"].as_str()).collect();
        let unique: HashSet<&str> = found.iter().copied().collect();
        ensure!(unique.len() == found.len(), "{name}: a job is there twice");
        for id in &ids {
            ensure!(unique.contains(id.as_str()), "{name}: {id} is lost");
        }
        for job in &jobs {
            match job["status"].as_str() {
                Some("completed") => ended += 1,
                Some("failed") => {
                    let kind = &job["execution_error"]["exception_type"];
                    ensure!(kind == "engine_ended", "{job}");
                    given_up += 1;
                }
                _ => anyhow::bail!("{job}"),
            }
        }
    }
    say(&format!(
        "jobs: {times} kills, {ended} jobs ended, {given_up} given up after two kills each, none lost, none twice"
    ));
    Ok(())
}

/// Queues a job; `None` if the answer did not arrive, or the engine was not there.
fn post(gateway: &Gateway, token: &str, seconds: f64) -> Option<String> {
    let body = json!({ "prompt": {
        "1": {"class_type": "SlowProbe", "inputs": {"seconds": seconds, "steps": 2, "preview": "none", "tag": "kill", "fail": false}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "kill"}},
    }});
    let answer = gateway
        .ask(&Ask::post("/prompt").bearer(token).json(&body))
        .ok()?;
    if answer.status != 200 {
        return None;
    }
    answer.json()["prompt_id"].as_str().map(str::to_owned)
}

fn list(gateway: &Gateway, token: &str, query: &str) -> Result<Vec<Value>> {
    let answer = gateway.ask(&Ask::get(&format!("/api/jobs?{query}")).bearer(token))?;
    let jobs = answer.json()["jobs"].as_array().cloned();
    jobs.with_context(|| answer.text())
}

fn pick(random: &mut StdRng, processes: &[u32]) -> Option<u32> {
    if processes.is_empty() {
        return None;
    }
    processes
        .get(random.random_range(0..processes.len()))
        .copied()
}
