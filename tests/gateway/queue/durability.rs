//! Jobs outlive what ends around them.

use super::{
    PATIENCE, count, get, job, post, queue, separate, slow, slow_saved, started, state, until,
    with_two,
};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Answer, Gateway, eventually};
use serde_json::{Value, json};
use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

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
    let lock = lock_database(&gateway)?;
    let refused = post(
        &gateway,
        &alice,
        "/prompt",
        &json!({"prompt": slow(0.05, "x")}),
    )?;
    ensure_not_written(&refused, 503, "database_busy")?;
    drop(lock);
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
    ensure_not_written(&refused, 507, "disk_full")?;
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

fn ensure_not_written(refused: &Answer, status: u16, code: &str) -> Result<()> {
    let text = refused.text();
    ensure!(refused.status == status, "{}: {text}", refused.status);
    ensure!(refused.json()["code"] == code, "{text}");
    Ok(())
}

/// A lock on the database, so that nothing can be written; given up when dropped.
fn lock_database(gateway: &Gateway) -> Result<rusqlite::Connection> {
    let database = rusqlite::Connection::open(gateway.data.path().join("sentinel.db"))?;
    database.execute_batch("PRAGMA busy_timeout = 5000; BEGIN EXCLUSIVE;")?;
    Ok(database)
}

#[test]
fn a_job_that_cannot_be_written_down_reaches_no_engine() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let lock = lock_database(&gateway)?;
    let body = json!({ "prompt": slow(25.0, "not written") });
    let refused = post(&gateway, &alice, "/prompt", &body)?;
    ensure_not_written(&refused, 503, "database_busy")?;
    drop(lock);
    ensure!(count(&gateway, &alice, "")? == 0);
    // Behind the other it would end much later.
    let begun = Instant::now();
    let next = queue(&gateway, &alice, &slow(0.05, "next"))?;
    until(&gateway, &alice, &next, "completed")?;
    ensure!(
        begun.elapsed() < Duration::from_secs(15),
        "the other one ran on"
    );
    Ok(())
}

#[test]
fn a_job_whose_client_leaves_before_the_answer_goes_on_and_ends() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let remaining = || {
        let told = get(&gateway, &alice, "/prompt")?.json();
        Ok(told["exec_info"]["queue_remaining"] == 1)
    };
    let lock = lock_database(&gateway)?;
    let client = send_prompt(&gateway, &alice, &slow_saved(0.3, "left alone"))?;
    eventually(PATIENCE, remaining)?;
    drop(client);
    drop(lock);
    eventually(PATIENCE, || {
        Ok(count(&gateway, &alice, "?status=completed")? == 1)
    })
    .with_context(|| {
        format!(
            "{:?}",
            get(&gateway, &alice, "/api/jobs").map(|all| all.json())
        )
    })?;
    let next = queue(&gateway, &alice, &slow(0.05, "next"))?;
    until(&gateway, &alice, &next, "completed")
}

/// Sends a prompt and leaves its answer unread.
fn send_prompt(gateway: &Gateway, token: &str, prompt: &Value) -> Result<TcpStream> {
    let body = json!({ "prompt": prompt }).to_string();
    let mut client = TcpStream::connect(("127.0.0.1", gateway.port))?;
    write!(
        client,
        "POST /prompt HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        gateway.port,
        body.len()
    )?;
    Ok(client)
}

/// Whether a server on this machine still holds its end of a connection that `client` has closed.
#[cfg(target_os = "linux")]
fn is_held(server: u16, client: u16) -> Result<bool> {
    let (server, client) = (format!(":{server:04X}"), format!(":{client:04X}"));
    let mut is_held = false;
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let table = std::fs::read_to_string(table)?;
        is_held |= table.lines().any(|line| {
            let mut columns = line.split_ascii_whitespace().skip(1);
            let mut ends_with = |port| columns.next().is_some_and(|end| end.ends_with(port));
            ends_with(server.as_str()) && ends_with(client.as_str())
        });
    }
    Ok(is_held)
}

#[cfg(target_os = "linux")]
#[test]
fn a_job_whose_client_leaves_while_it_is_written_down_waits_and_runs_once() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate())?;
    let running = queue(&gateway, &bob, &slow(4.0, "running"))?;
    until(&gateway, &bob, &running, "in_progress")?;
    let lock = lock_database(&gateway)?;
    let client = send_prompt(&gateway, &alice, &slow_saved(0.05, "left alone"))?;
    let port = client.local_addr()?.port();
    ensure!(is_held(gateway.port, port)?);
    drop(client);
    eventually(PATIENCE, || Ok(!is_held(gateway.port, port)?))?;
    drop(lock);
    eventually(PATIENCE, || Ok(count(&gateway, &alice, "")? == 1))?;
    until(&gateway, &bob, &running, "completed")?;
    eventually(PATIENCE, || {
        Ok(count(&gateway, &alice, "?status=completed")? == 1)
    })?;
    ensure!(count(&gateway, &alice, "")? == 1, "once and not twice");
    Ok(())
}
