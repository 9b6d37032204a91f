//! Jobs outlive what ends around them.

use super::{
    PATIENCE, count, job, post, queue, separate, slow, slow_saved, started, state, until, with_two,
};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Gateway, eventually};
use serde_json::json;

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
    ensure!(count(&gateway, &bob, "")? == 3);
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
    let job = job(&gateway, &alice, &id)?;
    ensure!(
        job["execution_error"]["exception_type"] == "engine_ended",
        "{job}"
    );
    Ok(())
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
    ensure!(count(&gateway, &alice, "")? == 2);
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
    ensure!(count(&gateway, &alice, "")? == 3);
    drop(gateway);
    drop(disk);
    Ok(())
}
