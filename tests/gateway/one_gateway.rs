//! What a data directory must be for a gateway to start: its own, and whole.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use sentinel_tests::{Gateway, Options};
use std::time::Duration;

#[cfg(unix)]
#[test]
fn a_second_gateway_on_a_directory_is_refused_and_the_first_goes_on_unharmed() -> Result<()> {
    let mut first = Gateway::start(Options::default().without_engine())?;
    let second = Gateway::start(Options::default().data(&first.data));
    let Err(refused) = second else {
        anyhow::bail!("two gateways work on one directory");
    };
    let words = refused.to_string();
    for part in [
        format!("process {}", first.id()),
        format!("http://localhost:{}", first.port),
        "--data-dir".to_owned(),
    ] {
        ensure!(words.contains(&part), "{part} is not in: {words}");
    }
    // The first one's control socket still answers.
    first.command(&["engines", "list"])?;
    ensure!(first.data.path().join("control.sock").exists());
    ensure!(first.engine()?["state"].is_string());
    // A gateway that was killed keeps nobody out.
    first.signal(Signal::SIGKILL)?;
    first.ended_within(Duration::from_secs(15))?;
    Gateway::start(Options::default().data(&first.data)).map(drop)
}

#[test]
fn a_damaged_database_is_refused_by_name_with_a_way_out_and_left_as_it_is() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let data = gateway.stop()?;
    let path = data.path().join("sentinel.db");
    let nonsense = "this was a database once ".repeat(400);
    std::fs::write(&path, &nonsense)?;
    let Err(refused) = Gateway::start(Options::default().data(&data)) else {
        anyhow::bail!("a damaged database is taken");
    };
    let words = refused.to_string();
    for part in [&*path.display().to_string(), "damaged", "put a copy"] {
        ensure!(words.contains(part), "{part} is not in: {words}");
    }
    ensure!(std::fs::read_to_string(&path)? == nonsense);
    Ok(())
}
