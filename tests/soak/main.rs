//! Soak: users come, queue, cancel, are disabled, and engines are killed at random, for as long as
//! asked; then the gateway itself is killed many times in the middle of its writing. Ends with an
//! error when anything leaks, is lost or is damaged. Loopback only, bounded in time and number.

mod jobs;
mod kills;
mod life;
mod observe;

use anyhow::Result;
use clap::Parser;

/// Users at random for a time, then kills of the gateway
#[derive(Clone, Copy, Debug, Parser)]
#[command(name = "soak")]
struct Options {
    /// Minutes of random use
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=240))]
    minutes: u64,
    /// Kills of the gateway
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=1000))]
    kills: u64,
    /// Kills of the gateway and of engines while jobs wait and run
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=1000))]
    job_kills: u64,
    /// Users at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(2..=50))]
    users: u64,
}

#[expect(
    clippy::print_stdout,
    reason = "the one place where this program prints"
)]
fn say(text: &str) {
    println!("{text}");
}

fn main() -> Result<()> {
    let options = Options::parse();
    if options.minutes > 0 {
        life::soak(options)?;
    }
    if options.kills > 0 {
        kills::kill(options.kills)?;
    }
    if options.job_kills > 0 {
        jobs::run(options.job_kills)?;
    }
    Ok(())
}
