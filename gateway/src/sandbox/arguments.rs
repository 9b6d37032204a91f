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
    /// Files and directories it only reads.
    pub(super) read: Vec<PathBuf>,
    /// `--extra-model-paths-config`
    pub(super) model_configs: Vec<PathBuf>,
}

#[derive(Clone, Copy)]
enum Meaning {
    Base,
    Own,
    Read,
    ModelConfig,
    DatabaseUrl,
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
];

/// Shorter abbreviations than this fit several of ComfyUI's arguments.
const SHORTEST: usize = "--in".len();

/// Reads the arguments as argparse does, abbreviations included; the last of two wins there, and
/// both are named here.
pub(super) fn named_paths(arguments: &[OsString], working_directory: &Path) -> NamedPaths {
    let mut found = NamedPaths::default();
    let mut meaning = None;
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
            if let (Some(meaning), Some(value)) = (meaning, value) {
                found.take(meaning, Path::new(value), working_directory);
            }
        } else if let Some(meaning) = meaning {
            found.take(meaning, Path::new(argument), working_directory);
        }
    }
    found
}

impl NamedPaths {
    fn take(&mut self, meaning: Meaning, value: &Path, working_directory: &Path) {
        let path = working_directory.join(value);
        match meaning {
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
                read: Vec::new(),
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
