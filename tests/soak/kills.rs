//! Kills of the gateway at random moments, while it writes accounts, settings, lists and sessions.

use crate::say;
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rusqlite::{Connection, OpenFlags};
use sentinel_tests::{Ask, Gateway, Options, PASSWORD, eventually};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use tempfile::TempDir;

/// What was acknowledged, and so must be there whatever happens.
#[derive(Debug, Default)]
struct Promised {
    accounts: BTreeSet<String>,
    /// Last acknowledged text of the deny list, and what was sent after it.
    list: (String, Option<String>),
}

/// Kills a gateway `times` times and looks at what it leaves.
pub(crate) fn kill(times: u64) -> Result<()> {
    let data = Arc::new(tempfile::tempdir()?);
    let promised = Mutex::new(Promised::default());
    let first = Gateway::start(options(&data).without_engine())?;
    first.register_first("owner", PASSWORD)?;
    first.stop()?;
    let mut random = StdRng::seed_from_u64(11);
    for round in 0..times {
        let mut gateway = Gateway::start(options(&data))?;
        gateway.owner = gateway.sign_in("owner")?;
        let patience = Duration::from_millis(random.random_range(5..500));
        let (port, owner) = (gateway.port, gateway.owner.as_str());
        let proof = gateway.proof(owner)?;
        thread::scope(|scope| -> Result<()> {
            scope.spawn(|| register(port, round, &promised));
            scope.spawn(|| edit_list(port, owner, &proof, round, &promised));
            scope.spawn(|| edit_settings(port, owner, &proof, round));
            thread::sleep(patience);
            gateway.signal(Signal::SIGKILL)
        })?;
        gateway.ended_within(Duration::from_secs(10))?;
        eventually(Duration::from_secs(15), || {
            Ok(gateway.descendants().is_empty())
        })
        .with_context(|| format!("round {round}: processes are left"))?;
        let promised = promised
            .lock()
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        inspect(data.path(), &promised).with_context(|| format!("after kill {round}"))?;
    }
    let promised = promised
        .lock()
        .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
    say(&format!(
        "kills: {times} kills, {} accounts acknowledged and all there, every file whole",
        promised.accounts.len()
    ));
    Ok(())
}

fn options(data: &Arc<TempDir>) -> Options {
    Options::default().data(data).set("separate_users=true")
}

fn register(port: u16, round: u64, promised: &Mutex<Promised>) {
    for number in 0..100 {
        let name = format!("user_{round}_{number}");
        let body = json!({
            "new_user_username": name, "new_user_password": PASSWORD,
            "username": "owner", "password": PASSWORD,
        });
        match Ask::post("/register").json(&body).send(port) {
            Ok(answer) if answer.status == 200 => {
                if let Ok(mut promised) = promised.lock() {
                    promised.accounts.insert(name);
                }
            }
            _ => return,
        }
    }
}

fn edit_list(port: u16, owner: &str, proof: &str, round: u64, promised: &Mutex<Promised>) {
    for number in 0..200 {
        let lines: Vec<String> = (0..200)
            .map(|line| format!("10.{}.{number}.{line}", round % 250))
            .collect();
        let text = lines.join("\n") + "\n";
        if let Ok(mut promised) = promised.lock() {
            promised.list.1 = Some(text.clone());
        }
        let ask = Ask::new("PUT", "/sentinel/api/access/blacklist")
            .bearer(owner)
            .header("X-Sentinel-Proof", proof)
            .json(&json!({ "text": text }));
        match ask.send(port) {
            Ok(answer) if answer.status == 204 => {
                if let Ok(mut promised) = promised.lock() {
                    promised.list = (text, None);
                }
            }
            _ => return,
        }
    }
}

fn edit_settings(port: u16, owner: &str, proof: &str, round: u64) {
    for number in 0..200 {
        let hours = 1 + (round + number) % 1000;
        let ask = Ask::new("PUT", "/sentinel/api/config")
            .bearer(owner)
            .header("X-Sentinel-Proof", proof)
            .json(&json!({ "access_token_expiration_hours": hours }));
        if !ask.send(port).is_ok_and(|answer| answer.status == 200) {
            return;
        }
    }
}

/// Every file is whole, and nothing acknowledged is missing.
fn inspect(data: &Path, promised: &Promised) -> Result<()> {
    let read = |name: &str| fs::read_to_string(data.join(name)).with_context(|| name.to_owned());
    let accounts: Value = serde_json::from_str(&read("users_db.json")?).context("users_db.json")?;
    let names: BTreeSet<String> = accounts
        .as_object()
        .context("users_db.json is no object")?
        .values()
        .filter_map(|account| account["username"].as_str().map(str::to_owned))
        .collect();
    for name in &promised.accounts {
        ensure!(
            names.contains(name),
            "the account {name} was acknowledged and is lost"
        );
    }
    if data.join("config.json").exists() {
        let _: Value = serde_json::from_str(&read("config.json")?).context("config.json")?;
    }
    if data.join("blacklist.txt").exists() {
        let list = read("blacklist.txt")?;
        let (acknowledged, sent) = &promised.list;
        ensure!(
            list == *acknowledged || Some(&list) == sent.as_ref(),
            "the deny list is neither the old nor the new one"
        );
    }
    let database =
        Connection::open_with_flags(data.join("sentinel.db"), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    ensure!(verdict == "ok", "sentinel.db: {verdict}");
    let left = fs::read_dir(data)?
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(".sentinel-")
        })
        .count();
    ensure!(left <= 300, "{left} unfinished files are left");
    Ok(())
}
