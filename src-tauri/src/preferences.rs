//! What the owner wants of this app: `desktop.json` in the data directory.

use crate::texts::Language;
use sentinel_gateway::files::{read_optional, write_atomically};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

const FILE: &str = "desktop.json";

/// The settings of the app, as they are in the file and in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Preferences {
    pub(crate) notifications: Wanted,
    /// Whether it was told that closing the window leaves the app in the tray.
    pub(crate) close_hint_shown: bool,
    /// Chosen in the window; until then it is the system's.
    pub(crate) language: Option<Language>,
}

/// Which notifications are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    /// ComfyUI ended unasked.
    pub(crate) crash: bool,
    /// ComfyUI answers.
    pub(crate) ready: bool,
    /// An address was put on the deny list.
    pub(crate) ban: bool,
    /// An admin signed in from a new device.
    pub(crate) new_device: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            crash: true,
            ready: true,
            ban: true,
            new_device: true,
        }
    }
}

/// The settings and their file.
#[derive(Debug)]
pub(crate) struct PreferenceFile {
    path: PathBuf,
    current: Mutex<Preferences>,
}

impl PreferenceFile {
    /// Reads them; a file that cannot be read counts as none, which harms nobody.
    pub(crate) fn open(directory: &std::path::Path) -> Self {
        let path = directory.join(FILE);
        let read = read_optional(&path).and_then(|text| {
            text.map_or(Ok(Preferences::default()), |text| {
                serde_json::from_str(&text).map_err(io::Error::from)
            })
        });
        let current = read.unwrap_or_else(|error| {
            tracing::warn!(%error, path = %path.display(), "the settings of the desktop app cannot be read");
            Preferences::default()
        });
        Self {
            path,
            current: Mutex::new(current),
        }
    }

    pub(crate) fn current(&self) -> Preferences {
        *self.lock()
    }

    /// Changes them and writes them down, if anything is different then; tells whether it was.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Preferences)) -> io::Result<bool> {
        let mut current = self.lock();
        let mut changed = *current;
        change(&mut changed);
        if changed == *current {
            return Ok(false);
        }
        let text = serde_json::to_vec_pretty(&changed)?;
        write_atomically(&self.path, &text)?;
        *current = changed;
        Ok(true)
    }

    fn lock(&self) -> MutexGuard<'_, Preferences> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_and_missing_ones_have_defaults() {
        let directory = tempfile::tempdir().unwrap();
        let file = PreferenceFile::open(directory.path());
        assert_eq!(file.current(), Preferences::default());
        let quieter = |preferences: &mut Preferences| preferences.notifications.ready = false;
        assert!(file.change(quieter).unwrap());
        assert!(!file.change(quieter).unwrap());
        file.change(|preferences| preferences.language = Some(Language::Zh))
            .unwrap();
        let kept = PreferenceFile::open(directory.path()).current();
        assert!(!kept.notifications.ready && kept.notifications.crash);
        assert_eq!(kept.language, Some(Language::Zh));
        assert_eq!(kept, file.current());

        std::fs::write(
            directory.path().join(FILE),
            r#"{"notifications": {"ban": false}}"#,
        )
        .unwrap();
        let read = PreferenceFile::open(directory.path()).current();
        assert!(!read.notifications.ban && read.notifications.crash && !read.close_hint_shown);
        assert_eq!(read.language, None);
    }

    #[test]
    fn a_damaged_file_is_no_reason_to_fail() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        let file = PreferenceFile::open(directory.path());
        assert_eq!(file.current(), Preferences::default());
    }
}
