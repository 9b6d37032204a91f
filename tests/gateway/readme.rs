//! The README's lines work as they stand.

use anyhow::{Context, Result, ensure};
use sentinel_tests::{Gateway, Options};
use std::process::Command;

#[test]
fn the_lines_of_the_api_section_work() -> Result<()> {
    let readme = include_str!("../../README.md");
    let section = readme
        .split("## API")
        .nth(1)
        .context("README has an API section")?;
    let script = section
        .split("```sh\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .context("the section has a script")?;
    let gateway = Gateway::start(Options::default().without_owner().fault("slow-start=2"))?;
    let script = script.replace("localhost:8189", &format!("127.0.0.1:{}", gateway.port));
    let output = Command::new("bash").args(["-euc", &script]).output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{printed}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for expected in [
        "The account owner has been created.",
        "\"prompt_id\"",
        "\"username\":\"owner\"",
        "\"openapi\"",
        "302",
    ] {
        ensure!(
            printed.contains(expected),
            "{expected} is missing in {printed}"
        );
    }
    ensure!(!printed.contains("sign_in_required"), "{printed}");
    Ok(())
}

#[test]
fn the_configuration_table_names_every_key_with_its_default() -> Result<()> {
    let readme = include_str!("../../README.md");
    let defaults: serde_json::Value = serde_json::from_str(include_str!("../../config.json"))?;
    for key in sentinel_gateway::config::KEYS {
        let pointer = format!("/{}", key.path.replace('.', "/"));
        let default = defaults.pointer(&pointer).context("a default")?;
        let row = format!("| `{}` | `{default}` |", key.path);
        ensure!(readme.contains(&row), "README lacks: {row}");
    }
    Ok(())
}
