//! Finds a Python that ComfyUI can be installed with.

use crate::comfyui::{AskError, ask};
use std::env;
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Command;

/// Versions that PyTorch and custom nodes are made for, the best first.
const MINORS: [u8; 4] = [12, 11, 13, 10];
/// Starting Python from a cold disk takes its time.
const TIME_LIMIT: Duration = Duration::from_secs(20);
/// Folders that a program started without a terminal does not have on its `PATH`.
const FURTHER_FOLDERS: &[&str] = if cfg!(target_os = "macos") {
    &["/opt/homebrew/bin", "/usr/local/bin"]
} else {
    &[]
};
/// Tells version and what is missing to make an environment.
const QUESTION: &str = "import sys\nprint('%d.%d' % sys.version_info[:2])\n\
    try:\n import venv, ensurepip\nexcept ImportError as error:\n print(error.name)\n";

/// A Python that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    python: PathBuf,
    minor: u8,
    /// Name of a module without which it makes no environments.
    missing: Option<String>,
}

/// The best Python on this machine.
///
/// # Errors
/// A sentence for people that says what to do.
pub(super) async fn find() -> Result<PathBuf, String> {
    let mut found = Vec::new();
    for python in candidates() {
        match look_at(python).await {
            Some(one) => found.push(one),
            None => continue,
        }
    }
    choose(&found)
}

fn choose(found: &[Found]) -> Result<PathBuf, String> {
    let fitting = MINORS
        .iter()
        .flat_map(|minor| found.iter().filter(move |one| one.minor == *minor));
    let mut broken = None;
    for one in fitting {
        match &one.missing {
            None => return Ok(one.python.clone()),
            Some(module) => broken = broken.or(Some((one, module))),
        }
    }
    Err(match (broken, found.first()) {
        (Some((one, module)), _) => format!(
            "The Python {} lacks its part \"{module}\", so it can make no place for ComfyUI's packages. \
             On Debian and Ubuntu: sudo apt install python3.{}-venv",
            one.python.display(),
            one.minor
        ),
        (None, Some(one)) => format!(
            "Python 3.{} is installed, but ComfyUI needs Python 3.10 to 3.13. Please install 3.12 from python.org.",
            one.minor
        ),
        (None, None) => {
            "No Python was found on this machine. Please install Python 3.12 from python.org \
                         (on Windows tick \"Add python.exe to PATH\")."
                .to_owned()
        }
    })
}

fn candidates() -> Vec<PathBuf> {
    let names: Vec<String> = if cfg!(windows) {
        ["python.exe", "python3.exe"].map(str::to_owned).to_vec()
    } else {
        let exact = MINORS.iter().map(|minor| format!("python3.{minor}"));
        exact
            .chain(["python3".to_owned(), "python".to_owned()])
            .collect()
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = env::split_paths(&path)
        .chain(FURTHER_FOLDERS.iter().map(PathBuf::from))
        .filter(|folder| folder.is_absolute())
        // What Windows puts there only opens its shop.
        .filter(|folder| !folder.ends_with("WindowsApps"))
        .collect();
    let mut found: Vec<PathBuf> = Vec::new();
    for name in names {
        // One for each name, as a shell would take it.
        let first = folders
            .iter()
            .map(|folder| folder.join(&name))
            .find(|python| python.is_file());
        found.extend(first);
    }
    found
}

async fn look_at(python: PathBuf) -> Option<Found> {
    let mut command = Command::new(&python);
    command.args(["-c", QUESTION]);
    let answer = match ask(&mut command, TIME_LIMIT).await {
        Ok(answer) => answer,
        Err(AskError::NotStarted(error)) => {
            tracing::debug!(%error, python = %python.display(), "a Python does not start");
            return None;
        }
        Err(AskError::TimedOut) => return None,
    };
    let (minor, missing) = parse(&answer.output)?;
    Some(Found {
        python,
        minor,
        missing,
    })
}

fn parse(answer: &str) -> Option<(u8, Option<String>)> {
    let mut lines = answer.lines().map(str::trim);
    let minor = lines.next()?.strip_prefix("3.")?.parse().ok()?;
    let missing = lines.next().filter(|line| !line.is_empty());
    Some((minor, missing.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        assert_eq!(parse("3.12\n"), Some((12, None)));
        assert_eq!(
            parse("3.11\r\nensurepip\r\n"),
            Some((11, Some("ensurepip".to_owned())))
        );
        for wrong in ["", "2.7", "3", "Python was not found"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_best_one_is_chosen_or_what_is_missing_is_said() {
        let one = |minor: u8, missing: Option<&str>| Found {
            python: PathBuf::from(format!("/bin/python3.{minor}")),
            minor,
            missing: missing.map(str::to_owned),
        };
        let chosen = |found: &[Found]| choose(found).map(|python| python.display().to_string());
        assert_eq!(
            chosen(&[one(13, None), one(9, None), one(11, None)]).unwrap(),
            "/bin/python3.11"
        );
        assert_eq!(
            chosen(&[one(12, Some("ensurepip")), one(10, None)]).unwrap(),
            "/bin/python3.10"
        );
        for (found, words) in [
            (vec![one(12, Some("ensurepip"))], "python3.12-venv"),
            (vec![one(9, None)], "Python 3.9 is installed"),
            (vec![one(14, None)], "Python 3.14 is installed"),
            (vec![], "No Python was found"),
        ] {
            let text = chosen(&found).unwrap_err();
            assert!(text.contains(words), "{text}");
        }
    }
}
