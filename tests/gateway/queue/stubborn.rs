//! Jobs whose nodes do not hear that they are to end.

use super::{job, mine, post, queue, separate, slow, state, until, with_two};
use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sentinel_tests::Options;
use serde_json::{Value, json};
use std::fs;

/// One step without an end: ComfyUI looks between steps alone whether it is interrupted.
fn deaf(tag: &str) -> Value {
    let mut prompt = slow(600.0, tag);
    prompt["1"]["inputs"]["steps"] = json!(1);
    prompt
}

fn impatient() -> Options {
    separate().set("queue.interrupt_grace_seconds=1")
}

#[test]
fn a_cancelled_job_does_not_keep_the_gpu() -> Result<()> {
    let (gateway, alice, bob) = with_two(impatient())?;
    let deaf = queue(&gateway, &alice, &deaf("deaf"))?;
    let next = queue(&gateway, &bob, &slow(0.05, "next"))?;
    until(&gateway, &alice, &deaf, "in_progress")?;
    let cancelled = post(&gateway, &alice, "/interrupt", &json!({}))?;
    ensure!(cancelled.status == 200, "{}", cancelled.text());
    until(&gateway, &bob, &next, "completed")?;
    ensure!(state(&gateway, &alice, &deaf)? == "cancelled");
    // Her ComfyUI comes back.
    let again = queue(&gateway, &alice, &slow(0.05, "again"))?;
    until(&gateway, &alice, &again, "completed")
}

#[test]
fn r30_an_engine_that_hears_nothing_at_all_does_not_keep_the_gpu() -> Result<()> {
    for is_separate in [true, false] {
        let options = impatient().set(&format!("separate_users={is_separate}"));
        let (gateway, alice, bob) = with_two(options)?;
        let own = format!("/{}/", gateway.user_id("alice")?);
        let is_hers = |process: &u32| {
            let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            !is_separate || String::from_utf8_lossy(&line).contains(&own)
        };
        let deaf = queue(&gateway, &alice, &deaf("deaf"))?;
        let next = queue(&gateway, &bob, &slow(0.05, "next"))?;
        until(&gateway, &alice, &deaf, "in_progress")?;
        for process in gateway.engine_processes().into_iter().filter(is_hers) {
            kill(Pid::from_raw(process.try_into()?), Signal::SIGSTOP)?;
        }
        let cancelled = post(&gateway, &alice, "/interrupt", &json!({}))?;
        ensure!(cancelled.status == 200, "{}", cancelled.text());
        until(&gateway, &bob, &next, "completed")?;
        ensure!(state(&gateway, &alice, &deaf)? == "cancelled");
    }
    Ok(())
}

#[test]
fn the_owner_gets_his_gpu_back_from_it_and_it_waits_again() -> Result<()> {
    let (gateway, alice, _) = with_two(impatient())?;
    let deaf = queue(&gateway, &alice, &deaf("deaf"))?;
    until(&gateway, &alice, &deaf, "in_progress")?;
    let paused = gateway.admin("POST", "queue/pause", Some(&json!({"when": "now"})))?;
    ensure!(paused.status == 204, "{}", paused.text());
    until(&gateway, &alice, &deaf, "pending")?;
    let owners = queue(&gateway, &gateway.owner, &slow(0.05, "owner"))?;
    until(&gateway, &gateway.owner, &owners, "completed")?;
    ensure!(state(&gateway, &alice, &deaf)? == "pending");
    ensure!(gateway.admin("POST", "queue/resume", None)?.status == 204);
    // It was nobody's fault, so it does not count as an attempt.
    until(&gateway, &alice, &deaf, "in_progress")
}

#[test]
fn one_that_took_too_long_fails_with_that_reason_and_does_not_run_again() -> Result<()> {
    let options = impatient()
        .environment("SENTINEL_TEST_MINUTE_MS", "2000")
        .set("queue.longest_job_minutes_users=1");
    let (gateway, alice, _) = with_two(options)?;
    let id = queue(&gateway, &alice, &deaf("deaf"))?;
    until(&gateway, &alice, &id, "failed")?;
    let failed = job(&gateway, &alice, &id)?;
    ensure!(
        failed["execution_error"]["exception_type"] == "took_too_long",
        "{failed}"
    );
    let told = mine(&gateway, &alice)?;
    ensure!(told["finished"][0]["state"] == "failed", "{told}");
    let next = queue(&gateway, &alice, &slow(0.05, "next"))?;
    until(&gateway, &alice, &next, "completed")?;
    ensure!(state(&gateway, &alice, &id)? == "failed");
    Ok(())
}

#[test]
fn patience_without_an_end_leaves_the_engine_alone() -> Result<()> {
    let (gateway, alice, _) = with_two(separate().set("queue.interrupt_grace_seconds=0"))?;
    let mut prompt = deaf("deaf");
    prompt["1"]["inputs"]["seconds"] = json!(5.0);
    let processes = gateway.engine_processes();
    let id = queue(&gateway, &alice, &prompt)?;
    until(&gateway, &alice, &id, "in_progress")?;
    ensure!(post(&gateway, &alice, "/interrupt", &json!({}))?.status == 200);
    until(&gateway, &alice, &id, "cancelled")?;
    ensure!(gateway.engine_processes() == processes, "it was restarted");
    Ok(())
}
