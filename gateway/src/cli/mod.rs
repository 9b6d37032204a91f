//! The command line of `sentineld`.

mod arguments;
mod check;
mod connect;
mod console;
mod engines;
mod run;
mod user;

use crate::config::{ConfigFile, Settings};
use crate::files::DataDirectory;
use crate::gateway::GatewayError;
use arguments::{Arguments, Command};
use clap::Parser;
use console::complain;
use std::process::ExitCode;

pub use arguments::{Place, RunOptions};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.command {
        Command::Run(options) => run::run(&options),
        Command::Check(place) => check::check(&place),
        Command::Connect(options) => connect::connect(&options),
        Command::Engines { place, action } => engines::act(&place, action),
        Command::User { place, action } => user::act(&place, action),
        Command::Import { place, file } => user::import(&place, &file),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("sentineld: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn open_data(place: &Place) -> Result<DataDirectory, GatewayError> {
    let root = place
        .data_dir
        .clone()
        .or_else(DataDirectory::default_root)
        .ok_or(GatewayError::NoDataDirectory)?;
    DataDirectory::open(&root).map_err(|source| GatewayError::Io {
        path: root.display().to_string(),
        source,
    })
}

fn open_config(place: &Place, data: &DataDirectory) -> Result<ConfigFile, GatewayError> {
    let mut overrides = Settings::default();
    let mut faults = Vec::new();
    for assignment in &place.set {
        if let Err(errors) = overrides.set(assignment) {
            faults.extend(errors.0);
        }
    }
    if !faults.is_empty() {
        return Err(GatewayError::Config(
            crate::config::ConfigErrors(faults).into(),
        ));
    }
    Ok(ConfigFile::open(data.config(), overrides)?)
}
