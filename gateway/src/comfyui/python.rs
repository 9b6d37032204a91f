//! Which Python runs a ComfyUI.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::process::Command;

use super::ask::{AskError, ask};
use super::installation::Installation;

/// Importing PyTorch from a cold disk takes its time.
const IMPORT_LIMIT: Duration = Duration::from_secs(120);

/// Why no Python can run it.
#[derive(Debug, Error)]
pub enum PythonError {
    /// The configured one is not there.
    #[error("the configured Python {} does not exist", python.display())]
    Missing {
        /// What was configured.
        python: PathBuf,
    },
    /// It does not start.
    #[error("the Python {} cannot be started", python.display())]
    NotStarted {
        /// The Python tried.
        python: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It has no PyTorch, or a broken one.
    #[error("the Python {} cannot import PyTorch: {words}", python.display())]
    NoTorch {
        /// The Python tried.
        python: PathBuf,
        /// What it said.
        words: String,
    },
    /// It takes too long.
    #[error("the Python {} did not import PyTorch within {} seconds", python.display(), limit.as_secs())]
    TimedOut {
        /// The Python tried.
        python: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// None of those there are can import PyTorch.
    #[error(
        "no Python with PyTorch was found for {}; name one with comfyui.python or --python",
        directory.display()
    )]
    NotFound {
        /// The ComfyUI it was for.
        directory: PathBuf,
    },
}

/// The Python for an installation: the configured one; else the one that belongs to it; else the
/// first of an active conda or virtual environment and the `PATH` that can import PyTorch, which
/// is tried by really starting it and may take minutes.
///
/// # Errors
/// [`PythonError::Missing`] for a configured one that is not there, [`PythonError::NotFound`].
pub async fn find_python(
    installation: &Installation,
    configured: Option<&Path>,
) -> Result<PathBuf, PythonError> {
    if let Some(python) = configured {
        let resolved = if python.components().count() == 1 {
            on_path(python.as_os_str())
        } else {
            Some(python.to_owned()).filter(|python| python.is_file())
        };
        return resolved.ok_or_else(|| PythonError::Missing {
            python: python.to_owned(),
        });
    }
    if let Some(python) = &installation.python {
        return Ok(python.clone());
    }
    for python in foreign_pythons() {
        match imports_torch(&python, IMPORT_LIMIT).await {
            Ok(()) => return Ok(python),
            Err(error) => tracing::debug!(%error, "a Python is passed over"),
        }
    }
    Err(PythonError::NotFound {
        directory: installation.directory.clone(),
    })
}

/// Whether a Python can import PyTorch, found out by doing it; it is killed after `limit`.
///
/// # Errors
/// What stands in the way.
pub async fn imports_torch(python: &Path, limit: Duration) -> Result<(), PythonError> {
    let mut command = Command::new(python);
    command.args(["-c", "import torch"]);
    let answer = ask(&mut command, limit)
        .await
        .map_err(|error| match error {
            AskError::NotStarted(source) => PythonError::NotStarted {
                python: python.to_owned(),
                source,
            },
            AskError::TimedOut => PythonError::TimedOut {
                python: python.to_owned(),
                limit,
            },
        })?;
    if answer.status.success() {
        return Ok(());
    }
    Err(PythonError::NoTorch {
        python: python.to_owned(),
        words: answer.last_words,
    })
}

/// The Python that lies in or beside the directory of a ComfyUI.
pub(super) fn own_python(directory: &Path) -> Option<PathBuf> {
    let inside = ["venv", ".venv", "env"].map(|name| directory.join(name));
    let from_environments = inside.iter().map(|place| python_in(place));
    let embedded = directory.parent().map(|above| {
        above.join("python_embeded").join(if cfg!(windows) {
            "python.exe"
        } else {
            "python"
        })
    });
    let beside = directory
        .parent()
        .map(|above| python_in(&above.join("venv")));
    from_environments
        .chain(embedded)
        .chain(beside)
        .find(|python| python.is_file())
}

/// Where the interpreter lies in a virtual or conda environment.
pub(crate) fn python_in(environment: &Path) -> PathBuf {
    if cfg!(windows) {
        let scripts = environment.join("Scripts").join("python.exe");
        if scripts.is_file() {
            scripts
        } else {
            environment.join("python.exe")
        }
    } else {
        environment.join("bin").join("python")
    }
}

/// Interpreters that belong to no ComfyUI but may serve.
fn foreign_pythons() -> Vec<PathBuf> {
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .into_iter()
        .filter_map(env::var_os)
        .map(|place| python_in(Path::new(&place)))
        .filter(|python| python.is_file());
    let names: &[&str] = if cfg!(windows) {
        &["python.exe"]
    } else {
        &["python3", "python"]
    };
    let mut found: Vec<PathBuf> = environments.collect();
    for python in names.iter().filter_map(|name| on_path(OsStr::new(name))) {
        if !found.contains(&python) {
            found.push(python);
        }
    }
    found
}

fn on_path(name: &OsStr) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|directory| directory.join(name))
        .find(|program| program.is_file())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::search::tests::make_comfyui;
    use super::*;

    fn fake_python(path: &Path, script: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[tokio::test]
    async fn the_configured_one_wins_then_its_own() {
        let place = tempfile::tempdir().unwrap();
        let comfyui = place.path().join("ComfyUI");
        make_comfyui(&comfyui, "0.12.1");
        let beside = place.path().join("venv/bin/python");
        fake_python(&beside, "exit 0");
        let installation = Installation::open(&comfyui).unwrap();
        assert_eq!(find_python(&installation, None).await.unwrap(), beside);
        let embedded = place.path().join("python_embeded/python");
        fake_python(&embedded, "exit 0");
        let dotted = comfyui.join(".venv/bin/python");
        let plain = comfyui.join("venv/bin/python");
        for python in [&embedded, &dotted, &plain] {
            fake_python(python, "exit 0");
            let installation = Installation::open(&comfyui).unwrap();
            assert_eq!(&find_python(&installation, None).await.unwrap(), python);
        }
        let found = find_python(&installation, Some(&beside)).await.unwrap();
        assert_eq!(found, beside);
        let found = find_python(&installation, Some(Path::new("sh")))
            .await
            .unwrap();
        assert!(found.is_absolute());
        let missing = find_python(&installation, Some(Path::new("/no/python"))).await;
        assert!(matches!(missing, Err(PythonError::Missing { .. })));
    }

    #[tokio::test]
    async fn torch_is_really_tried() {
        let place = tempfile::tempdir().unwrap();
        let python = place.path().join("python");
        let limit = Duration::from_secs(20);
        fake_python(&python, "test \"$2\" = 'import torch'");
        imports_torch(&python, limit).await.unwrap();
        fake_python(&python, "echo 'No module named torch' >&2; exit 1");
        let error = imports_torch(&python, limit).await.unwrap_err();
        assert!(
            error.to_string().ends_with("No module named torch"),
            "{error}"
        );
        fake_python(&python, "exec sleep 1000");
        let error = imports_torch(&python, Duration::from_millis(100))
            .await
            .unwrap_err();
        assert!(matches!(error, PythonError::TimedOut { .. }), "{error}");
    }
}
