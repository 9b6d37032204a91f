//! `config.json` on disk, with the settings of the command line on top, and the state of both now.

use super::{Config, ConfigErrors, KEYS, Settings};
use crate::files::{self, Fingerprint, Rereading, WriteLock};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;

/// Why settings could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The text has faults.
    #[error(transparent)]
    Invalid(#[from] ConfigErrors),
}

/// The settings file and what is in force.
#[derive(Debug)]
pub struct ConfigFile {
    path: PathBuf,
    overrides: Settings,
    current: ArcSwap<Config>,
    seen: Mutex<Rereading>,
}

impl ConfigFile {
    /// Reads the file; a missing one means the defaults. `overrides` win over the file and are
    /// never written to it.
    pub fn open(path: PathBuf, overrides: Settings) -> Result<Self, ConfigFileError> {
        let seen = Fingerprint::of(&path);
        let config = read(&path)?.merged(&overrides).config()?;
        Ok(Self {
            path,
            overrides,
            current: ArcSwap::from_pointee(config),
            seen: Mutex::new(Rereading::after(seen)),
        })
    }

    /// Settings in force.
    pub fn current(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Reads the file again when it has changed on disk. `Ok(true)` means that other settings are
    /// in force now; on an error the last good ones stay.
    pub fn reload(&self) -> Result<bool, ConfigFileError> {
        let mut seen = self.seen.lock();
        let now = Fingerprint::of(&self.path);
        if !seen.is_due(&now) {
            return Ok(false);
        }
        let config =
            read(&self.path).and_then(|settings| Ok(settings.merged(&self.overrides).config()?));
        let may_pass =
            matches!(&config, Err(ConfigFileError::Io { source, .. }) if files::may_pass(source));
        seen.note(now, may_pass);
        let config = config?;
        let changed = *self.current.load_full() != config;
        self.current.store(Arc::new(config));
        Ok(changed)
    }

    /// Writes `changes` over what the file says and puts them in force.
    pub fn change(&self, changes: &Settings) -> Result<(), ConfigFileError> {
        self.change_together(changes, || Ok(()))
    }

    /// Writes `changes` over what the file says, does something else, and puts the changes in
    /// force; when the other thing fails, the file is as it was.
    pub fn change_together<Answer, Failure: From<ConfigFileError>>(
        &self,
        changes: &Settings,
        act: impl FnOnce() -> Result<Answer, Failure>,
    ) -> Result<Answer, Failure> {
        let failed = |source| ConfigFileError::Io {
            path: self.path.display().to_string(),
            source,
        };
        let _lock = WriteLock::acquire(&self.path).map_err(failed)?;
        let before = files::read_optional(&self.path).map_err(failed)?;
        let written = parse(before.as_deref())?.merged(changes);
        let config = written
            .merged(&self.overrides)
            .config()
            .map_err(ConfigFileError::from)?;
        let text = serde_json::to_string_pretty(written.members()).unwrap_or_default() + "\n";
        let mut seen = self.seen.lock();
        files::write_atomically(&self.path, text.as_bytes()).map_err(failed)?;
        let outcome = act();
        if outcome.is_ok() {
            self.current.store(Arc::new(config));
        } else {
            let restored = match &before {
                Some(text) => files::write_atomically(&self.path, text.as_bytes()),
                None => std::fs::remove_file(&self.path),
            };
            restored.map_err(failed)?;
        }
        seen.note(Fingerprint::of(&self.path), false);
        outcome
    }

    /// Keys that differ between two configurations and wait for a restart.
    pub fn waiting_for_restart(started_with: &Config, now: &Config) -> Vec<&'static str> {
        let (Ok(old), Ok(new)) = (
            serde_json::to_value(started_with),
            serde_json::to_value(now),
        ) else {
            return Vec::new();
        };
        let differs = |path: &str| {
            let pointer = format!("/{}", path.replace('.', "/"));
            old.pointer(&pointer) != new.pointer(&pointer)
        };
        KEYS.iter()
            .filter(|key| key.needs_restart && differs(key.path))
            .map(|key| key.path)
            .collect()
    }

    /// Whether the command line sets this key, so that what is written down has no effect.
    pub fn is_overridden(&self, path: &str) -> bool {
        self.overrides.has(path)
    }

    /// The file.
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }
}

fn read(path: &std::path::Path) -> Result<Settings, ConfigFileError> {
    let text = files::read_optional(path).map_err(|source| ConfigFileError::Io {
        path: path.display().to_string(),
        source,
    })?;
    parse(text.as_deref())
}

fn parse(text: Option<&str>) -> Result<Settings, ConfigFileError> {
    match text {
        Some(text) => Ok(Settings::parse(text)?),
        None => Ok(Settings::default()),
    }
}
