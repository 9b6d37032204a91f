//! The gateway before the real ComfyUI. Needs `COMFYUI_DIR` (and `COMFYUI_PYTHON`).

use anyhow::{Context as _, Result};
use sentinel_tests::{Ask, Gateway, Options, Socket, eventually};
use serde_json::{Value, json};
use std::time::Duration;
use tokio_tungstenite::tungstenite::Message;

/// Queues a workflow and returns what its nodes gave.
fn run(gateway: &Gateway, workflow: &Value) -> Result<Value> {
    let body = json!({"prompt": workflow, "client_id": "tester"});
    let ask = Ask::post("/prompt").bearer(&gateway.owner).json(&body);
    let answer = gateway.ask(&ask)?;
    let id = answer.json()["prompt_id"]
        .as_str()
        .with_context(|| answer.text())?
        .to_owned();
    let mut outputs = Value::Null;
    eventually(Duration::from_secs(60), || {
        let history = Ask::get(&format!("/history/{id}")).bearer(&gateway.owner);
        outputs = gateway.ask(&history)?.json()[&id]["outputs"].clone();
        Ok(outputs
            .as_object()
            .is_some_and(|outputs| !outputs.is_empty()))
    })?;
    Ok(outputs)
}

fn view(image: &Value) -> Result<String> {
    let text = |name: &str| {
        image[name]
            .as_str()
            .with_context(|| format!("{name} in {image}"))
    };
    Ok(format!(
        "/view?filename={}&type={}&subfolder={}",
        text("filename")?,
        text("type")?,
        text("subfolder")?
    ))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a real ComfyUI: set COMFYUI_DIR and COMFYUI_PYTHON"]
async fn pictures_are_made_seen_and_used_again() -> Result<()> {
    let options = Options::real_comfyui()?.context("COMFYUI_DIR is not set")?;
    let gateway = Gateway::start(options)?;

    let bearer = format!("Bearer {}", gateway.owner);
    let mut socket = Socket::open(
        gateway.port,
        "/ws?clientId=tester",
        &[("Authorization", bearer.as_str())],
    )
    .await?;
    let made = run(
        &gateway,
        &json!({
            "1": {"class_type": "EmptyImage", "inputs": {"width": 96, "height": 64, "batch_size": 1, "color": 255}},
            "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "through"}},
        }),
    )?;
    let mut seen = Vec::new();
    while !seen.iter().any(|kind| kind == "execution_success") {
        if let Message::Text(text) = socket.next().await? {
            let event: Value = serde_json::from_str(&text)?;
            seen.push(event["type"].as_str().unwrap_or_default().to_owned());
        }
    }
    for kind in ["status", "execution_start", "executing", "executed"] {
        assert!(seen.iter().any(|seen| seen == kind), "{kind} in {seen:?}");
    }
    let address = view(&made["2"]["images"][0])?;
    let picture = gateway.ask(&Ask::get(&address).bearer(&gateway.owner))?;
    assert_eq!(picture.status, 200);
    assert!(picture.body.starts_with(b"\x89PNG"), "{}", picture.text());
    assert_eq!(picture.header("cache-control"), Some("private, no-cache"));
    assert_eq!(gateway.ask(&Ask::get(&address))?.status, 401);

    let border = "picture-border";
    let mut form = format!(
        "--{border}\r\nContent-Disposition: form-data; name=\"image\"; filename=\"again.png\"\r\n\
         Content-Type: image/png\r\n\r\n"
    )
    .into_bytes();
    form.extend_from_slice(&picture.body);
    form.extend_from_slice(format!("\r\n--{border}--\r\n").as_bytes());
    let kind = format!("multipart/form-data; boundary={border}");
    let upload = gateway.ask(
        &Ask::post("/upload/image")
            .bearer(&gateway.owner)
            .body(&kind, form),
    )?;
    assert_eq!(upload.json()["name"], "again.png", "{}", upload.text());
    let scaled = run(
        &gateway,
        &json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": "again.png"}},
            "2": {"class_type": "ImageScale", "inputs":
                {"image": ["1", 0], "upscale_method": "nearest-exact", "width": 32, "height": 32, "crop": "disabled"}},
            "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
        }),
    )?;
    let preview =
        gateway.ask(&Ask::get(&view(&scaled["3"]["images"][0])?).bearer(&gateway.owner))?;
    // Width and height stand behind the header of the first chunk.
    assert_eq!(
        preview.body.get(16..24),
        Some([0, 0, 0, 32, 0, 0, 0, 32].as_slice())
    );

    let page = gateway.ask(&Ask::get("/").browser().cookie(&gateway.owner))?;
    assert!(page.text().contains("/sentinel/assets/overlay.js"));
    let catalogue = gateway.ask(&Ask::get("/object_info").bearer(&gateway.owner))?;
    assert!(catalogue.json()["EmptyImage"].is_object());
    Ok(())
}
