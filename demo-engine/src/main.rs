//! A small ComfyUI look-alike that makes real pictures: the demo mode of Sentinel, and the engine its tests
//! run against. The interface is that of ComfyUI 0.33.0, weaknesses included, because what stands in front
//! of it has to deal with them.

mod answer;
mod assets;
mod body;
mod command_line;
mod faults;
mod files;
mod graph;
mod json;
mod log;
mod multipart;
mod nodes;
mod page;
mod queue;
mod routes;
mod run;
mod socket;
mod state;
mod userdata;
mod worker;

use command_line::Request;
use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match command_line::read(&words, |name| std::env::var(name).ok()) {
        Request::Run(options) => run::engine(*options),
        Request::Grandchild => run::grandchild(),
        Request::Help(text) | Request::Features(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Request::Refused(text) => {
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::from(2)
        }
    }
}
