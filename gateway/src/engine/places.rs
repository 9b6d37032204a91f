//! Where the files of an engine are.

use super::handle::EngineId;
use crate::accounts::UserId;
use crate::comfyui::{EngineDirectories, Installation};
use crate::files::{self, DataDirectory};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// Directories of one engine, absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Places {
    /// What workflows read.
    pub input: PathBuf,
    /// What workflows make.
    pub output: PathBuf,
    /// What may be lost; ComfyUI empties it.
    pub temp: PathBuf,
    /// Settings, workflows, database.
    pub user: PathBuf,
}

impl Places {
    /// A user's own, below `users/<id>`.
    pub fn of_user(data: &DataDirectory, user: &UserId) -> Self {
        Self::below(&data.user(user))
    }

    /// The demo engine's, where ComfyUI would have its own.
    pub(super) fn of_demo(data: &DataDirectory) -> Self {
        Self::below(&data.root().join(super::DEMO))
    }

    fn below(root: &Path) -> Self {
        Self {
            input: root.join("input"),
            output: root.join("output"),
            temp: root.join("temp"),
            user: root.join("user"),
        }
    }

    /// ComfyUI's own, as its arguments move them.
    pub(super) fn of_comfyui(installation: &Installation, arguments: &[String]) -> Self {
        let base = value_of(arguments, "--base-directory")
            .or_else(|| installation.base_directory.clone())
            .unwrap_or_else(|| installation.directory.clone());
        let place = |flag: &str, name: &str| {
            let moved = value_of(arguments, flag).map(|path| installation.directory.join(path));
            moved.unwrap_or_else(|| base.join(name))
        };
        Self {
            input: place("--input-directory", "input"),
            output: place("--output-directory", "output"),
            // With this argument ComfyUI makes a directory `temp` in the named one.
            temp: value_of(arguments, "--temp-directory")
                .map_or_else(|| base.join("temp"), |path| path.join("temp")),
            user: place("--user-directory", "user"),
        }
    }

    /// Creates them, closed to other accounts of this machine.
    pub(super) fn create(&self) -> io::Result<()> {
        for directory in [&self.input, &self.output, &self.temp, &self.user] {
            files::create_private_directory(directory)?;
        }
        Ok(())
    }

    /// Creates a folder for training data, which ComfyUI would keep among the owner's, and the list
    /// of model directories that names it; returns the list's path.
    pub(super) fn create_datasets(&self) -> io::Result<String> {
        let folder = self.user.join("datasets");
        files::create_private_directory(&folder)?;
        let list = self.user.join("datasets.yaml");
        // A text in JSON is one in YAML as well.
        let named = serde_json::json!(folder.to_string_lossy());
        let text = format!("sentinel:\n  is_default: true\n  datasets: {named}\n");
        files::write_atomically(&list, text.as_bytes())?;
        Ok(list.to_string_lossy().into_owned())
    }

    /// Whether a file of a job (type, subfolder, name) is there. Names that lead out count as gone.
    pub(crate) fn has_file(&self, (kind, subfolder, name): &(String, String, String)) -> bool {
        let root = match kind.as_str() {
            "output" => &self.output,
            "input" => &self.input,
            "temp" => &self.temp,
            _ => return false,
        };
        let inside = Path::new(subfolder).join(name);
        let is_plain = inside
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        // A whole folder that is missing is a drive that is not there now, not files that were deleted.
        // An empty one is the place where such a drive belongs.
        let is_away = kind != "temp" && !holds_something(root);
        is_plain && (root.join(inside).is_file() || is_away)
    }

    /// As a text that [`Places::read`] reads; none for names that are not Unicode.
    pub(crate) fn record(&self) -> Option<String> {
        serde_json::to_string(self).ok()
    }

    /// As it was recorded.
    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// As arguments for ComfyUI.
    pub(super) fn directories(&self) -> EngineDirectories {
        EngineDirectories {
            input: Some(self.input.clone()),
            output: Some(self.output.clone()),
            temp: Some(self.temp.clone()),
            user: Some(self.user.clone()),
            database_url: Some(database_url(&self.user.join("comfyui.db"))),
        }
    }
}

fn holds_something(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

/// SQLAlchemy's form: three slashes, then the path, which brings a fourth one on Unix.
pub(crate) fn database_url(path: &Path) -> String {
    format!("sqlite:///{}", path.to_string_lossy().replace('\\', "/"))
}

/// Value of the last `flag VALUE` or `flag=VALUE`.
fn value_of(arguments: &[String], flag: &str) -> Option<PathBuf> {
    let mut found = None;
    let mut rest = arguments.iter().peekable();
    while let Some(argument) = rest.next() {
        if argument == flag {
            found = rest.peek().map(PathBuf::from).or(found);
        } else if let Some(value) = argument
            .strip_prefix(flag)
            .and_then(|rest| rest.strip_prefix('='))
        {
            found = Some(PathBuf::from(value));
        }
    }
    found
}

/// Names the log file of an engine.
pub(super) fn log_file(data: &DataDirectory, id: &EngineId) -> PathBuf {
    match id {
        EngineId::Shared => data.logs().join("comfyui.log"),
        EngineId::User(user) => data.logs().join(format!("comfyui-{user}.log")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn installation() -> Installation {
        Installation {
            base_directory: None,
            ..Installation::demo("/comfy/engine".into())
        }
    }

    #[test]
    fn comfyui_s_own_places_follow_its_arguments() {
        let strings = |words: &[&str]| {
            words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>()
        };
        let plain = Places::of_comfyui(&installation(), &[]);
        assert_eq!(plain.output, Path::new("/comfy/output"));
        let moved = strings(&[
            "--base-directory",
            "/base",
            "--output-directory=/out",
            "--temp-directory",
            "/t",
        ]);
        let moved = Places::of_comfyui(&installation(), &moved);
        assert_eq!(moved.input, Path::new("/base/input"));
        assert_eq!(moved.output, Path::new("/out"));
        assert_eq!(moved.temp, Path::new("/t/temp"));
        let relative =
            Places::of_comfyui(&installation(), &strings(&["--output-directory", "here"]));
        assert_eq!(relative.output, Path::new("/comfy/here"));
    }

    #[test]
    fn the_database_has_four_slashes_on_unix() {
        assert_eq!(
            database_url(Path::new("/u/comfyui.db")),
            "sqlite:////u/comfyui.db"
        );
    }
}
