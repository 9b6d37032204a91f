//! Several GPUs: users' engines are spread over them, and each has its own jobs.

use super::{PATIENCE, get, queue, separate, slow, started, until, with_two};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Gateway, eventually};

/// The GPU that an engine was started for, as its arguments say.
fn device(gateway: &Gateway, name: &str) -> Result<Option<String>> {
    let engines = gateway.admin("GET", "engines", None)?.json();
    let mut list = engines["engines"].as_array().into_iter().flatten();
    let own = list.find(|engine| engine["username"] == name);
    let process = own
        .and_then(|engine| engine["pid"].as_u64())
        .with_context(|| engines.to_string())?;
    let arguments = std::fs::read_to_string(format!("/proc/{process}/cmdline"))?;
    let mut arguments = arguments.split('\0');
    let flag = arguments.find(|argument| *argument == "--cuda-device");
    Ok(flag.and_then(|_| arguments.next()).map(str::to_owned))
}

/// When the jobs of two users ran, which were queued together: milliseconds since 1970.
fn ran_together(gateway: &Gateway, users: [&str; 2], tag: &str) -> Result<[(i64, i64); 2]> {
    let ids = users.map(|token| queue(gateway, token, &slow(2.0, tag)));
    let mut times = Vec::new();
    for (token, id) in users.into_iter().zip(ids) {
        let id = id?;
        until(gateway, token, &id, "completed")?;
        let job = super::job(gateway, token, &id)?;
        let end = job["execution_end_time"].as_i64();
        times.push((
            started(gateway, token, &id)?,
            end.with_context(|| job.to_string())?,
        ));
    }
    times.sort_unstable();
    <[(i64, i64); 2]>::try_from(times).map_err(|_| anyhow::anyhow!("two times"))
}

#[test]
fn engines_are_spread_over_the_gpus_and_jobs_of_different_ones_run_together() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate().set("gpus=0,1"))?;
    // The owner's was the first to start.
    for (name, expected) in [("owner", "0"), ("alice", "1"), ("bob_", "0")] {
        let device = device(&gateway, name)?;
        ensure!(device.as_deref() == Some(expected), "{name}: {device:?}");
    }
    let [first, second] = ran_together(&gateway, [&alice, &bob], "different")?;
    ensure!(second.0 < first.1, "{first:?} {second:?}");
    let [first, second] = ran_together(&gateway, [&gateway.owner, &bob], "same")?;
    ensure!(second.0 >= first.1, "one job on each: {first:?} {second:?}");
    Ok(())
}

#[test]
fn one_gpu_has_one_job_whoever_owns_it() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate().set("gpus=1"))?;
    for name in ["alice", "bob_"] {
        ensure!(device(&gateway, name)?.as_deref() == Some("1"), "{name}");
    }
    let [first, second] = ran_together(&gateway, [&alice, &bob], "one")?;
    ensure!(second.0 >= first.1, "{first:?} {second:?}");
    let answer = get(&gateway, &bob, "/queue")?.json();
    ensure!(answer["queue_running"] == serde_json::json!([]), "{answer}");
    Ok(())
}

#[test]
fn engines_from_before_the_setting_are_bound_to_none_and_share() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate())?;
    let gpus = serde_json::json!({"gpus": ["0", "1"]});
    let changed = gateway.admin("PUT", "config", Some(&gpus))?;
    ensure!(changed.status == 200, "{}", changed.text());
    eventually(PATIENCE, || {
        Ok(gateway.admin("GET", "queue", None)?.json()["slots"] == 2)
    })?;
    for name in ["alice", "bob_"] {
        ensure!(device(&gateway, name)?.is_none(), "{name}");
    }
    let [first, second] = ran_together(&gateway, [&alice, &bob], "unbound")?;
    ensure!(second.0 >= first.1, "{first:?} {second:?}");
    Ok(())
}
