//! Paths in the arguments of an engine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Directories and files named by the arguments, absolute.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NamedPaths {
    /// `--base-directory`
    pub(super) base: Option<PathBuf>,
    /// Directories the engine writes to.
    pub(super) own: Vec<PathBuf>,
    /// `--models-directory`, which stands for `models` of the base directory.
    pub(super) models: Vec<PathBuf>,
    /// `--verbose LEVEL FILE`: logs that are kept beside what it prints.
    pub(super) logs: Vec<PathBuf>,
    /// Files and directories it only reads.
    pub(super) read: Vec<PathBuf>,
    /// `--extra-model-paths-config`
    pub(super) model_configs: Vec<PathBuf>,
}

#[derive(Clone, Copy)]
enum Meaning {
    Base,
    Models,
    Own,
    Read,
    ModelConfig,
    DatabaseUrl,
    /// A level, then a file.
    Log,
}

const FLAGS: &[(&str, Meaning)] = &[
    ("--base-directory", Meaning::Base),
    ("--input-directory", Meaning::Own),
    ("--output-directory", Meaning::Own),
    ("--temp-directory", Meaning::Own),
    ("--user-directory", Meaning::Own),
    ("--front-end-root", Meaning::Read),
    ("--extra-model-paths-config", Meaning::ModelConfig),
    ("--database-url", Meaning::DatabaseUrl),
    ("--models-directory", Meaning::Models),
    ("--disabled-nodes-config", Meaning::Read),
    ("--verbose", Meaning::Log),
];

/// Shorter abbreviations than this fit several of ComfyUI's arguments.
const SHORTEST: usize = "--in".len();

/// Reads the arguments as argparse does, abbreviations included; the last of two wins there, and
/// both are named here.
pub(super) fn named_paths(arguments: &[OsString], working_directory: &Path) -> NamedPaths {
    let mut found = NamedPaths::default();
    let mut meaning = None;
    let mut values = 0;
    for argument in arguments {
        let text = argument.to_string_lossy();
        if text.starts_with("--") {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (&*text, None),
            };
            meaning = FLAGS
                .iter()
                .find(|(flag, _)| name.len() >= SHORTEST && flag.starts_with(name))
                .map(|(_, meaning)| *meaning);
            values = 0;
            if let (Some(meaning), Some(value)) = (meaning, value) {
                values = 1;
                found.take(meaning, values, Path::new(value), working_directory);
            }
        } else if let Some(meaning) = meaning {
            values += 1;
            found.take(meaning, values, Path::new(argument), working_directory);
        }
    }
    found
}

impl NamedPaths {
    /// Takes the value that stands at this place, from 1, behind its flag.
    fn take(&mut self, meaning: Meaning, place: usize, value: &Path, working_directory: &Path) {
        let path = working_directory.join(value);
        match meaning {
            Meaning::Models => self.models.push(path),
            Meaning::Log if place == 2 => self.logs.push(path),
            Meaning::Log => {}
            Meaning::Base => self.base = Some(path),
            Meaning::Own => self.own.push(path),
            Meaning::Read => self.read.push(path),
            Meaning::ModelConfig => self.model_configs.push(path),
            Meaning::DatabaseUrl => self.own.extend(database_directory(value)),
        }
    }
}

/// The directory of `sqlite:////absolute/file.db`; SQLite makes its journal beside the file.
fn database_directory(url: &Path) -> Option<PathBuf> {
    let file = url.to_str()?.strip_prefix("sqlite:///")?;
    let directory = Path::new(file).parent()?;
    directory.is_absolute().then(|| directory.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_argparse_reads_them() {
        let arguments: Vec<OsString> = [
            "main.py",
            "--cpu",
            "--input-directory",
            "in",
            "--output=/out",
            "--extra-model-paths-config",
            "/a.yaml",
            "b.yaml",
            "--base-directory",
            "/base",
            "--user-dir",
            "/user",
            "--database-url",
            "sqlite:////data/base.db",
            "--models-dir",
            "/mnt/models",
            "--disabled-nodes-config=off.yaml",
            "--verbose",
            "DETAIL",
            "log/detail.txt",
            "--verbose",
            "INFO",
            "--",
            "--i",
            "/not-this",
            "--port",
            "1",
        ]
        .map(OsString::from)
        .into();
        let found = named_paths(&arguments, Path::new("/comfy"));
        assert_eq!(
            found,
            NamedPaths {
                base: Some("/base".into()),
                own: vec![
                    "/comfy/in".into(),
                    "/out".into(),
                    "/user".into(),
                    "/data".into()
                ],
                models: vec!["/mnt/models".into()],
                logs: vec!["/comfy/log/detail.txt".into()],
                read: vec!["/comfy/off.yaml".into()],
                model_configs: vec!["/a.yaml".into(), "/comfy/b.yaml".into()],
            }
        );
    }

    #[test]
    fn databases_in_memory_have_no_directory() {
        let arguments: Vec<OsString> = ["--database-url=sqlite:///:memory:"].map(Into::into).into();
        assert_eq!(
            named_paths(&arguments, Path::new("/")),
            NamedPaths::default()
        );
    }
}
