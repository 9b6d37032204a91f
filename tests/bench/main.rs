//! Measures the gateway beside nginx: directly to a fast upstream, through Sentinel, through plain
//! nginx and through nginx with `auth_request`, interleaved in one run; and engines of users, with
//! the demo engine and with the real ComfyUI of `COMFYUI_DIR`. Prints a Markdown table.
//!
//! Everything runs on loopback, in a temporary directory, for a bounded time. Needs Linux and nginx;
//! `cargo xtask bench` builds what is measured and starts this.

mod client;
mod engines;
mod fixture;
mod measurements;
mod process;
mod queue;
mod roles;
mod table;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

/// Measures the gateway beside nginx
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Options {
    /// Rounds; each measures everything once, and the medians are reported
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Measure only what has this word in its name
    #[arg(long, default_value = "")]
    only: String,
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program does as a child of itself.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
enum Role {
    /// Play the upstream of uploads and WebSockets
    Stream,
    /// Answer the subrequests of `auth_request`
    TokenCheck,
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
    match options.role {
        Some(Role::Stream) => roles::stream(),
        Some(Role::TokenCheck) => roles::token_check(),
        None => {
            ensure!(
                (5..=50).contains(&options.rounds),
                "five rounds at least, fifty at most"
            );
            let fixture = fixture::Fixture::start()?;
            let table = measurements::all(&fixture, options.rounds, &options.only)?;
            say(&table.markdown());
            Ok(())
        }
    }
}
