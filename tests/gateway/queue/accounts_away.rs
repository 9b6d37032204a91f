//! An account file that is damaged, away or older says nothing of who is gone: jobs, history and
//! everything else of accounts that it does not hold stay, until an admin deletes the account.

use super::{PATIENCE, queue, separate, slow, slow_saved, until, with_two};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Gateway, Options, eventually};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// How often a clean-up happens in these tests: a minute of theirs is so many milliseconds.
const MINUTE: &str = "100";
/// What the log says when jobs wait for accounts that are not there.
const WAITING: &str = "waiting jobs belong to accounts";

fn quick(options: Options) -> Options {
    options.environment("SENTINEL_TEST_MINUTE_MS", MINUTE)
}

/// Everything in the database that hangs on accounts.
fn rows(data: &Path) -> Result<Vec<String>> {
    let database = rusqlite::Connection::open(data.join("sentinel.db"))?;
    let mut rows = Vec::new();
    for query in [
        "SELECT 'job ' || id || ' ' || user_id FROM jobs ORDER BY 1",
        "SELECT 'target ' || user_id || ' ' || address FROM notification_targets ORDER BY 1",
        "SELECT 'owner ' || value FROM facts WHERE name = 'owner'",
        "SELECT 'session ' || id FROM sessions ORDER BY 1",
    ] {
        let mut statement = database.prepare(query)?;
        for row in statement.query_map([], |row| row.get(0))? {
            rows.push(row?);
        }
    }
    Ok(rows)
}

/// Adds a finished job from long ago, which the next clean-up forgets whoever it belongs to.
fn add_old_job(data: &Path) -> Result<()> {
    let database = rusqlite::Connection::open(data.join("sentinel.db"))?;
    database.execute(
        "INSERT INTO jobs (id, user_id, seq, number, state, attempts, created_at, ended_at)
         VALUES ('00000000-0000-4000-8000-000000000001', 'nobody', 0, 0, 'completed', 1, 1, 1)",
        [],
    )?;
    Ok(())
}

fn has_old_job(data: &Path) -> Result<bool> {
    let rows = rows(data)?;
    Ok(rows.iter().any(|row| row.ends_with(" nobody")))
}

#[test]
fn a_damaged_missing_or_older_account_file_deletes_nothing_and_mended_all_jobs_run() -> Result<()> {
    let (gateway, alice, bob) = with_two(quick(separate()))?;
    let owner = gateway.owner.clone();
    let id = gateway.user_id("alice")?;
    let done = queue(&gateway, &alice, &slow_saved(0.05, "done"))?;
    until(&gateway, &alice, &done, "completed")?;
    let alices = queue(&gateway, &alice, &slow(3.0, "alice"))?;
    let bobs = [
        queue(&gateway, &bob, &slow(3.0, "bob 1"))?,
        queue(&gateway, &bob, &slow(0.05, "bob 2"))?,
    ];
    let data = gateway.stop()?;
    let file = data.path().join("users_db.json");
    let whole = fs::read_to_string(&file)?;
    let mut older: Value = serde_json::from_str(&whole)?;
    let entries = older.as_object_mut().context("accounts")?;
    entries.retain(|_, account| account["username"] == "bob_");
    for account in entries.values_mut() {
        account["admin"] = json!(true);
    }
    let database = rusqlite::Connection::open(data.path().join("sentinel.db"))?;
    database.execute(
        "INSERT INTO notification_targets VALUES (?1, 'ntfy', 'https://ntfy.example/a', 0)",
        [&id],
    )?;
    drop(database);
    let before = rows(data.path())?;
    let states: [(&str, Option<&str>); 5] = [
        ("damaged", Some("{\"broken\": ")),
        ("no bytes", Some("")),
        ("emptied", Some("{}")),
        ("missing", None),
        ("older", Some(&older.to_string())),
    ];
    for (state, text) in states {
        let _ = fs::remove_file(&file);
        if let Some(text) = text {
            fs::write(&file, text)?;
        }
        add_old_job(data.path())?;
        let gateway = Gateway::start(quick(separate()).data(&data))?;
        eventually(PATIENCE, || Ok(gateway.console().contains(WAITING)))
            .with_context(|| format!("{state}: {}", gateway.console()))?;
        eventually(PATIENCE, || Ok(!has_old_job(data.path())?))
            .with_context(|| format!("{state}: no clean-up"))?;
        let data = gateway.stop()?;
        let after = rows(data.path())?;
        ensure!(after == before, "{state}: {before:#?} became {after:#?}");
    }
    // A directory in its place cannot be read; root reads all else.
    fs::remove_file(&file)?;
    fs::create_dir(&file)?;
    let mut gateway = Gateway::start(quick(separate()).data(&data))?;
    eventually(PATIENCE, || Ok(gateway.console().contains(WAITING)))?;
    fs::remove_dir(&file)?;
    fs::write(&file, whole)?;
    gateway.owner = owner;
    for (token, id) in [(&alice, &alices), (&bob, &bobs[0]), (&bob, &bobs[1])] {
        until(&gateway, token, id, "completed")?;
    }
    until(&gateway, &alice, &done, "completed")
}

#[test]
fn a_file_without_an_account_at_work_puts_its_jobs_back_and_an_admin_s_deletion_removes_them()
-> Result<()> {
    let (gateway, alice, bob) = with_two(quick(separate()))?;
    let id = gateway.user_id("alice")?;
    let running = queue(&gateway, &alice, &slow(4.0, "running"))?;
    until(&gateway, &alice, &running, "in_progress")?;
    let waiting = queue(&gateway, &alice, &slow(0.05, "waiting"))?;
    let file = gateway.data.path().join("users_db.json");
    let whole = fs::read_to_string(&file)?;
    let mut shrunken: Value = serde_json::from_str(&whole)?;
    shrunken.as_object_mut().context("accounts")?.remove(&id);
    fs::write(&file, shrunken.to_string())?;
    eventually(PATIENCE, || Ok(gateway.console().contains(WAITING)))
        .with_context(|| gateway.console())?;
    let warned = || {
        let status = gateway.admin("GET", "status", None)?.json();
        Ok(status["warnings"].to_string().contains(WAITING))
    };
    eventually(PATIENCE, warned)?;
    // The GPU is free for others.
    let others = queue(&gateway, &bob, &slow(0.05, "bob"))?;
    until(&gateway, &bob, &others, "completed")?;
    fs::write(&file, whole)?;
    until(&gateway, &alice, &running, "completed")?;
    until(&gateway, &alice, &waiting, "completed")?;
    let last = queue(&gateway, &alice, &slow(60.0, "last"))?;
    until(&gateway, &alice, &last, "in_progress")?;
    let behind = queue(&gateway, &alice, &slow(60.0, "behind"))?;
    let deleted = gateway.admin("DELETE", &format!("users/{id}"), None)?;
    ensure!(deleted.status == 204, "{}", deleted.text());
    let has = |job: &str| -> Result<bool> {
        let rows = rows(gateway.data.path())?;
        Ok(rows.iter().any(|row| row.contains(job)))
    };
    eventually(PATIENCE, || Ok(!has(&behind)?))?;
    Ok(())
}

#[test]
fn an_account_that_the_command_line_deletes_takes_its_jobs_and_history_with_it() -> Result<()> {
    let (gateway, alice, _) = with_two(quick(separate()))?;
    let done = queue(&gateway, &alice, &slow_saved(0.05, "done"))?;
    until(&gateway, &alice, &done, "completed")?;
    let waiting = queue(&gateway, &alice, &slow(60.0, "running"))?;
    gateway.command(&["user", "remove", "alice"])?;
    let has = |gateway: &Gateway, job: &str| -> Result<bool> {
        let rows = rows(gateway.data.path())?;
        Ok(rows.iter().any(|row| row.contains(job)))
    };
    let data = gateway.stop()?;
    let gateway = Gateway::start(quick(separate()).data(&data))?;
    eventually(PATIENCE, || Ok(!has(&gateway, &done)?)).context("history")?;
    eventually(PATIENCE, || Ok(!has(&gateway, &waiting)?)).context("job")?;
    ensure!(!gateway.console().contains(WAITING));
    Ok(())
}
