//! What a role may have, and what is counted of it.

use super::{get, job, mine, page, post, queue, separate, slow, started, state, until, with_two};
use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Gateway, Options};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How long a minute of the settings takes in these tests.
const MINUTE: Duration = Duration::from_secs(3);

/// A gateway whose minutes are short.
fn with_short_minutes() -> Options {
    separate().environment("SENTINEL_TEST_MINUTE_MS", &MINUTE.as_millis().to_string())
}

#[test]
fn a_limit_says_which_it_is_and_until_when() -> Result<()> {
    let options = separate()
        .set("queue.jobs_waiting_users=2")
        .set("queue.longest_job_minutes_users=1");
    let (gateway, alice, _) = with_two(options)?;
    for number in 0..3 {
        queue(&gateway, &alice, &slow(2.0, &number.to_string()))?;
    }
    let refused = post(
        &gateway,
        &alice,
        "/prompt",
        &json!({"prompt": slow(0.1, "x")}),
    )?;
    ensure!(refused.status == 429, "{}", refused.text());
    ensure!(
        refused.json()["limit"] == "jobs_waiting",
        "{}",
        refused.text()
    );
    let usage = get(&gateway, &alice, "/sentinel/api/usage/mine")?.json();
    ensure!(
        usage["limits"]["jobs_waiting"] == 2 && usage["limits"]["longest_job_minutes"] == 1,
        "{usage}"
    );
    Ok(())
}

#[test]
fn usage_is_counted_by_user_and_day() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let begun = Instant::now();
    let id = queue(&gateway, &alice, &slow(0.5, "x"))?;
    until(&gateway, &alice, &id, "completed")?;
    let mine = get(&gateway, &alice, "/sentinel/api/usage/mine")?.json();
    let used = mine["days"][0]["gpu_seconds"].as_f64().context("seconds")?;
    ensure!(
        used >= 0.4 && used <= begun.elapsed().as_secs_f64(),
        "{mine}"
    );
    let all = gateway.admin("GET", "usage?days=7", None)?.json();
    ensure!(
        all["days"][0]["username"] == "alice" && all["days"][0]["jobs"] == 1,
        "{all}"
    );
    let table = gateway.admin("GET", "usage.csv", None)?.text();
    ensure!(table.contains("\"alice\""), "{table}");
    ensure!(get(&gateway, &alice, "/sentinel/metrics")?.status == 403);
    let token = gateway.admin_token()?;
    let metrics = get(&gateway, &token, "/sentinel/metrics")?.text();
    ensure!(
        metrics.contains("sentinel_jobs_today{user=\"alice\""),
        "{metrics}"
    );
    Ok(())
}

#[test]
fn who_has_used_his_gpu_minutes_waits_for_the_next_day_and_others_do_not() -> Result<()> {
    let options = with_short_minutes().file(
        "config.json",
        r#"{"queue": {"gpu_minutes_a_day_users": 1}}"#,
    );
    let (gateway, alice, bob) = with_two(options)?;
    // The second one begins within the limit and ends beyond it.
    let ran = ["first", "second"].map(|tag| queue(&gateway, &alice, &slow(1.7, tag)));
    let waits = queue(&gateway, &alice, &slow(0.05, "waits"))?;
    for id in ran {
        until(&gateway, &alice, &id?, "completed")?;
    }
    let body = json!({"prompt": slow(0.05, "x")});
    let refused = post(&gateway, &alice, "/prompt", &body)?;
    let answer = refused.json();
    ensure!(refused.status == 429, "{answer}");
    ensure!(answer["limit"] == "gpu_minutes_a_day", "{answer}");
    let until_when = answer["until"].as_str().context("until")?;
    ensure!(
        until_when.ends_with('Z') && until_when.len() == 20,
        "{answer}"
    );
    ensure!(
        answer["error"]["message"]
            .as_str()
            .is_some_and(|text| text.contains("(1 min)") && text.contains("midnight")),
        "{answer}"
    );
    let seconds: u64 = refused.header("retry-after").context("when")?.parse()?;
    ensure!(seconds <= 25 * 3600, "{seconds}");

    // Others go on, before the one that has waited for longer.
    for token in [&bob, &gateway.owner] {
        let id = queue(&gateway, token, &slow(0.05, "x"))?;
        until(&gateway, token, &id, "completed")?;
    }
    ensure!(state(&gateway, &alice, &waits)? == "pending");
    let told = mine(&gateway, &alice)?;
    ensure!(told["hold"]["reason"] == "gpu_minutes", "{told}");
    ensure!(told["hold"]["until"] == until_when, "{told}");
    ensure!(told["next"]["wait_seconds"].is_null(), "{told}");
    ensure!(mine(&gateway, &bob)?["hold"].is_null());

    // More minutes are in force at once.
    let more = json!({"queue": {"gpu_minutes_a_day_users": 1000}});
    let changed = gateway.admin("PUT", "config", Some(&more))?;
    ensure!(changed.status == 200, "{}", changed.text());
    until(&gateway, &alice, &waits, "completed")?;
    Ok(())
}

#[test]
fn gpu_minutes_are_remembered_over_a_restart() -> Result<()> {
    let options = || with_short_minutes().set("queue.gpu_minutes_a_day_users=1");
    let (gateway, alice, _) = with_two(options())?;
    let id = queue(&gateway, &alice, &slow(3.2, "x"))?;
    until(&gateway, &alice, &id, "completed")?;
    let data = gateway.stop()?;
    let gateway = Gateway::start(options().data(&data))?;
    let body = json!({"prompt": slow(0.05, "x")});
    let refused = post(&gateway, &alice, "/prompt", &body)?;
    ensure!(refused.status == 429, "{}", refused.text());
    Ok(())
}

#[tokio::test]
async fn a_job_that_takes_too_long_is_ended_and_its_page_is_told_why() -> Result<()> {
    let options = with_short_minutes().set("queue.longest_job_minutes_users=1");
    let (gateway, alice, _) = with_two(options)?;
    let mut hers = page(&gateway, &alice, "hers").await?;
    let body = json!({"prompt": slow(20.0, "long"), "client_id": "hers"});
    let taken = post(&gateway, &alice, "/prompt", &body)?.json();
    let id = taken["prompt_id"].as_str().context("an id")?;
    let within = queue(&gateway, &alice, &slow(0.5, "within"))?;
    let owners = queue(&gateway, &gateway.owner, &slow(4.0, "owner"))?;
    until(&gateway, &alice, id, "failed")?;
    let is_clear = |text: &Value| {
        let text = text.as_str().unwrap_or_default();
        text.contains("took longer") && text.contains("(1 min)")
    };
    let failed = job(&gateway, &alice, id)?;
    let error = &failed["execution_error"];
    ensure!(
        error["exception_type"] == "took_too_long" && is_clear(&error["exception_message"]),
        "{failed}"
    );
    let took =
        failed["execution_end_time"].as_i64().context("an end")? - started(&gateway, &alice, id)?;
    ensure!((2000..15_000).contains(&took), "{took} ms");
    let told = mine(&gateway, &alice)?;
    ensure!(
        told["finished"][0]["state"] == "failed" && is_clear(&told["finished"][0]["reason"]),
        "{told}"
    );
    loop {
        let event = hers.next_json().await?;
        if event["type"] == "execution_error" {
            ensure!(is_clear(&event["data"]["exception_message"]), "{event}");
            break;
        }
    }
    // Shorter ones are left alone, and those of roles without this limit.
    until(&gateway, &alice, &within, "completed")?;
    until(&gateway, &gateway.owner, &owners, "completed")?;
    Ok(())
}
