//! Limits of the system, and those that another program of the account sets.

use anyhow::{Context as _, Result, ensure};
use sentinel_tests::{Ask, Gateway, Options, eventually};
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// Sets the soft limit of a process as a hostile engine would; the hard one lets it be set back.
fn limit(process: u32, name: &str, value: Option<u64>) -> Result<()> {
    let program = "import resource, sys\n\
                   process, limit = int(sys.argv[1]), getattr(resource, sys.argv[2])\n\
                   hard = resource.prlimit(process, limit)[1]\n\
                   soft = int(sys.argv[3]) if sys.argv[3] else hard\n\
                   resource.prlimit(process, limit, (soft, hard))";
    let value = value.map(|value| value.to_string()).unwrap_or_default();
    let done = Command::new("python3")
        .args(["-c", program, &process.to_string(), name, &value])
        .output()?;
    ensure!(done.status.success(), "{:?}", done);
    Ok(())
}

#[test]
fn a_limit_on_files_or_time_ends_nothing() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    limit(gateway.id(), "RLIMIT_FSIZE", Some(0))?;
    limit(gateway.id(), "RLIMIT_CPU", Some(1))?;
    // A sign-in is written; what becomes of it matters less than that somebody is there to say so.
    let told = gateway.login("owner", "wrong")?;
    ensure!(told.status >= 400, "{}", told.status);
    // The system signals once for each second of processor time.
    let used = || -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/stat", gateway.id()))?;
        let (_, rest) = status.rsplit_once(')').context("a status")?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks = |at: usize| {
            fields
                .get(at)
                .context("a field")?
                .parse::<u64>()
                .context("a number")
        };
        Ok(ticks(11)? + ticks(12)?)
    };
    eventually(Duration::from_secs(60), || {
        let health = gateway.ask(&Ask::get("/sentinel/health"))?;
        ensure!(health.status == 200, "{}", health.status);
        Ok(used()? > 150)
    })?;
    limit(gateway.id(), "RLIMIT_FSIZE", None)?;
    limit(gateway.id(), "RLIMIT_CPU", None)?;
    gateway.sign_in("owner")?;
    Ok(())
}

#[test]
fn the_limit_of_open_files_is_raised() -> Result<()> {
    let gateway = Gateway::start(Options::default().without_engine())?;
    let limits = fs::read_to_string(format!("/proc/{}/limits", gateway.id()))?;
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .context("a limit")?;
    let numbers: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [soft, hard] = numbers[..] else {
        anyhow::bail!("{line}");
    };
    ensure!(soft == hard.min(65_536), "{line}");
    Ok(())
}

#[test]
fn the_command_line_works_again_when_files_were_too_many() -> Result<()> {
    let gateway = Gateway::start(Options::default())?;
    gateway.command(&["engines"])?;
    limit(gateway.id(), "RLIMIT_NOFILE", Some(8))?;
    thread::scope(|scope| {
        let command = scope.spawn(|| gateway.command(&["engines"]));
        eventually(SOON, || Ok(gateway.console().contains("socket failed")))?;
        limit(gateway.id(), "RLIMIT_NOFILE", None)?;
        command.join().map_err(|_| anyhow::anyhow!("a panic"))??;
        gateway.command(&["engines"])?;
        Ok(())
    })
}
