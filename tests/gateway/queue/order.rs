//! Who is next.

use super::{PATIENCE, count, get, post, queue, separate, slow, started, state, until, with_two};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Gateway, Options, eventually};
use serde_json::json;

#[test]
fn one_users_many_jobs_do_not_block_anothers_two() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate())?;
    let many: Vec<String> = (0..12)
        .map(|number| queue(&gateway, &alice, &slow(0.3, &format!("a{number}"))))
        .collect::<Result<_>>()?;
    let two: Vec<String> = (0..2)
        .map(|number| queue(&gateway, &bob, &slow(0.3, &format!("b{number}"))))
        .collect::<Result<_>>()?;
    let own = get(&gateway, &bob, "/queue")?.json();
    ensure!(
        own["queue_pending"].as_array().map(Vec::len) == Some(2),
        "{own}"
    );
    for id in &two {
        until(&gateway, &bob, id, "completed")?;
    }
    for id in &many {
        until(&gateway, &alice, id, "completed")?;
    }
    let mut order: Vec<(i64, char)> = Vec::new();
    for id in &many {
        order.push((started(&gateway, &alice, id)?, 'a'));
    }
    for id in &two {
        order.push((started(&gateway, &bob, id)?, 'b'));
    }
    order.sort_unstable();
    let order: String = order.into_iter().map(|(_, user)| user).collect();
    let first = order.find('b').context("bob ran")?;
    let second = order.rfind('b').context("bob ran")?;
    ensure!(
        second - first <= 2,
        "{order}: bob waited for more than one job of alice"
    );
    let sorted = many.clone();
    let mut by_start: Vec<(i64, &String)> = Vec::new();
    for id in &many {
        by_start.push((started(&gateway, &alice, id)?, id));
    }
    by_start.sort();
    ensure!(
        by_start.iter().map(|(_, id)| *id).eq(sorted.iter()),
        "alice's own order is kept"
    );
    Ok(())
}

#[test]
fn admins_move_and_cancel_jobs_of_anybody() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate())?;
    queue(&gateway, &alice, &slow(8.0, "running"))?;
    let a = queue(&gateway, &alice, &slow(0.05, "a"))?;
    let b = queue(&gateway, &bob, &slow(0.05, "b"))?;
    let c = queue(&gateway, &bob, &slow(0.05, "c"))?;
    let act =
        |id: &str, what: &str| gateway.admin("POST", &format!("queue/jobs/{id}/{what}"), None);
    ensure!(act(&c, "first")?.status == 204);
    ensure!(act(&a, "cancel")?.status == 204);
    ensure!(act(&a, "cancel")?.status == 404);
    ensure!(act("x", "first")?.status == 404);
    until(&gateway, &bob, &b, "completed")?;
    until(&gateway, &bob, &c, "completed")?;
    ensure!(started(&gateway, &bob, &c)? <= started(&gateway, &bob, &b)?);
    ensure!(state(&gateway, &alice, &a)? == "none");
    Ok(())
}

#[test]
fn one_engine_for_all_has_one_queue_of_each() -> Result<()> {
    let (gateway, alice, bob) = with_two(Options::default())?;
    let many: Vec<String> = (0..4)
        .map(|number| queue(&gateway, &alice, &slow(0.3, &number.to_string())))
        .collect::<Result<_>>()?;
    let own = queue(&gateway, &bob, &slow(0.05, "b"))?;
    ensure!(count(&gateway, &bob, "")? == 1);
    ensure!(get(&gateway, &bob, &format!("/history/{}", many[0]))?.json() == json!({}));
    ensure!(post(&gateway, &bob, "/interrupt", &json!({}))?.status == 200);
    ensure!(post(&gateway, &bob, "/free", &json!({"free_memory": true}))?.status == 403);
    until(&gateway, &bob, &own, "completed")?;
    for id in &many {
        until(&gateway, &alice, id, "completed")?;
    }
    ensure!(started(&gateway, &bob, &own)? < started(&gateway, &alice, &many[3])?);
    Ok(())
}

/// How often the engine of a user was told to unload its models and did.
fn unloads(gateway: &Gateway, user: &str) -> Result<usize> {
    let id = gateway.user_id(user)?;
    let log = gateway.admin("GET", &format!("engines/{id}/log?lines=1000"), None)?;
    Ok(log.text().matches("Unloading all models").count())
}

#[test]
fn an_engine_unloads_before_another_one_runs() -> Result<()> {
    let (gateway, alice, bob) = with_two(separate())?;
    let users = [("alice", &alice), ("bob_", &bob)];
    for round in 0..6 {
        let (before, _) = users[(round + 1) % 2];
        let (_, token) = users[round % 2];
        let so_far = unloads(&gateway, before)?;
        let id = queue(&gateway, token, &slow(0.02, &round.to_string()))?;
        until(&gateway, token, &id, "completed")?;
        let expected = so_far + usize::from(round > 0);
        eventually(PATIENCE, || Ok(unloads(&gateway, before)? == expected))
            .with_context(|| format!("{before} in round {round}"))?;
    }
    Ok(())
}
