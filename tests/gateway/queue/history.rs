//! How long finished jobs are remembered. What is too old or has lost its files is forgotten when a gateway starts.

use super::{PATIENCE, job, mine, queue, separate, slow_saved, state, until, with_two};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Gateway, eventually};
use std::path::{Path, PathBuf};

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
    let (gateway, alice, bob) = with_two(separate())?;
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
    let data = gateway.stop()?;
    std::fs::remove_file(deleted)?;
    std::fs::rename(alices.join("output"), alices.join("elsewhere"))?;
    let gateway = Gateway::start(separate().data(&data))?;
    // The last one that was made is looked at last.
    eventually(PATIENCE, || Ok(state(&gateway, &bob, &goes)? == "none"))?;
    ensure!(state(&gateway, &bob, &stays)? == "completed");
    ensure!(state(&gateway, &alice, &away)? == "completed");
    Ok(())
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
    let gateway = Gateway::start(separate().data(&data).set("queue.history_days=2"))?;
    eventually(PATIENCE, || Ok(state(&gateway, &alice, &old)? == "none"))?;
    ensure!(state(&gateway, &alice, &young)? == "completed");
    ensure!(mine(&gateway, &alice)?["waiting"] == 0);
    Ok(())
}
