//! Starting with the computer.

use crate::arguments::Arguments;
use tauri::AppHandle;
use tauri_plugin_autostart::ManagerExt as _;

/// The arguments with which the system starts the app.
pub(crate) fn arguments(given: &Arguments) -> Vec<String> {
    let mut arguments = vec!["--hidden".to_owned()];
    let data = given.run.place.data_dir.as_ref();
    if let Some(path) = data.and_then(|path| std::path::absolute(path).ok()) {
        arguments.extend(["--data-dir".to_owned(), quoted(&path.display().to_string())]);
    }
    arguments
}

/// Start entries are command lines, except on macOS, which takes a list.
fn quoted(text: &str) -> String {
    if cfg!(target_os = "macos") || !text.contains(char::is_whitespace) {
        return text.to_owned();
    }
    format!("\"{text}\"")
}

/// Whether the system starts the app.
pub(crate) fn is_enabled(app: &AppHandle) -> bool {
    app.autolaunch().is_enabled().unwrap_or_else(|error| {
        tracing::debug!(%error, "whether the app starts with the computer cannot be told");
        false
    })
}

/// Has the system start the app, or not.
pub(crate) fn set(app: &AppHandle, is_wanted: bool) -> Result<(), tauri_plugin_autostart::Error> {
    let launcher = app.autolaunch();
    if is_wanted {
        launcher.enable()
    } else {
        launcher.disable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[test]
    fn the_data_directory_is_kept() {
        let given = |line: &[&str]| arguments(&Arguments::parse_from(line));
        assert_eq!(given(&["app"]), ["--hidden"]);
        if cfg!(target_os = "linux") {
            assert_eq!(
                given(&["app", "--data-dir", "/srv/my data"]),
                ["--hidden", "--data-dir", "\"/srv/my data\""]
            );
        }
    }
}
