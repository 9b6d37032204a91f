//! Real clients from PyPI and npm before Sentinel and a real ComfyUI, with one engine for all and with
//! engines of users. Each makes pictures and reads them back with the credential that it can send;
//! those without a place for one go through `sentineld connect`. Prints a Markdown table.
//!
//! Needs `COMFYUI_DIR` and `COMFYUI_PYTHON`, Python, Node.js and the network: the clients are installed
//! into a folder of their own. `cargo xtask clients` builds what is used and starts this.

mod catalogue;
mod install;
mod world;

use anyhow::{Result, ensure};
use catalogue::{CLIENTS, Client, Way};
use clap::Parser;
use install::Installed;
use sentinel_tests::Options as GatewayOptions;
use std::path::PathBuf;
use world::{Mode, World};

/// Real clients before Sentinel and a real ComfyUI
#[derive(Debug, Parser)]
#[command(name = "clients")]
struct Options {
    /// Only clients with this word in their name
    #[arg(long, default_value = "")]
    only: String,
    /// Pictures that each makes, one after the other
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=200))]
    jobs: u32,
    /// Where the clients are installed; what is there already is used again
    #[arg(long, default_value = "target/clients")]
    folder: PathBuf,
}

#[expect(
    clippy::print_stdout,
    reason = "the one place where this program prints"
)]
fn say(text: &str) {
    println!("{text}");
}

/// How one client did by one way.
struct Row {
    client: &'static Client,
    way: Way,
    outcomes: Vec<(Mode, Result<(), String>)>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    if GatewayOptions::real_comfyui()?.is_none() {
        say("SKIPPED: the clients need a real ComfyUI: set COMFYUI_DIR and COMFYUI_PYTHON.");
        return Ok(());
    }
    if let Some(missing) = install::missing() {
        say(&format!(
            "SKIPPED: the clients cannot be installed here: {missing}."
        ));
        return Ok(());
    }
    let wanted: Vec<&'static Client> = CLIENTS
        .iter()
        .filter(|client| client.name.contains(&options.only))
        .collect();
    ensure!(!wanted.is_empty(), "no client has this word in its name");
    let installed = install_all(&options.folder, &wanted)?;
    let mut rows: Vec<Row> = installed
        .iter()
        .flat_map(|installed| {
            let client = installed.client;
            client.ways.iter().map(move |way| Row {
                client,
                way: *way,
                outcomes: Vec::new(),
            })
        })
        .collect();
    for mode in [Mode::Separate, Mode::Shared] {
        let world = World::start(mode)?;
        for row in &mut rows {
            let Some(installed) = installed
                .iter()
                .find(|installed| installed.client.name == row.client.name)
            else {
                continue;
            };
            let outcome = world
                .run(installed, row.way, options.jobs)
                .map_err(|error| format!("{error:#}"));
            let word = if outcome.is_ok() { "ok" } else { "FAILED" };
            say(&format!("{mode}, {}, {}: {word}", row.client.name, row.way));
            row.outcomes.push((mode, outcome));
        }
    }
    say(&table(&rows, options.jobs));
    let failed: Vec<String> = rows.iter().flat_map(failures).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n\n"));
    Ok(())
}

fn install_all(folder: &std::path::Path, wanted: &[&'static Client]) -> Result<Vec<Installed>> {
    let folder = std::path::absolute(folder)?;
    wanted
        .iter()
        .map(|client| {
            say(&format!("Installing {} {}", client.name, client.version));
            install::install(client, &folder)
        })
        .collect()
}

fn table(rows: &[Row], jobs: u32) -> String {
    let mut lines = vec![
        format!("\n| client | version | way in | separate users | shared | ({jobs} pictures each)"),
        "| --- | --- | --- | --- | --- |".to_owned(),
    ];
    for row in rows {
        let cell = |wanted: Mode| {
            let outcome = row.outcomes.iter().find(|(mode, _)| *mode == wanted);
            match outcome {
                Some((_, Ok(()))) => "ok",
                Some((_, Err(_))) => "FAILED",
                None => "not run",
            }
        };
        lines.push(format!(
            "| {} | {} | {} | {} | {} |",
            row.client.name,
            row.client.version,
            row.way,
            cell(Mode::Separate),
            cell(Mode::Shared)
        ));
    }
    lines.join("\n")
}

fn failures(row: &Row) -> Vec<String> {
    let failed = row.outcomes.iter().filter_map(|(mode, outcome)| {
        let error = outcome.as_ref().err()?;
        Some(format!("{}, {}, {mode}: {error}", row.client.name, row.way))
    });
    failed.collect()
}
