//! What the management page shows of the machine: statistics, logs, settings, the audit table.

use anyhow::{Context as _, Result};
use sentinel_tests::{Ask, Gateway, Options, PASSWORD, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn statistics_show_what_comfyui_takes() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    let mut seen = Value::Null;
    eventually(PATIENCE, || {
        seen = gateway.admin("GET", "engine/statistics", None)?.json();
        Ok(seen["samples"]
            .as_array()
            .is_some_and(|samples| samples.len() >= 2))
    })?;
    assert_eq!(seen["interval_seconds"], 2);
    let memory = seen["samples"][1]["memory_bytes"]
        .as_u64()
        .context("memory")?;
    let total = seen["memory_total_bytes"].as_u64().context("total")?;
    assert!(memory > 1_000_000 && memory < total, "{seen}");
    let percent = seen["samples"][1]["cpu_percent"]
        .as_f64()
        .context("percent")?;
    assert!((0.0..=100.0).contains(&percent), "{seen}");
    Ok(())
}

#[cfg(unix)]
#[test]
fn statistics_ask_nvidia_smi_where_it_is() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("nvidia-smi");
    std::fs::write(
        &program,
        "#!/bin/sh\ncase \"$1\" in --query-gpu=*) echo 'Pretend RTX, 41, 1024, 8192';; esac\n",
    )?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH")?);
    let gateway = Gateway::start(Options::default().environment("PATH", &path))?;
    let mut seen = Value::Null;
    eventually(PATIENCE, || {
        seen = gateway.admin("GET", "engine/statistics", None)?.json();
        Ok(seen["samples"]
            .as_array()
            .is_some_and(|samples| !samples.is_empty()))
    })?;
    assert_eq!(seen["gpu"], json!({"name": "Pretend RTX"}));
    let sample = &seen["samples"][0];
    assert_eq!(sample["gpu_percent"], 41.0);
    assert_eq!(sample["gpu_memory_bytes"], 1024_u64 << 20);
    assert_eq!(sample["gpu_memory_total_bytes"], 8192_u64 << 20);
    Ok(())
}

#[test]
fn the_log_is_shown_in_pieces_and_without_secrets() -> Result<()> {
    let gateway = Gateway::start(Options::default().set("log_levels=DEBUG,INFO"))?;
    gateway.login("owner", "wrong-Guess-1")?;
    let token = gateway.make_token("owner")?;
    gateway.ask(&Ask::get(&format!("/view?token={token}&password={PASSWORD}")).bearer(&token))?;
    let all = gateway.admin("GET", "log?lines=2000", None)?;
    assert_eq!(all.status, 200, "{}", all.text());
    let text = all.text();
    for secret in [
        PASSWORD,
        "wrong-Guess-1",
        token.as_str(),
        gateway.owner.as_str(),
        "eyJ",
    ] {
        assert!(!text.contains(secret), "{secret}");
    }
    let shown = all.json();
    let lines = shown["lines"].as_array().context("lines")?;
    assert!(lines.iter().any(|line| line["level"] == "info"), "{shown}");
    assert!(lines.iter().any(|line| line["level"] == "debug"), "{shown}");
    for pair in lines.windows(2) {
        assert!(pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64());
    }
    let next = shown["next"].as_u64().context("next")?;
    let later = gateway
        .admin("GET", &format!("log?after={next}"), None)?
        .json();
    let later = later["lines"].as_array().cloned().unwrap_or_default();
    assert!(later.iter().all(|line| line["seq"].as_u64() > Some(next)));
    let info = gateway.admin("GET", "log?level=info", None)?.json();
    let info = info["lines"].as_array().cloned().unwrap_or_default();
    assert!(!info.is_empty() && info.iter().all(|line| line["level"] != "debug"));
    assert_eq!(gateway.admin("GET", "log?level=loud", None)?.status, 400);
    Ok(())
}

#[test]
fn every_setting_is_described() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let shown = gateway.admin("GET", "config/keys", None)?.json();
    let keys = shown["keys"].as_array().context("keys")?;
    let key = |path: &str| keys.iter().find(|key| key["path"] == path);
    let port = key("sharing.port").context("a port")?;
    assert_eq!(
        (&port["kind"], &port["min"], &port["max"], &port["default"]),
        (&json!("integer"), &json!(0), &json!(65535), &json!(8189))
    );
    let levels = key("log_levels").context("levels")?;
    assert_eq!(
        (&levels["kind"], &levels["default"]),
        (&json!("choices"), &json!(["INFO"]))
    );
    assert!(
        levels["choices"]
            .as_array()
            .is_some_and(|words| words.len() == 4)
    );
    let config = gateway.admin("GET", "config", None)?.json();
    for key in keys {
        let path = key["path"].as_str().context("a path")?;
        let pointer = format!("/config/{}", path.replace('.', "/"));
        assert!(config.pointer(&pointer).is_some(), "{path}");
        assert!(
            key["meaning"].as_str().is_some_and(|text| text.len() > 5),
            "{path}"
        );
        assert!(
            key.get("default").is_some_and(|value| !value.is_null()),
            "{path}"
        );
    }
    Ok(())
}

#[test]
fn the_audit_table_holds_no_formula() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    for number in 0..2 {
        let name = format!("=cmd|'/C calc'!A{number}");
        gateway.login(&name, "wrong-Guess-1")?;
    }
    let body = json!({"name": "=1+1,\"x\"\r\n@evil", "expire_hours": 1, "password": PASSWORD});
    let made = gateway.ask(
        &Ask::post("/sentinel/api/tokens")
            .bearer(&gateway.owner)
            .json(&body),
    )?;
    assert_eq!(made.status, 200, "{}", made.text());
    let table = gateway.admin("GET", "audit.csv", None)?;
    assert_eq!(table.status, 200);
    assert_eq!(
        table.header("content-type"),
        Some("text/csv; charset=utf-8")
    );
    let how = table.header("content-disposition").unwrap_or_default();
    assert!(how.starts_with("attachment"), "{how}");
    assert_eq!(table.header("cache-control"), Some("no-store"));
    let text = table.text();
    assert!(
        text.starts_with("\u{feff}id,at,event,user,address,detail\r\n"),
        "{text}"
    );
    assert!(text.contains("\"'=1+1,\"\"x\"\""), "{text}");
    assert!(!text.contains("\"=") && !text.contains(",="), "{text}");
    for (method, path) in [
        ("GET", "audit.csv"),
        ("GET", "log"),
        ("GET", "config/keys"),
        ("GET", "engine/statistics"),
    ] {
        let plain = Ask::new(method, &format!("/sentinel/api/{path}")).bearer(&gateway.owner);
        let answer = gateway.ask(&plain)?;
        assert_eq!(answer.code(), "step_up_required", "{path}");
    }
    Ok(())
}
