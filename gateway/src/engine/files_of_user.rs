//! What becomes of a user's files when his account goes.

use super::places::Places;
use crate::accounts::UserId;
use crate::files::{self, DataDirectory};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is to become of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FilesFate {
    /// They stay where they are.
    Keep,
    /// They are deleted.
    Delete,
    /// Somebody else gets them, in folders named after the one who leaves.
    Give {
        /// Where the heir's files are.
        to: Places,
        /// Name of the folders.
        folder: String,
    },
}

/// Why files were not dealt with.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// A file or folder refused.
    #[error("cannot deal with {path}")]
    Io {
        /// The file.
        path: String,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The work broke off in the middle.
    #[error("dealing with the files broke off")]
    Interrupted,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.display().to_string();
    move |source| FilesError::Io { path, source }
}

impl FilesFate {
    /// Deals with the files of `user`, whose engine is gone. Blocks; not for async threads.
    ///
    /// # Errors
    /// [`FilesError`] for the first file that refuses; nothing is lost then.
    pub fn carry_out(&self, data: &DataDirectory, user: &UserId) -> Result<(), FilesError> {
        let root = data.user(user);
        if *self == Self::Keep || !root.exists() {
            return Ok(());
        }
        if let Self::Give { to, folder } = self {
            let from = Places::of_user(data, user);
            give(&from.input, &to.input, folder)?;
            give(&from.output, &to.output, folder)?;
            give(
                &from.user.join("default").join("workflows"),
                &to.user.join("default").join("workflows"),
                folder,
            )?;
        }
        // Out of the way in one step, so that a power cut leaves no half of it under its name.
        let doomed = data.users().join(format!(".deleted-{user}"));
        fs::rename(&root, &doomed).map_err(at(&root))?;
        fs::remove_dir_all(&doomed).map_err(at(&doomed))
    }
}

/// Removes what an earlier deletion left behind when it was cut off.
pub(super) fn finish_deletions(data: &DataDirectory) {
    let Ok(entries) = fs::read_dir(data.users()) else {
        return;
    };
    for entry in entries.flatten() {
        let is_doomed = entry
            .file_name()
            .to_str()
            .is_some_and(|name| name.starts_with(".deleted-"));
        if is_doomed && let Err(error) = fs::remove_dir_all(entry.path()) {
            tracing::warn!(%error, path = %entry.path().display(), "deleted files could not be removed");
        }
    }
}

fn give(from: &Path, to: &Path, folder: &str) -> Result<(), FilesError> {
    let is_empty = fs::read_dir(from).map_or(true, |mut entries| entries.next().is_none());
    if is_empty {
        return Ok(());
    }
    files::create_private_directory(to).map_err(at(to))?;
    let target = free_name(to, folder);
    match fs::rename(from, &target) {
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
            copy(from, &target).map_err(at(from))
        }
        result => result.map_err(at(from)),
    }
}

/// `folder`, or `folder (2)` and so on, whichever is not there yet.
fn free_name(parent: &Path, folder: &str) -> PathBuf {
    let first = parent.join(folder);
    if !first.exists() {
        return first;
    }
    let numbered = (2..).map(|number| parent.join(format!("{folder} ({number})")));
    let mut free = numbered.filter(|path| !path.exists());
    free.next().unwrap_or(first)
}

/// Copies a tree; links are left out, as they may lead anywhere.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    files::create_private_directory(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene() -> (tempfile::TempDir, DataDirectory, UserId, UserId) {
        let place = tempfile::tempdir().unwrap();
        let data = DataDirectory::open(place.path()).unwrap();
        let (alice, bob) = (UserId::generate(), UserId::generate());
        for user in [&alice, &bob] {
            Places::of_user(&data, user).create().unwrap();
        }
        let output = Places::of_user(&data, &alice).output;
        fs::write(output.join("a.png"), "picture").unwrap();
        (place, data, alice, bob)
    }

    #[test]
    fn files_are_kept_deleted_or_given() {
        let (_place, data, alice, bob) = scene();
        FilesFate::Keep.carry_out(&data, &alice).unwrap();
        assert!(data.user(&alice).join("output/a.png").exists());
        let to = Places::of_user(&data, &bob);
        fs::create_dir(to.output.join("alice")).unwrap();
        let give = FilesFate::Give {
            to: to.clone(),
            folder: "alice".to_owned(),
        };
        give.carry_out(&data, &alice).unwrap();
        assert!(!data.user(&alice).exists());
        assert_eq!(
            fs::read_to_string(to.output.join("alice (2)/a.png")).unwrap(),
            "picture"
        );
        FilesFate::Delete.carry_out(&data, &bob).unwrap();
        assert_eq!(fs::read_dir(data.users()).unwrap().count(), 0);
        FilesFate::Delete.carry_out(&data, &bob).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_link_to_elsewhere_is_removed_and_not_followed() {
        let (place, data, alice, _bob) = scene();
        let precious = place.path().join("precious");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&precious, data.user(&alice).join("output/link")).unwrap();
        FilesFate::Delete.carry_out(&data, &alice).unwrap();
        assert!(precious.join("file").exists());
    }

    #[test]
    fn a_deletion_that_was_cut_off_is_finished() {
        let (_place, data, alice, _bob) = scene();
        let doomed = data.users().join(format!(".deleted-{alice}"));
        fs::rename(data.user(&alice), &doomed).unwrap();
        finish_deletions(&data);
        assert!(!doomed.exists());
    }
}
