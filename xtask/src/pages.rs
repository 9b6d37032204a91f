//! Building the pages that the gateway carries.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::process::Program;
use crate::workspace::Workspace;

/// Written after a whole build. It lies where a fresh `npm ci` removes it, and not in `dist`, which the gateway serves.
const STAMP: &str = "node_modules/.pages-built";

/// A page that every finished build has left.
const RESULT: &str = "dist/sign-in.html";

/// Installs the packages of a folder unless they are those of its lock file already.
pub(crate) fn install_packages(folder: &Path) -> Result<()> {
    let installed = modified(&folder.join("node_modules").join(".package-lock.json"));
    let wanted = modified(&folder.join("package-lock.json"));
    if installed.is_some() && installed >= wanted {
        return Ok(());
    }
    Program::npm(folder)
        .args(["ci", "--no-audit", "--no-fund"])
        .run()
}

/// Builds the pages unless nothing changed since they were built.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let folder = workspace.pages();
    if is_current(&folder)? {
        return Ok(());
    }
    // Taken before the build: what is saved during it is built next time.
    let begun = SystemTime::now();
    Program::npm(&folder)
        .args(["run", "build", "--silent"])
        .run()?;
    let stamp = folder.join(STAMP);
    let file =
        fs::File::create(&stamp).with_context(|| format!("cannot write {}", stamp.display()))?;
    file.set_modified(begun)
        .with_context(|| format!("cannot date {}", stamp.display()))
}

fn is_current(folder: &Path) -> Result<bool> {
    let Some(built) = modified(&folder.join(STAMP)) else {
        return Ok(false);
    };
    Ok(folder.join(RESULT).is_file() && newest(folder, true)?.is_none_or(|newest| newest < built))
}

/// When anything below a folder changed last. Folders count, because a removed file shows only there.
fn newest(folder: &Path, is_top: bool) -> Result<Option<SystemTime>> {
    let mut newest_time = None;
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let entry = entry?;
        if is_top
            && ["node_modules", "dist"]
                .iter()
                .any(|skipped| entry.file_name() == *skipped)
        {
            continue;
        }
        newest_time = newest_time.max(modified(&entry.path()));
        if entry.file_type()?.is_dir() {
            newest_time = newest_time.max(newest(&entry.path(), false)?);
        }
    }
    Ok(newest_time)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn built_project() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for path in ["src/login.ts", STAMP, RESULT] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        date(folder.path(), STAMP, 60);
        folder
    }

    fn date(folder: &Path, path: &str, seconds_ahead: u64) {
        let file = fs::File::options()
            .append(true)
            .open(folder.join(path))
            .unwrap();
        file.set_modified(SystemTime::now() + Duration::from_secs(seconds_ahead))
            .unwrap();
    }

    #[test]
    fn unchanged_pages_are_not_built_again() {
        let folder = built_project();
        assert!(is_current(folder.path()).unwrap());
    }

    #[test]
    fn a_changed_source_or_a_missing_result_asks_for_a_build() {
        let folder = built_project();
        date(folder.path(), "src/login.ts", 120);
        assert!(!is_current(folder.path()).unwrap());

        let folder = built_project();
        fs::remove_file(folder.path().join(RESULT)).unwrap();
        assert!(!is_current(folder.path()).unwrap());

        let folder = built_project();
        fs::remove_file(folder.path().join(STAMP)).unwrap();
        assert!(!is_current(folder.path()).unwrap());
    }

    #[test]
    fn what_npm_and_the_build_write_is_no_source() {
        let folder = built_project();
        date(folder.path(), RESULT, 120);
        assert!(is_current(folder.path()).unwrap());
    }
}
