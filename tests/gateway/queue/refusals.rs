//! Graphs that ComfyUI would not take, and those that it takes and finds wrong later.

use super::{count, job, page, post, queue, separate, slow, until, with_two};
use anyhow::{Result, ensure};
use serde_json::{Value, json};

#[test]
fn a_bad_graph_is_refused_at_once_also_while_the_gpu_is_busy() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let refused = |prompt: Value| post(&gateway, &alice, "/prompt", &json!({ "prompt": prompt }));
    let bad = [
        json!({}),
        json!({"1": {"class_type": "Nope", "inputs": {}}}),
        json!({"2": {"class_type": "PreviewImage", "inputs": {}}}),
    ];
    let free: Vec<Value> = bad
        .iter()
        .map(|prompt| Ok(refused(prompt.clone())?.json()))
        .collect::<Result<_>>()?;
    queue(&gateway, &alice, &slow(3.0, "running"))?;
    for (prompt, free) in bad.iter().zip(free) {
        let answer = refused(prompt.clone())?;
        ensure!(answer.status == 400, "{}", answer.text());
        let busy = answer.json();
        ensure!(
            busy["error"]["type"] == free["error"]["type"],
            "{busy} {free}"
        );
        ensure!(
            busy["error"]["message"] == free["error"]["message"],
            "{busy} {free}"
        );
    }
    ensure!(count(&gateway, &alice, "")? == 1);
    Ok(())
}

#[test]
fn a_job_that_only_comfyui_finds_wrong_fails_later_in_its_own_form() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    queue(&gateway, &alice, &slow(1.0, "running"))?;
    let prompt = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "no_such_file.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let id = queue(&gateway, &alice, &prompt)?;
    until(&gateway, &alice, &id, "failed")?;
    let job = job(&gateway, &alice, &id)?;
    let message = job["execution_error"]["exception_message"].as_str();
    ensure!(
        message.is_some_and(|text| text.contains("no_such_file.png")),
        "{job}"
    );
    Ok(())
}

#[tokio::test]
async fn a_page_hears_that_its_waiting_job_was_wrong() -> Result<()> {
    let (gateway, alice, _) = with_two(separate())?;
    let mut hers = page(&gateway, &alice, "hers").await?;
    queue(&gateway, &alice, &slow(0.5, "running"))?;
    let prompt = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "no_such_file.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let body = json!({"prompt": prompt, "client_id": "hers"});
    let id = post(&gateway, &alice, "/prompt", &body)?.json()["prompt_id"].clone();
    loop {
        let event = hers.next_json().await?;
        if event["type"] == "execution_error" {
            ensure!(event["data"]["prompt_id"] == id, "{event}");
            return Ok(());
        }
    }
}
