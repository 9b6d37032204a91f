//! `comfyui-sentinel`: the gateway with a tray and a window.
//!
//! The gateway runs in this process. What is here shows its status and passes orders on to its
//! control interface; it decides nothing and knows nothing of HTTP.

// Without this Windows opens a console beside the window.
#![cfg_attr(all(windows, not(debug_assertions)), windows_subsystem = "windows")]

mod app;
mod arguments;
mod assets;
mod autostart;
mod commands;
mod desk;
mod icon;
#[cfg(target_os = "linux")]
mod library_pages;
mod menu;
mod notifications;
mod preferences;
mod presence;
mod signals;
mod surroundings;
mod texts;
mod tray;
mod view;
#[cfg(target_os = "linux")]
mod web_processes;
mod window;

use clap::Parser as _;
use sentinel_gateway::supervisor;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else. As a rule the guard is the small program beside this one.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == supervisor::GUARD_SUBCOMMAND)
    {
        return supervisor::guard_main();
    }
    match app::run(&arguments::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            // Nobody may be there to read it.
            let _ = writeln!(std::io::stderr(), "comfyui-sentinel: {error:#}");
            ExitCode::FAILURE
        }
    }
}
