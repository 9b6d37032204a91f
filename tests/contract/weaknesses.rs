//! The ways to bring a ComfyUI down that were found by trying. The demo engine has to have them too: what
//! keeps them off is tested against it.

use crate::server::{Server, close};
use crate::wire::{self, Answer};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;

/// Ids of jobs; other forms are refused.
const TWIN: &str = "00000000-0000-4000-8000-000000000002";
const AFTER: &str = "00000000-0000-4000-8000-000000000003";

fn graph(class: &str, inputs: &Value) -> Value {
    json!({
        "1": { "class_type": class, "inputs": inputs },
        "2": { "class_type": "PreviewImage", "inputs": { "images": ["1", 0] } },
    })
}

fn quick(color: u32) -> Value {
    graph(
        "EmptyImage",
        &json!({ "width": 8, "height": 8, "batch_size": 1, "color": color }),
    )
}

fn slow() -> Value {
    graph(
        "SlowProbe",
        &json!({ "seconds": 0.5, "steps": 1, "preview": "none", "tag": "", "fail": false }),
    )
}

async fn post(server: &Server, body: &Value) -> Result<Answer> {
    wire::ask(
        server.port,
        "POST",
        "/prompt",
        &close(),
        Some(body.to_string().as_bytes()),
    )
    .await
}

#[tokio::test]
async fn d1_a_client_id_that_is_no_text_ends_the_process() -> Result<()> {
    for body in [
        json!({ "prompt": quick(1), "client_id": ["x"] }),
        json!({ "prompt": quick(1), "extra_data": { "client_id": {} } }),
    ] {
        let mut server = Server::demo(&[]).await?;
        // The answer may still be on its way when the process ends.
        let _ = post(&server, &body).await;
        let code = server.exit_code(Duration::from_secs(5)).await?;
        ensure!(code == Some(1), "ended with {code:?}");
    }
    Ok(())
}

#[tokio::test]
async fn d2_equal_number_and_id_stop_the_queue() -> Result<()> {
    let server = Server::demo(&[]).await?;
    let twin = |color| json!({ "prompt": quick(color), "prompt_id": TWIN, "number": 5 });
    ensure!(post(&server, &json!({ "prompt": slow() })).await?.status == 200);
    ensure!(
        post(&server, &json!({ "prompt": slow(), "number": 1 }))
            .await?
            .status
            == 200
    );
    ensure!(post(&server, &twin(2)).await?.status == 200);
    ensure!(
        post(&server, &twin(3)).await?.status == 200,
        "it is compared with its parent only"
    );
    ensure!(
        post(&server, &twin(4)).await?.status == 200
            || post(&server, &twin(4)).await?.status == 500
    );
    stands_still(&server).await
}

#[tokio::test]
async fn d3_deep_nesting_stops_the_queue() -> Result<()> {
    let server = Server::demo(&[]).await?;
    let deep = format!("{}{}", "[".repeat(900), "]".repeat(900));
    let body = json!({ "prompt": quick(1) })
        .to_string()
        .replace("\"color\":1", &format!("\"color\":1,\"junk\":{deep}"));
    let answer = wire::ask(
        server.port,
        "POST",
        "/prompt",
        &close(),
        Some(body.as_bytes()),
    )
    .await?;
    ensure!(
        answer.status == 400 || answer.status == 200,
        "status {}",
        answer.status
    );
    stands_still(&server).await
}

#[tokio::test]
async fn d4_one_odd_entry_breaks_the_list_of_jobs() -> Result<()> {
    let server = Server::demo(&[]).await?;
    for odd in [json!(null), json!([]), json!({ "workflow": null })] {
        ensure!(
            post(
                &server,
                &json!({ "prompt": quick(1), "extra_data": { "extra_pnginfo": odd } })
            )
            .await?
            .status
                == 200
        );
        server.idle().await?;
        ensure!(
            wire::ask(server.port, "GET", "/api/jobs", &close(), None)
                .await?
                .status
                == 500
        );
        wire::ask(
            server.port,
            "POST",
            "/history",
            &close(),
            Some(b"{\"clear\": true}"),
        )
        .await?;
        ensure!(
            wire::ask(server.port, "GET", "/api/jobs", &close(), None)
                .await?
                .status
                == 200
        );
    }
    Ok(())
}

#[tokio::test]
async fn d6_a_number_that_is_none_is_given_back() -> Result<()> {
    let server = Server::demo(&[]).await?;
    let answer = post(&server, &json!({ "prompt": quick(1), "number": "nan" })).await?;
    ensure!(String::from_utf8_lossy(&answer.body).contains("\"number\": NaN"));
    Ok(())
}

/// A prompt is taken, but nothing runs it.
async fn stands_still(server: &Server) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(
        post(server, &json!({ "prompt": quick(77), "prompt_id": AFTER }))
            .await?
            .status
            == 200
    );
    tokio::time::sleep(Duration::from_millis(500)).await;
    let answer = wire::ask(
        server.port,
        "GET",
        &format!("/history/{AFTER}"),
        &close(),
        None,
    )
    .await?;
    ensure!(answer.body == b"{}", "the worker still runs");
    Ok(())
}
