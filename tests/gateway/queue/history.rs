//! How long finished jobs are remembered: until they are too old, or two looks a day apart have missed
//! their files where these went.

use super::{PATIENCE, job, mine, queue, separate, slow_saved, state, until, with_two};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Gateway, Options, eventually};
use std::path::{Path, PathBuf};

/// With clean-ups in quick succession: a minute of the settings is so many milliseconds.
fn quick(options: Options) -> Options {
    options.environment("SENTINEL_TEST_MINUTE_MS", "25")
}

fn database(gateway: &Gateway) -> Result<rusqlite::Connection> {
    let database = rusqlite::Connection::open(gateway.data.path().join("sentinel.db"))?;
    database.busy_timeout(PATIENCE)?;
    Ok(database)
}

/// What one column of a job holds.
fn column(gateway: &Gateway, column: &str, id: &str) -> Result<Option<i64>> {
    let sql = format!("SELECT {column} FROM jobs WHERE id = ?1");
    Ok(database(gateway)?.query_row(&sql, [id], |row| row.get(0))?)
}

/// Lets all looks have been a day and an hour ago.
fn let_a_day_pass(gateway: &Gateway) -> Result<()> {
    let sql = "UPDATE jobs SET missed_at = missed_at - 90000000";
    database(gateway)?.execute(sql, [])?;
    Ok(())
}

/// Waits for the next clean-up, by a job from long ago that it forgets.
fn await_clean_up(gateway: &Gateway) -> Result<()> {
    let database = database(gateway)?;
    let id = "00000000-0000-4000-8000-000000000002";
    database.execute(
        "INSERT INTO jobs (id, user_id, seq, number, state, attempts, created_at, ended_at)
         VALUES (?1, 'nobody', 0, 0, 'completed', 1, 1, 1)",
        [id],
    )?;
    let sql = "SELECT count(*) FROM jobs WHERE id = ?1";
    eventually(PATIENCE, || {
        let count: i64 = database.query_row(sql, [id], |row| row.get(0))?;
        Ok(count == 0)
    })
}

/// Runs a job that keeps its picture.
fn kept(gateway: &Gateway, token: &str, tag: &str) -> Result<String> {
    let id = queue(gateway, token, &slow_saved(0.05, tag))?;
    until(gateway, token, &id, "completed")?;
    Ok(id)
}

/// The picture of such a job, below the folder of its user.
fn picture(gateway: &Gateway, token: &str, id: &str, folder: &Path) -> Result<PathBuf> {
    let job = job(gateway, token, id)?;
    let name = job["outputs"]["2"]["images"][0]["filename"].as_str();
    let path = folder
        .join("output")
        .join(name.with_context(|| job.to_string())?);
    ensure!(path.is_file(), "{}", path.display());
    Ok(path)
}

#[test]
fn jobs_whose_files_were_deleted_go_and_those_of_a_folder_that_is_away_stay() -> Result<()> {
    let (gateway, alice, bob) = with_two(quick(separate()))?;
    let folder_of = |name: &str| -> Result<PathBuf> {
        Ok(gateway
            .data
            .path()
            .join("users")
            .join(gateway.user_id(name)?))
    };
    let alices = folder_of("alice")?;
    let away = kept(&gateway, &alice, "away")?;
    let stays = kept(&gateway, &bob, "stays")?;
    let goes = kept(&gateway, &bob, "goes")?;
    let deleted = picture(&gateway, &bob, &goes, &folder_of("bob_")?)?;
    for id in [&away, &stays, &goes] {
        eventually(PATIENCE, || Ok(column(&gateway, "place", id)?.is_some()))?;
    }
    let data = gateway.stop()?;
    std::fs::remove_file(deleted)?;
    std::fs::rename(alices.join("output"), alices.join("elsewhere"))?;
    let gateway = Gateway::start(quick(separate()).data(&data))?;
    eventually(PATIENCE, || {
        Ok(column(&gateway, "missed_at", &goes)?.is_some())
    })?;
    await_clean_up(&gateway)?;
    ensure!(
        state(&gateway, &bob, &goes)? == "completed",
        "after one look"
    );
    let_a_day_pass(&gateway)?;
    // The last one that was made is looked at last.
    eventually(PATIENCE, || Ok(state(&gateway, &bob, &goes)? == "none"))?;
    ensure!(state(&gateway, &bob, &stays)? == "completed");
    ensure!(state(&gateway, &alice, &away)? == "completed");
    Ok(())
}

#[test]
fn a_switch_to_shared_directories_and_back_forgets_nothing() -> Result<()> {
    let (gateway, alice, _) = with_two(quick(separate()))?;
    let id = kept(&gateway, &alice, "kept")?;
    let data = gateway.stop()?;
    for options in [
        Options::default(),
        separate(),
        Options::default(),
        separate(),
    ] {
        let gateway = Gateway::start(quick(options).data(&data))?;
        // Without an engine it is not known where shared files are.
        eventually(PATIENCE, || {
            super::get(&gateway, &alice, "/object_info/SaveImage")
                .map(|answer| answer.status == 200)
        })?;
        await_clean_up(&gateway)?;
        await_clean_up(&gateway)?;
        let_a_day_pass(&gateway)?;
        await_clean_up(&gateway)?;
        await_clean_up(&gateway)?;
        ensure!(state(&gateway, &alice, &id)? == "completed");
        gateway.stop()?;
    }
    Ok(())
}

#[test]
fn a_clock_that_is_far_ahead_deletes_nothing_by_age() -> Result<()> {
    let (gateway, alice, _) = with_two(quick(separate()))?;
    let old = kept(&gateway, &alice, "old")?;
    let session = gateway.sign_in("alice")?;
    let data = gateway.stop()?;
    let years = 3 * 365 * 24 * 3600_i64;
    let path = data.path().join("sentinel.db");
    let connection = rusqlite::Connection::open(&path)?;
    // As if the clock had been right three years ago, and were wrong now.
    connection.execute("UPDATE jobs SET ended_at = ended_at - ?1 * 1000", [years])?;
    connection.execute("UPDATE sessions SET expires_at = expires_at - ?1", [years])?;
    let moved = connection.execute(
        "UPDATE facts SET value = CAST(CAST(value AS INTEGER) - ?1 AS TEXT) WHERE name = 'latest_time'",
        [years],
    )?;
    ensure!(moved == 1, "the latest time is known");
    let left = |query: &str| -> Result<i64> {
        Ok(rusqlite::Connection::open(&path)?.query_row(query, [], |row| row.get(0))?)
    };
    let sessions = left("SELECT count(*) FROM sessions")?;
    ensure!(sessions >= 3);
    let gateway = Gateway::start(quick(separate()).data(&data))?;
    eventually(PATIENCE, || {
        Ok(gateway
            .console()
            .contains("the clock is more than a day beyond"))
    })?;
    ensure!(super::get(&gateway, &session, "/sentinel/api/me")?.status == 401);
    // A deletion that does not go by age shows that a clean-up has happened.
    connection.busy_timeout(PATIENCE)?;
    connection.execute_batch(
        "INSERT INTO deleted_accounts VALUES ('nobody', 1);
         INSERT INTO notification_targets VALUES ('nobody', 'ntfy', 'x', 0);",
    )?;
    eventually(PATIENCE, || {
        Ok(left("SELECT count(*) FROM notification_targets WHERE user_id = 'nobody'")? == 0)
    })?;
    let data = gateway.stop()?;
    ensure!(left("SELECT count(*) FROM sessions")? == sessions);
    ensure!(left("SELECT count(*) FROM jobs")? == 1, "{old}");
    // With the right time known, the same things are over.
    let now = "UPDATE facts SET value = CAST(unixepoch() AS TEXT) WHERE name = 'latest_time'";
    connection.execute(now, [])?;
    let _gateway = Gateway::start(quick(separate()).data(&data))?;
    eventually(PATIENCE, || Ok(left("SELECT count(*) FROM sessions")? == 0))?;
    eventually(PATIENCE, || Ok(left("SELECT count(*) FROM jobs")? == 0))
}

#[test]
fn jobs_are_forgotten_after_the_days_that_are_set() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let old = kept(&gateway, &alice, "old")?;
    let young = kept(&gateway, &alice, "young")?;
    let data = gateway.stop()?;
    let database = rusqlite::Connection::open(data.path().join("sentinel.db"))?;
    for (id, days) in [(&old, 3), (&young, 1)] {
        let earlier = i64::from(days) * 24 * 3600 * 1000;
        let changed = database.execute(
            "UPDATE jobs SET ended_at = ended_at - ?2 WHERE id = ?1",
            rusqlite::params![id, earlier],
        )?;
        ensure!(changed == 1, "{id} is in the table");
    }
    drop(database);
    let gateway = Gateway::start(quick(separate()).data(&data).set("queue.history_days=2"))?;
    eventually(PATIENCE, || Ok(state(&gateway, &alice, &old)? == "none"))?;
    ensure!(state(&gateway, &alice, &young)? == "completed");
    ensure!(mine(&gateway, &alice)?["waiting"] == 0);
    Ok(())
}
