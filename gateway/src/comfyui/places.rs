//! Where a Python and all it imports lie, asked from itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use super::ask::ask;

/// A bare Python starts in a blink, but for a cold disk.
const LIMIT: Duration = Duration::from_secs(30);

const QUESTION: &str = "\
import json, site, sys
user = site.getusersitepackages() if site.ENABLE_USER_SITE else ''
print(json.dumps({
    'environment': sys.prefix,
    'base': [sys.base_prefix, sys.base_exec_prefix],
    'paths': [path for path in sys.path if path],
    'user_base': site.getuserbase() if user in sys.path else None,
}))";

/// Directories of one Python.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct PythonPlaces {
    /// The environment that packages are installed into.
    pub environment: PathBuf,
    /// What the environment was made from; the same where there is none.
    pub base: Vec<PathBuf>,
    /// Where modules are imported from.
    pub paths: Vec<PathBuf>,
    /// Directory of packages in the home directory, if some are imported from there.
    pub user_base: Option<PathBuf>,
}

impl PythonPlaces {
    /// Asks a Python. One that does not answer is judged by where it lies.
    pub async fn of(python: &Path) -> Self {
        let mut command = Command::new(python);
        command
            .args(["-c", QUESTION])
            .env("PYTHONIOENCODING", "utf-8");
        let answer = ask(&mut command, LIMIT).await.ok();
        let told = answer.and_then(|answer| {
            let line = answer.output.lines().next_back()?;
            serde_json::from_str(line).ok()
        });
        told.unwrap_or_else(|| Self::guess(python))
    }

    fn guess(python: &Path) -> Self {
        let prefix = |program: &Path| Some(program.parent()?.parent()?.to_owned());
        let real = python.canonicalize().ok();
        Self {
            environment: prefix(python).unwrap_or_default(),
            base: real.as_deref().and_then(prefix).into_iter().collect(),
            ..Self::default()
        }
    }
}
