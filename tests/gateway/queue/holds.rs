//! When everybody's jobs wait but the owner's.

use super::{PATIENCE, mine, post, queue, separate, slow, state, until, with_two};
use anyhow::{Result, ensure};
use sentinel_tests::{Gateway, eventually};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

#[test]
fn the_owner_gets_his_gpu_back_now_and_jobs_run_again_after() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let running = queue(&gateway, &alice, &slow(8.0, "running"))?;
    let waiting = queue(&gateway, &alice, &slow(0.05, "waiting"))?;
    until(&gateway, &alice, &running, "in_progress")?;
    let paused = gateway.admin("POST", "queue/pause", Some(&json!({"when": "now"})))?;
    ensure!(paused.status == 204, "{}", paused.text());
    until(&gateway, &alice, &running, "pending")?;
    let mine = mine(&gateway, &alice)?;
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

/// `HH:00` so many hours from now, by the clock of a gateway whose time zone is UTC.
fn hour_from_now(hours: i64) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let hour = (i64::try_from(now)? / 3600 + hours).rem_euclid(24);
    Ok(format!("{hour:02}:00"))
}

fn quiet_hours(from: i64, to: i64) -> Result<Value> {
    let hours = format!("{}-{}", hour_from_now(from)?, hour_from_now(to)?);
    Ok(json!({"queue": {"quiet_hours": [hours]}}))
}

#[test]
fn in_quiet_hours_only_the_owners_jobs_begin() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate().environment("TZ", "UTC"))?;
    let running = queue(&gateway, &alice, &slow(2.0, "running"))?;
    until(&gateway, &alice, &running, "in_progress")?;
    let changed = gateway.admin("PUT", "config", Some(&quiet_hours(-1, 3)?))?;
    ensure!(changed.status == 200, "{}", changed.text());
    eventually(PATIENCE, || {
        Ok(mine(&gateway, &alice)?["hold"]["reason"] == "quiet_hours")
    })?;
    let end = format!("T{}:00Z", hour_from_now(3)?);
    let held = queue(&gateway, &bob, &slow(0.05, "held"))?;
    until(&gateway, &alice, &running, "completed")?;
    let told = mine(&gateway, &bob)?;
    ensure!(
        told["hold"]["until"]
            .as_str()
            .is_some_and(|until| until.ends_with(&end)),
        "until {end}: {told}"
    );
    ensure!(
        told["waiting"] == 1 && told["next"]["wait_seconds"].is_null(),
        "{told}"
    );
    let owners = queue(&gateway, &gateway.owner, &slow(0.05, "owner"))?;
    until(&gateway, &gateway.owner, &owners, "completed")?;
    ensure!(mine(&gateway, &gateway.owner)?["hold"].is_null());
    ensure!(state(&gateway, &bob, &held)? == "pending");

    // Somebody edits the file: later today it is quiet, not now.
    let edited = quiet_hours(4, 6)?.to_string();
    std::fs::write(gateway.data.path().join("config.json"), edited)?;
    until(&gateway, &bob, &held, "completed")?;
    ensure!(mine(&gateway, &bob)?["hold"].is_null());
    Ok(())
}

#[cfg(unix)]
fn yields() -> Value {
    json!({"queue": {"yield_to_programs": true}})
}

/// An `nvidia-smi` that tells what a test says, and how often it was asked.
#[cfg(unix)]
struct PretendCard(tempfile::TempDir);

#[cfg(unix)]
impl PretendCard {
    fn new() -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let card = Self(tempfile::tempdir()?);
        card.is_used_by(&[])?;
        std::fs::write(card.path("asked"), "")?;
        let (asked, list) = (card.path("asked"), card.path("list"));
        let script = format!(
            "#!/bin/sh\ncase \"$1\" in --query-compute-apps=*) echo >>'{}'; cat '{}';; esac\n",
            asked.display(),
            list.display()
        );
        let program = card.path("nvidia-smi");
        std::fs::write(&program, script)?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        Ok(card)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    /// Sets the processes that have much of its memory.
    fn is_used_by(&self, processes: &[u32]) -> Result<()> {
        let lines: String = processes
            .iter()
            .map(|process| format!("{process}, 4096\n"))
            .collect();
        std::fs::write(self.path("new"), lines)?;
        Ok(std::fs::rename(self.path("new"), self.path("list"))?)
    }

    /// Has a gateway ask so many times.
    fn is_asked_by(&self, gateway: &Gateway, times: usize) -> Result<()> {
        let asked = || -> Result<usize> { Ok(std::fs::read(self.path("asked"))?.len()) };
        for _ in 0..times {
            let before = asked()?;
            // Settings that come again are a reason to look, some seconds before the next look of itself.
            let changed = gateway.admin("PUT", "config", Some(&yields()))?;
            ensure!(changed.status == 200, "{}", changed.text());
            eventually(PATIENCE, || Ok(asked()? > before))?;
        }
        Ok(())
    }
}

#[cfg(unix)]
#[test]
fn jobs_give_way_to_another_program_on_the_gpu_and_not_to_their_own_engines() -> Result<()> {
    let card = PretendCard::new()?;
    let path = format!("{}:{}", card.0.path().display(), std::env::var("PATH")?);
    let options = separate()
        .file("config.json", &yields().to_string())
        .environment("PATH", &path);
    let (gateway, alice, _) = with_two(options)?;
    let mut ours = gateway.descendants();
    ours.push(gateway.id());
    ensure!(ours.len() >= 4, "three engines: {ours:?}");
    card.is_used_by(&ours)?;
    // Two looks in a row would hold jobs back.
    card.is_asked_by(&gateway, 3)?;
    ensure!(mine(&gateway, &alice)?["hold"].is_null());
    let id = queue(&gateway, &alice, &slow(0.05, "ours"))?;
    until(&gateway, &alice, &id, "completed")?;

    // This process is none of the gateway's.
    let foreign = [ours.as_slice(), &[std::process::id()]].concat();
    card.is_used_by(&foreign)?;
    card.is_asked_by(&gateway, 2)?;
    eventually(PATIENCE, || {
        Ok(mine(&gateway, &alice)?["hold"]["reason"] == "other_program")
    })?;
    let held = queue(&gateway, &alice, &slow(0.05, "held"))?;
    let owners = queue(&gateway, &gateway.owner, &slow(0.05, "owner"))?;
    until(&gateway, &gateway.owner, &owners, "completed")?;
    card.is_asked_by(&gateway, 1)?;
    ensure!(state(&gateway, &alice, &held)? == "pending");
    card.is_used_by(&[])?;
    card.is_asked_by(&gateway, 3)?;
    until(&gateway, &alice, &held, "completed")?;
    ensure!(mine(&gateway, &alice)?["hold"].is_null());
    Ok(())
}
