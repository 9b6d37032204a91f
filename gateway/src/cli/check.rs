//! `sentineld check`.

use super::arguments::Place;
use super::console::say;
use super::{open_config, open_data};
use crate::access::AccessLists;
use crate::accounts::Database;
use crate::comfyui;
use crate::sandbox;
use std::process::ExitCode;

/// Validates everything on disk; fails when something cannot be used, warns of what is unsafe.
pub(super) fn check(place: &Place) -> anyhow::Result<ExitCode> {
    let data = open_data(place)?;
    let mut faults = Vec::new();
    let mut warnings = Vec::new();
    match open_config(place, &data) {
        Ok(file) => {
            let config = file.current();
            warnings.extend(config.warnings());
            warnings.extend(sandbox::config_warning(config.sandbox));
            if let Err(error) = comfyui::check_user_arguments(&config.comfyui.args) {
                faults.push(format!("comfyui.args: {error}"));
            }
            let accounts = Database::open(data.resolve(&config.users_db));
            faults.extend(accounts.fault());
            if accounts.current().is_empty() && accounts.fault().is_none() {
                warnings.push(
                    "There is no account yet; the first one is made at this machine.".to_owned(),
                );
            } else if accounts.fault().is_none() && accounts.current().owner().is_none() {
                faults.push(
                    "No enabled account is an admin. Run: sentineld user promote NAME".to_owned(),
                );
            }
            let lists = AccessLists::open(
                data.resolve(&config.whitelist),
                data.resolve(&config.blacklist),
            );
            faults.extend(lists.faults());
        }
        Err(error) => faults.push(crate::http::chain(&error)),
    }
    for fault in &faults {
        say(&format!("error: {fault}"));
    }
    for warning in &warnings {
        say(&format!("warning: {warning}"));
    }
    if faults.is_empty() {
        say(&format!(
            "{}: settings, accounts and lists can be used.",
            data.root().display()
        ));
        Ok(ExitCode::SUCCESS)
    } else {
        Ok(ExitCode::FAILURE)
    }
}
